"""A code of two layers: the upper one says where the lower one may lie.

    z = (t, b),    t ~ N(0, I),    b ~ N(m(t), s(t)^2)

The encoder corrects what the upper layer says of the lower, weighed by precisions (Sonderby et al.
2016, *Ladder Variational Autoencoders*, equations 17 to 19):

    q(b | t, y) = N((m / s^2 + n / r^2) v, v),    v = 1 / (1 / s^2 + 1 / r^2),

with n(y), r(y) of the encoder.  The network of m and s is one and the same in prior and posterior.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
from numpyro import distributions as dist

from ppbdl.errors import InputError, require_whole
from ppbdl.module import haiku_module
from ppbdl.types import Array

from .codes import bounded


@dataclass(frozen=True)
class LadderPosterior:
    """q(t | y) q(b | t, y), the guide of a `LadderPrior` of the same settings.

    Parameters
    ----------
    top
        Dimension of the upper layer t: the first of the code's.
    width
        Units of the hidden layer of the networks between the two.
    """

    top: int
    width: int = 64

    def __post_init__(self) -> None:
        require_whole(top=self.top, width=self.width)

    def numbers(self, latent: int) -> int:
        return 2 * (latent - self.top) + self.width

    def build(self, raw: Array, latent: int) -> Any:
        bottom = _bottom(self.top, latent)
        loc, log_scale, hidden = jnp.split(raw, [bottom, 2 * bottom], axis=-1)
        rise = haiku_module("rise", _network(self.width, 2 * self.top), hidden[:1])
        guess, descend = _normal(rise(hidden)), _descend(self.width, self.top, bottom)
        precision = jnp.exp(-2 * bounded(log_scale))

        def below(t: Array) -> dist.Distribution:
            said: Any = descend(t)
            weight = said.scale**-2
            variance = 1 / (weight + precision)
            mean = variance * (weight * said.loc + precision * loc)
            return dist.Normal(mean, jnp.sqrt(variance)).to_event(1)

        return _Ladder(guess.to_event(1), below, latent)


@dataclass(frozen=True)
class LadderPrior:
    """p(t) p(b | t), to go with a `LadderPosterior` of the same settings.

    Parameters
    ----------
    top, width
        As for `LadderPosterior`.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> from ppbdl.models import VAE, Dense, Normal
    >>> y = np.random.default_rng(0).normal(size=(64, 4))
    >>> codes = {"posterior": LadderPosterior(top=1), "prior": LadderPrior(top=1)}
    >>> vae = VAE((4,), latent=3, likelihood=Normal(1.0), networks=Dense((16,)), **codes)
    >>> svi = ppbdl.SVI(vae.guide, steps=20, draws=1)
    >>> posterior = ppbdl.fit(0, vae, ppbdl.Data(None, y), svi, progress=False)
    >>> vae.encode(posterior, y).sample(ppbdl.types.as_key(1)).shape
    (64, 3)
    """

    top: int
    width: int = 64

    def __post_init__(self) -> None:
        require_whole(top=self.top, width=self.width)

    def build(self, latent: int, shape: tuple[int, ...], encode: Callable[[Array], Any]) -> Any:
        descend = _descend(self.width, self.top, _bottom(self.top, latent))
        start = dist.Normal(0.0, 1.0).expand([self.top]).to_event(1)
        return _Ladder(start, lambda t: descend(t).to_event(1), latent)


class _Ladder(dist.Distribution):
    """t ~ top, b ~ below(t), as one vector (t, b)."""

    support: Any = dist.constraints.real_vector

    def __init__(self, top: Any, below: Callable[[Array], Any], latent: int):
        self.top, self.below = top, below
        super().__init__(top.batch_shape, (latent,))

    @property
    def has_rsample(self) -> bool:
        return True

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        keys = jax.random.split(key)
        t = self.top.sample(keys[0], sample_shape)
        return jnp.concatenate([t, self.below(t).sample(keys[1])], axis=-1)

    def log_prob(self, value: Array) -> Array:
        t, b = jnp.split(value, [self.top.event_shape[0]], axis=-1)
        return self.top.log_prob(t) + self.below(t).log_prob(b)


def _descend(width: int, top: int, bottom: int) -> Callable[[Array], dist.Normal]:
    shown = jax.ShapeDtypeStruct((1, top), jnp.result_type(float))
    network = haiku_module("descend", _network(width, 2 * bottom), shown)
    return lambda t: _normal(network(t))


def _normal(raw: Array) -> dist.Normal:
    loc, log_scale = jnp.split(raw, 2, axis=-1)
    return dist.Normal(loc, jnp.exp(bounded(log_scale)))


@functools.lru_cache(maxsize=64)
def _network(width: int, numbers: int) -> Callable[[Array], Array]:
    return lambda h: hk.nets.MLP([width, numbers], activation=jnp.tanh)(h)


def _bottom(top: int, latent: int) -> int:
    if top >= latent:
        raise InputError(
            "top",
            expected=f"fewer than the code's {latent} dimensions",
            got=str(top),
            remedy="Leave some to the lower layer, or raise latent.",
        )
    return latent - top
