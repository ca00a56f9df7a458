"""The evidence as a function of the prior's precision, at a fixed mode.

With the precision of the normal priors times f, P its matrix at f = 1, H the curvature there and
e the eigenvalues of H^(-1/2) P H^(-1/2), each the share of a direction that is the prior's,

    log Z(f) = log Z(1) + (d / 2) log f - (f - 1) m'P m / 2 - sum log(1 + (f - 1) e) / 2.

Where it is highest, f m'P m is the number of directions that the data decide (MacKay 1992; Immer
et al. 2021, *Scalable marginal likelihood estimation for model selection in deep learning*).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from numpyro import distributions as dist
from scipy.optimize import minimize_scalar

from ...errors import ModelError
from ...gaussian import Dense, Diagonal, Kronecker, LowRank, join
from ...latents import is_real
from ...linearization import run_at
from ...types import Array, Model
from .layout import Point
from .matrix import Curvature
from .precision import Prior
from .sums import Rows

Blocks = Mapping[tuple[str, ...], Any]


class Tuned(NamedTuple):
    """A prior precision's best factor, what it adds to log Z, and what it leads to.

    `precision` is that of the priors it multiplies, by site, before.
    """

    factor: float
    gain: float
    blocks: Blocks
    precision: Mapping[str, Array]

    def log_prior(self, draws: Mapping[str, Array]) -> Array:
        """Give what the factor adds to the log prior at draws, (chain, draw)."""
        square = jnp.zeros(())
        for site, precision in self.precision.items():
            each = precision * draws[site] ** 2
            square = square + jnp.sum(each.reshape(*each.shape[:2], -1), axis=-1)
        count = sum(precision.size for precision in self.precision.values())
        return 0.5 * (count * math.log(self.factor) - (self.factor - 1) * square)


def tuned(
    model: Model, parts: Curvature, point: Point, rows: Rows, prior: Prior, blocks: Blocks
) -> Tuned:
    """Find the factor on the precision of the zero-mean normal priors of the sites that vary.

    Raises
    ------
    ModelError
        If there is no such prior, if latents depend on each other under it, or, for ``"low_rank"``,
        if it is not that of all latents.
    """
    prior.require_diagonal("tune_prior")
    sites = _zero_mean(model, parts, point, rows, prior)
    by_site = _by_site(parts, point, prior.diagonal)
    own = {site: by_site[site] * (site in sites) for site in by_site}
    low_rank = any(isinstance(block, LowRank) for block in blocks.values())
    if not sites or (low_rank and len(sites) < len(by_site)):
        raise ModelError(
            "tune_prior",
            expected="real latents with zero-mean normal priors"
            + (", all of them for 'low_rank'" if low_rank else ""),
            got=f"{list(sites)} of {list(by_site)}",
            remedy="Set tune_prior=False, or let those latents alone vary, by `sites`.",
        )
    count = sum(own[site].size for site in sites)
    square = sum(float(jnp.sum(own[site] * point.mode[site] ** 2)) for site in sites)
    shares = np.concatenate([np.ravel(_shares(b, join(own, names))) for names, b in blocks.items()])

    def gain(log_factor: float) -> float:
        more = np.expm1(log_factor)
        volume = np.sum(np.log1p(more * np.float64(shares)))
        return 0.5 * (count * log_factor - more * square - volume)

    found: Any = minimize_scalar(lambda f: -gain(f), bounds=(-14.0, 14.0), method="bounded")
    best = float(found.x)
    factor = float(np.exp(best))
    after = {names: _with(b, join(own, names), factor) for names, b in blocks.items()}
    return Tuned(factor, gain(best), after, {site: own[site] for site in sites})


def _zero_mean(
    model: Model, parts: Curvature, point: Point, rows: Rows, prior: Prior
) -> tuple[str, ...]:
    normal: list[str] = []

    def look() -> None:
        sites, _ = run_at(model, point.learned, point.mode, rows.x, rows.y)
        for name in parts.layout.sites:
            fn: Any = sites[name]["fn"]
            while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
                fn = fn.base_dist
            if isinstance(fn, dist.Normal) and is_real(fn.support):
                normal.append(name)

    jax.eval_shape(look)
    _, slope = parts.log_prior(point, rows.x, rows.y)
    pulls = _by_site(parts, point, -slope)
    precisions = _by_site(parts, point, prior.diagonal)
    return tuple(
        name
        for name in normal
        if np.allclose(pulls[name], precisions[name] * point.mode[name], rtol=1e-3, atol=1e-6)
    )


def _by_site(parts: Curvature, point: Point, flat: Array) -> dict[str, Array]:
    shapes = [jnp.shape(point.mode[site]) for site in parts.layout.sites]
    stops = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    each = zip(parts.layout.sites, jnp.split(flat, stops), shapes, strict=True)
    return {site: part.reshape(shape) for site, part, shape in each}


def _shares(block: Any, prior: Array) -> Array:
    if isinstance(block, Dense):
        half = solve_triangular(block.precision_tril, jnp.diag(jnp.sqrt(prior)), lower=True)
        return jnp.linalg.eigvalsh(half @ half.T)
    if isinstance(block, LowRank):
        rest = jnp.ones(prior.size - block.gains.size)
        return jnp.concatenate([1 / (1 + block.gains), rest])
    if isinstance(block, Kronecker):
        return prior.reshape(block.eigenvalues.shape) / block.eigenvalues
    return prior / block.precision


def _with(block: Any, prior: Array, factor: float) -> Any:
    """Give a block under the prior times the factor."""
    more = (factor - 1) * prior
    if isinstance(block, Dense):
        tril = block.precision_tril
        return Dense(jnp.linalg.cholesky(tril @ tril.T + jnp.diag(more)))
    if isinstance(block, LowRank):
        return LowRank(block.prior * factor, block.vectors, block.gains / factor)
    if isinstance(block, Kronecker):
        return block._replace(eigenvalues=block.eigenvalues + more.reshape(block.eigenvalues.shape))
    return Diagonal(block.precision + more)
