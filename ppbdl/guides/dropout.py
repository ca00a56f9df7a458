"""Monte Carlo dropout as a guide: W = diag(z) M with z_i ~ Bernoulli(1 - rate).

Gal and Ghahramani (2016), *Dropout as a Bayesian Approximation*, equation (8): each unit that
feeds a layer is dropped with its row of weights, one mask for a minibatch.  The prior needs no
separate weight decay: under a standard normal prior E_q[-log p(W)] = (1 - rate)/2 |M|^2 + const,
which is their L2 term.  Biases and all other latents are point estimates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import transforms as bijections
from numpyro.handlers import mask

from ..errors import InputError, ModelError
from ..latents import initial_latents, transforms
from ..structure import Structure
from ..types import Guide, Model


@dataclass(frozen=True)
class MCDropout:
    """The dropout guide: every real site with two axes or more loses rows at random.

    A site's last axis but one is taken for its input units, as in Haiku's weights (in, out) and
    convolution kernels (height, width, in, out).  The kept rows are not scaled up.

    Parameters
    ----------
    rate
        Probability of dropping a unit, in [0, 1).

    Raises
    ------
    InputError, ModelError
        If `rate` is no probability, or the model has no weight to drop.

    Examples
    --------
    >>> from ppbdl import SVI
    >>> SVI(MCDropout(0.1), steps=500).name
    'SVI MCDropout'
    """

    rate: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.rate, bool) or not 0 <= self.rate < 1:
            raise InputError(
                "rate", expected="a probability in [0, 1)", got=repr(self.rate), remedy="Try 0.1."
            )

    def bind(self, model: Model, structure: Structure) -> Guide:
        """Make the guide of `model`."""
        if not any(len(shape) > 1 for shape in structure.latents.values()):
            raise ModelError(
                "guide",
                expected="for MCDropout, a model with a weight matrix among its latents",
                got=f"latents {list(structure.latents)}",
                remedy="Choose AutoNormal, or declare a network with random_haiku_module.",
            )

        def guide(x: Any, y: Any = None) -> None:
            loc: Any = numpyro.param(
                "auto_loc", lambda key: initial_latents(key, model, structure, x, y)
            )
            means = structure.unflatten(loc)
            for name, transform in transforms(model, structure, means, x, y).items():
                value = transform(means[name])
                if value.ndim > 1 and isinstance(transform, bijections.IdentityTransform):
                    value = value * self._kept(name, value)
                numpyro.sample(name, dist.Delta(value, event_dim=value.ndim))

        return guide

    def _kept(self, name: str, weight: Any) -> Any:
        # The masks' entropy does not depend on M: masking it out of the objective only takes
        # its sampling noise away.
        units = dist.Bernoulli(1 - self.rate).expand([weight.shape[-2], 1]).to_event(2)
        with mask(mask=False):
            kept = numpyro.sample(f"{name}.kept", units, infer={"is_auxiliary": True})
        return jnp.asarray(kept, weight.dtype)
