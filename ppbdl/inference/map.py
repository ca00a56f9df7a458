"""Maximum a posteriori: the point theta that maximises log p(y | theta) + log p(theta).

The mode is of the density on the constrained space, as in Stan's `optimize` and NumPyro's
`AutoDelta`; with flat priors, and for learned parameters, it is maximum likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass

import optax

from ..data import Data
from ..errors import require_whole
from ..guides import AutoDelta
from ..posterior import Posterior
from ..types import Key, Model
from .stopping import EarlyStopping
from .svi import SVI, optimise


@dataclass(frozen=True)
class MAP:
    """Settings of a point estimate.

    Parameters
    ----------
    optimizer, steps, batch_size, stopping
        As for `SVI`.

    Examples
    --------
    >>> MAP(steps=500).name
    'MAP'
    """

    optimizer: optax.GradientTransformation = optax.adam(1e-2)
    steps: int = 2000
    batch_size: int | None = None
    stopping: EarlyStopping | None = None

    name = "MAP"

    def __post_init__(self) -> None:
        require_whole(steps=self.steps, batch_size=self.batch_size)

    @property
    def svi(self) -> SVI:
        """The same as an optimisation over point masses."""
        return SVI(
            AutoDelta,
            self.optimizer,
            self.steps,
            self.batch_size,
            draws=1,
            stopping=self.stopping,
        )

    def run(self, key: Key, model: Model, data: Data, *, progress: bool = False) -> Posterior:
        """Find the mode: a posterior of one chain with one draw.

        Raises
        ------
        ModelError, InputError, FitError
            As `SVI.run`.
        """
        return optimise(key, model, data, self.svi, method=self, progress=progress)
