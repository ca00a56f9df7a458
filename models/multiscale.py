"""Multi-scale flows of images: couplings at one resolution, then at half of it, and so on.

A level squeezes 2 x 2 pixels into channels; before that, on the way from z to y, half of the
channels have come through the next level, and the other half straight from z (Dinh et al. 2017,
*Density Estimation using Real NVP*, section 3.6).

For pixels put a model in `Dequantized`; alone it is a density of images of real numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpyro

from ppbdl.errors import InputError, require_whole
from ppbdl.flows import (
    Affine,
    Bijection,
    Chain,
    Coupling,
    Flow,
    Mask,
    Split,
    Squeeze,
    actnorm_start,
    affine,
    cnn,
)
from ppbdl.module import Prior
from ppbdl.types import Array

from .density import context_of, declared, fitted_flow, standard


@dataclass(frozen=True)
class Arrival:
    """How the data arrive at a layer, on their way from y to z.

    Attributes
    ----------
    h
        Images of the layer's shape.
    known
        Whether they are data, at which normalisations start; otherwise h shows a shape only.
    given
        The context, if there is one.
    """

    h: Array
    known: bool
    given: tuple[Array, ...]

    def through(self, bijection: Callable[[Array], Array]) -> Arrival:
        return Arrival(bijection(self.h), self.known, self.given)


@dataclass(frozen=True, eq=False)
class MultiscaleFlow(ABC):
    """A density over images, of which the subclasses choose the layers.

    Parameters
    ----------
    shape
        (height, width, channels) of y; the sides divisible by 2 ** levels.
    levels, steps
        Scales, and steps in each.
    width
        Channels of the two hidden layers of each step's convolutional network.
    prior
        Of these networks' weights, as for `random_haiku_module`; None makes them parameters, as
        all else always is.
    """

    shape: tuple[int, int, int]
    levels: int = 2
    steps: int = 4
    width: int = 64
    prior: Prior | None = None

    def __post_init__(self) -> None:
        require_whole(levels=self.levels, steps=self.steps, width=self.width)
        if len(self.shape) != 3 or any(n % 2**self.levels for n in self.shape[:2]):
            raise InputError(
                "shape",
                expected=f"(height, width, channels), the sides divisible by {2**self.levels}",
                got=str(self.shape),
                remedy="Take fewer levels, or pad the images.",
            )

    @abstractmethod
    def fine(self, level: int, at: Arrival) -> tuple[list[Bijection], Arrival]:
        """Declare a level's layers before its squeeze, from z to y, and how data leave them."""

    @abstractmethod
    def coarse(self, level: int, at: Arrival) -> tuple[list[Bijection], Arrival]:
        """Declare the layers after the squeeze."""

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare the model: the parameters, and ``y`` of shape (rows, *shape)."""
        if y is not None and jnp.shape(y)[1:] != self.shape:
            raise InputError(
                "y",
                expected=f"images of shape {self.shape}",
                got=f"shape {jnp.shape(y)[1:]}",
                remedy="Reshape the data, with channels last.",
            )
        flow = self.flow(x, y)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", flow, obs=y)

    def flow(self, x: Any, y: Any = None) -> Flow:
        """Declare the parameters, inside a NumPyro program, and give the distribution of y.

        Parameters
        ----------
        x
            (rows, 0) for one density of all rows, or (rows, k) for a density given the context.
        y
            Images at which the normalisations start; without them they start as the identity.
        """
        given = context_of(x)
        h = jnp.zeros((1, *self.shape)) if y is None else jnp.asarray(y)
        return Flow(standard(self.shape, given), [self._level(0, Arrival(h, y is not None, given))])

    def _level(self, level: int, at: Arrival) -> Bijection:
        fine, at = self.fine(level, at)
        coarse, at = self.coarse(level, at.through(Squeeze()))
        inner: list[Bijection] = []
        if level + 1 < self.levels:
            half = at.through(lambda h: h[..., h.shape[-1] // 2 :])
            inner.append(Split(self._level(level + 1, half)))
        return Chain([Squeeze(), *inner, *coarse, Squeeze().inv, *fine])

    def normalisation(self, name: str, at: Arrival) -> tuple[Affine, Arrival]:
        """Declare an affine map of each channel, which starts by standardising the data."""
        channels = at.h.shape[-1]

        def start(_: Any) -> dict[str, Array]:
            zeros = jnp.zeros(channels)
            return actnorm_start(at.h) if at.known else {"loc": zeros, "log_scale": zeros}

        norm = Affine(**param(f"norm_{name}", start))
        return norm, at.through(norm.inv)

    def coupling(self, name: str, mask: Mask, at: Arrival) -> Coupling:
        """Declare an affine coupling with a convolutional network.

        It starts as the identity, so that the data leave it as they arrive.
        """
        channels, moves = at.h.shape[-1], affine()
        by_channel = mask.shape[:2] == (1, 1)
        kept = int(mask.array.sum()) if by_channel else channels
        outputs = (channels - kept if by_channel else channels) * moves.width
        network = cnn(outputs, self.width, sum(c.shape[1] for c in at.given))
        shape = (*at.h.shape[-3:-1], kept)
        net = declared(f"net_{name}", network, self.prior, shape, at.given)
        return Coupling(moves, lambda kept: net(kept, *at.given), mask)

    fitted = fitted_flow


def param(name: str, start: Callable[[Any], Any]) -> Any:
    return numpyro.param(f"{name}$params", start)
