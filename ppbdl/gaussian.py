"""Gaussians about a mode on the unconstrained space, with structure in their precision H.

    u = m + H^(-1/2) z,    log N(u) = -z'z / 2 - (d / 2) log 2 pi + log |H| / 2,    z ~ N(0, 1)

A Gaussian is made of independent blocks; each has one root of its covariance, `colour`, and that
root's inverse, `whiten`.  The root of a block with eigenvalues is the symmetric one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from .types import Array


class Dense(NamedTuple):
    """H = L L'."""

    precision_tril: Array

    def colour(self, noise: Array) -> Array:
        return solve_triangular(self.precision_tril, noise, lower=True, trans=1)

    def whiten(self, deviation: Array) -> Array:
        return self.precision_tril.T @ deviation

    @property
    def log_det(self) -> Array:
        return 2 * jnp.sum(jnp.log(jnp.diag(self.precision_tril)))


class Diagonal(NamedTuple):
    """H = diag(h)."""

    precision: Array

    def colour(self, noise: Array) -> Array:
        return noise / jnp.sqrt(self.precision)

    def whiten(self, deviation: Array) -> Array:
        return deviation * jnp.sqrt(self.precision)

    @property
    def log_det(self) -> Array:
        return jnp.sum(jnp.log(self.precision))


class Kronecker(NamedTuple):
    """H = (Q kron R) diag(h) (Q kron R)' of a matrix of weights, h of the matrix's shape."""

    inputs: Array
    outputs: Array
    eigenvalues: Array

    def colour(self, noise: Array) -> Array:
        scaled = noise.reshape(self.eigenvalues.shape) / jnp.sqrt(self.eigenvalues)
        return (self.inputs @ scaled @ self.outputs.T).ravel()

    def whiten(self, deviation: Array) -> Array:
        rotated = self.inputs.T @ deviation.reshape(self.eigenvalues.shape) @ self.outputs
        return (rotated * jnp.sqrt(self.eigenvalues)).ravel()

    @property
    def log_det(self) -> Array:
        return jnp.sum(jnp.log(self.eigenvalues))


class LowRank(NamedTuple):
    """H = P^(1/2) (I + V diag(l) V') P^(1/2), P diagonal and V'V = I (Spantini et al. 2015)."""

    prior: Array
    vectors: Array
    gains: Array

    def colour(self, noise: Array) -> Array:
        shrink = 1 - 1 / jnp.sqrt(1 + self.gains)
        inside = noise - self.vectors @ (shrink * (self.vectors.T @ noise))
        return inside / jnp.sqrt(self.prior)

    def whiten(self, deviation: Array) -> Array:
        scaled = deviation * jnp.sqrt(self.prior)
        stretch = jnp.sqrt(1 + self.gains) - 1
        return scaled + self.vectors @ (stretch * (self.vectors.T @ scaled))

    @property
    def log_det(self) -> Array:
        return jnp.sum(jnp.log(self.prior)) + jnp.sum(jnp.log1p(self.gains))


Block = Dense | Diagonal | Kronecker | LowRank
_KINDS = {frozenset(kind._fields): kind for kind in (Dense, Diagonal, Kronecker, LowRank)}


class Gaussian(NamedTuple):
    """A normal distribution of some latents about a mode of all of them.

    Attributes
    ----------
    mode
        Every latent's unconstrained value.
    blocks
        By the sites that a block joins, in their order.  Sites in none stay at the mode.
    """

    mode: Mapping[str, Array]
    blocks: Mapping[tuple[str, ...], Block]

    @property
    def size(self) -> int:
        """Number of coordinates that vary."""
        return sum(self._size(sites) for sites in self.blocks)

    @property
    def log_det(self) -> Array:
        """The log determinant of the precision."""
        return sum((block.log_det for block in self.blocks.values()), jnp.zeros(()))

    def at(self, noise: Array) -> dict[str, Array]:
        """Map white noise, (size,), to the latents."""
        values, start = dict(self.mode), 0
        for sites, block in sorted(self.blocks.items()):  # the order in which JAX keeps a dict
            stop = start + self._size(sites)
            values |= add(self.mode, sites, block.colour(noise[start:stop]))
            start = stop
        return values

    def noise(self, values: Mapping[str, Array]) -> Array:
        """Map latents back to the noise."""
        parts = [
            block.whiten(join(values, sites) - join(self.mode, sites))
            for sites, block in sorted(self.blocks.items())
        ]
        return jnp.concatenate(parts)

    def log_density(self, noise: Array) -> Array:
        """Give the log density, on the unconstrained space, of the latents at this noise."""
        constant = -0.5 * self.size * math.log(2 * math.pi) + 0.5 * self.log_det
        return constant - 0.5 * jnp.sum(noise**2)

    def arrays(self) -> dict[str, Any]:
        """Give its arrays in dicts by text, to be kept in a posterior's `params`."""
        blocks = {json.dumps(sites): block._asdict() for sites, block in self.blocks.items()}
        return {"mode": dict(self.mode)} | ({"blocks": blocks} if blocks else {})

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> Gaussian:
        """Make it from its arrays again."""
        blocks: dict[tuple[str, ...], Any] = {}
        for sites, fields in arrays.get("blocks", {}).items():
            blocks[tuple(json.loads(sites))] = _KINDS[frozenset(fields)](**fields)
        return cls(arrays["mode"], blocks)

    def _size(self, sites: tuple[str, ...]) -> int:
        return sum(math.prod(jnp.shape(self.mode[site])) for site in sites)


def join(values: Mapping[str, Array], sites: tuple[str, ...]) -> Array:
    """Join some sites' values into one vector."""
    return jnp.concatenate([jnp.zeros(0), *(jnp.ravel(values[site]) for site in sites)])


def add(values: Mapping[str, Array], sites: tuple[str, ...], flat: Array) -> dict[str, Array]:
    """Add to some sites' values the parts of one vector."""
    parts, start = {}, 0
    for site in sites:
        shape = jnp.shape(values[site])
        stop = start + math.prod(shape)
        parts[site] = values[site] + flat[start:stop].reshape(shape)
        start = stop
    return parts


def first_chain(tree: Any) -> Any:
    """Give the first chain's part of a posterior's parameters or state."""
    return jax.tree.map(lambda a: jnp.asarray(a[0]), tree)
