"""A RealNVP density: affine couplings that take turns over the two halves of the features.

Dinh et al. (2017), *Density Estimation using Real NVP*.  Fitted with `MAP` it is maximum
likelihood: its weights are parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpyro
import numpyro.distributions as dist

from ppbdl.errors import InputError, require_whole
from ppbdl.flows import Coupling, Flow, affine, half, mlp
from ppbdl.module import haiku_module


@dataclass(frozen=True, eq=False)
class RealNVP:
    """A density over vectors.

    Parameters
    ----------
    features
        Width of y, (rows, features); at least two, since one half decides how the other moves.
    layers, width
        Coupling layers, and units of each one's two hidden layers.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> y = np.random.default_rng(0).normal(size=(100, 2))
    >>> model = RealNVP(features=2, layers=2, width=8)
    >>> data = ppbdl.Data(None, y)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.MAP(steps=50), progress=False)
    >>> ppbdl.log_likelihood(1, model, posterior, data)["y"].shape
    (1, 1, 100)
    """

    features: int
    layers: int = 6
    width: int = 64

    def __post_init__(self) -> None:
        require_whole(features=self.features, layers=self.layers, width=self.width)
        if self.features < 2:
            raise InputError(
                "features",
                expected="at least 2",
                got=str(self.features),
                remedy="Use another density for a single feature.",
            )

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare the model; x is (rows, 0)."""
        couplings = [self._coupling(layer) for layer in range(self.layers)]
        base = dist.Normal(0.0, 1.0).expand([self.features]).to_event(1)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", Flow(base, couplings), obs=y)

    def _coupling(self, layer: int) -> Coupling:
        mask = half(self.features, flip=layer % 2 == 1)
        kept = int(mask.array.sum())
        moves = affine(limit=1.0)
        net = mlp((self.features - kept) * moves.width, (self.width, self.width))
        conditioner = haiku_module(f"coupling_{layer}", net, input_shape=(1, kept))
        return Coupling(moves, conditioner, mask)
