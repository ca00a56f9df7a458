"""Guides: approximate posteriors as NumPyro programs.  The face is the list."""

from .binding import bind as bind
from .completion import Completed as Completed
from .concrete import ConcreteDropout as ConcreteDropout
from .delta import AutoDelta as AutoDelta
from .dropout import MCDropout as MCDropout
from .flow import AutoFlow as AutoFlow
from .gaussian_dropout import GaussianDropout as GaussianDropout
from .mnf import MNF as MNF
from .normal import AutoNormal as AutoNormal
