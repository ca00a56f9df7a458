"""A normalizing flow over all of the latents: q(u) is the density of u = loc + scale f(z).

    log q(u) = log p(z) - log |det df/dz| - sum log scale,    z ~ N(0, I)

Rezende and Mohamed (2015), *Variational Inference with Normalizing Flows*; Kingma et al. (2016),
*Improved Variational Inference with Inverse Autoregressive Flow*.  u are the unconstrained latents,
one flat vector, and f is any flow that starts as the identity: then q starts as `AutoNormal`
does, with each layer's noise in keeping with its width.  A flow over raw latents would start with
standard deviations of 1, which no network's weights have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpyro
from numpyro import distributions as dist
from numpyro.handlers import scope

from ..errors import InputError, require_positive
from ..flows import Affine, Flow
from ..latents import transforms
from ..structure import Structure
from ..types import Array, Guide, Model
from .normal import AutoNormal


@dataclass(frozen=True)
class AutoFlow:
    """A guide that bends `AutoNormal`'s Gaussian by a flow, so that latents may depend on another.

    Its parameters grow with the number of latents times the flow's width: it is for tens to a few
    thousands of them.  Choose a flow that draws fast: couplings, or inverse autoregressive ones,
    which need a width of at least the number of latents.

    Parameters
    ----------
    density
        From a number of features to a density over them, such as ``ppbdl.models.IAF`` or
        ``functools.partial(ppbdl.models.RealNVP, layers=4)``.
    init_scale
        As for `AutoNormal`.  Of a few latents whose posterior is wide and bent, 1.0 finds the
        whole, where 0.1 may stay in the part where it starts.

    Raises
    ------
    InputError
        If the flow's weights have a prior: they are the guide's parameters.

    Examples
    --------
    >>> from ppbdl import SVI, models
    >>> SVI(AutoFlow(models.IAF), steps=500).name
    'SVI AutoFlow'
    """

    density: Callable[[int], Any]
    init_scale: float = 0.1

    def __post_init__(self) -> None:
        require_positive(init_scale=self.init_scale)

    def bind(self, model: Model, structure: Structure) -> Guide:
        """Make the guide of `model`."""
        density = self.density(structure.size)
        if getattr(density, "prior", None) is not None:
            raise InputError(
                "density",
                expected="a flow without a prior, whose weights the guide learns",
                got=repr(density),
                remedy="Leave out its prior.",
            )
        mean_field = AutoNormal(self.init_scale)

        def guide(x: Any, y: Any = None) -> None:
            loc, scale = mean_field.moments(model, structure, x, y)
            with scope(prefix="auto_flow", divider="."):
                flow = density.flow(jnp.zeros((1, 0)))
            q = Flow(flow.base_dist, [*flow.transforms, Affine(loc, jnp.log(scale))])
            flat: Any = numpyro.sample("_auto_latent", q, infer={"is_auxiliary": True})
            values: dict[str, Array] = structure.unflatten(flat)
            for name, transform in transforms(model, structure, values, x, y).items():
                value = transform(values[name])
                log_det = transform.log_abs_det_jacobian(values[name], value)
                numpyro.sample(name, dist.Delta(value, -jnp.sum(log_det), event_dim=value.ndim))

        return guide
