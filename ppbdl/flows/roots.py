"""The inverse of a map of triangular Jacobian: bisection, one coordinate after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from ..types import Array


def triangular_root(f: Callable[[Array], Array], y: Array, lower: bool = True) -> Array:
    """Find x with f(x) = y, where f_i depends on x_1 ... x_i alone and increases in x_i.

    Each coordinate's root is bracketed by doubling, then bisected to the last digit: it needs no
    derivative, and cannot diverge.  The cost is about 70 evaluations of f a coordinate in double
    precision, 40 in single.  Gradients are those of the implicit function theorem, of any order.

    Parameters
    ----------
    f
        Maps (..., n) to (..., n), each event for itself.
    y
        (..., n).
    lower
        False if f_i depends on x_i ... x_n instead.
    """

    def gap(x: Array) -> Array:
        return f(x) - y

    return jax.lax.custom_root(
        gap,
        jax.lax.stop_gradient(y),
        lambda gap, start: _sweep(gap, start, lower),
        lambda linear, rhs: _solve(linear, rhs, lower),
    )


def _sweep(gap: Callable[[Array], Array], x: Array, lower: bool) -> Array:
    n = x.shape[-1]
    halvings = jnp.finfo(x.dtype).nmant + 10

    def coordinate(step: Any, x: Array) -> Array:
        i = step if lower else n - 1 - step

        def below(value: Array) -> Array:
            return gap(x.at[..., i].set(value))[..., i] < 0

        def bracket(reach: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            low, high, width = reach
            short, long = below(high), ~below(low)
            return (
                jnp.where(long, low - width, low),
                jnp.where(short, high + width, high),
                width * 2,
            )

        def open_ended(reach: tuple[Array, Array, Array]) -> Array:
            low, high, width = reach
            return (below(high) | ~below(low)).any() & jnp.isfinite(width)

        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = low + (high - low) / 2
            under = below(middle)
            return jnp.where(under, middle, low), jnp.where(under, high, middle)

        guess = x[..., i]
        one = jnp.ones((), x.dtype)
        low, high, _ = jax.lax.while_loop(open_ended, bracket, (guess - one, guess + one, one))
        low, high = jax.lax.fori_loop(0, halvings, halve, (low, high))
        return x.at[..., i].set(low + (high - low) / 2)

    return jax.lax.fori_loop(0, n, coordinate, x)


def _solve(linear: Callable[[Array], Array], rhs: Array, lower: bool) -> Array:
    """Solve J v = rhs, for the triangular J of `linear`."""
    n = rhs.shape[-1]
    basis = jnp.broadcast_to(jnp.eye(n, dtype=rhs.dtype), (*rhs.shape, n))  # (..., n, n)
    columns = jax.vmap(linear, in_axes=-1, out_axes=-1)(basis)
    return solve_triangular(columns, rhs[..., None], lower=lower)[..., 0]
