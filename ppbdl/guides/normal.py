"""Mean-field Gaussian: q(u) = N(loc, diag(scale^2)) on the unconstrained latents u.

The family of NumPyro's `AutoNormal` (Kucukelbir et al. 2017, section 2.4), held in two flat
vectors: a compiler's work grows with the number of arrays, not with their sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions import transforms as bijections
from numpyro.handlers import substitute

from ..errors import require_positive
from ..latents import initial_latents, transforms
from ..noise import normal
from ..structure import Structure
from ..types import Array, Guide, Model


@dataclass(frozen=True)
class AutoNormal:
    """A mean-field Gaussian guide.

    Parameters
    ----------
    init_scale
        Initial standard deviation of every unconstrained coordinate; for weights with two axes or
        more it is divided by the root of their number of inputs, so that the noise of a layer's
        outputs does not grow with its width.

    Examples
    --------
    >>> from ppbdl import SVI
    >>> SVI(AutoNormal(init_scale=0.01), steps=500).name
    'SVI AutoNormal'
    """

    init_scale: float = 0.1

    def __post_init__(self) -> None:
        require_positive(init_scale=self.init_scale)

    def bind(self, model: Model, structure: Structure) -> Guide:
        """Make the guide of `model`."""

        def guide(x: Any, y: Any = None) -> None:
            loc, scale = self.moments(model, structure, x, y)
            key: Any = numpyro.prng_key()
            noise = normal(key, loc.shape, loc.dtype)
            flat = jax.lax.optimization_barrier(loc + scale * noise)
            values: dict[str, Any] = structure.unflatten(flat)
            locs, scales = structure.unflatten(loc), structure.unflatten(scale)
            for name, transform in transforms(model, structure, values, x, y).items():
                q = dist.Normal(locs[name], scales[name]).to_event(values[name].ndim)
                if not isinstance(transform, bijections.IdentityTransform):
                    q = dist.TransformedDistribution(q, transform)
                placed: dict[str, Any] = {name: transform(values[name])}
                with substitute(data=placed):
                    numpyro.sample(name, q)

        return guide

    def moments(self, model: Model, structure: Structure, x: Any, y: Any) -> tuple[Array, Array]:
        """Declare loc and scale of all unconstrained coordinates, each (structure.size,)."""
        loc: Any = numpyro.param(
            "auto_loc", lambda key: initial_latents(key, model, structure, x, y)
        )
        scale: Any = numpyro.param(
            "auto_scale",
            lambda _: self._start(structure),
            constraint=constraints.softplus_positive,
        )
        # Made once, not again in every kernel of the forward and backward pass.
        return loc, jax.lax.optimization_barrier(scale)

    def _start(self, structure: Structure) -> Array:
        def scale(shape: tuple[int, ...]) -> float:
            return self.init_scale / (math.sqrt(math.prod(shape[:-1])) if len(shape) > 1 else 1)

        shapes = structure.latents
        return structure.flatten({name: jnp.full(s, scale(s)) for name, s in shapes.items()})
