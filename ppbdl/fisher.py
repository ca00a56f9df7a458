"""The Fisher information of a likelihood's cells.

    F(t) = E[ grad log p(y | t)  grad log p(y | t)' ],    y ~ p(. | t),

is also the Hessian of KL(p(. | t) || p(. | t')) at t' = t.  It is positive semi-definite whatever
y was observed, and does not change with the coordinates in which the parameters t are written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.special import polygamma
from numpyro import distributions as dist
from numpyro.distributions.kl import kl_divergence

from .likelihood import Likelihood, unknown
from .types import Array


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
            raise unknown(likelihood.name, here, got) from None
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
