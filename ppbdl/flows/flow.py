"""A density by change of variables: log p(x) = log p(z) + log |det dz/dx|, with z = f^-1(x)."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from numpyro import distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform
from numpyro.distributions.util import sum_rightmost
from numpyro.util import not_jax_tracer

from ..errors import InputError
from ..types import Array
from .bijection import Chain, flatten
from .coupling import Coupling


class Flow(dist.TransformedDistribution):
    """The distribution of f(z) for z from `base`, where f applies `bijections` in order.

    A value outside of the support has density zero: its log is -inf where the value is traced, and
    an `InputError` where it is at hand.  (NumPyro's own distributions look only with
    ``validate_args``, then give -inf as well, and a warning where the value is at hand.)

    Parameters
    ----------
    base
        Distribution of z.
    bijections
        From z to x.  NumPyro's transforms are fused.

    Raises
    ------
    InputError
        If some element is kept by every one of the couplings.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppbdl.flows import additive, half
    >>> base = dist.Normal(0, 1).expand([2]).to_event(1)
    >>> couplings = [Coupling(additive(), jnp.sin, half(2, flip)) for flip in (False, True)]
    >>> flow = Flow(base, couplings)
    >>> x = flow.sample(jax.random.key(0), (3,))
    >>> x.shape, flow.log_prob(x).shape
    ((3, 2), (3,))
    """

    def __init__(self, base: dist.Distribution, bijections: Sequence[Transform]):
        bijections = flatten(bijections)
        _require_moved(bijections)
        super().__init__(base, list(bijections))

    def forward(self, z: Array) -> Array:
        """Map z to f(z)."""
        return Chain(self.transforms)(jnp.asarray(z))

    def inverse(self, value: Array) -> Array:
        """Map a value to its z."""
        return Chain(self.transforms).inv(jnp.asarray(value))

    def log_prob(self, value: Array, intermediates: Any = None) -> Array:
        """Log density of each event, shape ``value.shape`` less the event's axes."""
        bijections: list[Any] = self.transforms
        log_det, dims = 0.0, len(self.event_shape)
        if intermediates:  # the value was just drawn: z and the determinants are known
            changes = [change for _, change in intermediates]
            for bijection, change in zip(reversed(bijections), reversed(changes), strict=True):
                log_det = log_det - sum_rightmost(change, dims - bijection.codomain.event_dim)
                dims += bijection.domain.event_dim - bijection.codomain.event_dim
            return jnp.asarray(self.base_dist.log_prob(intermediates[0][0])) + log_det
        inside: Any = True
        for bijection in reversed(bijections):
            value, within = _within(bijection.codomain, value, dims)
            value, change = bijection.inverse_and_log_det(value)
            log_det = log_det + sum_rightmost(change, dims - bijection.codomain.event_dim)
            dims += bijection.domain.event_dim - bijection.codomain.event_dim
            inside = inside & within
        value, within = _within(self.base_dist.support, value, dims)
        log_prob = jnp.asarray(self.base_dist.log_prob(value)) + log_det
        inside = inside & within
        return log_prob if inside is True else jnp.where(inside, log_prob, -jnp.inf)


def _within(support: Any, value: Array, dims: int) -> tuple[Array, Any]:
    """Tell which events lie in the support, and put the others somewhere inside."""
    if _is_real(support):
        return value, True
    inside = jnp.asarray(support(value))
    if not_jax_tracer(inside) and not inside.all():
        raise InputError(
            "value",
            expected=f"values in the flow's support, {support}",
            got=f"{int((~inside).sum())} of {inside.size} outside",
            remedy="Transform the data, or end the flow with a bijection onto their range.",
        )
    # NaN from outside would reach the gradient through the branch that is not taken.
    shown = jnp.expand_dims(inside, range(-support.event_dim, 0)) if support.event_dim else inside
    value = jnp.where(shown, value, support.feasible_like(value))
    axes = tuple(range(support.event_dim - dims, 0))
    return value, inside.all(axes) if axes else inside


def _is_real(support: Any) -> bool:
    independent: Any = type(constraints.real_vector)
    while isinstance(support, independent):
        support = support.base_constraint
    return support is constraints.real


def _require_moved(bijections: Sequence[Any]) -> None:
    """Refuse couplings that all keep some element, where nothing else mixes the elements."""
    couplings = [b for b in bijections if isinstance(b, Coupling)]
    mixing = [b for b in bijections if b.domain.event_dim and not isinstance(b, Coupling)]
    if not couplings or mixing:
        return
    kept = functools.reduce(operator.and_, (coupling.mask.array for coupling in couplings))
    if kept.any():
        raise InputError(
            "bijections",
            expected="couplings that together move every element",
            got=f"{int(kept.sum())} of {kept.size} elements of the masks kept by all",
            remedy="Let the masks take turns with flip, or put a permutation between.",
        )
