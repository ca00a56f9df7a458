"""Stochastic variational inference: ascend an estimate of the evidence lower bound.

    params <- optimizer(params, grad_params ELBO(params; key, batch))

with the batch's rows weighed by N / M, so that the estimate and its gradient are unbiased for the
whole data's (Hoffman et al. 2013, equation 24).  Every epoch is a fresh permutation of the rows;
its last batch is topped up with rows from the same epoch, so each batch has M distinct rows.

The loop runs in chunks: progress, Ctrl-C and the look for a NaN come between them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import numpy as np
import optax
from numpyro.handlers import replay
from numpyro.infer import elbo
from tqdm.auto import tqdm

from ..data import Data
from ..errors import FitError, InputError, require_positive, require_whole
from ..guides import AutoNormal
from ..posterior import Posterior, Provenance, seed_of
from ..structure import shapes_of
from ..types import Estimator, Key, Model
from .batches import require_batch
from .elbo import AnalyticELBO
from .iterates import Iterates
from .loop import BUFFER
from .optimisation import Programs, State, programs_of
from .stopping import EarlyStopping, Watch, scorer_of

_SECONDS = 0.5  # a chunk aims at this, so that progress shows and Ctrl-C is heard


@dataclass(frozen=True)
class SVI:
    """Settings of stochastic variational inference.

    Parameters
    ----------
    guide
        The approximate posterior: of `ppbdl.guides`, an autoguide of NumPyro's (class, partial or
        instance), or a NumPyro program ``(x, y=None)``.
    optimizer
        Any Optax optimiser.  Two fits share a compiled program if they share the optimiser.
    steps, batch_size
        Optimisation steps, and rows in a minibatch; None uses all the rows at every step.
    draws
        Draws taken from the fitted guide.
    loss
        Any ELBO of NumPyro's; the default uses closed-form divergences where there are any;
        `AlphaELBO` is black-box alpha.
    estimator
        How the default loss runs the model at the guide's draw: `numpyro.handlers.replay`, one
        draw for the whole batch (Blundell et al. 2015); or a handler of `ppbdl.handlers`, such as
        ``flipout``, by which each row has its own and the gradient varies less.
    temperature
        Weight T of the divergence in the default loss, E_q[log p(y | z)] - T KL(q || p(z)), or a
        function from the step to it.  The best q approximates p(z) p(y | z)^(1/T), not the
        posterior: with T < 1 the data count for more than they are.  A schedule that ends at 1
        leaves the posterior as it is: ``optax.linear_schedule(0, 1, 1000)`` is KL warm-up.
    stopping
        `EarlyStopping` keeps rows back, ends the fit when they are explained no better, and
        gives the state that explained them best.  None fits all the rows for all the steps.

    Examples
    --------
    >>> import jax, numpy as np
    >>> import ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> posterior = SVI(steps=500, draws=100).run(jax.random.key(0), model, data)
    >>> posterior.draws["weights"].shape
    (1, 100, 1)
    """

    guide: Any = AutoNormal
    optimizer: optax.GradientTransformation = optax.adam(1e-2)
    steps: int = 2000
    batch_size: int | None = None
    draws: int = 1000
    loss: elbo.ELBO = AnalyticELBO()
    estimator: Estimator = replay
    temperature: float | Callable[[Any], Any] = 1.0
    stopping: EarlyStopping | None = None

    def __post_init__(self) -> None:
        require_whole(steps=self.steps, draws=self.draws, batch_size=self.batch_size)
        if not callable(self.temperature):
            require_positive(temperature=self.temperature)
        changed = {"estimator": self.estimator is not replay, "temperature": self.temperature != 1}
        for argument in (name for name, is_changed in changed.items() if is_changed):
            if not isinstance(self.loss, AnalyticELBO):
                raise InputError(
                    argument,
                    expected="left out with another loss than AnalyticELBO",
                    got=repr(getattr(self, argument)),
                    remedy="Leave out the loss: AnalyticELBO(num_particles) is the default.",
                )

    @property
    def name(self) -> str:
        """The method's name in tables."""
        guide = self.guide.func if isinstance(self.guide, functools.partial) else self.guide
        return f"SVI {getattr(guide, '__name__', type(guide).__name__)}"

    @property
    def svi(self) -> SVI:
        """Itself: the optimisation that `MAP` and `Ensemble` come down to as well."""
        return self

    def run(self, key: Key, model: Model, data: Data, *, progress: bool = False) -> Posterior:
        """Fit the guide and draw from it.

        Raises
        ------
        ModelError, InputError
            If the model or a setting cannot be used with these data.
        FitError
            If a NaN or an infinity arises; it names the step and the site, and keeps the last
            good state.
        """
        return optimise(key, model, data, self, method=self, progress=progress)


def optimise(
    key: Key,
    model: Model,
    data: Data,
    svi: SVI,
    *,
    method: Any,
    members: int | None = None,
    progress: bool = False,
) -> Posterior:
    """Fit a guide, or `members` of them side by side, and draw from what came of it.

    The posterior records the name and settings of `method`: `svi` itself, or what led to it.
    """
    rows, kept = data, None
    if svi.stopping is not None:
        rows, kept = svi.stopping.divide(key, data, svi.batch_size)
    require_batch(svi.batch_size, rows)
    start = time.perf_counter()
    # The number of steps is an argument of the compiled loop, not a part of it.
    rule = replace(svi, steps=1, stopping=None)
    programs = programs_of(model, rule, members, shapes_of(rows))
    watch = None
    if kept is not None:
        score = scorer_of(model, rule, members, shapes_of(rows), shapes_of(kept))
        watch = Watch(score, kept, svi, members)
    compiled = programs.seconds_compiling + (watch.seconds_compiling if watch else 0.0)
    x, y = jax.device_put((rows.x, rows.y))
    state = programs.init(key, x, y)
    losses, iterates, failure, failed = [], Iterates(svi.steps), "", False
    with tqdm(total=svi.steps, desc=method.name, unit="step", disable=not progress) as bar:
        done, chunk = 0, 50
        try:
            while done < svi.steps and not failed and (watch is None or watch.waits):
                began, before = time.perf_counter(), programs.advance.seconds
                due = watch.due(done) if watch else svi.steps - done
                n = min(chunk, due)
                after, chunk_losses, good = programs.advance(state, x, y, n)
                if not good:
                    failed = True
                    after, chunk_losses, n = last_good(programs, state, x, y, n)
                state = after
                losses.append(np.asarray(chunk_losses)[:n])
                done += n
                iterates.read(state.ring, done, n)
                bar.update(n)
                if watch and n == due:
                    watch.look(done, state)
                if n:
                    bar.set_postfix_str(f"loss {np.mean(losses[-1]):.4g}", refresh=False)
                spent = time.perf_counter() - began - (programs.advance.seconds - before)
                chunk = int(np.clip(n * _SECONDS / max(spent, 1e-3), 1, BUFFER))
        except KeyboardInterrupt:
            if not done:  # nothing to keep
                raise
            failure = f"Interrupted after {done} of {svi.steps} steps; these are their draws."
    if failed:
        failure = f"Not finite at step {done}; these are the draws of the state before."
    elif watch:
        state = watch.best(state, programs.structure.observed[0])

    def one_of(tree: Any) -> Any:
        lead = 1 if members else 0
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[lead:], a.dtype), tree)

    def posterior() -> Posterior:
        draws, stats, params, good = jax.block_until_ready(programs.draw(state, x, y))
        if bad := [name for name, is_good in good.items() if not np.all(is_good)]:
            raise FitError(
                f"{method.name}: draws of the fitted guide are not finite in {bad[0]!r}. Its "
                "covariance is singular there, or overflows: look at that site's prior, or choose "
                "AutoNormal.",
                step=done,
                site=bad[0],
            )
        # The members' draws are of a mixture, whose density is none of the members'; each one's
        # own density tells how close that member came.
        is_density = programs.has_density and not members
        compiling = programs.seconds_compiling - compiled
        compiling += watch.seconds_compiling if watch else 0.0
        steps = np.concatenate(losses)
        return Posterior(
            draws=draws,
            params=params,
            mutables=state.mutables if members else jax.tree.map(lambda a: a[None], state.mutables),
            stats=stats,
            shape=(members or 1, svi.draws),
            observed=programs.structure.observed,
            losses=steps.reshape(len(steps), -1).T,
            kept_losses=watch.record if watch else {},
            iterates=iterates.record(one_of(state.params), params, programs.structure),
            scaling=data.scaling,
            x_shape=jax.tree.map(lambda a: a.shape[1:], x),
            provenance=Provenance(
                method=method.name,
                settings=settings_of(method),
                kind="density" if is_density else "implicit",
                seed=seed_of(key),
                seconds_compiling=compiling,
                seconds_running=time.perf_counter() - start - compiling,
                peak_bytes=programs.peak_bytes,
                gradients=done * (members or 1),
                failure=failure,
            ),
        )

    if not failed:
        return posterior()
    each = [jax.tree.map(lambda a, m=m: a[m], state) for m in range(members or 0)] or [state]
    found = filter(None, (programs.blame(member, x, y) for member in each))
    site = next(found, programs.structure.observed[0])  # else the update itself overflowed
    try:
        last_good_draws = posterior() if done else None
    except FitError:  # they overflow as well
        last_good_draws = None
    raise FitError(
        f"{method.name}: the objective or its gradient is not finite at step {done}, "
        f"in site {site!r}. Try a smaller learning rate or initial scale, or look at that site's "
        "prior; the last good state is this error's `posterior`.",
        step=done,
        site=site,
        posterior=last_good_draws,
    )


def last_good(programs: Programs, state: State, x: Any, y: Any, n: int) -> tuple[Any, Any, int]:
    """Find the last of n steps after which all is finite, by bisection: a NaN never goes away."""
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        _, _, good = programs.advance(state, x, y, middle)
        low, high = (middle, high) if good else (low, middle)
    after, losses, _ = programs.advance(state, x, y, low)
    return after, losses, low


def settings_of(method: Any) -> dict[str, str]:
    """Tell a method's settings as text, by name."""

    def text(value: Any) -> str:
        return getattr(value, "__name__", None) or (
            type(value).__name__ if " at 0x" in repr(value) else repr(value)
        )

    settings: dict[str, str] = {}
    for name in (f.name for f in fields(method)):
        value = getattr(method, name)
        settings |= settings_of(value) if hasattr(value, "run") else {}
        settings[name] = text(value)
    return settings
