"""SWAG: a Gaussian with the moments of gradient descent's last iterates.

    u_i, i = 1 .. n    iterates of SGD at a constant rate, one every few steps, from a mode on
    m = mean u_i,   s^2 = mean (u_i - m)^2,   D = the last K of u_i - m_i, m_i the mean up to u_i
    u = m + s z / sqrt(2) + D w / sqrt(2 (K - 1)),    z, w ~ N(0, I)

Maddox et al. (2019), *A Simple Baseline for Bayesian Uncertainty in Deep Learning*, on the flat
unconstrained space; s^2 is summed as Welford does, since in single precision the difference of the
squares' mean and the mean's square is mostly rounding.  Each step follows `MAP`'s objective, with
the rows of a minibatch weighed by N / M, and divided by N, so that a rate has its usual size.

Near a mode of curvature H a rate r, where gradients have a noise of covariance V, leaves u with a
covariance of about r V H^-1 / 2 (Mandt et al. 2017; all of one row's objective).  How far the draws
spread is set by the rate and the batches, not by the posterior: by nothing with full batches.

Running statistics (BatchNorm's) are found anew at the mean: the average, over the batches of an
epoch, of what each batch alone leaves in the network's initial state.  A member's draws share them,
where Maddox et al. find them for each draw.  Parameters without a prior are averaged, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm.auto import tqdm

from ..data import Data
from ..errors import FitError, InputError, ModelError, require_whole
from ..posterior import Posterior, Provenance, seed_of
from ..structure import shapes_of
from ..types import Key, Model
from .averaging import Moments, parts_of
from .batches import Batches, require_batch
from .loop import BUFFER
from .map import MAP
from .svi import last_good, settings_of

_CHUNK = 50  # steps before the averaging, between looks for a NaN and for Ctrl-C
_DESCENT = optax.sgd(1e-2)


@dataclass(frozen=True)
class SWAG:
    """Settings of SWAG; `Ensemble(SWAG(...))` is MultiSWAG.

    Parameters
    ----------
    method
        The `MAP` that comes first; its `batch_size` is that of the averaging as well.
    optimizer
        The descent whose iterates are averaged, at a constant rate, of the objective over N.
    steps, every
        Steps of it, and from one iterate to the next.
    rank
        K, the number of iterates whose deviations are kept.
    draws
        Draws taken from the Gaussian.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 40)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + np.cos(9 * x[:, 0]))
    >>> swag = SWAG(MAP(steps=200, batch_size=10), steps=400, draws=50)
    >>> model = ppbdl.models.LinearRegression()
    >>> ppbdl.fit(0, model, data, swag, progress=False).draws["weights"].shape
    (1, 50, 1)
    """

    method: MAP = MAP()
    optimizer: optax.GradientTransformation = _DESCENT
    steps: int = 1000
    every: int = 10
    rank: int = 20
    draws: int = 1000

    name = "SWAG"

    def __post_init__(self) -> None:
        require_whole(steps=self.steps, every=self.every, rank=self.rank, draws=self.draws)
        if self.method.stopping is not None:
            raise InputError(
                "method",
                expected="a MAP without early stopping, since the averaging goes on from its end",
                got=repr(self.method.stopping),
                remedy="Choose MAP(steps=...).",
            )
        iterates = self.steps // self.every
        if not 2 <= self.rank <= iterates:
            raise InputError(
                "rank",
                expected=f"at least 2, and at most the {iterates} iterates of steps / every",
                got=str(self.rank),
                remedy="Make more steps, or keep fewer deviations.",
            )

    def run(self, key: Key, model: Model, data: Data, *, progress: bool = False) -> Posterior:
        """Descend, average and draw.

        Raises
        ------
        ModelError, InputError
            As `MAP.run`, and if the model has no continuous latents.
        FitError
            If a NaN or an infinity arises; it names the step and the site, and draws from the
            iterates so far.
        """
        return average(key, model, data, self, method=self, progress=progress)


def average(
    key: Key,
    model: Model,
    data: Data,
    swag: SWAG,
    *,
    method: Any,
    members: int | None = None,
    progress: bool = False,
) -> Posterior:
    """Fit SWAG, or `members` of them side by side; `method` is what is put on record."""
    first = swag.method
    require_batch(first.batch_size, data)
    began = time.perf_counter()
    parts = parts_of(model, replace(first, steps=1), swag.optimizer, members, shapes_of(data))
    compiled, structure = parts.seconds, parts.first.structure
    if not structure.latents:
        raise ModelError(
            "model",
            expected=f"for {method.name}, at least one continuous latent site",
            got="none",
            remedy="Give the unknowns priors: random_haiku_module, or numpyro.sample.",
        )
    batches = Batches(data.rows, first.batch_size)
    x, y = jax.device_put((data.x, data.y))
    state = parts.first.init(key, x, y)
    fresh, moments, losses, good, failure = state.mutables, Moments(swag.rank), [], True, ""
    programs, total = parts.first, first.steps + swag.steps
    phases = (parts.first, first.steps, _CHUNK), (parts.second, swag.steps, swag.every)
    with tqdm(total=total, desc=method.name, unit="step", disable=not progress) as bar:
        try:
            for programs, length, every in phases:
                averaging = programs is parts.second
                if averaging:
                    state = state._replace(optimizer=parts.restart(state.params))
                for after, chunk, good in _descend(programs, state, x, y, length, every):
                    state = after
                    losses.append(chunk)
                    bar.update(len(chunk))
                    since = int(np.ravel(state.step)[0]) - first.steps
                    if averaging and good and since % every == 0:
                        moments.add(state.params)
                if not good:
                    break
        except KeyboardInterrupt:
            if moments.count < 2:
                raise
            failure = f"Interrupted after {moments.count} iterates; these are their draws."
    steps = np.concatenate(losses)
    if not good:
        failure = f"Not finite at step {len(steps)}; these are draws of the iterates before."

    def posterior() -> Posterior:
        every = [a if members else jax.tree.map(lambda b: b[None], a) for a in (fresh, state.keys)]
        drawn = []
        for m in range(members or 1):
            own_fresh, keys = (jax.tree.map(lambda a, m=m: a[m], tree) for tree in every)
            mean, variance, deviations = moments.of(m if members else None)
            renewed = _renewed(parts.renew, mean, own_fresh, batches, x, y)
            split = jax.random.split(keys[2], swag.draws)
            result = parts.draw(split, mean, variance, deviations, renewed, x, y)
            drawn.append((*result, renewed))
        draws, stats, learned, mutables = jax.tree.map(lambda *a: jnp.stack(a), *drawn)
        compiling = parts.seconds - compiled
        return Posterior(
            draws=draws,
            params=learned,
            mutables=mutables,
            stats=stats,
            shape=(members or 1, swag.draws),
            observed=structure.observed,
            losses=steps.reshape(len(steps), -1).T,
            scaling=data.scaling,
            x_shape=jax.tree.map(lambda a: a.shape[1:], x),
            provenance=Provenance(
                method=method.name,
                settings=settings_of(method),
                # The members' draws are of a mixture, whose density is none of the members'.
                kind="implicit" if members else "density",
                seed=seed_of(key),
                seconds_compiling=compiling,
                seconds_running=time.perf_counter() - began - compiling,
                peak_bytes=parts.peak_bytes,
                gradients=len(steps) * (members or 1),
                failure=failure,
            ),
        )

    if good:
        return posterior()
    each = [jax.tree.map(lambda a, m=m: a[m], state) for m in range(members or 0)] or [state]
    found = filter(None, (programs.blame(member, x, y) for member in each))
    site = next(found, structure.observed[0])  # else the update itself overflowed
    raise FitError(
        f"{method.name}: the objective or its gradient is not finite at step {len(steps)}, in site "
        f"{site!r}. Try a smaller learning rate, or look at that site's prior; draws of the "
        "iterates before are this error's `posterior`, if there are two.",
        step=len(steps),
        site=site,
        posterior=posterior() if moments.count > 1 else None,
    )


def _descend(
    programs: Any, state: Any, x: Any, y: Any, steps: int, every: int
) -> Iterator[tuple[Any, np.ndarray, bool]]:
    """Give the state after each `every` steps at most, with their losses, until a NaN."""
    done = 0
    while done < steps:
        n = min(every - done % every, steps - done, BUFFER)
        after, losses, good = programs.advance(state, x, y, n)
        if not good:
            after, losses, n = last_good(programs, state, x, y, n)
        state, done = after, done + n
        yield state, np.asarray(losses)[:n], bool(good)
        if not good:
            return


def _renewed(renew: Any, mean: Any, fresh: Any, batches: Batches, x: Any, y: Any) -> Any:
    """Average what each batch of an epoch leaves in a fresh state; counters are the last one's."""
    if not jax.tree.leaves(fresh):
        return fresh
    epoch = -(-batches.rows // batches.size)
    order = batches.order(batches.no_order, jax.random.key(0), jnp.int32(0))
    left = [
        renew(mean, fresh, *batches.take(order, jnp.int32(step), x, y)) for step in range(epoch)
    ]
    return jax.tree.map(
        lambda *a: sum(a) / len(a) if np.issubdtype(a[0].dtype, np.floating) else a[-1], *left
    )
