"""Densities by normalizing flows: equal layers, each of which a network steers.

    z ~ N(0, I),    y = f(... f(z; c_1, x) ...; c_L, x)

With a context, x of some width, it is a conditional density p(y | x): every network sees x.

Without a prior the networks' weights are parameters, and `MAP` is maximum likelihood.  With one
they are random variables, and so is the density: `SVI`, `Laplace`, SG-MCMC and ensembles then tell
how far it is known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from ppbdl.errors import InputError, require_positive, require_whole
from ppbdl.flows import Affine, Bijection, Chain, Flow, Repeat
from ppbdl.module import Prior, haiku_module, random_haiku_module
from ppbdl.posterior import Posterior, at_draw, one_draw
from ppbdl.prediction import inputs_of
from ppbdl.types import Array


def fitted_flow(
    self: Any,
    posterior: Posterior,
    x: Any = None,
    *,
    chain: int = 0,
    draw: int = 0,
    temperature: float = 1.0,
) -> Flow:
    """Give the fitted flow as a distribution in the user's units: to sample, score, map.

    Parameters
    ----------
    self
        A model that declares a flow, by ``flow(x)``; it has this function as its method `fitted`.
    posterior
        What `fit` gave for this model.
    x
        The contexts, (rows, k), in the user's units; None without any.
    chain, draw
        Which draw of the weights.
    temperature
        Standard deviation of the base: below 1 the samples are more typical, and vary less
        (Kingma and Dhariwal 2018, section 6).
    """
    require_positive(temperature=temperature)
    x = inputs_of(posterior, np.zeros((1, 0)) if x is None else x)
    flow: Any = at_draw(self.flow, one_draw(posterior, chain, draw))(x)
    shape, event = flow.base_dist.shape(), len(flow.base_dist.event_shape)
    base = dist.Normal(0.0, temperature).expand(shape).to_event(event)
    scaling, back = posterior.scaling, []
    if scaling is not None and scaling.y_mean is not None:
        back = [Affine(jnp.asarray(scaling.y_mean), jnp.log(jnp.asarray(scaling.y_sd)))]
    return Flow(base, [*flow.transforms, *back])


@dataclass(frozen=True, eq=False)
class FlowDensity(ABC):
    """A density over vectors, of which the subclasses choose the layer.

    Parameters
    ----------
    features
        Width of y, (rows, features).
    layers, width
        Number of layers, and units of the two hidden layers of each one's network.
    prior
        The weights' prior, as for `random_haiku_module`; None makes them parameters.
    """

    features: int
    layers: int
    width: int = 64
    prior: Prior | None = None

    def __post_init__(self) -> None:
        require_whole(features=self.features, layers=self.layers, width=self.width)

    @abstractmethod
    def conditioner(self, context: int) -> tuple[Callable[..., Any], int]:
        """Give one layer's network, a Haiku function of (h) or of (h, context), and h's width."""

    @abstractmethod
    def bijection(self, net: Callable[[Array], Any]) -> Bijection:
        """Give one layer, from z towards y, of its network with the weights and context in."""

    def orders(self) -> np.ndarray | None:
        """Give the order of features after each layer, (layers, features), if it changes it."""
        return None

    def flow(self, x: Any) -> Flow:
        """Declare the networks, inside a NumPyro program, and give the distribution of y.

        Parameters
        ----------
        x
            (rows, 0) for one density of all rows, or (rows, k) for a density given the context.
        """
        given = context_of(x)
        network, kept = self.conditioner(sum(c.shape[1] for c in given))
        nets = declared("flow", network, self.prior, (kept,), given, copies=self.layers)

        def layer(part: tuple[Callable[..., Any], Array | None]) -> Bijection:
            net, order = part
            bijection = self.bijection(lambda h: net(h, *given))
            moved = [] if order is None else [dist.transforms.PermuteTransform(order)]
            return Chain([bijection, *moved])

        orders = self.orders()
        parts = nets, None if orders is None else jnp.asarray(orders)
        return Flow(standard((self.features,), given), [Repeat(layer, parts)])

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare the model: the weights, and ``y`` of shape (rows, features)."""
        flow = self.flow(x)
        if y is not None and jnp.shape(y)[1:] != (self.features,):
            raise InputError(
                "y",
                expected=f"shape (rows, {self.features}), the density's features",
                got=f"shape {jnp.shape(y)}",
                remedy="Make the model for the width of y; a single feature needs y[:, None].",
            )
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", flow, obs=y)

    fitted = fitted_flow


def standard(event: tuple[int, ...], given: tuple[Array, ...]) -> dist.Distribution:
    """Give N(0, I) of events of a shape: one for all rows, or with a context one for each."""
    rows = [len(context) for context in given]
    return dist.Normal(0.0, 1.0).expand([*rows, *event]).to_event(len(event))


def context_of(x: Any) -> tuple[Array, ...]:
    """Give the context for a network's arguments: none of them, if x has the shape (rows, 0)."""
    if jnp.ndim(x) != 2:
        raise InputError(
            "x",
            expected="a context of shape (rows, k), or (rows, 0) for none",
            got=f"shape {jnp.shape(x)}",
            remedy="Flatten the context, or embed it with a network of your own.",
        )
    return (jnp.asarray(x),) if x.shape[1] else ()


def declared(
    name: str,
    network: Any,
    prior: Prior | None,
    shape: tuple[int, ...],
    given: tuple[Array, ...],
    copies: int | None = None,
) -> Callable[..., Any]:
    """Declare a conditioner, or copies of it, that sees one event of `shape` and the context."""
    shown = [
        jax.ShapeDtypeStruct((1, *each), jnp.result_type(float))
        for each in (shape, *(context.shape[1:] for context in given))
    ]
    if prior is None:
        return haiku_module(name, network, *shown, copies=copies)
    return random_haiku_module(name, network, prior, *shown, copies=copies)
