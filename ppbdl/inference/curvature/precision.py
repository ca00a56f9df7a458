"""From curvature to a Gaussian: matrices factorised, eigenvalues joined with the prior's.

A precision must be positive.  Where it is not, its eigenvalues are taken by absolute value, with a
limit that rounding sets, and a warning says of how many; where neither likelihood nor prior says
anything, or a number is not finite, the fit is refused.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve

from ...compiling import Program
from ...errors import FitError, ModelError
from ...gaussian import Dense, Diagonal, Kronecker, add, join
from ...types import Array
from .layout import Point
from .matrix import Curvature
from .sums import Rows


class Prior:
    """The prior's curvature in the sites that vary: its diagonal, and whether that is all."""

    def __init__(self, parts: Curvature, point: Point, rows: Rows):
        self._times = lambda vectors: parts.prior(point, vectors, rows.x, rows.y)
        self.sites, size = parts.layout.sites, join(point.mode, parts.layout.sites).size
        signs = np.where(np.random.default_rng(0).random(size) < 0.5, -1.0, 1.0)
        ones = jnp.ones(size)
        self.diagonal, mixed = self._times(jnp.stack([ones, signs * ones]))
        apart, largest = (jnp.abs(a).max() for a in (mixed * signs - self.diagonal, self.diagonal))
        self.is_diagonal = bool(apart <= 1e-4 * largest)

    def matrix(self) -> Array:
        """Give all of it, (d, d)."""
        if self.is_diagonal:
            return jnp.diag(self.diagonal)
        return self._times(jnp.eye(self.diagonal.size))

    def require_diagonal(self, curvature: str) -> None:
        """Refuse a prior under which the latents that vary depend on each other."""
        if not self.is_diagonal:
            raise ModelError(
                "curvature",
                expected=f"for {curvature!r}, latents that are independent under the prior",
                got=f"dependent ones among {list(self.sites)}",
                remedy='Choose curvature="full", or leave hyperparameters out of `sites`, to stay '
                "at the mode.",
            )


def newton(
    parts: Curvature, point: Point, rows: Rows, prior: Prior
) -> tuple[Point, dict[tuple[str, ...], Any], str, int]:
    """Factorise the whole curvature at the mode that Newton's steps with it lead to.

    The matrix is made anew when the mode has moved by a thousandth of a standard deviation.

    Returns
    -------
    The mode, the block, what had to be mended of it, and the number of gradients spent.
    """
    gradients, rounds = 0, 0
    while True:
        block, mended = _factorised(_matrix(parts, point, rows, prior))
        if rounds == 10:
            break
        solve = functools.partial(_STEP, block.precision_tril)
        point, moved, spent = descend(parts, point, rows, solve)
        gradients, rounds = gradients + spent, rounds + 1
        if moved < 1e-3:
            break
        prior = Prior(parts, point, rows)
    return point, {parts.layout.sites: block}, mended, gradients


def descend(
    parts: Curvature, point: Point, rows: Rows, solve: Any, most: int = 10
) -> tuple[Point, float, int]:
    """Take damped steps with one precision, until they gain nothing.

    A step is taken only if the potential falls, or if it stays within rounding and its gradient
    falls.

    Returns
    -------
    The mode, how many standard deviations it moved at most, and the number of gradients.
    """

    def look(point: Point) -> tuple[float, Array, float]:
        value, slope = potential(parts, point, rows)
        step, decrement = solve(slope)
        return value, step, float(decrement)

    value, step, decrement = look(point)
    moved, spent, length = 0.0, 1, 1.0
    while decrement > 0 and length > 1e-3 and spent < most:
        delta = add(point.mode, parts.layout.sites, length * step)
        trial = point._replace(mode=point.mode | delta)
        there, next_step, left = look(trial)
        spent += 1
        rounding = 10 * float(jnp.finfo(step.dtype).eps) * abs(value)
        if there < value - rounding or (there <= value + rounding and left < decrement):
            moved += length * decrement**0.5
            stalled = there >= value - rounding and left > decrement / 4
            point, value, step, decrement, length = trial, there, next_step, left, 1.0
            if stalled:
                break
        else:
            length /= 2
    return point, moved, spent


def potential(parts: Curvature, point: Point, rows: Rows) -> tuple[float, Array]:
    """Give minus the log joint density on the unconstrained space, and its gradient."""
    seen, pull = parts.likelihood(rows, point)
    before, push = parts.log_prior(point, rows.x, rows.y)
    return -float(seen) - float(before), -(pull + push)


def dense(parts: Curvature, point: Point, rows: Rows, prior: Prior) -> dict[tuple[str, ...], Any]:
    """Give the block of the whole precision."""
    block, mended = _factorised(_matrix(parts, point, rows, prior))
    warn(mended)
    return {parts.layout.sites: block}


def _matrix(parts: Curvature, point: Point, rows: Rows, prior: Prior) -> Array:
    layers = parts.layout.layers
    if not parts.layout.others and len(layers) == 1 and layers[0].once:
        # A dense layer: its inputs, and a small matrix for each row, are all there is to know.
        return parts.captured["dense"](rows, point)[layers[0].weight] + prior.matrix()
    return parts.dense(rows, point) + prior.matrix()


def _tril(matrix: Array) -> tuple[Array, Array, Array]:
    """Give the factor of a matrix scaled to a unit diagonal, the scales, and the least pivot."""
    diagonal = jnp.abs(jnp.diag(matrix))
    scale = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))
    factor = jnp.linalg.cholesky(matrix / scale[:, None] / scale, symmetrize_input=False)
    return factor * scale[:, None], scale, jnp.min(jnp.diag(factor) ** 2)


_TRIL = Program(_tril)
_STEP = Program(
    lambda tril, slope: (step := -cho_solve((tril, True), slope), -jnp.vdot(step, slope))
)
# Several at once: after each call LAPACK's threads wait, busily, for another one.
EIGEN = Program(lambda *matrices: [jnp.linalg.eigh(matrix) for matrix in matrices])
PROGRAMS = (_TRIL, _STEP, EIGEN)


def _factorised(matrix: Array) -> tuple[Dense, str]:
    """Factorise a precision, mended if need be; tell what of it was."""
    tril, scale, pivot = _TRIL(matrix)
    least = 10 * len(matrix) * float(jnp.finfo(matrix.dtype).eps)
    if pivot > least:
        return Dense(tril), ""
    scaled = np.float64(matrix) / np.outer(scale, scale)
    if not np.isfinite(scaled).all():
        raise hopeless("is not finite", "Look at the data's scale and the priors'.")
    empty = int(np.sum(~np.abs(scaled).any(axis=0)))
    if empty:
        raise hopeless(
            f"is zero in {empty} of {len(matrix)} directions", "Give all latents proper priors."
        )
    values, vectors = np.linalg.eigh(scaled)
    mended = (vectors * np.maximum(np.abs(values), 2 * least)) @ vectors.T
    lower = np.linalg.cholesky(mended) * np.asarray(scale)[:, None]
    trouble = _trouble(int(np.sum(values <= least)), len(values), values[0])
    return Dense(jnp.asarray(lower, matrix.dtype)), trouble


def _positive(likelihood: Array, prior: Array) -> Array:
    """Add eigenvalues of likelihood and prior to a positive sum, damped if need be."""
    both, size = likelihood + prior, jnp.maximum(jnp.abs(likelihood), jnp.abs(prior))
    if not bool(jnp.all(jnp.isfinite(both))):
        raise hopeless("is not finite", "Look at the data's scale and the priors'.")
    empty = int(jnp.sum(size == 0))
    if empty:
        raise hopeless(
            f"is zero in {empty} of {both.size} directions", "Give all latents proper priors."
        )
    least = 20 * float(jnp.finfo(both.dtype).eps)
    bad = both <= least * size
    if bool(jnp.any(bad)):
        warn(_trouble(int(bad.sum()), both.size, float(jnp.min(both / size))))
    return jnp.where(bad, jnp.maximum(jnp.abs(both), least * size), both)


def _trouble(bad: int, size: int, lowest: float) -> str:
    return (
        f"Laplace: the curvature is not positive in {bad} of {size} directions; the lowest is "
        f"{lowest:.2g} of the terms it is made of. Its absolute value was taken, or the least that "
        "rounding leaves: the draws spread far there. Fit for more steps, or choose priors that "
        "are log-concave."
    )


def warn(trouble: str) -> None:
    """Warn of what had to be mended, if anything."""
    if trouble:
        warnings.warn(trouble, stacklevel=3)


def hopeless(what: str, remedy: str) -> FitError:
    return FitError(f"Laplace: the curvature {what}. {remedy}", step=0, site="", posterior=None)


def diagonal(
    parts: Curvature, point: Point, rows: Rows, prior: Prior
) -> dict[tuple[str, ...], Any]:
    """Give the block of a diagonal precision."""
    prior.require_diagonal("diagonal")
    sums = [jnp.zeros(0)]
    if parts.layout.layers:
        captured = parts.captured["diagonal"](rows, point)
        for layer in parts.layout.layers:
            sums += [a.ravel() for a in captured[layer.weight][: len(layer.sites)]]
    if parts.layout.others:
        sums.append(parts.squares(rows, point))
    return {parts.layout.sites: Diagonal(_positive(jnp.concatenate(sums), prior.diagonal))}


def kronecker(
    parts: Curvature, point: Point, rows: Rows, prior: Prior
) -> dict[tuple[str, ...], Any]:
    """Give a block for each layer's weights, one for its biases, and a diagonal one for others."""
    prior.require_diagonal("kronecker")
    layers, blocks, start = parts.layout.layers, {}, 0
    captured = parts.captured["kronecker"](rows, point) if layers else {}
    factors = [factor for layer in layers for factor in captured[layer.weight][:2]]
    spectra = iter(EIGEN(*factors))
    for layer in layers:
        inputs, outputs, bias, places = captured[layer.weight]
        size = len(inputs) * len(outputs)
        own, start = prior.diagonal[start : start + size], start + size
        if float(own.max() - own.min()) > 1e-4 * float(jnp.abs(own).max()):
            raise ModelError(
                "curvature",
                expected=f"for 'kronecker', one prior precision for all of {layer.weight!r}",
                got=f"from {float(own.min()):.3g} to {float(own.max()):.3g}",
                remedy='Choose curvature="diagonal" or "low_rank".',
            )
        (a, q), (g, r) = next(spectra), next(spectra)
        products = jnp.maximum(a, 0)[:, None] * jnp.maximum(g, 0) / places
        spread = _positive(products, jnp.broadcast_to(own.mean(), products.shape))
        blocks[layer.weight,] = Kronecker(q, r, spread)
        if layer.bias is not None:
            own, start = prior.diagonal[start : start + len(bias)], start + len(bias)
            blocks[layer.bias,], mended = _factorised(bias + jnp.diag(own))
            warn(mended)
    if parts.layout.others:
        squares = parts.squares(rows, point)
        blocks[parts.layout.others] = Diagonal(_positive(squares, prior.diagonal[start:]))
    return blocks
