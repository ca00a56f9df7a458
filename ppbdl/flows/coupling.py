"""Affine coupling: one half of the features moves by an amount that the other half decides.

    y_a = x_a,    y_b = x_b exp(s(x_a)) + t(x_a)

Dinh et al. (2017), *Density Estimation using Real NVP*, equations (4) and (5).  Both directions
cost one pass of the network, and the Jacobian is triangular: log |det| is the sum of s.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

from ..types import Array


class AffineCoupling(Transform):
    """A coupling layer over the last axis.

    Parameters
    ----------
    conditioner
        Maps the kept half, (..., kept), to ``(shift, log_scale)``, each (..., moved).
    flip
        Whether the second half is kept and the first one moves.  Of D features the first half
        has D // 2.
    """

    # NumPyro declares properties, and its own transforms set values.
    domain = constraints.real_vector  # pyright: ignore[reportAssignmentType]
    codomain = constraints.real_vector  # pyright: ignore[reportAssignmentType]

    def __init__(self, conditioner: Callable[[Array], tuple[Array, Array]], flip: bool):
        self.conditioner, self.flip = conditioner, flip

    def __call__(self, x: Array) -> Array:
        return self.forward_and_log_det(x)[0]

    def _inverse(self, y: Array) -> Array:
        return self.inverse_and_log_det(y)[0]

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: object = None) -> Array:
        """log |det dy/dx|, shape (...)."""
        return self.forward_and_log_det(x)[1]

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Map x to (y, log |det dy/dx|)."""
        kept, moved = self._halves(x)
        shift, log_scale = self.conditioner(kept)
        return self._join(kept, moved * jnp.exp(log_scale) + shift), log_scale.sum(-1)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Map y to (x, log |det dx/dy|)."""
        kept, moved = self._halves(y)
        shift, log_scale = self.conditioner(kept)
        return self._join(kept, (moved - shift) * jnp.exp(-log_scale)), -log_scale.sum(-1)

    def _halves(self, x: Array) -> tuple[Array, Array]:
        first, second = jnp.split(x, [x.shape[-1] // 2], axis=-1)
        return (second, first) if self.flip else (first, second)

    def _join(self, kept: Array, moved: Array) -> Array:
        return jnp.concatenate((moved, kept) if self.flip else (kept, moved), axis=-1)

    def tree_flatten(self) -> tuple:
        return (), ((), {"conditioner": self.conditioner, "flip": self.flip})
