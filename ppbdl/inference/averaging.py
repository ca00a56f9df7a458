"""The parts of SWAG: the moments of the iterates, and the compiled programs.

They know a model, optimisers and shapes; keys and data are arguments, as in `optimisation`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro import distributions as dist
from numpyro.distributions import biject_to
from numpyro.handlers import seed, substitute, trace

from ..compiling import Program, remembered
from ..module import training
from ..structure import Shapes
from ..types import Array, Key, Model
from .batches import Batches
from .elbo import joint_density, total
from .map import MAP
from .optimisation import Programs, programs_of, with_params

_LEAST = 1e-30  # variance, as in the paper's code: of a weight that never moves


@dataclass
class Moments:
    """Running moments of the iterates, of all members at once: trees of arrays."""

    rank: int
    count: int = 0
    mean: Any = None
    squares: Any = None  # sums of squared deviations from the mean
    deviations: deque[Any] = field(default_factory=deque)

    def add(self, params: Any) -> None:
        params = jax.tree.map(np.asarray, params)
        if not self.count:
            self.mean, self.squares = (jax.tree.map(f, params) for f in (np.copy, np.zeros_like))
        self.count += 1
        before = jax.tree.map(np.subtract, params, self.mean)
        self.mean = jax.tree.map(lambda m, d: m + d / self.count, self.mean, before)
        after = jax.tree.map(np.subtract, params, self.mean)
        self.squares = jax.tree.map(lambda s, b, a: s + b * a, self.squares, before, after)
        self.deviations = deque([*self.deviations, after["auto_loc"]], self.rank)

    def of(self, member: int | None) -> tuple[Any, Any, Any]:
        """Give one member's mean, and the variances and deviations (K, ...) of its latents."""
        variance = jax.tree.map(lambda s: s / self.count, self.squares["auto_loc"])
        deviations = jax.tree.map(lambda *each: np.stack(each), *self.deviations)
        if member is None:
            return self.mean, variance, deviations
        own = (self.mean, variance), jax.tree.map(lambda d: d.swapaxes(0, 1), deviations)
        (mean, variance), deviations = jax.tree.map(lambda a: a[member], own)
        return mean, variance, deviations


class Parts(NamedTuple):
    """What is compiled beside the two optimisations.

    ``restart(params) -> optimizer state``; ``draw(keys, params, variance, deviations, mutables, x,
    y) -> (draws, stats, learned)``; ``renew(params, mutables, x, y) -> mutables`` after one batch.
    """

    first: Programs
    second: Programs
    restart: Program
    draw: Program
    renew: Program

    @property
    def seconds(self) -> float:
        programs = self.first.seconds_compiling + self.second.seconds_compiling
        return programs + sum(part.seconds for part in self[2:])

    @property
    def peak_bytes(self) -> int:
        both = (self.first.peak_bytes, self.second.peak_bytes)
        return max(*both, *(part.peak_bytes for part in self[2:]))


@remembered
def parts_of(
    model: Model,
    first: MAP,
    optimizer: optax.GradientTransformation,
    members: int | None,
    shapes: Shapes,
) -> Parts:
    of_a_row = optax.chain(optax.scale(1 / shapes.size), optimizer)
    one, two = (
        programs_of(model, replace(method.svi, steps=1), members, shapes)
        for method in (first, replace(first, optimizer=of_a_row))
    )
    structure, batches = one.structure, Batches(shapes.rows, first.batch_size)

    def at(flat: Array, params: Any, mutables: Any, program: Any, x: Any, y: Any) -> Any:
        """Run a program at unconstrained latents; with log |dt/du| of their bijections."""
        values, slopes = structure.unflatten(flat), []

        def place(site: dict[str, Any]) -> Array | None:
            if site["type"] != "sample" or site["name"] not in values:
                return None
            bijection, u = biject_to(site["fn"].support), values[site["name"]]
            value = bijection(u)
            slopes.append(bijection.log_abs_det_jacobian(u, value))
            return value

        # Copied, since networks change their state in place.
        state: Any = {name: dict(value) for name, value in mutables.items()}
        placed = substitute(substitute(program, data=state), substitute_fn=place)
        seeded = seed(with_params(placed, params), jax.random.key(0))
        return trace(seeded).get_trace(x, y), total(slopes)

    def draw(
        keys: Array, params: Any, variance: Any, deviations: Any, mutables: Any, x: Any, y: Any
    ) -> Any:
        x, y = batches.head(x, y)
        mean = structure.flatten(params["auto_loc"])
        factor = jax.vmap(structure.flatten)(deviations).T
        normal = dist.LowRankMultivariateNormal(
            mean,
            factor / np.sqrt(2 * (factor.shape[1] - 1)),
            jnp.maximum(structure.flatten(variance) / 2, _LEAST),
        )

        def one(key: Key) -> tuple[dict[str, Array], dict[str, Array]]:
            flat: Any = normal.sample(key)
            sites, slope = at(flat, params, mutables, model, x, y)
            kept = {
                name: site["value"]
                for name, site in sites.items()
                if name in structure.latents
                or (site["type"] == "deterministic" and first.batch_size is None)
            }
            return kept, {
                "log_prior": joint_density([sites[name] for name in structure.latents]),
                "log_q": normal.log_prob(flat) - slope,
            }

        sites, _ = at(mean, params, mutables, model, x, y)
        learned = {n: s["value"] for n, s in sites.items() if s["type"] == "param"}
        return *jax.lax.map(one, keys), learned

    def renew(params: Any, mutables: Any, x: Any, y: Any) -> Any:
        flat = structure.flatten(params["auto_loc"])
        sites, _ = at(flat, params, mutables, training(model), x, y)
        return {n: s["value"] for n, s in sites.items() if s["type"] == "mutable"}

    restart = jax.vmap(of_a_row.init) if members else of_a_row.init
    return Parts(one, two, Program(restart), Program(draw), Program(renew))
