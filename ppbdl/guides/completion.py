"""A guide of two parts: a program for the sites that it declares, another guide for all others.

    q(a, b) = program(a) rest(b)

So a Bayesian decoder has a guide: an autoencoder's own for the codes, a mean field for the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from numpyro.handlers import block, trace
from numpyro.infer.autoguide import AutoGuide

from ..errors import InputError
from ..structure import Structure
from ..types import Guide, Model
from .binding import bind
from .normal import AutoNormal


@dataclass(frozen=True)
class Completed:
    """A program, and a guide of the latents that it leaves.

    Parameters
    ----------
    program
        A NumPyro program ``(x, y=None)`` for some of the latents; it does not see the others.
    rest
        The guide of all others: one of `ppbdl.guides` or an autoguide of NumPyro's.

    Examples
    --------
    >>> import numpy as np, numpyro.distributions as dist, ppbdl
    >>> from ppbdl.models import VAE, Dense, Normal
    >>> y = np.random.default_rng(0).normal(size=(64, 4))
    >>> vae = VAE((4,), 2, Normal(1.0), Dense((16,)), weights=dist.Normal(0, 1))
    >>> svi = ppbdl.SVI(Completed(vae.guide), steps=20, draws=5)
    >>> posterior = ppbdl.fit(0, vae, ppbdl.Data(None, y), svi, progress=False)
    >>> posterior.draws["decoder.linear_0.w"].shape
    (1, 5, 2, 16)
    """

    program: Guide
    rest: Any = AutoNormal()

    def __post_init__(self) -> None:
        if isinstance(self.rest, AutoGuide):
            raise InputError(
                "rest",
                expected="a guide that is yet to be bound to what the program leaves",
                got=f"an instance of {type(self.rest).__name__}, bound to a whole model",
                remedy="Pass the class, or a functools.partial of it.",
            )

    def bind(self, model: Model, structure: Structure) -> Guide:
        """Make the guide of `model`."""

        def guide(x: Any, y: Any = None) -> None:
            with trace() as own:
                self.program(x, y)
            left = [name for name in structure.latents if name not in own]
            others = replace(
                structure,
                latents={name: structure.latents[name] for name in left},
                supports={name: structure.supports[name] for name in left},
            )
            bind(self.rest, block(model, hide=[*own]), others)(x, y)

        return guide
