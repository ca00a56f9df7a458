"""Gaussian dropout: independent multiplicative noise, W_ij ~ N(M_ij, alpha M_ij^2).

Kingma, Salimans and Welling (2015), *Variational Dropout and the Local Reparameterization Trick*,
section 3, learn an alpha for each layer, unit or weight; Bernoulli dropout at rate p corresponds
to alpha = p / (1 - p).  Molchanov, Ashukha and Vetrov (2017), *Variational Dropout Sparsifies Deep
Neural Networks*, section 4.2: with an alpha for each weight the family is held additively,

    W_ij ~ N(M_ij, sigma_ij^2),    alpha_ij = sigma_ij^2 / M_ij^2,

so that the noise of M's gradient does not grow with alpha.

Their prior is the scale-invariant one, under which the divergence depends on alpha alone.  Any
other may be declared; but under a normal prior the divergence of an alpha that weights share is
infinite where an M_ij is 0, so that the means keep their signs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.handlers import substitute

from ..errors import InputError, require_positive
from ..latents import initial_latents, transforms
from ..noise import normal
from ..structure import Structure
from ..types import Array, Guide, Model
from .dropout import weights_of


@dataclass(frozen=True)
class GaussianDropout:
    """Normal weights whose standard deviation is sqrt(alpha) |mean|, with alpha learned.

    Every real site with two axes or more is such a weight, and all other latents are point
    estimates, as are arrays that are vectors but for axes of length 1 (a BatchNorm's).

    What was learned is in ``posterior.params``, (chain, ...): the means in ``auto_loc``, by
    site, and of the site ``net.linear_0.w`` the standard deviations ``net.linear_0.w.scale`` or
    the ``net.linear_0.w.alpha`` that its weights share.  Molchanov et al. drop the weights with
    log alpha > 3, which are all noise.

    Parameters
    ----------
    per
        What has an alpha of its own: each ``"weight"``, with no bound, which under the prior
        `ppbdl.models.ScaleInvariant` makes most weights superfluous; or each input ``"unit"`` or
        ``"layer"``, with alpha <= 1 as in Kingma et al.: beyond it the gradients' noise leads to
        poor optima.
    init_alpha
        Every alpha at the start, below 1 if it is shared; for weights, that of a weight of size
        1 / sqrt(fan-in).

    Raises
    ------
    InputError, ModelError
        If a setting is none of these, or the model has no weight.

    Examples
    --------
    >>> import haiku as hk, numpy as np, ppbdl
    >>> from ppbdl.models import BNN, Normal, ScaleInvariant
    >>> model = BNN(lambda x: hk.nets.MLP([8, 1])(x), {"*.w": ScaleInvariant(), "*": None})
    >>> x = np.linspace(-1, 1, 60).reshape(20, 3)
    >>> svi = ppbdl.SVI(GaussianDropout(), steps=50, draws=5)
    >>> learned = ppbdl.fit(0, model, ppbdl.Data(x, x[:, 0]), svi, progress=False).params
    >>> name = "net.linear_0.w"
    >>> log_alpha = 2 * np.log(learned[f"{name}.scale"] / abs(learned["auto_loc"][name]))
    >>> (log_alpha < 3).shape  # what is kept
    (1, 3, 8)
    """

    per: Literal["weight", "unit", "layer"] = "weight"
    init_alpha: float = 0.1

    def __post_init__(self) -> None:
        if self.per not in ("weight", "unit", "layer"):
            raise InputError(
                "per",
                expected='"weight", "unit" or "layer"',
                got=repr(self.per),
                remedy='For sparse networks pass "weight".',
            )
        require_positive(init_alpha=self.init_alpha)
        if self.per != "weight" and self.init_alpha >= 1:
            raise InputError(
                "init_alpha",
                expected=f"a number in (0, 1) for an alpha per {self.per}",
                got=repr(self.init_alpha),
                remedy="Try 0.1.",
            )

    def bind(self, model: Model, structure: Structure) -> Guide:
        """Make the guide of `model`."""
        weights = weights_of(self, structure, lambda shape: math.prod(shape[:-1]))

        def guide(x: Any, y: Any = None) -> None:
            # By site, not flat: so an alpha can be told from a fit without its model.
            locs: Any = numpyro.param(
                "auto_loc",
                lambda key: structure.unflatten(initial_latents(key, model, structure, x, y)),
            )
            key: Any = numpyro.prng_key()
            noise = structure.unflatten(normal(key, (structure.size,), jnp.result_type(float)))
            for name, transform in transforms(model, structure, locs, x, y).items():
                loc = locs[name]
                if name in weights:
                    scale = self._scale(name, loc)
                    q, value = dist.Normal(loc, scale), loc + scale * noise[name]
                    with substitute(data={name: value}):
                        numpyro.sample(name, q.to_event(loc.ndim))
                else:
                    value = transform(loc)
                    numpyro.sample(name, dist.Delta(value, event_dim=value.ndim))

        return guide

    def _scale(self, name: str, loc: Array) -> Any:
        if self.per == "weight":
            start = math.sqrt(self.init_alpha / math.prod(loc.shape[:-1]))
            return numpyro.param(
                f"{name}.scale",
                jnp.full(loc.shape, start),
                constraint=constraints.softplus_positive,
            )
        alpha: Any = numpyro.param(
            f"{name}.alpha",
            jnp.full((loc.shape[-2], 1) if self.per == "unit" else (), self.init_alpha),
            constraint=constraints.unit_interval,
        )
        # A weight may start at 0, where the divergence is infinite.
        return jnp.sqrt(alpha) * jnp.maximum(jnp.abs(loc), 1e-8)
