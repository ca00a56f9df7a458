"""An observed site, cell by cell: the parameters of its distribution, and each cell's weight.

A likelihood's *cells* are the observed numbers or vectors that are independent of each other given
its parameters: the distribution's batch, and the entries that `to_event` made one event of.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from numpyro import distributions as dist
from numpyro.distributions import biject_to
from numpyro.distributions.util import lazy_property

from .errors import ModelError
from .types import Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["fn", "params", "weight"],
    meta_fields=["name", "family"],
)
@dataclass(frozen=True, eq=False)
class Likelihood:
    """An observed site's distribution.

    Attributes
    ----------
    name
        The site's.
    fn
        The distribution.
    family
        The class of its cells.
    params
        The real parameters, each (*cells, ...), and the whole ones (a number of trials).
    weight
        What a cell's log density is multiplied by: its mask and scale, (*cells).
    """

    name: str
    fn: Any
    family: Any
    params: dict[str, Array]
    weight: Array

    @property
    def cells(self) -> tuple[int, ...]:
        """The shape of the cells."""
        return self.weight.shape

    def bijection(self, parameter: str) -> Any:
        """Give the map from the line to a parameter's domain; None for whole numbers."""
        domain: Any = self.family.arg_constraints[parameter]
        return None if domain.is_discrete else biject_to(domain)

    def at(self, params: Mapping[str, Array]) -> dist.Distribution:
        """Give the same distribution at other parameters of its cells."""
        return _rewrapped(self.fn, self.family(**({**self.params, **params}), validate_args=False))


def likelihood_of(name: str, fn: Any, scale: Any = None) -> Likelihood:
    """Take an observed site's distribution apart.

    Raises
    ------
    ModelError
        If the distribution is a learned transformation of another one, or hides its parameters.
    """
    base, cells, weight = fn, tuple(fn.batch_shape), jnp.ones(fn.batch_shape)
    if scale is not None:
        weight = weight * scale
    while True:
        if isinstance(base, dist.MaskedDistribution):
            weight = weight * jnp.broadcast_to(jnp.asarray(base._mask), cells)
        elif isinstance(base, dist.Independent):
            n = base.reinterpreted_batch_ndims
            inside = tuple(base.base_dist.batch_shape)[-n:]
            cells, weight = cells + inside, weight.reshape(*cells, *(1,) * n)
        elif isinstance(base, dist.TransformedDistribution):
            if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(base.transforms)):
                raise unknown(name, base, "a transformation of learned parameters")
        elif not isinstance(base, dist.ExpandedDistribution):
            break
        weight, base = jnp.broadcast_to(weight, cells), base.base_dist
    if isinstance(base, dist.CategoricalProbs) and type(base) is dist.CategoricalProbs:
        base = dist.CategoricalLogits(base.logits, validate_args=False)
    family = _family_of(name, base)
    params = {}
    for parameter in _names(family):
        value, domain = jnp.asarray(getattr(base, parameter)), family.arg_constraints[parameter]
        each = value.shape[value.ndim - domain.event_dim :]
        params[parameter] = jnp.broadcast_to(value, cells + each)
    return Likelihood(name, fn, family, params, weight)


def _rewrapped(fn: Any, base: Any) -> Any:
    if isinstance(fn, dist.ExpandedDistribution):
        return _rewrapped(fn.base_dist, base)
    if isinstance(fn, dist.MaskedDistribution):
        return _rewrapped(fn.base_dist, base).mask(fn._mask)
    if isinstance(fn, dist.Independent):
        return _rewrapped(fn.base_dist, base).to_event(fn.reinterpreted_batch_ndims)
    if isinstance(fn, dist.TransformedDistribution):
        return dist.TransformedDistribution(_rewrapped(fn.base_dist, base), fn.transforms)
    return base


def _names(family: Any) -> list[str]:
    """Name the parameters that a family is made from; of equivalent ones NumPyro computes most."""
    constrained = family.arg_constraints
    return [n for n in constrained if not isinstance(getattr(family, n, None), lazy_property)]


def _family_of(name: str, base: Any) -> Any:
    if isinstance(base, dist.GammaPoisson):  # whose subclasses compute its parameters
        return dist.GammaPoisson
    for family in type(base).__mro__[:-1]:
        names = _names(family) if "arg_constraints" in vars(family) else []
        if names and all(vars(base).get(n) is not None for n in names):
            return family
    raise unknown(name, base, "a distribution without parameters of its own")


def unknown(name: str, fn: Any, got: str) -> ModelError:
    """Make the error of a likelihood that is not of a family we know."""
    return ModelError(
        "model",
        expected=f"a likelihood {name!r} whose Fisher information is known",
        got=f"{type(fn).__name__}, {got}",
        remedy="Choose a normal, Student, Laplace, gamma, beta, Poisson, negative binomial, "
        "binomial or categorical one, or fit with SVI(AutoMultivariateNormal) or NUTS.",
    )
