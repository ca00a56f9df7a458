"""A point mass: q(theta) = delta(theta - m); with it the ELBO is the log joint, and SVI is MAP.

As in NumPyro's `AutoDelta` the mode is of the density on the constrained space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpyro
import numpyro.distributions as dist

from ..latents import initial_latents, transforms
from ..structure import Structure
from ..types import Guide, Model


@dataclass(frozen=True)
class AutoDelta:
    """A point estimate of every latent, held unconstrained by site."""

    def bind(self, model: Model, structure: Structure) -> Guide:
        """Make the guide of `model`."""

        def guide(x: Any, y: Any = None) -> None:
            values: Any = {}
            if structure.latents:
                # By site: the gradient of a flat vector would be joined from the weights' own.
                values = numpyro.param(
                    "auto_loc",
                    lambda key: structure.unflatten(initial_latents(key, model, structure, x, y)),
                )
            for name, transform in transforms(model, structure, values, x, y).items():
                value = transform(values[name])
                numpyro.sample(name, dist.Delta(value, event_dim=value.ndim))

        return guide
