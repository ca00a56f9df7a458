"""Images, (height, width, channels): pixels traded for channels, and scales split off.

A multi-scale flow (Dinh et al. 2017, section 3.6; Kingma and Dhariwal 2018, section 2) lets half
of the channels be after each scale, and goes on with the others.  Here the base has the shape of
the image, and a scale is a bijection within: ``Split(Chain([Squeeze(), ..., Squeeze().inv]))``.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from numpyro import distributions as dist
from numpyro.distributions.util import sum_rightmost

from ..errors import InputError
from ..types import Array
from .bijection import Bijection

_IMAGE: Any = dist.constraints.independent(dist.constraints.real, 3)


class Squeeze(Bijection):
    """Each block of 2 x 2 pixels becomes one pixel of four times the channels.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Squeeze()(jnp.zeros((8, 6, 3))).shape
    (4, 3, 12)
    """

    domain = codomain = _IMAGE

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        *batch, h, w, c = self.forward_shape(x.shape)
        blocks = x.reshape(*batch, h, 2, w, 2, c // 4)
        return jnp.moveaxis(blocks, -4, -3).reshape(*batch, h, w, c), jnp.zeros(batch, x.dtype)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        *batch, h, w, c = self.inverse_shape(y.shape)
        blocks = y.reshape(*batch, h // 2, w // 2, 2, 2, c)
        return jnp.moveaxis(blocks, -3, -4).reshape(*batch, h, w, c), jnp.zeros(batch, y.dtype)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        *batch, h, w, c = _require(shape, lambda h, w, c: h % 2 == w % 2 == 0, "even sides")
        return (*batch, h // 2, w // 2, 4 * c)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        *batch, h, w, c = _require(shape, lambda h, w, c: c % 4 == 0, "a multiple of 4 channels")
        return (*batch, 2 * h, 2 * w, c // 4)


class Split(Bijection):
    """Apply a bijection to the second half of the channels; let the first ``channels // 2`` be.

    Parameters
    ----------
    bijection
        Of images, and of the same shape out as in.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ppbdl.flows import Affine
    >>> Split(Affine(1.0, 0.0))(jnp.zeros((1, 1, 3))).ravel().tolist()
    [0.0, 1.0, 1.0]
    """

    arrays = ("bijection",)
    domain = codomain = _IMAGE

    def __init__(self, bijection: Bijection):
        self.bijection = bijection

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        return self._apply(x, self.bijection)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        return self._apply(y, self.bijection.inv)

    def _apply(self, x: Array, bijection: Bijection) -> tuple[Array, Array]:
        idle, moved = jnp.split(x, [x.shape[-1] // 2], axis=-1)
        if bijection.forward_shape(moved.shape) != moved.shape:
            raise InputError(
                "bijection",
                expected=f"one that keeps the shape {moved.shape}",
                got=f"shape {bijection.forward_shape(moved.shape)}",
                remedy="End it with Squeeze().inv.",
            )
        moved, log_det = bijection.forward_and_log_det(moved)
        log_det = sum_rightmost(log_det, 3 - bijection.domain.event_dim)
        return jnp.concatenate([idle, moved], axis=-1), log_det


def _require(shape: tuple[int, ...], fits: Any, what: str) -> tuple[int, ...]:
    if len(shape) < 3 or not fits(*shape[-3:]):
        raise InputError(
            "x",
            expected=f"images (height, width, channels) with {what}",
            got=f"shape {shape}",
            remedy="Pad or crop the images.",
        )
    return shape
