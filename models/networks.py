"""Pairs of networks for autoencoders: from a row of y to numbers, and from a code to y's shape.

Each makes plain Haiku functions; anything else with these two methods will do as well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import haiku as hk
import jax
import jax.numpy as jnp

from ppbdl.errors import InputError, require_whole
from ppbdl.types import Array

Network = Callable[..., Array]
_kept = functools.lru_cache(maxsize=64)  # equal settings give one function: it is traced once


@dataclass(frozen=True)
class Dense:
    """Dense layers, mirrored in the decoder.

    Parameters
    ----------
    hidden
        Units of the encoder's hidden layers.
    activation
        Of every hidden layer.
    """

    hidden: tuple[int, ...] = (200, 200)
    activation: Callable[[Array], Array] = jnp.tanh

    @_kept
    def encoder(self, numbers: int) -> Network:
        """Make (rows, ...), or several of them -> (rows, numbers)."""

        def network(*rows: Array) -> Array:
            h = jnp.concatenate([jnp.reshape(part, (len(part), -1)) for part in rows], axis=-1)
            return hk.nets.MLP([*self.hidden, numbers], activation=self.activation)(h)

        return network

    @_kept
    def decoder(self, shape: tuple[int, ...], numbers: int) -> Network:
        """Make (rows, latent) -> (rows, *shape, numbers)."""

        def network(z: Array) -> Array:
            units = [*self.hidden[::-1], math.prod(shape) * numbers]
            return hk.nets.MLP(units, activation=self.activation)(z).reshape(-1, *shape, numbers)

        return network


@dataclass(frozen=True)
class Convolutional:
    """Convolutions of stride 2 and a dense layer, mirrored in the decoder; for (h, w, channels).

    Parameters
    ----------
    channels
        Of the convolutions, each of which halves the image: the sides divisible by 2 for each.
    units
        Of the dense layer.
    """

    channels: tuple[int, ...] = (32, 64)
    units: int = 256

    def __post_init__(self) -> None:
        require_whole(units=self.units)

    @_kept
    def encoder(self, numbers: int) -> Network:
        """Make (rows, h, w, channels), and more of them or vectors -> (rows, numbers)."""

        def network(y: Array, *more: Array) -> Array:
            self._coarse(y.shape[1:])
            y = jnp.concatenate([y, *(_maps(part, y.shape[1:3]) for part in more)], axis=-1)
            for channels in self.channels:
                y = jax.nn.relu(hk.Conv2D(channels, 3, stride=2)(y))
            h = jax.nn.relu(hk.Linear(self.units)(y.reshape(len(y), -1)))
            return hk.Linear(numbers)(h)

        return network

    @_kept
    def decoder(self, shape: tuple[int, ...], numbers: int) -> Network:
        """Make (rows, latent) -> (rows, *shape, numbers)."""
        height, width = self._coarse(shape)

        def network(z: Array) -> Array:
            h = jax.nn.relu(hk.Linear(self.units)(z))
            h = jax.nn.relu(hk.Linear(height * width * self.channels[-1])(h))
            h = h.reshape(-1, height, width, self.channels[-1])
            for channels in self.channels[-2::-1]:
                h = jax.nn.relu(hk.Conv2DTranspose(channels, 3, stride=2)(h))
            h = hk.Conv2DTranspose(shape[2] * numbers, 3, stride=2)(h)
            return h.reshape(-1, *shape, numbers)

        return network

    def _coarse(self, shape: tuple[int, ...]) -> tuple[int, int]:
        times = 2 ** len(self.channels)
        if len(shape) != 3 or shape[0] % times or shape[1] % times:
            raise InputError(
                "shape",
                expected=f"images (height, width, channels), the sides divisible by {times}",
                got=str(shape),
                remedy="Pad the images, take fewer convolutions, or Dense().",
            )
        return shape[0] // times, shape[1] // times


def _maps(part: Array, sides: tuple[int, ...]) -> Array:
    """Give images (rows, *sides, k) as they are, and spread vectors (rows, k) over such."""
    if part.ndim == 2:
        return jnp.broadcast_to(part[:, None, None], (len(part), *sides, part.shape[1]))
    if part.shape[1:3] != sides:
        raise InputError(
            "given",
            expected=f"images of {sides} pixels, as those of y, or vectors",
            got=f"shape {part.shape[1:]}",
            remedy="Crop or scale the images of x, or take Dense().",
        )
    return part
