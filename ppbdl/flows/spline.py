"""Monotone rational-quadratic splines with linear tails.

On the bin from (x_k, y_k) to (x_k + w, y_k + h), with slopes d_k and d_k+1 at its ends, s = h / w
and xi = (x - x_k) / w,

    y = y_k + h (s xi^2 + d_k xi (1 - xi)) / (s + (d_k+1 + d_k - 2 s) xi (1 - xi)),

and y = x outside of [-bound, bound].  Durkan et al. (2019), *Neural Spline Flows*, equations 4 to
8; the inverse solves a quadratic equation.  Both branches are computed from inputs clipped to the
box, so that the unused one gives no NaN to a gradient.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ..errors import InputError, require_positive
from ..types import Array
from .bijection import REAL, Bijection

_LEAST = 1e-3  # of a bin's share of the box, and of a slope


class RationalQuadraticSpline(Bijection):
    """An elementwise spline; the identity outside of the box, and everywhere for `raw` of zeros.

    Parameters
    ----------
    raw
        (..., 3 bins - 1) unconstrained numbers for each element: widths, heights, inner slopes.
    bound
        Half the side of the box.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> spline = RationalQuadraticSpline(jnp.zeros(11), bound=3.0)
    >>> spline(jnp.array([-5.0, 1.0])).round(5).tolist()
    [-5.0, 1.0]
    """

    arrays = ("raw",)
    domain = codomain = REAL

    def __init__(self, raw: Array, bound: float = 3.0):
        require_positive(bound=bound)
        width = jnp.shape(raw)[-1] if jnp.ndim(raw) else 0
        if width % 3 != 2 or not 5 <= width < 1 / _LEAST:
            raise InputError(
                "raw",
                expected="3 bins - 1 numbers on the last axis, of at least two bins",
                got=f"shape {jnp.shape(raw)}",
                remedy="Pass 23 numbers for 8 bins.",
            )
        self.raw, self.bound = raw, float(bound)

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        inside, clipped = self._clip(x)
        xs, ys, slopes = self._knots(clipped.dtype)
        left, w, low, h, d0, d1 = _bin(clipped, xs, xs, ys, slopes)
        xi = (clipped - left) / w
        y, log_slope = _rational_quadratic(xi, low, h, h / w, d0, d1)
        return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0.0)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        inside, clipped = self._clip(y)
        xs, ys, slopes = self._knots(clipped.dtype)
        left, w, low, h, d0, d1 = _bin(clipped, ys, xs, ys, slopes)
        s, rise = h / w, clipped - low
        bend = rise * (d1 + d0 - 2 * s)
        a, b, c = h * (s - d0) + bend, h * d0 - bend, -s * rise
        # The discriminant is the square of a positive derivative; rounding may still reach 0,
        # where the root has no gradient.
        discriminant = jnp.maximum(b**2 - 4 * a * c, jnp.finfo(clipped.dtype).tiny)
        xi = 2 * c / (-b - jnp.sqrt(discriminant))
        _, log_slope = _rational_quadratic(xi, low, h, s, d0, d1)
        return jnp.where(inside, left + xi * w, y), -jnp.where(inside, log_slope, 0.0)

    def _clip(self, x: Array) -> tuple[Array, Array]:
        x = jnp.asarray(x, jnp.result_type(x, float))
        return jnp.abs(x) < self.bound, jnp.clip(x, -self.bound, self.bound)

    def _knots(self, dtype: jnp.dtype) -> tuple[Array, Array, Array]:
        """Positions and heights of the knots, and the slopes at them, each (..., bins + 1)."""
        raw = jnp.asarray(self.raw, dtype)
        bins = (raw.shape[-1] + 1) // 3
        edge = jnp.full((*raw.shape[:-1], 1), self.bound, dtype)

        def knots(raw: Array) -> Array:
            shares = _LEAST + (1 - bins * _LEAST) * jax.nn.softmax(raw)
            inner = jnp.cumsum(shares[..., :-1], axis=-1) * 2 * self.bound - self.bound
            return jnp.concatenate([-edge, inner, edge], axis=-1)

        at_zero = math.log(math.expm1(1 - _LEAST))  # a raw slope of 0 is a slope of 1
        slopes = _LEAST + jax.nn.softplus(raw[..., 2 * bins :] + at_zero)
        ends = jnp.ones_like(edge)
        slopes = jnp.concatenate([ends, slopes, ends], axis=-1)
        return knots(raw[..., :bins]), knots(raw[..., bins : 2 * bins]), slopes

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return jnp.broadcast_shapes(shape, jnp.shape(self.raw)[:-1])

    inverse_shape = forward_shape


def _bin(at: Array, knots: Array, xs: Array, ys: Array, slopes: Array) -> tuple[Array, ...]:
    """The bin of `knots` in which `at` lies: left end, width, low end, height, two slopes."""
    index = (at[..., None] >= knots[..., 1:-1]).sum(-1, keepdims=True)
    mine = index == jnp.arange(knots.shape[-1] - 1)

    def pick(values: Array) -> Array:  # a sum over the bins; a gather's gradient is slow
        return jnp.where(mine, values, 0.0).sum(-1)

    return (
        pick(xs[..., :-1]),
        pick(jnp.diff(xs)),
        pick(ys[..., :-1]),
        pick(jnp.diff(ys)),
        pick(slopes[..., :-1]),
        pick(slopes[..., 1:]),
    )


def _rational_quadratic(
    xi: Array, low: Array, h: Array, s: Array, d0: Array, d1: Array
) -> tuple[Array, Array]:
    """The value at xi, and the log of the slope there."""
    mixed, rest = xi * (1 - xi), (1 - xi)
    below = s + (d1 + d0 - 2 * s) * mixed
    slope = d1 * xi**2 + 2 * s * mixed + d0 * rest**2
    y = low + h * (s * xi**2 + d0 * mixed) / below
    return y, 2 * jnp.log(s) + jnp.log(slope) - 2 * jnp.log(below)
