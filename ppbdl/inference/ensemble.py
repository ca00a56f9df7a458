"""Deep ensembles: the same fit from several random starts, each a chain of the posterior.

Lakshminarayanan et al. (2017), *Simple and Scalable Predictive Uncertainty Estimation*, without
their adversarial training.  Small members share one vectorised computation, large ones on a CPU
take turns; each has its own start and, with minibatches, its own shuffling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..data import Data
from ..errors import InputError, require_whole
from ..posterior import Posterior
from ..types import Key, Model
from .map import MAP
from .svi import SVI, optimise
from .swag import SWAG, average


@dataclass(frozen=True)
class Ensemble:
    """Settings of an ensemble.

    Parameters
    ----------
    method
        What each member is fitted by: `MAP`; `SVI` for an ensemble of approximate posteriors; or
        `SWAG`, which makes it MultiSWAG (Wilson and Izmailov 2020).  For anchors see `anchored`.
    members
        Number of members.

    Examples
    --------
    >>> Ensemble(MAP(steps=500), members=5).name
    'Ensemble MAP'
    """

    method: MAP | SVI | SWAG = MAP()
    members: int = 5

    def __post_init__(self) -> None:
        require_whole(members=self.members)
        if not isinstance(self.method, (MAP, SVI, SWAG)):
            raise InputError(
                "method",
                expected="MAP, SVI or SWAG, whose members can be fitted side by side",
                got=repr(self.method),
                remedy="Pass Ensemble(MAP(steps=...), members=5).",
            )

    @property
    def name(self) -> str:
        """The method's name in tables."""
        return f"Ensemble {self.method.name}"

    def run(self, key: Key, model: Model, data: Data, *, progress: bool = False) -> Posterior:
        """Fit the members: a posterior with one chain each.

        Raises
        ------
        ModelError, InputError, FitError
            As `SVI.run`.
        """
        how: Any = {"method": self, "members": self.members, "progress": progress}
        if isinstance(self.method, SWAG):
            return average(key, model, data, self.method, **how)
        return optimise(key, model, data, self.method.svi, **how)
