"""Glow: a multi-scale flow of images (Kingma and Dhariwal 2018, *Glow*, section 3).

A step leads from z towards y by a coupling of channels, an invertible 1x1 convolution and an
activation normalisation.  A level squeezes 2 x 2 pixels into channels and takes some steps, before
which half of the channels have come through the next level and the other half straight from z.

For pixels put it in `Dequantized`; alone it is a density of images of real numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpyro

from ppbdl.errors import InputError, require_whole
from ppbdl.flows import (
    LU,
    Affine,
    Bijection,
    Chain,
    Coupling,
    Flow,
    Split,
    Squeeze,
    actnorm_start,
    affine,
    channel,
    cnn,
)
from ppbdl.module import Prior
from ppbdl.posterior import Posterior
from ppbdl.types import Array

from .density import context_of, declared, fitted, standard


@dataclass(frozen=True, eq=False)
class Glow:
    """A density over images.

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
        the 1x1 convolutions and the normalisations always are.

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
        body = self._level(0, h, y is not None, given)
        return Flow(standard(self.shape, given), [body])

    def _level(self, level: int, h: Array, known: bool, given: tuple[Array, ...]) -> Bijection:
        """Declare a level and those within; h is how the data arrive at it."""
        h = Squeeze()(h)
        parts: list[Bijection] = []
        for step in range(self.steps):
            part, h = self._step(f"{level}_{step}", h, known, given)
            parts.insert(0, part)
        if level + 1 < self.levels:
            inner = self._level(level + 1, h[..., h.shape[-1] // 2 :], known, given)
            parts.insert(0, Split(inner))
        return Chain([Squeeze(), *parts, Squeeze().inv])

    def _step(
        self, name: str, h: Array, known: bool, given: tuple[Array, ...]
    ) -> tuple[Bijection, Array]:
        channels = h.shape[-1]

        def start(_: Any) -> dict[str, Array]:
            zeros = jnp.zeros(channels)
            return actnorm_start(h) if known else {"loc": zeros, "log_scale": zeros}

        norm = Affine(**_param(f"norm_{name}", start))
        backwards = tuple(range(channels))[::-1]
        weights = _param(f"mix_{name}", lambda key: LU.start(key, channels))
        mix = LU(**weights, order=backwards).inv  # so that the way from y to z solves nothing
        mask, moves = channel(channels), affine()
        kept = channels // 2
        context = sum(c.shape[1] for c in given)
        network = cnn((channels - kept) * moves.width, self.width, context)
        net = declared(f"net_{name}", network, self.prior, (*h.shape[-3:-1], kept), given)
        coupling = Coupling(moves, lambda kept: net(kept, *given), mask)
        # Couplings start as the identity: the data pass by them to the next normalisation.
        return Chain([coupling, mix, norm]), mix.inv(norm.inv(h))

    def fitted(
        self,
        posterior: Posterior,
        x: Any = None,
        *,
        chain: int = 0,
        draw: int = 0,
        temperature: float = 1.0,
    ) -> Flow:
        """Give the fitted flow as a distribution: see `FlowDensity.fitted`."""
        return fitted(self.flow, posterior, x, chain, draw, temperature)


def _param(name: str, start: Callable[[Any], Any]) -> Any:
    return numpyro.param(f"{name}$params", start)
