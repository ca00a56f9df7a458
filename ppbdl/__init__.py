"""ppbdl: one model, every posterior.

Declare a generative model once as a NumPyro program with Haiku networks, fit it by any method,
and compare what the methods say in one report.

The face is lazy: a name's file is imported when the name is first used, so that
``ppbdl --help`` need not wait for JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calibration import sbc as sbc
    from .comparison import fit_all as fit_all
    from .comparison import fit_sizes as fit_sizes
    from .data import Data as Data
    from .datatree import to_datatree as to_datatree
    from .errors import DataError as DataError
    from .errors import FitError as FitError
    from .errors import InputError as InputError
    from .errors import ModelError as ModelError
    from .fitting import fit as fit
    from .guides import MNF as MNF
    from .guides import AutoDelta as AutoDelta
    from .guides import AutoFlow as AutoFlow
    from .guides import AutoNormal as AutoNormal
    from .guides import Completed as Completed
    from .guides import ConcreteDropout as ConcreteDropout
    from .guides import GaussianDropout as GaussianDropout
    from .guides import MCDropout as MCDropout
    from .handlers import anchored as anchored
    from .handlers import flipout as flipout
    from .handlers import local_reparameterization as local_reparameterization
    from .handlers import masks_per_example as masks_per_example
    from .handlers import start_at as start_at
    from .inference import HMC as HMC
    from .inference import IWAE as IWAE
    from .inference import MAP as MAP
    from .inference import MCLMC as MCLMC
    from .inference import NUTS as NUTS
    from .inference import SGHMC as SGHMC
    from .inference import SGLD as SGLD
    from .inference import SVI as SVI
    from .inference import SWAG as SWAG
    from .inference import AlphaELBO as AlphaELBO
    from .inference import AnalyticELBO as AnalyticELBO
    from .inference import ChEES as ChEES
    from .inference import EarlyStopping as EarlyStopping
    from .inference import Ensemble as Ensemble
    from .inference import FreeBits as FreeBits
    from .inference import Laplace as Laplace
    from .linearization import delta_method as delta_method
    from .linearization import linearized as linearized
    from .module import haiku_module as haiku_module
    from .module import random_haiku_module as random_haiku_module
    from .posterior import Posterior as Posterior
    from .prediction import Prediction as Prediction
    from .prediction import predict as predict
    from .scoring import log_likelihood as log_likelihood
    from .storage import load as load
    from .storage import save as save

_FILES = {
    "calibration": ("sbc",),
    "comparison": ("fit_all", "fit_sizes"),
    "data": ("Data",),
    "datatree": ("to_datatree",),
    "errors": ("DataError", "FitError", "InputError", "ModelError"),
    "fitting": ("fit",),
    "guides": (
        "MNF",
        "AutoDelta",
        "AutoFlow",
        "AutoNormal",
        "Completed",
        "ConcreteDropout",
        "GaussianDropout",
        "MCDropout",
    ),
    "handlers": (
        "anchored",
        "flipout",
        "local_reparameterization",
        "masks_per_example",
        "start_at",
    ),
    "inference": (
        "HMC",
        "IWAE",
        "MAP",
        "MCLMC",
        "NUTS",
        "SGHMC",
        "SGLD",
        "SVI",
        "SWAG",
        "AlphaELBO",
        "AnalyticELBO",
        "ChEES",
        "EarlyStopping",
        "Ensemble",
        "FreeBits",
        "Laplace",
    ),
    "linearization": ("delta_method", "linearized"),
    "module": ("haiku_module", "random_haiku_module"),
    "posterior": ("Posterior",),
    "prediction": ("Prediction", "predict"),
    "scoring": ("log_likelihood",),
    "storage": ("load", "save"),
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}
_FOLDERS = ("datasets", "diagnostics", "flows", "guides", "handlers", "inference", "models")

__all__ = sorted(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return import_module(f".{name}", __name__)
    if name not in _FILE_OF:
        raise AttributeError(f"module 'ppbdl' has no attribute {name!r}")
    return getattr(import_module(f".{_FILE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, *_FOLDERS]
