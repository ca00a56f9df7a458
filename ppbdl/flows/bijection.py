"""Bijections: invertible maps that give their value and log |det| at once, in both directions.

For y = f(x) a density changes by log p(y) = log p(x) - log |det dy/dx|.  NumPyro's transforms give
the value and the determinant apart, so that a network between them runs twice; here it runs once.
A bijection is a NumPyro transform all the same, and NumPyro's own serve here through `Fused`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from numpyro import distributions as dist
from numpyro.distributions.transforms import ComposeTransform, Transform
from numpyro.distributions.util import sum_rightmost

from ..errors import InputError
from ..types import Array

REAL: Any = dist.constraints.real  # NumPyro declares properties, and its own transforms set values
REAL_VECTOR: Any = dist.constraints.real_vector


class Bijection(Transform):
    """An invertible map between events of `domain` and `codomain`: real vectors unless stated.

    A subclass is final and gives the two fused maps.  Their log determinants have the shape of the
    batch: one number for each event, or for each element where events are scalars.

    A context needs no argument: what depends on one closes over it.
    """

    domain = codomain = REAL_VECTOR
    arrays: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold arrays or bijections, which JAX may trace; the others are fixed."""

    @abstractmethod
    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Map x to (y, log |det dy/dx|)."""

    @abstractmethod
    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Map y to (x, log |det dx/dy|)."""

    @property
    def inv(self) -> Bijection:
        """The same map read backwards."""
        return Inverse(self)

    def __call__(self, x: Array) -> Array:
        return self.forward_and_log_det(x)[0]

    def _inverse(self, y: Array) -> Array:
        return self.inverse_and_log_det(y)[0]

    def call_with_intermediates(self, x: Array) -> tuple[Array, Array]:
        """Map x to y, and keep log |det dy/dx| for `log_abs_det_jacobian`."""
        return self.forward_and_log_det(x)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        """log |det dy/dx|."""
        return self.forward_and_log_det(x)[1] if intermediates is None else intermediates

    def tree_flatten(self) -> tuple:
        fixed = {
            name: value
            for name, value in vars(self).items()
            if name not in self.arrays and name != "_inv"
        }
        return tuple(getattr(self, name) for name in self.arrays), (self.arrays, fixed)


class Inverse(Bijection):
    """A bijection read backwards; `bijection.inv` makes it.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ppbdl.flows import Affine
    >>> float(Affine(jnp.array(1.0), jnp.array(0.0)).inv(3.0))
    2.0
    """

    arrays = ("bijection",)

    def __init__(self, bijection: Bijection):
        self.bijection = bijection

    @property
    def domain(self) -> Any:
        return self.bijection.codomain

    @property
    def codomain(self) -> Any:
        return self.bijection.domain

    @property
    def inv(self) -> Bijection:
        return self.bijection

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        return self.bijection.inverse_and_log_det(x)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        return self.bijection.forward_and_log_det(y)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.bijection.inverse_shape(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.bijection.forward_shape(shape)


class Fused(Bijection):
    """One of NumPyro's transforms, its value and log determinant computed together.

    `Chain` and `Flow` wrap NumPyro's transforms by themselves: `AffineTransform`, `ExpTransform`,
    `SoftplusTransform`, `PermuteTransform` and others need no counterpart here.

    Examples
    --------
    >>> from numpyro.distributions.transforms import ExpTransform
    >>> [round(float(part), 2) for part in Fused(ExpTransform()).inverse_and_log_det(2.0)]
    [0.69, -0.69]
    """

    arrays = ("transform",)

    def __init__(self, transform: Transform):
        self.transform = transform

    @property
    def domain(self) -> Any:
        return self.transform.domain

    @property
    def codomain(self) -> Any:
        return self.transform.codomain

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y, kept = self.transform.call_with_intermediates(x)
        return jnp.asarray(y), jnp.asarray(self.transform.log_abs_det_jacobian(x, y, kept))

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        x = self.transform._inverse(y)
        return jnp.asarray(x), -jnp.asarray(self.transform.log_abs_det_jacobian(x, y))

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.transform.forward_shape(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.transform.inverse_shape(shape)


class Chain(Bijection):
    """Bijections applied in order, as one.

    Where one works on scalars, or on vectors, and another on larger events, the former's log
    determinants are summed over the latter's axes.

    Parameters
    ----------
    bijections
        At least one; NumPyro's transforms are fused.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ppbdl.flows import Affine, Reverse
    >>> y, log_det = Chain([Affine(1.0, 0.5), Reverse()]).forward_and_log_det(jnp.zeros(4))
    >>> y.tolist(), float(log_det)
    ([1.0, 1.0, 1.0, 1.0], 2.0)
    """

    arrays = ("bijections",)

    def __init__(self, bijections: Sequence[Transform]):
        self.bijections = flatten(bijections)
        if not self.bijections:
            raise InputError(
                "bijections", expected="at least one", got="none", remedy="Pass a bijection."
            )

    @property
    def domain(self) -> Any:
        return ComposeTransform(self.bijections).domain

    @property
    def codomain(self) -> Any:
        return ComposeTransform(self.bijections).codomain

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        log_det, dims = 0.0, self.domain.event_dim
        for bijection in self.bijections:
            x, change = bijection.forward_and_log_det(x)
            log_det = log_det + sum_rightmost(change, dims - bijection.domain.event_dim)
            dims += bijection.codomain.event_dim - bijection.domain.event_dim
        return x, jnp.asarray(log_det)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        log_det, dims = 0.0, self.codomain.event_dim
        for bijection in reversed(self.bijections):
            y, change = bijection.inverse_and_log_det(y)
            log_det = log_det + sum_rightmost(change, dims - bijection.codomain.event_dim)
            dims += bijection.domain.event_dim - bijection.codomain.event_dim
        return y, jnp.asarray(log_det)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return ComposeTransform(self.bijections).forward_shape(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return ComposeTransform(self.bijections).inverse_shape(shape)


def flatten(bijections: Sequence[Transform]) -> list[Bijection]:
    """Fuse NumPyro's transforms, and put a chain's parts in the chain's place."""
    flat: list[Bijection] = []
    for bijection in bijections:
        if isinstance(bijection, Chain):
            flat += bijection.bijections
        elif isinstance(bijection, Bijection):
            flat.append(bijection)
        elif isinstance(bijection, Transform):
            flat.append(Fused(bijection))
        else:
            raise InputError(
                "bijections",
                expected="bijections, or NumPyro's transforms",
                got=type(bijection).__name__,
                remedy="Subclass ppbdl.flows.Bijection.",
            )
    return flat
