"""What a curvature is of: the latents that vary, layer by layer, and the parameters they move.

Both are read off the model's program, traced abstractly.  A linear layer counts as one if its
outputs are all that its weights bear on; the sites of the other layers are taken one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
from jax.extend.core import Literal

from ...errors import InputError
from ...fisher import fisher_root
from ...latents import is_real
from ...likelihood import Likelihood, likelihood_of
from ...linearization import run_at
from ...structure import Structure
from ...types import Array, Model
from .capturing import Calls, Cut, Layer


class Layout(NamedTuple):
    """What a curvature is of.

    Attributes
    ----------
    sites
        The latents that vary, layer by layer, and then the others.
    layers
        The linear layers whose weights are among them.
    others
        Those of the latents that are no such weight.
    varying
        The observed sites, each with its likelihood's parameters that depend on the latents.
    """

    sites: tuple[str, ...]
    layers: tuple[Layer, ...]
    others: tuple[str, ...]
    varying: tuple[tuple[str, tuple[str, ...]], ...]


class Point(NamedTuple):
    """Where the curvature is taken: the latents' values, and what was learned beside them."""

    mode: dict[str, Array]
    learned: tuple[Any, Any]


def layout_of(
    model: Model, structure: Structure, sites: Any, point: Point, x: Any, y: Any
) -> Layout:
    """Find what varies, by tracing the model abstractly.

    Raises
    ------
    InputError
        If `sites` matches no latent.
    ModelError
        If the Fisher information of a likelihood is not known.
    """
    found: dict[str, Any] = {}

    def look(point: Point, x: Any, y: Any) -> Any:
        calls = Calls(model)
        traced, _ = run_at(calls, point.learned, point.mode, x, y)
        found["calls"] = calls
        seen = {name: likelihood_at(traced[name]) for name in structure.observed}
        for name, likelihood in seen.items():
            real = tuple(sorted(n for n in likelihood.params if likelihood.bijection(n)))
            fisher_root(likelihood, real)  # whether it is known
            found[name] = real
        return [[seen[name].params[n] for n in found[name]] for name in structure.observed]

    latents, count = tuple(point.mode), len(point.mode)
    depends = iter(_touched(jax.make_jaxpr(look)(point, x, y).jaxpr, range(count)))
    varying = tuple(
        (name, tuple(n for n in found[name] if next(depends))) for name in structure.observed
    )
    chosen = _chosen(sites, latents, found["calls"])
    supports = structure.supports
    layers = tuple(
        layer._replace(bias=layer.bias if layer.bias in chosen else None)
        for layer in found["calls"].layers
        if layer.weight in chosen and all(is_real(supports[s]) for s in layer.sites if s in chosen)
    )

    def without(point: Point, x: Any, y: Any) -> Any:
        traced, _ = run_at(Cut(model, layers), point.learned, point.mode, x, y)
        return [likelihood_at(traced[name]).params for name in structure.observed]

    # A weight that does more than make its layer's outputs (one tied to another layer's, say).
    jaxpr, order = jax.make_jaxpr(without)(point, x, y).jaxpr, sorted(latents)
    layers = tuple(
        layer
        for layer in layers
        if not any(_touched(jaxpr, [order.index(site) for site in layer.sites]))
    )
    theirs = tuple(site for layer in layers for site in layer.sites)
    others = tuple(site for site in chosen if site not in theirs)
    return Layout(theirs + others, layers, others, tuple(entry for entry in varying if entry[1]))


def _chosen(sites: Any, latents: tuple[str, ...], calls: Calls) -> tuple[str, ...]:
    if sites is None:
        return latents
    last = sites == "last"
    patterns = calls.last if last else (sites,) if isinstance(sites, str) else tuple(sites)
    chosen = tuple(s for s in latents if any(fnmatchcase(s, pattern) for pattern in patterns))
    if not chosen:
        raise InputError(
            "sites",
            expected="the last layer of a Haiku network, with a prior on its weights"
            if last
            else f"patterns that match some of the latents {list(latents)}",
            got=repr(sites),
            remedy='Name sites, such as "net.linear_1.*", or leave sites out.',
        )
    return chosen


def _touched(jaxpr: Any, inputs: Iterable[int]) -> list[bool]:
    """Tell which outputs of a program depend on these inputs."""
    touched = {jaxpr.invars[i] for i in inputs}

    def is_touched(v: Any) -> bool:
        return not isinstance(v, Literal) and v in touched

    for eqn in jaxpr.eqns:
        if any(map(is_touched, eqn.invars)):
            touched.update(eqn.outvars)
    return [is_touched(v) for v in jaxpr.outvars]


def likelihood_at(site: dict[str, Any]) -> Likelihood:
    """Take an observed site of a trace apart."""
    return likelihood_of(site["name"], site["fn"], site["scale"])
