"""A density by change of variables: log p(x) = log p(z) + log |det dz/dx|, with z = f^-1(x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from ..types import Array


class Flow(dist.TransformedDistribution):
    """The distribution of f(z) for z from `base`, where f applies `bijections` in order.

    NumPyro's own class asks each transform for its inverse and its log determinant apart, and so
    runs every network twice; here a bijection gives both at once.

    Parameters
    ----------
    base
        Distribution of z.
    bijections
        Transforms with ``inverse_and_log_det(y) -> (x, log |det dx/dy|)``.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> double = AffineCoupling(lambda z: (z, jnp.full_like(z, jnp.log(2.0))), flip=False)
    >>> flow = Flow(dist.Normal(0, 1).expand([2]).to_event(1), [double])
    >>> flow.sample(jax.random.key(0), (3,)).shape
    (3, 2)
    """

    def __init__(self, base: dist.Distribution, bijections: Sequence[dist.transforms.Transform]):
        super().__init__(base, list(bijections))

    def log_prob(self, value: Array, intermediates: object = None) -> Array:
        """Log density of each event, shape ``value.shape[:-1]``."""
        log_det = jnp.zeros(value.shape[: value.ndim - len(self.event_shape)])
        bijections: list[Any] = self.transforms
        for bijection in reversed(bijections):
            value, change = bijection.inverse_and_log_det(value)
            log_det = log_det + change
        return jnp.asarray(self.base_dist.log_prob(value)) + log_det
