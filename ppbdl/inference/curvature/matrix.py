"""The curvature of a log posterior: Gauss and Newton's for the likelihood, the prior's Hessian.

With eta the likelihood's parameters, J = d eta / du and F = S S' their Fisher information,

    H = sum_n J_n' F_n J_n - Hessian of (log p + log |dt/du|)(u),

where u are the latents on the unconstrained space.  The sum has no negative direction, and is the
exact Hessian where eta is linear in u and the likelihood a canonical family (Martens 2020, *New
insights and perspectives on the natural gradient method*).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from ...compiling import Program
from ...errors import InputError
from ...fisher import fisher_root
from ...gaussian import add, join
from ...latents import is_real
from ...likelihood import Likelihood, likelihood_of
from ...linearization import run_at
from ...structure import Structure
from ...types import Array, Key, Model
from ..elbo import joint_density, log_density, total
from .capturing import Calls, Cut, Layer
from .layers import RULES, gram, layer_sums
from .sums import Sum


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
        seen = {name: _likelihood(traced[name]) for name in structure.observed}
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
        return [_likelihood(traced[name]).params for name in structure.observed]

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


def _likelihood(site: dict[str, Any]) -> Likelihood:
    return likelihood_of(site["name"], site["fn"], site["scale"])


class Curvature(NamedTuple):
    """The compiled parts; each takes a `Point`, its own arguments, and rows to add up over.

    Attributes
    ----------
    likelihood
        log p(y | u), and its gradient in the sites that vary.
    log_prior
        log p(u) + log |dt/du|, and its gradient; not a sum over rows, as is all of the prior.
    prior
        The Hessian of minus that, times each row of a matrix.
    dense
        J' F J of all that varies, (d, d).
    squares
        Its diagonal for the `others`, (d,).
    captured
        By layer, what `kind` needs of it.
    product
        J' F J times each row of a matrix; ``noise``: J' S xi for random xi.
    """

    layout: Layout
    likelihood: Sum
    log_prior: Program
    prior: Program
    dense: Sum
    squares: Sum
    captured: Mapping[str, Sum]
    product: Sum
    noise: Sum

    @property
    def programs(self) -> tuple[Program, ...]:
        """All of them, for their cost."""
        sums = self.likelihood, self.dense, self.squares, self.product, self.noise
        return (
            self.log_prior,
            self.prior,
            *(one.program for one in (*sums, *self.captured.values())),
        )


@functools.lru_cache(maxsize=64)
def curvature_of(model: Model, layout: Layout) -> Curvature:
    """Make the programs of a model's curvature, or find those of an earlier fit."""
    sites = layout.sites

    def moved(point: Point, sites: tuple[str, ...], flat: Array) -> dict[str, Array]:
        return point.mode | add(point.mode, sites, flat)

    def eta(program: Any, point: Point, values: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """Give by observed site the parameters, (cells, k), and the likelihood itself."""
        traced, _ = run_at(program, point.learned, values, x, y)
        flat, seen = {}, {}
        for name, varying in layout.varying:
            seen[name] = replace(likelihood := _likelihood(traced[name]), fn=None)
            cells = math.prod(likelihood.cells)
            parts = [likelihood.params[n].reshape(cells, -1) for n in varying]
            flat[name] = jnp.concatenate(parts, axis=1)
        return flat, seen

    def roots(seen: Mapping[str, Likelihood]) -> dict[str, Array]:
        return {name: fisher_root(seen[name], varying) for name, varying in layout.varying}

    def samples(point: Point, flat: Array, x: Any, y: Any, seen: bool) -> tuple[Any, Array]:
        traced, log_det = run_at(model, point.learned, moved(point, sites, flat), x, y)
        found = [s for s in traced.values() if s["type"] == "sample"]
        return [s for s in found if (s["name"] in dict(layout.varying)) == seen], log_det

    def zeros(point: Point, sites: tuple[str, ...]) -> Array:
        return jnp.zeros_like(join(point.mode, sites))

    def likelihood(point: Point, x: Any, y: Any) -> tuple[Array, Array]:
        def f(flat: Array) -> Array:
            return total([log_density(site) for site in samples(point, flat, x, y, True)[0]])

        return jax.value_and_grad(f)(zeros(point, sites))

    def log_prior(point: Point, x: Any, y: Any) -> tuple[Array, Array]:
        def f(flat: Array) -> Array:
            rest, log_det = samples(point, flat, x, y, False)
            return joint_density(rest) + log_det

        return jax.value_and_grad(f)(zeros(point, sites))

    def prior(point: Point, vectors: Array, x: Any, y: Any) -> Array:
        def slope(flat: Array) -> Array:
            moved_point = point._replace(mode=moved(point, sites, flat))
            return -log_prior(moved_point, x, y)[1]

        at = zeros(point, sites)
        return jax.lax.map(lambda v: jax.jvp(slope, (at,), (v,))[1], vectors)

    def columns(point: Point, sites: tuple[str, ...], x: Any, y: Any) -> Array:
        """Give S' J, (columns of all cells, d)."""

        def f(flat: Array) -> tuple[Any, Any]:
            return eta(model, point, moved(point, sites, flat), x, y)

        at = zeros(point, sites)
        shapes, _ = jax.eval_shape(f, at)
        numbers = sum(shape.size for shape in shapes.values())
        jacobian = jax.jacfwd if at.size <= numbers else jax.jacrev
        slopes, seen = jacobian(f, has_aux=True)(at)
        each = [
            jnp.einsum("nkc,nkd->ncd", root, slopes[name]) for name, root in roots(seen).items()
        ]
        return jnp.concatenate([part.reshape(-1, at.size) for part in each])

    def dense(point: Point, x: Any, y: Any) -> Array:
        return gram(columns(point, sites, x, y))

    def squares(point: Point, x: Any, y: Any) -> Array:
        return jnp.sum(columns(point, layout.others, x, y) ** 2, axis=0)

    def pulled(point: Point, x: Any, y: Any) -> tuple[Any, Any, Any]:
        def f(flat: Array) -> tuple[Any, Any]:
            return eta(model, point, moved(point, sites, flat), x, y)

        at = zeros(point, sites)
        _, push, seen = jax.linearize(f, at, has_aux=True)
        return push, jax.linear_transpose(push, at), roots(seen)

    def product(point: Point, vectors: Array, x: Any, y: Any) -> Array:
        push, pull, scores = pulled(point, x, y)

        def times(vector: Array) -> Array:
            tangent = push(vector)
            weighed = {
                name: jnp.einsum("nkc,njc,nj->nk", root, root, tangent[name])
                for name, root in scores.items()
            }
            return pull(weighed)[0]

        return jax.lax.map(times, vectors)

    def noise(point: Point, keys: Key, x: Any, y: Any) -> Array:
        _, pull, scores = pulled(point, x, y)

        def draw(key: Key) -> Array:
            cotangents = {}
            for i, (name, root) in enumerate(scores.items()):
                xi = jax.random.normal(jax.random.fold_in(key, i), root.shape[::2], root.dtype)
                cotangents[name] = jnp.einsum("nkc,nc->nk", root, xi)
            return pull(cotangents)[0]

        return jax.lax.map(draw, keys)

    captured = {
        kind: Sum(functools.partial(layer_sums, kind, model, layout.layers, eta, roots))
        for kind in RULES
    }
    return Curvature(
        layout=layout,
        likelihood=Sum(likelihood),
        log_prior=Program(log_prior),
        prior=Program(prior),
        dense=Sum(dense),
        squares=Sum(squares),
        captured=captured,
        product=Sum(product),
        noise=Sum(noise),
    )
