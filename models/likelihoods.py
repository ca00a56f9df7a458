"""Likelihoods: what a network's outputs say of y.

Each makes the distribution of y from `outputs` numbers for each entry, on the last axis.  Called as
``likelihood(outputs, y)`` with (rows, numbers) it declares the observed site ``y`` in the plate of
the rows; an autoencoder asks for the distribution of (rows, *shape, numbers).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from ppbdl.errors import ModelError, require_positive
from ppbdl.flows import Affine, Flow, RationalQuadraticSpline, rational_quadratic
from ppbdl.types import Array


class Likelihood(ABC):
    """A distribution of y for each row of a network's outputs.

    Attributes
    ----------
    outputs
        How many numbers of the network it takes for each entry of y.
    """

    outputs: int = 1

    @abstractmethod
    def distribution(self, outputs: Array) -> Any:
        """Give the distribution of y, (...), from (..., outputs); it may declare sites."""

    def __call__(self, outputs: Array, y: Any = None) -> None:
        """Declare ``y``, (rows,), of a network's outputs, (rows, outputs)."""
        if outputs.ndim != 2 or outputs.shape[1] != self.outputs:
            raise ModelError(
                "net",
                expected=f"outputs of shape (rows, {self.outputs}) for this likelihood",
                got=f"shape {outputs.shape}",
                remedy=f"End the network with {self.outputs} unit(s).",
            )
        fn = self.distribution(outputs)
        with numpyro.plate("data", len(outputs)):
            numpyro.sample("y", fn, obs=y)


@dataclass(frozen=True)
class Normal(Likelihood):
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

    def distribution(self, outputs: Array) -> Any:
        noise = self.noise
        if noise is None:
            excess = numpyro.sample("noise_excess", dist.HalfNormal(self.scale))
            noise = numpyro.deterministic("noise", self.floor + excess)
        return dist.Normal(outputs[..., 0], noise)


@dataclass(frozen=True)
class HeteroscedasticNormal(Likelihood):
    """y ~ N(f, softplus(g)^2): the noise depends on x; two outputs f, g.

    Nix and Weigend (1994); the aleatoric part of Kendall and Gal (2017), equation (5).
    """

    outputs = 2

    def distribution(self, outputs: Array) -> Any:
        # A floor: with a bare softplus one interpolated point drives the density to infinity.
        return dist.Normal(outputs[..., 0], 1e-3 + jax.nn.softplus(outputs[..., 1]))


@dataclass(frozen=True)
class SplineNoise(Likelihood):
    """y = f + softplus(g) s(z), z ~ N(0, 1): noise of any shape, skewed or of several modes.

    s is a rational-quadratic spline on [-bound, bound] and the identity outside (Durkan et al.
    2019, *Neural Spline Flows*), whose ``3 bins - 1`` numbers are outputs too: the shape depends
    on x.  Outputs of zero give the normal distribution.  Standardise y.

    Parameters
    ----------
    bins, bound
        Of the spline.  The network ends with ``outputs`` units.

    Examples
    --------
    >>> import haiku as hk, numpy as np, ppbdl
    >>> from ppbdl.models import BNN
    >>> noise = SplineNoise(bins=4)
    >>> model = BNN(lambda x: hk.nets.MLP([10, noise.outputs])(x), likelihood=noise)
    >>> x = np.linspace(-1, 1, 50)[:, None]
    >>> y = np.where(np.arange(50) % 2, x[:, 0], -x[:, 0])
    >>> posterior = ppbdl.fit(0, model, ppbdl.Data(x, y), ppbdl.MAP(steps=100), progress=False)
    >>> ppbdl.predict(1, model, posterior, x[:3]).sd.shape
    (3,)
    """

    bins: int = 8
    bound: float = 3.0

    def __post_init__(self) -> None:
        rational_quadratic(self.bins, self.bound)  # which looks at both

    @property
    def outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How many numbers for each row: f, g and the spline's."""
        return 3 * self.bins + 1

    def distribution(self, outputs: Array) -> Any:
        spline = RationalQuadraticSpline(outputs[..., 2:], self.bound)
        spread = 1e-3 + jax.nn.softplus(outputs[..., 1])
        base = dist.Normal(0.0, 1.0).expand(outputs.shape[:-1])
        return _Moved(base, [spline, Affine(outputs[..., 0], jnp.log(spread))])


class _Moved(Flow):
    """A flow of one standard normal number, with moments by the trapezoidal rule over z.

    The rule's error falls faster than any power of the step for smooth integrands; the corners of
    the spline's derivative leave up to some thousandths of the variance.
    """

    @property
    def mean(self) -> Array:
        return self._expect(lambda y: y)

    @property
    def variance(self) -> Array:
        mean = self.mean
        return self._expect(lambda y: (y - mean) ** 2)

    def _expect(self, of: Callable[[Array], Array]) -> Array:
        z = jnp.linspace(-8.0, 8.0, 161)[:, None]
        weight = jax.nn.softmax(-(z**2) / 2, axis=0)
        return (weight * of(self.forward(jnp.broadcast_to(z, (161, *self.batch_shape))))).sum(0)


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """y ~ Bernoulli(logit^-1(f)), y in {0, 1}; one output."""

    def distribution(self, outputs: Array) -> Any:
        return dist.Bernoulli(logits=outputs[..., 0])


@dataclass(frozen=True)
class Categorical(Likelihood):
    """y ~ Categorical(softmax(f)), y in 0 .. classes - 1; one output a class.

    Parameters
    ----------
    classes
        Number of classes.
    """

    classes: int

    @property
    def outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As many as there are classes."""
        return self.classes

    def distribution(self, outputs: Array) -> Any:
        return dist.Categorical(logits=outputs)


@dataclass(frozen=True)
class Poisson(Likelihood):
    """y ~ Poisson(exp(f)), y = 0, 1, 2, ...; one output."""

    def distribution(self, outputs: Array) -> Any:
        return dist.Poisson(jnp.exp(outputs[..., 0]))
