"""The mode of the density on the unconstrained space, where a Gaussian approximation belongs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from ..latents import initial_latents, transforms
from ..structure import Structure
from ..types import Guide, Model

MODE = "laplace.mode"


@dataclass(frozen=True)
class UnconstrainedDelta:
    """A point mass on the unconstrained space: with it the bound is log p + log |det dt/du|.

    `AutoDelta`'s, on the constrained space, leaves the determinant out.
    """

    def bind(self, model: Model, structure: Structure) -> Guide:
        """Make the guide of `model`."""

        def guide(x: Any, y: Any = None) -> None:
            values: Any = numpyro.param(
                MODE,
                lambda key: structure.unflatten(initial_latents(key, model, structure, x, y)),
            )
            for name, transform in transforms(model, structure, values, x, y).items():
                value = transform(values[name])
                log_det = jnp.sum(transform.log_abs_det_jacobian(values[name], value))
                point = dist.Delta(value, log_density=-log_det, event_dim=value.ndim)
                numpyro.sample(name, point)

        return guide
