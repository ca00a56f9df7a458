"""The potential energy: minus the log joint density on the flat unconstrained space.

    U(u) = -log p(y, t(u) | x) - log |det dt/du|,    t the bijections onto the latents' supports

Discrete latents are summed out by NumPyro's enumeration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import distributions as dist
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.util import potential_energy

from .structure import Structure
from .types import Array, Key, Model


def potential(model: Model, structure: Structure) -> Callable[[Array, Any, Any], Array]:
    """Make the function ``(u, x, y) -> U(u)``; u has shape (structure.size,)."""
    enumerated = bool(structure.discrete)
    program = seed(model, jax.random.key(0))  # nothing is drawn, but NumPyro wants a key
    if enumerated:
        from numpyro.contrib.funsor import config_enumerate, enum

        program = enum(config_enumerate(program), -1 - structure.plate_depth)

    def energy(flat: Array, x: Any, y: Any) -> Array:
        return jnp.asarray(
            potential_energy(program, (x, y), {}, structure.unflatten(flat), enum=enumerated)
        )

    return energy


def constrained(
    model: Model, structure: Structure, flat: Array, x: Any, y: Any, key: Key
) -> dict[str, Array]:
    """Map unconstrained coordinates to the latents, and to the deterministic sites they fix."""
    values = structure.unflatten(flat)

    def place(site: dict[str, Any]) -> Array | None:
        if site["type"] == "sample" and site["name"] in values:
            return dist.biject_to(site["fn"].support)(values[site["name"]])
        return None

    sites = trace(substitute(seed(model, key), substitute_fn=place)).get_trace(x, y)
    return {
        name: jnp.asarray(site["value"])
        for name, site in sites.items()
        if name in values or site["type"] == "deterministic"
    }
