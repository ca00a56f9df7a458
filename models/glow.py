"""Two multi-scale flows of images: Glow, and RealNVP with its checkerboards."""

from __future__ import annotations

from dataclasses import dataclass

from ppbdl.errors import InputError
from ppbdl.flows import LU, Bijection, Mask, channel, checkerboard

from .multiscale import Arrival, MultiscaleFlow, param


@dataclass(frozen=True, eq=False)
class Glow(MultiscaleFlow):
    """A density over images: Kingma and Dhariwal (2018), *Glow*, section 3.

    A step leads from z towards y by a coupling of channels, an invertible 1x1 convolution and an
    activation normalisation.  For the parameters see `MultiscaleFlow`.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> y = np.random.default_rng(0).normal(size=(20, 4, 4, 1))
    >>> model = Glow(shape=(4, 4, 1), levels=1, steps=2, width=8)
    >>> data = ppbdl.Data(None, y)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.MAP(steps=10), progress=False)
    >>> model.fitted(posterior, temperature=0.7).sample(ppbdl.types.as_key(1), (3,)).shape
    (3, 4, 4, 1)
    """

    def fine(self, level: int, at: Arrival) -> tuple[list[Bijection], Arrival]:
        return [], at

    def coarse(self, level: int, at: Arrival) -> tuple[list[Bijection], Arrival]:
        channels = at.h.shape[-1]
        parts: list[Bijection] = []
        for step in range(self.steps):
            name = f"{level}_{step}"
            norm, at = self.normalisation(name, at)
            weights = param(f"mix_{name}", lambda key: LU.start(key, channels))
            backwards = tuple(range(channels))[::-1]
            mix = LU(**weights, order=backwards).inv  # so that the way from y to z solves nothing
            at = at.through(mix.inv)
            parts = [self.coupling(name, channel(channels), at), mix, norm, *parts]
        return parts, at


@dataclass(frozen=True, eq=False)
class ImageRealNVP(MultiscaleFlow):
    """A density over images: Dinh et al. (2017), *Density Estimation using Real NVP*, section 3.

    In each level `steps` couplings take turns over the two colours of a checkerboard, then, after
    the squeeze, `steps` more over the two halves of the channels; the last level is no different.
    Activation normalisation is in the place of their batch normalisation.  For the parameters see
    `MultiscaleFlow`.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> y = np.random.default_rng(0).normal(size=(20, 4, 4, 1))
    >>> model = ImageRealNVP(shape=(4, 4, 1), levels=1, steps=2, width=8)
    >>> data = ppbdl.Data(None, y)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.MAP(steps=10), progress=False)
    >>> ppbdl.log_likelihood(1, model, posterior, data)["y"].shape
    (1, 1, 20)
    """

    steps: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 2:
            raise InputError(
                "steps",
                expected="at least 2, so that the masks take turns and every pixel moves",
                got=str(self.steps),
                remedy="Take 3, as the paper does.",
            )

    def fine(self, level: int, at: Arrival) -> tuple[list[Bijection], Arrival]:
        height, width = at.h.shape[-3:-1]
        boards = [checkerboard(height, width, flip) for flip in (False, True)]
        return self._couplings(f"{level}_fine", boards, at)

    def coarse(self, level: int, at: Arrival) -> tuple[list[Bijection], Arrival]:
        halves = [channel(at.h.shape[-1], flip) for flip in (False, True)]
        return self._couplings(f"{level}_coarse", halves, at)

    def _couplings(
        self, name: str, masks: list[Mask], at: Arrival
    ) -> tuple[list[Bijection], Arrival]:
        parts: list[Bijection] = []
        for step in range(self.steps):
            norm, at = self.normalisation(f"{name}_{step}", at)
            parts = [self.coupling(f"{name}_{step}", masks[step % 2], at), norm, *parts]
        return parts, at
