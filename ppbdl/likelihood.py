"""An observed site, cell by cell: the parameters of its distribution, and what y tells of them.

A likelihood's *cells* are the observed numbers or vectors that are independent of each other given
its parameters: the distribution's batch, and the entries that `to_event` made one event of.  The
Fisher information of a cell about its parameters t,

    F(t) = E[ grad log p(y | t)  grad log p(y | t)' ],    y ~ p(. | t),

is also the Hessian of KL(p(. | t) || p(. | t')) at t' = t.  It is positive semi-definite whatever
y was observed, and does not change with the coordinates in which the parameters are written.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jax.scipy.special import polygamma
from numpyro import distributions as dist
from numpyro.distributions import biject_to
from numpyro.distributions.kl import kl_divergence
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
                raise _unknown(name, base, "a transformation of learned parameters")
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
    raise _unknown(name, base, "a distribution without parameters of its own")


def _unknown(name: str, fn: Any, got: str) -> ModelError:
    return ModelError(
        "model",
        expected=f"a likelihood {name!r} whose Fisher information is known",
        got=f"{type(fn).__name__}, {got}",
        remedy="Choose a normal, Student, Laplace, gamma, beta, Poisson, negative binomial, "
        "binomial or categorical one, or fit with SVI(AutoMultivariateNormal) or NUTS.",
    )


def fisher_root(likelihood: Likelihood, varying: tuple[str, ...]) -> Array:
    """Give S of every cell, (cells, k, columns), with S S' the cell's weighted information.

    `varying` names the parameters that it is about, whose entries are joined to k numbers.

    Raises
    ------
    ModelError
        If the information of the likelihood's family is not known.
    """
    count = math.prod(likelihood.cells)
    each = {
        n: v.reshape(count, *v.shape[len(likelihood.cells) :]) for n, v in likelihood.params.items()
    }

    def of_cell(params: dict[str, Array]) -> Array:
        return _root(likelihood, params, varying)

    weight = jnp.sqrt(likelihood.weight.reshape(count, 1, 1))
    return weight * jax.vmap(of_cell)(each)


def _root(likelihood: Likelihood, params: dict[str, Array], varying: tuple[str, ...]) -> Array:
    """Give one cell's root of the information."""
    family = likelihood.family
    start, rebuild = ravel_pytree({n: params[n] for n in varying})

    def at(flat: Array) -> Any:
        return family(**(params | rebuild(flat)), validate_args=False)

    here = at(start)
    closed = next((f for kind, f in _CLOSED.items() if issubclass(family, kind)), None)
    if issubclass(family, dist.CategoricalLogits):
        return _root_of_classes(here.probs)
    if closed is not None:
        information = closed(here, varying)
    elif (values := _values(here)) is not None:
        scores = jax.jacobian(lambda flat: at(flat).log_prob(values))(start)
        root = (jnp.sqrt(jnp.exp(here.log_prob(values)))[:, None] * scores).T
        if root.shape[0] >= root.shape[1]:
            return root
        information = root @ root.T
    else:
        try:
            information = jax.hessian(lambda flat: kl_divergence(here, at(flat)))(start)
        except NotImplementedError:
            got = "of which it is not"
            raise _unknown(likelihood.name, here, got) from None
    if len(start) == 1:
        return jnp.sqrt(information)
    values, vectors = jnp.linalg.eigh(information)
    return vectors * jnp.sqrt(jnp.maximum(values, 0.0))


def _root_of_classes(p: Array) -> Array:
    """Give the Cholesky factor of diag(p) - p p', a column short: Tanabe and Sagae (1992)."""
    tail = jnp.cumsum(p[::-1])[::-1]  # of this class and those behind it
    here, behind = tail[:-1], jnp.maximum(tail[1:], jnp.finfo(p.dtype).tiny)
    size = jnp.sqrt(p[:-1] / jnp.maximum(here, behind) * behind)
    shares = jnp.where(jnp.arange(p.size)[:, None] > jnp.arange(p.size - 1), p[:, None] / behind, 0)
    return size * (jnp.eye(p.size, p.size - 1) - shares)


def _values(fn: Any) -> Array | None:
    """Give all the values that a cell can take, if they are few."""
    if not fn.has_enumerate_support:
        return None
    return fn.enumerate_support(expand=False)


def _of_rate(fn: Any, varying: tuple[str, ...]) -> Array:
    return 1 / fn.rate.reshape(1, 1)


def _of_exponential(fn: Any, varying: tuple[str, ...]) -> Array:
    return 1 / fn.rate.reshape(1, 1) ** 2


def _of_binomial(fn: Any, varying: tuple[str, ...]) -> Array:
    p = fn.probs.reshape(1, 1)
    return fn.total_count * (p * (1 - p) if varying == ("logits",) else 1 / (p * (1 - p)))


def _of_multinomial(fn: Any, varying: tuple[str, ...]) -> Array:
    p = fn.probs
    per_trial = jnp.diag(p) - jnp.outer(p, p) if varying == ("logits",) else jnp.diag(1 / p)
    return fn.total_count * per_trial


def _of_location_scale(loc: float, cross: float, scale: float) -> Any:
    """Give the rule of a family whose information is that at scale 1, over the scale squared."""

    def rule(fn: Any, varying: tuple[str, ...]) -> Array:
        return _entries({"ll": loc, "ls": cross, "ss": scale}, varying) / fn.scale**2

    return rule


def _of_student(fn: Any, varying: tuple[str, ...]) -> Array:
    """Lange, Little and Taylor (1989), appendix B."""
    df, scale = fn.df, fn.scale
    known = {
        "ll": (df + 1) / ((df + 3) * scale**2),
        "ss": 2 * df / ((df + 3) * scale**2),
        "ds": -2 / ((df + 1) * (df + 3) * scale),
        "dd": (polygamma(1, df / 2) - polygamma(1, (df + 1) / 2)) / 4
        - (df + 5) / (2 * df * (df + 1) * (df + 3)),
    }
    return _entries(known, varying)


def _of_gamma_poisson(fn: Any, varying: tuple[str, ...]) -> Array:
    """From log p = c log r - (c + y) log(1 + r) + lgamma(c + y) - lgamma(c) - lgamma(1 + y).

    E[trigamma(c) - trigamma(c + y)] comes from trigamma's integral, int t e^(-ct) / (1 - e^-t) dt,
    and E[e^(-ty)] = (r / (1 + r - e^-t))^c; in log t the trapezoidal rule converges at once.
    """
    c, r = fn.concentration, fn.rate
    low, high = jnp.log(jnp.minimum(r, 1 / c)) - 12, jnp.log(1 / c) + 4
    t = jnp.exp(jnp.linspace(low, high, 300))
    lost = -jnp.expm1(-c * jnp.log1p(-jnp.expm1(-t) / r))
    known = {
        "cc": jnp.sum(t**2 / -jnp.expm1(-t) * jnp.exp(-c * t) * lost) * (high - low) / 299,
        "cr": -1 / (r * (1 + r)),
        "rr": c / (r**2 * (1 + r)),
    }
    return _entries(known, varying)


def _entries(known: Mapping[str, Any], varying: tuple[str, ...]) -> Array:
    """Make the matrix from its entries by the parameters' first letters; the others are 0."""
    pairs = [["".join(sorted((a[0], b[0]))) for b in sorted(varying)] for a in sorted(varying)]
    return jnp.stack(
        [jnp.stack([jnp.asarray(known.get(p, 0.0) * 1.0) for p in row]) for row in pairs]
    )


_CLOSED: dict[Any, Any] = {
    dist.Poisson: _of_rate,
    dist.Exponential: _of_exponential,
    dist.BinomialProbs: _of_binomial,
    dist.BinomialLogits: _of_binomial,
    dist.MultinomialProbs: _of_multinomial,
    dist.MultinomialLogits: _of_multinomial,
    dist.GammaPoisson: _of_gamma_poisson,
    dist.StudentT: _of_student,
    dist.Laplace: _of_location_scale(1.0, 0.0, 1.0),
    dist.Cauchy: _of_location_scale(0.5, 0.0, 0.5),
    dist.Logistic: _of_location_scale(1 / 3, 0.0, (3 + math.pi**2) / 9),
    dist.Gumbel: _of_location_scale(
        1.0, np.euler_gamma - 1, math.pi**2 / 6 + (1 - np.euler_gamma) ** 2
    ),
}
