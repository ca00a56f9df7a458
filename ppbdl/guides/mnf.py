"""Multiplicative normalizing flows: a mean-field normal whose rows' means share random factors.

    z = f(z0),  z0 ~ N(m, s^2),    q(W | z) = prod_ij N(W_ij; z_i M_ij, S_ij^2)

Louizos and Welling (2017), equations 4 to 6: f is a flow of affine couplings, so that q(W), the
integral over z, is a mixture with correlations and several modes.  Its density is not to be had;
the bound is taken on W and z together, with an auxiliary density r (equations 8 to 13):

    log q(W)  becomes  log q(W | z) + log q(z) - log r(z | W),
    r(z | W):  g(z) ~ N(m + b1 a, (s exp(b2 a))^2),   a = mean(tanh(c' W)),   g a flow of its own.

m and s are ours: where b1 = b2 = 0 and z is hardly random, the bound is mean field's own.  A dense
layer has a factor for each input unit, a convolution one for each output channel.
Importance weights with that sum in place of log q are right as well, of pairs (W, z).
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

from ..errors import require_positive, require_whole
from ..flows import Coupling, affine, half, mlp
from ..latents import transforms
from ..module import haiku_module
from ..noise import normal
from ..structure import Structure
from ..types import Array, Guide, Model
from .dropout import weights_of
from .normal import AutoNormal

_Z_SCALE = 0.01  # of z0 at the start: almost mean field


@dataclass(frozen=True)
class MNF:
    """A guide whose weights' means are multiplied by a flow; other latents have `AutoNormal`'s q.

    Parameters
    ----------
    num_flows
        Couplings in the flow of z, and as many in the one of r.
    hidden
        Units in the one hidden layer of each coupling's network.
    init_scale
        As for `AutoNormal`.

    Raises
    ------
    InputError, ModelError
        If a setting is not positive, or the model has no weight matrix.

    Examples
    --------
    >>> from ppbdl import SVI, flipout
    >>> SVI(MNF(num_flows=2), steps=500, estimator=flipout).name
    'SVI MNF'
    """

    num_flows: int = 2
    hidden: int = 50
    init_scale: float = 0.1

    def __post_init__(self) -> None:
        require_whole(num_flows=self.num_flows, hidden=self.hidden)
        require_positive(init_scale=self.init_scale)

    def bind(self, model: Model, structure: Structure) -> Guide:
        """Make the guide of `model`."""
        weights = set(weights_of(self, structure, lambda shape: shape[_units(shape)]))
        mean_field = AutoNormal(self.init_scale)

        def guide(x: Any, y: Any = None) -> None:
            loc, scale = mean_field.moments(model, structure, x, y)
            locs, scales = structure.unflatten(loc), structure.unflatten(scale)
            key: Any = numpyro.prng_key()
            noise = structure.unflatten(normal(key, loc.shape, loc.dtype))
            factors = {name: self._factor(name, structure.latents[name]) for name in weights}
            for name, (z, _) in factors.items():
                locs[name] = locs[name] * _along(z, locs[name].shape)
            values: dict[str, Any] = {n: locs[n] + scales[n] * noise[n] for n in locs}
            for name, transform in transforms(model, structure, values, x, y).items():
                q = dist.Normal(locs[name], scales[name]).to_event(values[name].ndim)
                if not isinstance(transform, bijections.IdentityTransform):
                    q = dist.TransformedDistribution(q, transform)
                placed: dict[str, Any] = {name: transform(values[name])}
                with substitute(data=placed):
                    numpyro.sample(name, q)
                if name in weights:
                    z, log_q = factors[name]
                    log_r = self._auxiliary(name, z, values[name])
                    paired = dist.Delta(z, log_q - log_r, event_dim=1)
                    numpyro.sample(f"{name}.z", paired, infer={"is_auxiliary": True})

        return guide

    def _factor(self, name: str, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Draw z, with log q(z)."""
        units = shape[_units(shape)]
        loc: Any = numpyro.param(f"{name}.z_loc", jnp.ones(units))
        scale: Any = numpyro.param(
            f"{name}.z_scale",
            jnp.full(units, _Z_SCALE),
            constraint=constraints.softplus_positive,
        )
        key: Any = numpyro.prng_key()
        noise = normal(key, (units,), loc.dtype)
        z, log_det = self._flow(f"{name}.q", loc + scale * noise)
        return z, (dist.Normal().log_prob(noise) - jnp.log(scale)).sum() - log_det

    def _auxiliary(self, name: str, z: Array, weights: Array) -> Array:
        """Evaluate log r(z | W)."""
        c: Any = numpyro.param(f"{name}.r_c", lambda key: jax.random.normal(key, z.shape))
        still = jnp.zeros(z.size)
        b1, b2, m, log_s = (
            jnp.asarray(numpyro.param(f"{name}.r_{part}", start))
            for part, start in (
                ("b1", still),
                ("b2", still),
                ("m", still + 1),
                ("log_s", still + math.log(_Z_SCALE)),
            )
        )
        rows = jnp.moveaxis(weights, _units(weights.shape), 0).reshape(z.size, -1)
        a = jnp.tanh(c @ rows).mean()
        back, log_det = self._flow(f"{name}.r", z)
        return dist.Normal(m + b1 * a, jnp.exp(log_s + b2 * a)).log_prob(back).sum() + log_det

    def _flow(self, name: str, z: Array) -> tuple[Array, Array]:
        """Apply a flow of couplings that starts at the identity; a single unit has none."""
        log_det = jnp.zeros((), z.dtype)
        moves = affine(limit=1.0)
        for i in range(self.num_flows if z.size > 1 else 0):
            mask = half(z.size, flip=i % 2 == 1)
            kept = int(mask.array.sum())
            net = mlp((z.size - kept) * moves.width, (self.hidden,), activation=jnp.tanh)
            network = haiku_module(f"{name}_{i}", net, jnp.zeros((1, kept)))
            coupling = Coupling(moves, lambda h, net=network: net(h[None])[0], mask)
            z, change = coupling.forward_and_log_det(z)
            log_det = log_det + change
        return z, log_det


def _units(shape: tuple[int, ...]) -> int:
    """Tell the axis of the units that have a factor: a matrix's inputs, a kernel's channels."""
    return -2 if len(shape) == 2 else -1


def _along(z: Array, shape: tuple[int, ...]) -> Array:
    return z[:, None] if _units(shape) == -2 else z
