"""What a code may be distributed as: q(z | y) of an encoder's numbers, and the prior p(z).

A posterior tells how many numbers it wants of the encoder for each row, and makes a distribution
of them; a prior makes one of its own parameters, which are learned with the networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import scope

from ppbdl.errors import require_whole
from ppbdl.flows import Affine, Flow
from ppbdl.types import Array

_LIMIT = 7.0  # of a log scale: a step that throws the encoder off overflows without a bound


class CodePosterior(Protocol):
    """q(z | y): `numbers` of the encoder for each row, and the distribution that they make."""

    def numbers(self, latent: int) -> int: ...

    def build(self, raw: Array, latent: int) -> Any: ...


class CodePrior(Protocol):
    """p(z): declares its parameters, and gives the distribution of one code."""

    def build(self, latent: int, shape: tuple[int, ...], encode: Callable[[Array], Any]) -> Any: ...


@dataclass(frozen=True)
class DiagonalNormal:
    """q(z | y) = N(m(y), diag(s(y)^2)): Kingma and Welling (2014), equation 9."""

    def numbers(self, latent: int) -> int:
        return 2 * latent

    def build(self, raw: Array, latent: int) -> Any:
        loc, log_scale = raw[..., :latent], bounded(raw[..., latent:])
        return dist.Normal(loc, jnp.exp(log_scale)).to_event(1)


@dataclass(frozen=True)
class FullNormal:
    """q(z | y) = N(m(y), L(y) L(y)'): Kingma and Welling (2019), *An Introduction*, section 2.5.1.

    L has s(y) on its diagonal, and the numbers below it are free.
    """

    def numbers(self, latent: int) -> int:
        return 2 * latent + latent * (latent - 1) // 2

    def build(self, raw: Array, latent: int) -> Any:
        loc, log_scale = raw[..., :latent], bounded(raw[..., latent : 2 * latent])
        rows, columns = jnp.tril_indices(latent, -1)
        below = jnp.zeros((*raw.shape[:-1], latent, latent))
        below = below.at[..., rows, columns].set(raw[..., 2 * latent :])
        tril = below + jnp.exp(log_scale)[..., None] * jnp.eye(latent)
        return dist.MultivariateNormal(loc, scale_tril=tril)


@dataclass(frozen=True)
class FlowPosterior:
    """q(z | y): a flow that the encoder steers, then its mean and standard deviation.

    Rezende and Mohamed (2015) for `PlanarFlow`, Kingma et al. (2016) for `IAF`.  The flow starts
    near the identity, so that q starts near `DiagonalNormal`.

    Parameters
    ----------
    density
        From a number of features to a flow of `ppbdl.models`: ``IAF``, or
        ``functools.partial(PlanarFlow, layers=8)``.
    context
        Numbers of the encoder that every layer of the flow sees.
    """

    density: Callable[[int], Any]
    context: int = 32

    def __post_init__(self) -> None:
        require_whole(context=self.context)

    def numbers(self, latent: int) -> int:
        return 2 * latent + self.context

    def build(self, raw: Array, latent: int) -> Any:
        loc, log_scale = raw[..., :latent], bounded(raw[..., latent : 2 * latent])
        with scope(prefix="posterior", divider="."):
            flow = self.density(latent).flow(raw[..., 2 * latent :])
        return Flow(flow.base_dist, [*flow.transforms, Affine(loc, log_scale)])


@dataclass(frozen=True)
class StandardNormal:
    """p(z) = N(0, I)."""

    def build(self, latent: int, shape: tuple[int, ...], encode: Callable[[Array], Any]) -> Any:
        return dist.Normal(0.0, 1.0).expand([latent]).to_event(1)


@dataclass(frozen=True)
class MixturePrior:
    """p(z) = sum_k w_k N(m_k, diag(s_k^2)), all learned; the centres start apart, at random.

    Parameters
    ----------
    components
        Their number.
    """

    components: int = 10

    def __post_init__(self) -> None:
        require_whole(components=self.components)

    def build(self, latent: int, shape: tuple[int, ...], encode: Callable[[Array], Any]) -> Any:
        def start(key: Any) -> dict[str, Array]:
            return {
                "logits": jnp.zeros(self.components),
                "locs": jax.random.normal(key, (self.components, latent)),
                "log_scales": jnp.zeros((self.components, latent)),
            }

        own: Any = numpyro.param("prior$params", start)
        each = dist.Normal(own["locs"], jnp.exp(bounded(own["log_scales"]))).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=own["logits"]), each)


@dataclass(frozen=True)
class VampPrior:
    """p(z) = mean over k of q(z | u_k): Tomczak and Welling (2018), *VAE with a VampPrior*.

    The pseudo-inputs u_k, of the shape of a row of y and between 0 and 1, are learned.

    Parameters
    ----------
    components
        Number of pseudo-inputs.
    """

    components: int = 100

    def __post_init__(self) -> None:
        require_whole(components=self.components)

    def build(self, latent: int, shape: tuple[int, ...], encode: Callable[[Array], Any]) -> Any:
        def start(key: Any) -> Array:
            return 0.5 * jax.random.normal(key, (self.components, *shape)) - 1.0

        raw: Any = numpyro.param("prior$params", start)
        weights = dist.Categorical(logits=jnp.zeros(self.components))
        return dist.MixtureSameFamily(weights, encode(jax.nn.sigmoid(raw)))


@dataclass(frozen=True)
class FlowPrior:
    """p(z): a flow (Chen et al. 2017, *Variational Lossy Autoencoder*, section 3.2).

    Parameters
    ----------
    density
        From a number of features to a flow of `ppbdl.models`, such as ``RealNVP``.
    """

    density: Callable[[int], Any]

    def build(self, latent: int, shape: tuple[int, ...], encode: Callable[[Array], Any]) -> Any:
        with scope(prefix="prior", divider="."):
            return self.density(latent).flow(jnp.zeros((1, 0)))


def bounded(log_scale: Array) -> Array:
    return _LIMIT * jnp.tanh(log_scale / _LIMIT)


def moments(fn: Any) -> tuple[Array, Array]:
    """Give the mean and variance of each dimension of a code: of 256 draws where there is no
    closed form."""
    try:
        return fn.mean, fn.variance
    except NotImplementedError:  # by which NumPyro tells that it has none
        draws = fn.sample(jax.random.key(0), (256,))
        return draws.mean(0), draws.var(0)
