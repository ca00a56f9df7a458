"""The latents' unconstrained coordinates: where a fit starts, and the way to the supports."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
from jax.scipy.special import ndtr
from numpyro import distributions as dist
from numpyro.distributions import biject_to, constraints
from numpyro.distributions import transforms as bijections
from numpyro.handlers import block, seed, substitute
from numpyro.infer.initialization import init_to_uniform

from .types import Array, Key, Model

if TYPE_CHECKING:
    from .structure import Structure


def initial_value(site: dict[str, Any] | None = None) -> Any:
    """Start a latent site where its own hint says, or uniformly on the unconstrained (-2, 2).

    An initialisation strategy as NumPyro's are: called with no site, it gives itself.
    """
    if site is None:
        return functools.partial(initial_value)
    if site["type"] != "sample" or site["is_observed"]:
        return None
    return site["infer"].get("init", init_to_uniform)(site)


def init_to_prior(site: dict[str, Any]) -> Any:
    """Start a latent site at a draw from its prior: a hint for a site's ``infer={"init": ...}``."""
    return site["fn"](
        rng_key=site["kwargs"]["rng_key"], sample_shape=site["kwargs"]["sample_shape"]
    )


@dataclass(frozen=True)
class init_to_normal:
    """Start every entry of a latent site at a draw from N(loc, scale^2): a hint as well."""

    loc: float
    scale: float

    def __call__(self, site: dict[str, Any]) -> Array:
        key, shape = site["kwargs"]["rng_key"], site["fn"].shape()
        return self.loc + self.scale * jax.random.normal(key, shape)


def initial_latents(key: Key, model: Model, structure: Structure, x: Any, y: Any) -> Array:
    """Draw a flat unconstrained starting point as `initial_value` would; can be traced.

    One vector of normal noise serves all sites: a random draw for each would be a program each.
    """
    noise = structure.unflatten(jax.random.normal(key, (structure.size,)))
    start: dict[str, Any] = {}

    def place(site: dict[str, Any]) -> Array | None:
        name = site["name"]
        if site["type"] != "sample" or name not in noise:
            return None
        transform, hint = _bijection(site["fn"].support), site["infer"].get("init")
        prior: Any = site["fn"]
        while isinstance(prior, dist.Independent | dist.ExpandedDistribution):
            prior = prior.base_dist
        if hint is None:
            start[name] = 4 * ndtr(noise[name]) - 2
        elif isinstance(hint, init_to_normal):
            start[name] = transform.inv(hint.loc + hint.scale * noise[name])
        elif hint is init_to_prior and isinstance(prior, dist.Normal):
            loc: Any = prior.loc
            start[name] = loc + prior.scale * noise[name]
        else:
            start[name] = transform.inv(hint(site))
        return transform(start[name])

    with block():
        substitute(seed(model, key), substitute_fn=place)(x, y)
    return structure.flatten(start)


def transforms(
    model: Model, structure: Structure, unconstrained: dict[str, Array], x: Any, y: Any
) -> dict[str, Any]:
    """Find the bijection onto each latent's support; inside a seeded NumPyro program.

    Supports with constant bounds are known; for bounds that the model computes from other
    latents the model is run at the unconstrained values.
    """
    if None not in structure.supports.values():
        return {name: _bijection(support) for name, support in structure.supports.items()}
    found: dict[str, Any] = {}

    def place(site: dict[str, Any]) -> Array | None:
        if site["type"] == "sample" and site["name"] in unconstrained:
            found[site["name"]] = _bijection(site["fn"].support)
            return found[site["name"]](unconstrained[site["name"]])
        return None

    with block():
        substitute(model, substitute_fn=place)(x, y)
    return found


def is_real(support: Any) -> bool:
    """Tell whether a support is the whole line, in every entry."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real


def _bijection(support: Any) -> Any:
    base = transform = biject_to(support)
    while isinstance(base, bijections.IndependentTransform):
        base = base.base_transform
    return base if isinstance(base, bijections.IdentityTransform) else transform
