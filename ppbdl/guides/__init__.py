"""Guides: approximate posteriors as NumPyro programs.  The face is the list."""

from .binding import bind as bind
from .delta import AutoDelta as AutoDelta
from .dropout import MCDropout as MCDropout
from .normal import AutoNormal as AutoNormal
