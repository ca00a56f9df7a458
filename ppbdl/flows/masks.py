"""Which elements of an event a coupling keeps, and which it moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class Mask:
    """True where an element is kept; axes of length 1 stand for any length.

    Parameters
    ----------
    shape
        (features,) for vectors; for images any of (1 or height, 1 or width, 1 or channels).
    kept
        The mask's elements in C order.

    Raises
    ------
    InputError
        If nothing is kept, or nothing is moved.
    """

    shape: tuple[int, ...]
    kept: tuple[bool, ...]

    def __post_init__(self) -> None:
        if all(self.kept) or not any(self.kept):
            raise InputError(
                "mask",
                expected="some elements that are kept and some that are moved",
                got=f"{sum(self.kept)} of {len(self.kept)} kept",
                remedy="A coupling needs at least two elements.",
            )

    @classmethod
    def of(cls, kept: np.ndarray) -> Mask:
        """Take any array of booleans."""
        kept = np.asarray(kept)
        if kept.dtype != bool or kept.ndim not in (1, 3):
            raise InputError(
                "mask",
                expected="booleans, of one axis for vectors or three for images",
                got=f"{kept.dtype} of shape {kept.shape}",
                remedy="Pass True where an element is kept.",
            )
        return cls(kept.shape, tuple(kept.ravel().tolist()))

    @property
    def array(self) -> np.ndarray:
        """The booleans, of `shape`."""
        return np.array(self.kept).reshape(self.shape)


def half(features: int, flip: bool = False) -> Mask:
    """Keep the first ``features // 2`` of a vector, or with `flip` the others."""
    return Mask.of((np.arange(features) < features // 2) ^ flip)


def channel(channels: int, flip: bool = False) -> Mask:
    """Keep the first ``channels // 2`` channels of an image, or with `flip` the others."""
    return Mask.of(half(channels, flip).array[None, None])


def checkerboard(height: int, width: int, flip: bool = False) -> Mask:
    """Keep every other pixel of an image, the first one unless `flip`."""
    rows, columns = np.indices((height, width))
    return Mask.of(((rows + columns) % 2 == flip)[..., None])
