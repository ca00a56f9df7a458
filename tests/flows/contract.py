"""The contract of a bijection, in double precision: what holds for each of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints
from numpyro.distributions.util import sum_rightmost

EPS = np.finfo(np.float64).eps


class Looked(NamedTuple):
    """One direction of a bijection at a batch of points, and the way back from there."""

    start: jax.Array
    end: jax.Array
    back: jax.Array
    log_det: jax.Array
    log_det_back: jax.Array
    jacobian: jax.Array


def place(support: Any, u: jax.Array) -> jax.Array:
    """Real numbers brought into a support."""
    while isinstance(support, type(constraints.real_vector)):
        support = support.base_constraint
    if support is constraints.real:
        return u
    u = jnp.clip(u, -12.0, 12.0)  # nearer to an edge, rounding alone moves a point outside
    if hasattr(support, "upper_bound"):
        return support.lower_bound + (support.upper_bound - support.lower_bound) * jax.nn.sigmoid(u)
    return getattr(support, "lower_bound", 0.0) + jnp.exp(u)


def look(fused: Callable, fused_back: Callable, start: jax.Array) -> Looked:
    """Go there and back; events are rows of `start`, and log-dets are summed to one for each."""

    def one(x: jax.Array) -> Looked:
        def flat(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            y, log_det = fused(x.reshape(start.shape[1:]))
            return y.ravel(), (y, jnp.sum(log_det))

        jacobian, (end, log_det) = jax.jacfwd(flat, has_aux=True)(x.ravel())
        back, log_det_back = fused_back(end)
        return Looked(x, end, back, log_det, jnp.sum(log_det_back), jacobian)

    return jax.vmap(one)(start)


def hold(looked: Looked, factor: float = 1e4) -> None:
    """Check a round trip and both log determinants.

    A value known to within its rounding, eps |y|, is known backwards to within that times the
    norm of the inverse's Jacobian: the tolerance is `factor` times this, so that it is a few 1e-12
    where a bijection is well conditioned.
    """
    n = len(looked.start)
    start, end, back = (
        np.asarray(part).reshape(n, -1) for part in (looked.start, looked.end, looked.back)
    )
    sign, truth = np.linalg.slogdet(looked.jacobian)
    assert np.all(sign != 0), "a singular Jacobian"
    inverse = np.linalg.norm(np.linalg.inv(looked.jacobian), axis=(1, 2))
    scale = 1 + np.abs(start).max(1) + inverse * (1 + np.abs(end).max(1))
    error = np.abs(back - start).max(1)
    assert np.all(error <= factor * EPS * scale), f"round trip: {error.max()}"
    condition = 1 + np.abs(truth) + inverse * np.linalg.norm(looked.jacobian, axis=(1, 2)) * scale
    for name, log_det in (("log-det", looked.log_det), ("way back", -looked.log_det_back)):
        error = np.abs(np.asarray(log_det) - truth)
        assert np.all(error <= factor * EPS * condition), f"{name}: {error.max()}"


def both_ways(bijection: Any, u: jax.Array) -> tuple[Looked, Looked]:
    """Look forward from the domain and backward from the codomain, each found from u."""
    fused, fused_back = bijection.forward_and_log_det, bijection.inverse_and_log_det
    forward = look(fused, fused_back, place(bijection.domain, u))
    shape = bijection.forward_shape(u.shape)
    backward = look(fused_back, fused, place(bijection.codomain, u.reshape(shape)))
    return forward, backward


def log_dets(bijection: Any, y: jax.Array) -> jax.Array:
    """Log |det| of the inverse, one for each event of the batch y."""
    _, log_det = bijection.inverse_and_log_det(y)
    return sum_rightmost(log_det, log_det.ndim - 1)
