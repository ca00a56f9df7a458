"""Curvatures known by their products alone: no matrix of the latents' size is made.

All of it is whitened by the prior's precision P, which must be diagonal: the data's share is then
P^(-1/2) J' F J P^(-1/2), whose eigenvalues say in how many directions the data count for more than
the prior.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import ModelError
from ...gaussian import LowRank
from ...streaming import BUDGET
from ...types import Array, Key
from .layout import Point
from .matrix import Curvature
from .precision import EIGEN, Prior, descend, hopeless
from .sums import Rows


def low_rank(
    parts: Curvature, point: Point, rows: Rows, prior: Prior, rank: int
) -> tuple[dict[tuple[str, ...], Any], int]:
    """Give the block of the prior and the `rank` directions in which the data say most.

    Subspace iteration with the whitened matrix P^(-1/2) J' F J P^(-1/2), until its eigenvalues
    stay; a few vectors more than asked for make it fast (Halko et al. 2011).  Beside the block, the
    number of gradients that the products cost.
    """
    root = _whitening(prior)
    size = root.size
    width, count = min(rank + 10, size), min(rank, size)
    start = jax.random.normal(jax.random.key(0), (size, width))
    basis = jnp.eye(size) if width == size else jnp.linalg.qr(start)[0]
    gains, gradients = np.zeros(count), 0
    for _ in range(50):
        times = _whitened(parts, point, rows, root, basis.T).T
        gradients += 2 * width
        ((values, turn),) = EIGEN((basis.T @ times + times.T @ basis) / 2)
        before, gains = gains, np.asarray(values[::-1][:count])
        if width == size or abs(gains - before).max() <= 1e-4 * gains.max():
            break
        basis, _ = jnp.linalg.qr(times)
    else:
        warnings.warn(
            f"Laplace: the {count} strongest directions still turn after 50 rounds; "
            "a higher or a lower rank may part them better from the rest.",
            stacklevel=2,
        )
    vectors = (basis @ turn)[:, ::-1][:, :count]
    block = LowRank(root**2, vectors, jnp.maximum(jnp.asarray(gains), 0.0))
    return {parts.layout.sites: block}, gradients


def newton_without(parts: Curvature, point: Point, rows: Rows, prior: Prior) -> tuple[Point, int]:
    """Take Newton's steps without a matrix, by conjugate gradients."""
    gradients = 0
    for _ in range(5):
        root, rounds = _whitening(prior), 0
        times = functools.partial(_preconditioned, parts, point, rows, root)

        def solve(slope: Array, root: Array = root, times: Any = times) -> tuple[Array, Array]:
            nonlocal rounds
            step, spent = _conjugate_gradients(times, -slope[None] / root)
            rounds += spent
            return step[0] / root, -jnp.vdot(step[0] / root, slope)

        point, moved, spent = descend(parts, point, rows, solve, most=2)
        gradients += spent + 2 * rounds
        if moved < 1e-3:
            break
        prior = Prior(parts, point, rows)
    return point, gradients


def perturbed(
    key: Key, parts: Curvature, point: Point, rows: Rows, prior: Prior, draws: int
) -> tuple[Array, int]:
    """Draw from N(0, H^(-1)) without a matrix: solve H v = J' S xi + P^(1/2) zeta, (draws, d).

    The right side has covariance H, so that the solution's is H^(-1) (Papandreou and Yuille 2010).
    The equations are whitened by the prior and solved by conjugate gradients, some draws at once.
    """
    root = _whitening(prior)
    at_once = int(np.clip(BUDGET // (32 * root.size), 1, draws))
    found, gradients = [], 0
    for first in range(0, draws, at_once):
        # The last block's draws beyond the last are made as well: one compiled shape.
        keys = jax.random.split(jax.random.fold_in(key, first), at_once + 1)
        zeta = jax.random.normal(keys[-1], (at_once, root.size))
        right = parts.noise(rows, point, keys[:-1]) / root + zeta
        times = functools.partial(_preconditioned, parts, point, rows, root)
        solution, rounds = _conjugate_gradients(times, right)
        gradients += 2 * at_once * rounds
        found.append(np.asarray(solution / root))
    return jnp.asarray(np.concatenate(found)[:draws]), gradients


def _conjugate_gradients(times: Any, right: Array) -> tuple[Array, int]:
    """Solve for each row, to a thousandth of its right side: far less than a draw's own spread."""
    solution, residual, direction = jnp.zeros_like(right), right, right
    square = jnp.sum(residual**2, axis=1)
    enough = 1e-6 * square
    for rounds in range(1, 2001):
        turned = times(direction)
        length = square / jnp.sum(direction * turned, axis=1)
        solution = solution + length[:, None] * direction
        residual = residual - length[:, None] * turned
        square, before = jnp.sum(residual**2, axis=1), square
        if not bool(jnp.all(jnp.isfinite(square))):
            raise hopeless("is not finite", "Look at the data's scale and the priors'.")
        if bool(jnp.all(square <= enough)):
            return solution, rounds
        direction = residual + (square / before)[:, None] * direction
    raise hopeless(
        "is too uneven for conjugate gradients, which have not converged in 2,000 rounds",
        'Choose curvature="low_rank", "kronecker" or "diagonal".',
    )


def _whitening(prior: Prior) -> Array:
    """Give the root of the prior's precision."""
    prior.require_diagonal("low_rank, or without a matrix")
    if not bool(jnp.all(prior.diagonal > 0)):
        raise ModelError(
            "curvature",
            expected="for 'low_rank', or without a matrix, priors of positive curvature",
            got=f"the lowest, at the mode, {float(prior.diagonal.min()):.3g}",
            remedy='Choose curvature="diagonal", or priors that are log-concave.',
        )
    return jnp.sqrt(prior.diagonal)


def _preconditioned(
    parts: Curvature, point: Point, rows: Rows, root: Array, vectors: Array
) -> Array:
    return vectors + _whitened(parts, point, rows, root, vectors)


def _whitened(parts: Curvature, point: Point, rows: Rows, root: Array, vectors: Array) -> Array:
    return parts.product(rows, point, vectors / root) / root
