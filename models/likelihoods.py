"""Likelihoods of a network's outputs: each declares the observed site ``y`` in the rows' plate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from ppbdl.errors import ModelError, require_positive
from ppbdl.types import Array


@dataclass(frozen=True)
class Normal:
    """y ~ N(f, noise^2); one output.

    Parameters
    ----------
    noise
        Standard deviation in the units of the fit, or None to learn it as the site ``noise``:
        its excess over `floor` has a half-normal prior of scale `scale`.
    scale, floor
        Scale of that prior, and the least noise.  A network that can pass through every point
        drives a free noise towards zero, where the posterior is too stiff to be explored.
    """

    noise: float | None = None
    scale: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        require_positive(noise=self.noise, scale=self.scale, floor=self.floor or None)

    def __call__(self, outputs: Array, y: Any = None) -> None:
        noise = self.noise
        if noise is None:
            excess = numpyro.sample("noise_excess", dist.HalfNormal(self.scale))
            noise = numpyro.deterministic("noise", self.floor + excess)
        _observe(dist.Normal(_columns(outputs, 1)[0], noise), y)


@dataclass(frozen=True)
class HeteroscedasticNormal:
    """y ~ N(f, softplus(g)^2): the noise depends on x; two outputs f, g.

    Nix and Weigend (1994); the aleatoric part of Kendall and Gal (2017), equation (5).
    """

    def __call__(self, outputs: Array, y: Any = None) -> None:
        mean, spread = _columns(outputs, 2)
        # A floor: with a bare softplus one interpolated point drives the density to infinity.
        _observe(dist.Normal(mean, 1e-3 + jax.nn.softplus(spread)), y)


@dataclass(frozen=True)
class Bernoulli:
    """y ~ Bernoulli(logit^-1(f)), y in {0, 1}; one output."""

    def __call__(self, outputs: Array, y: Any = None) -> None:
        _observe(dist.Bernoulli(logits=_columns(outputs, 1)[0]), y)


@dataclass(frozen=True)
class Categorical:
    """y ~ Categorical(softmax(f)), y in 0 .. classes - 1; one output a class.

    Parameters
    ----------
    classes
        Number of classes.
    """

    classes: int

    def __call__(self, outputs: Array, y: Any = None) -> None:
        logits = jnp.stack(_columns(outputs, self.classes), axis=-1)
        _observe(dist.Categorical(logits=logits), y)


@dataclass(frozen=True)
class Poisson:
    """y ~ Poisson(exp(f)), y = 0, 1, 2, ...; one output."""

    def __call__(self, outputs: Array, y: Any = None) -> None:
        _observe(dist.Poisson(jnp.exp(_columns(outputs, 1)[0])), y)


def _columns(outputs: Array, expected: int) -> list[Array]:
    if outputs.ndim != 2 or outputs.shape[1] != expected:
        raise ModelError(
            "net",
            expected=f"outputs of shape (rows, {expected}) for this likelihood",
            got=f"shape {outputs.shape}",
            remedy=f"End the network with {expected} unit(s).",
        )
    return [outputs[:, i] for i in range(expected)]


def _observe(fn: Any, y: Any) -> None:
    with numpyro.plate("data", fn.batch_shape[0]):
        numpyro.sample("y", fn, obs=y)
