"""Couplings: some elements of an event move by an amount that the others decide.

    y_kept = x_kept,    y_moved = tau(x_moved; c(x_kept)),

with tau of any `Transformer`: Dinh et al. (2015, 2017), *NICE* and *RealNVP*, Durkan et al.
(2019), *Neural Spline Flows*.  Both directions cost one pass of the conditioner c, and the Jacobian
is triangular.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from ..errors import InputError
from ..types import Array
from .bijection import Bijection
from .masks import Mask
from .transformers import Transformer


class Coupling(Bijection):
    """A coupling of vectors, or of images (height, width, channels).

    Parameters
    ----------
    transformer
        `additive`, `affine` or `rational_quadratic`.
    conditioner
        Maps the kept elements to the transformer's numbers, ``transformer.width`` for each moved
        element, in a row on the last axis.  With a mask of the last axis alone, `half` or
        `channel`, it maps (..., kept) to (..., moved * width).  With any other it sees whole
        events with zeros for what is moved, and gives numbers for all: (..., size * width).
    mask
        What is kept: `half`, `channel`, `checkerboard`, or any `Mask`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ppbdl.flows import additive, half
    >>> coupling = Coupling(additive(), lambda kept: 10 * kept, half(2))
    >>> coupling(jnp.array([1.0, 2.0])).tolist()
    [1.0, 12.0]
    """

    def __init__(self, transformer: Transformer, conditioner: Callable[[Array], Array], mask: Mask):
        self.transformer, self.conditioner, self.mask = transformer, conditioner, mask

    @property
    def domain(self) -> Any:
        return dist.constraints.independent(dist.constraints.real, len(self.mask.shape))

    codomain = domain

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        return self._apply(x, backwards=False)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        return self._apply(y, backwards=True)

    def _apply(self, x: Array, backwards: bool) -> tuple[Array, Array]:
        x = jnp.asarray(x)
        self._require_event(x.shape)
        dims, mask = len(self.mask.shape), self.mask.array
        cut = _cut(mask)
        if cut is None:
            kept, moved = jnp.where(mask, x, 0.0), x
        else:  # one end of the last axis is kept: slices, with nothing computed in vain
            first, second = jnp.split(x, [cut], axis=-1)
            kept, moved = (first, second) if mask.flat[0] else (second, first)
        bijection = self.transformer.build(self._numbers(kept, moved))
        fused = bijection.inverse_and_log_det if backwards else bijection.forward_and_log_det
        moved, log_det = fused(moved)
        log_det = jnp.broadcast_to(log_det, moved.shape)
        if cut is None:
            y, log_det = jnp.where(mask, x, moved), jnp.where(mask, 0.0, log_det)
        else:
            y = jnp.concatenate((kept, moved) if mask.flat[0] else (moved, kept), axis=-1)
        return y, log_det.sum(range(-dims, 0))

    def _numbers(self, kept: Array, moved: Array) -> Array:
        width, raw = self.transformer.width, self.conditioner(kept)
        if raw.shape[-1] != moved.shape[-1] * width:
            raise InputError(
                "conditioner",
                expected=f"{moved.shape[-1] * width} outputs: {moved.shape[-1]} moved elements of "
                f"the last axis, with {width} numbers each",
                got=f"shape {raw.shape} from an input of shape {kept.shape}",
                remedy="Size its last layer to the mask and the transformer.",
            )
        return raw.reshape(*raw.shape[:-1], moved.shape[-1], width)

    def _require_event(self, shape: tuple[int, ...]) -> None:
        mask = self.mask.shape
        event = shape[-len(mask) :]
        if len(event) < len(mask) or any(m not in (1, n) for m, n in zip(mask, event, strict=True)):
            raise InputError(
                "x",
                expected=f"events that the mask of shape {mask} fits",
                got=f"shape {shape}",
                remedy="Make the mask for the event's shape.",
            )


def _cut(mask: np.ndarray) -> int | None:
    """Tell where the last axis is cut in two, if the mask is one of its ends."""
    changes = np.flatnonzero(np.diff(mask.ravel()))
    return int(changes[0]) + 1 if mask.size == mask.shape[-1] and changes.size == 1 else None
