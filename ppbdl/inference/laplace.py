"""Laplace's approximation: a Gaussian at the mode, with the precision of the curvature there.

    m = argmax_u log p(y, t(u)) + log |det dt/du|,    q(u) = N(m, H^(-1)),
    log p(y) ~ log p(y, t(m)) + log |det dt/du| + (d / 2) log 2 pi - log |H| / 2,

t the bijections onto the latents' supports.  MacKay (1992), *A practical Bayesian framework for
backpropagation networks*; for networks Ritter et al. (2018) and Daxberger et al. (2021).  H is the
Gauss-Newton matrix of the likelihood and the exact Hessian of the prior (`curvature`), whole or in
a simpler form.

It is local: one mode, its symmetric neighbourhood, nothing of the tails.  Learned parameters, and
state such as BatchNorm's, stay as fitted and are certain.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..compiling import Program, remembered
from ..data import Data
from ..errors import InputError, require_whole
from ..gaussian import Gaussian, add, first_chain, join
from ..guides.mode import MODE, UnconstrainedDelta
from ..linearization import run_at
from ..noise import normal
from ..posterior import Posterior, seed_of
from ..streaming import BUDGET
from ..structure import inspect_model, shapes_of
from ..types import Array, Key, Model
from .curvature import (
    PROGRAMS,
    Curvature,
    Point,
    Prior,
    Rows,
    Tuned,
    curvature_of,
    diagonal,
    hopeless,
    kronecker,
    layout_of,
    low_rank,
    newton,
    newton_without,
    perturbed,
    potential,
    rows_of,
    tuned,
    warn,
)
from .elbo import joint_density
from .refusals import refuse
from .svi import SVI, optimise

_CURVATURES = ("full", "kronecker", "diagonal", "low_rank")
_NEWTON = 1000  # coordinates, up to which Newton's steps cost little beside the search


@dataclass(frozen=True)
class Laplace:
    """Settings of Laplace's approximation.

    Parameters
    ----------
    curvature
        ``"full"``; ``"kronecker"``, a Kronecker product for each linear layer's weights (KFAC:
        Martens and Grosse 2015, Grosse and Martens 2016), the biases' own full blocks, the rest
        diagonal; ``"diagonal"``; or ``"low_rank"``, the prior and the data's `rank` strongest
        directions.  Where a full matrix is beyond the memory budget, draws are made without it:
        exact ones, by conjugate gradients (Papandreou and Yuille 2010), but no evidence.
    optimizer, steps, batch_size
        Of the search for the mode, as for `SVI`.  Its last steps are Newton's, unless the curvature
        is no full one and there are more than 1,000 numbers.
    draws
        Draws taken from the Gaussian.
    sites
        Patterns of the latents that vary, such as ``("*.w", "noise")``, or ``"last"`` for the
        last layer of a network; the others stay at the mode.  None lets all vary.
    rank
        Of the ``"low_rank"`` curvature.
    tune_prior
        Whether to multiply the precision of the zero-mean normal priors of the latents that vary
        by one factor, that of the highest evidence at this mode.  The draws' spread and stats are
        then those under that prior.

    Examples
    --------
    >>> import jax, numpy as np
    >>> import ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> posterior = Laplace(steps=300).run(jax.random.key(0), model, data)
    >>> exact = model.log_evidence(data)
    >>> bool(abs(posterior.params["laplace"]["log_evidence"][0] - exact) < 1e-3)
    True
    """

    curvature: str = "full"
    optimizer: optax.GradientTransformation = optax.adam(1e-2)
    steps: int = 2000
    batch_size: int | None = None
    draws: int = 1000
    sites: str | tuple[str, ...] | None = None
    rank: int = 20
    tune_prior: bool = False

    def __post_init__(self) -> None:
        require_whole(
            steps=self.steps, draws=self.draws, batch_size=self.batch_size, rank=self.rank
        )
        if self.curvature not in _CURVATURES:
            raise InputError(
                "curvature",
                expected=f"one of {list(_CURVATURES)}",
                got=repr(self.curvature),
                remedy='Use "full" for up to a few thousand numbers, "kronecker" for networks.',
            )
        if isinstance(self.sites, list):
            object.__setattr__(self, "sites", tuple(self.sites))

    @property
    def name(self) -> str:
        """The method's name in tables."""
        return f"Laplace {self.curvature}" + (" last layer" if self.sites == "last" else "")

    def run(self, key: Key, model: Model, data: Data, *, progress: bool = False) -> Posterior:
        """Find the mode and its curvature, and draw.

        Returns
        -------
        A posterior whose ``params["laplace"]`` has the unconstrained ``mode``, the ``blocks`` of
        the Gaussian about it, the ``log_evidence``, and the ``prior_factor`` if it was tuned.

        Warns
        -----
        UserWarning
            If the curvature was not positive, and has been damped.

        Raises
        ------
        ModelError, InputError
            If the model or a setting cannot be used with these data.
        FitError
            If a NaN or an infinity arises, or a direction has no curvature at all.
        """
        structure = inspect_model(model, shapes_of(data), self.batch_size)
        refuse("Laplace", structure, allow=("params", "mutables"))
        keys = jax.random.split(key)
        svi = SVI(UnconstrainedDelta(), self.optimizer, self.steps, self.batch_size, draws=1)
        found = optimise(keys[0], model, data, svi, method=self, progress=progress)
        start = time.perf_counter()
        params = dict(found.params)
        point = Point(first_chain(params.pop(MODE)), first_chain((params, found.mutables)))
        rows = rows_of(model, structure, data)
        layout = layout_of(model, structure, self.sites, point, rows.x, rows.y)
        parts = curvature_of(model, layout)
        draws_of = _draws_of(model, self.batch_size is None)
        own = (*parts.programs, draws_of)
        programs = (*own, *PROGRAMS, _COLOUR)
        compiled = sum(program.seconds for program in programs)
        point, blocks, gradients = self._approximate(parts, point, rows)
        gaussian, tuning = Gaussian(point.mode, blocks), Tuned(1.0, 0.0, blocks, {})
        arrays: dict[str, Any] = {}
        if blocks:
            if self.tune_prior:
                prior = Prior(parts, point, rows)
                tuning = tuned(model, parts, point, rows, prior, blocks)
                arrays["prior_factor"] = tuning.factor
            energy, _ = potential(parts, point, rows)
            volume = 0.5 * gaussian.size * math.log(2 * math.pi) - 0.5 * gaussian.log_det
            arrays["log_evidence"] = volume - energy + tuning.gain
            if not np.isfinite(arrays["log_evidence"]):
                raise hopeless("is not finite", "Look at the data's scale and the priors'.")
            gaussian = gaussian._replace(blocks=tuning.blocks)
            noise = normal(keys[1], (self.draws, gaussian.size), jnp.result_type(float))
            values, log_q = _COLOUR(gaussian, noise)
        else:
            prior = Prior(parts, point, rows)
            flat, spent = perturbed(keys[1], parts, point, rows, prior, self.draws)
            values = jax.vmap(lambda one: add(point.mode, layout.sites, one))(flat)
            log_q, gradients = jnp.zeros(self.draws), gradients + spent
        values = {site: values[site] for site in layout.sites}
        head = rows[:2] if self.batch_size is None else rows.block(0, self.batch_size)
        draws, stats = jax.block_until_ready(draws_of(point, values, log_q, *head))
        stats["log_prior"] = stats["log_prior"] + tuning.log_prior(draws)
        arrays |= gaussian.arrays()
        # Where latents stay at the mode there is no joint density of all of them.
        has_density = bool(blocks) and set(layout.sites) == set(point.mode)
        source = found.provenance
        compiling = sum(program.seconds for program in programs) - compiled
        return replace(
            found,
            draws=draws,
            params=params | {"laplace": jax.tree.map(lambda a: jnp.asarray(a)[None], arrays)},
            stats=stats if has_density else {},
            iterates={},  # Newton's steps came after them
            shape=(1, self.draws),
            provenance=replace(
                source,
                kind="density" if has_density else "implicit",
                seed=seed_of(key),
                seconds_compiling=source.seconds_compiling + compiling,
                seconds_running=source.seconds_running + time.perf_counter() - start - compiling,
                peak_bytes=max(source.peak_bytes, *(program.peak_bytes for program in own)),
                gradients=source.gradients + gradients + 1,
            ),
        )

    def _approximate(self, parts: Curvature, point: Point, rows: Rows) -> tuple[Point, Any, int]:
        """Find the mode and the Gaussian's blocks, none where they are too large to be held."""
        prior, size = Prior(parts, point, rows), join(point.mode, parts.layout.sites).size
        dense, gradients = self.curvature == "full", 0
        if dense and size**2 * jnp.result_type(float).itemsize > BUDGET:
            point, gradients = newton_without(parts, point, rows, prior)
            return point, {}, gradients
        if dense or size <= _NEWTON:
            point, blocks, mended, gradients = newton(parts, point, rows, prior)
            if dense:
                warn(mended)
                return point, blocks, gradients
            prior = Prior(parts, point, rows)
        if self.curvature == "low_rank":
            blocks, spent = low_rank(parts, point, rows, prior, self.rank)
            return point, blocks, gradients + spent
        rule = diagonal if self.curvature == "diagonal" else kronecker
        return point, rule(parts, point, rows, prior), gradients


def _coloured(gaussian: Gaussian, noise: Array) -> tuple[dict[str, Array], Array]:
    at_once = int(np.clip(BUDGET // (16 * gaussian.size), 1, len(noise)))
    values = jax.lax.map(gaussian.at, noise, batch_size=at_once)
    return values, jax.vmap(gaussian.log_density)(noise)


_COLOUR = Program(_coloured)


@remembered
def _draws_of(model: Model, deterministic: bool) -> Program:
    """Make the function that takes draws to the latents' supports, with log p and log q there."""

    def draws(point: Point, values: dict[str, Array], log_q: Array, x: Any, y: Any) -> Any:
        def one(drawn: tuple[dict[str, Array], Array]) -> tuple[dict[str, Array], Any]:
            values, log_q = drawn
            sites, log_det = run_at(model, point.learned, point.mode | values, x, y)
            latents = [sites[name] for name in point.mode]
            kept = latents + [
                s for s in sites.values() if deterministic and s["type"] == "deterministic"
            ]
            stats = {"log_prior": joint_density(latents), "log_q": log_q - log_det}
            return {site["name"]: site["value"] for site in kept}, stats

        return jax.tree.map(lambda a: a[None], jax.lax.map(one, (values, log_q)))

    return Program(draws)
