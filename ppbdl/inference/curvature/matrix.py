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
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...compiling import Program, remembered
from ...fisher import fisher_root
from ...gaussian import add, join
from ...likelihood import Likelihood
from ...linearization import run_at
from ...types import Array, Key, Model
from ..elbo import joint_density, log_density, total
from .layers import RULES, gram, layer_sums
from .layout import Layout, Point, likelihood_at
from .sums import Sum


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


@remembered
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
            seen[name] = replace(likelihood := likelihood_at(traced[name]), fn=None)
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
