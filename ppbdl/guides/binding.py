"""From what a user calls a guide to a guide of this model."""

from __future__ import annotations

import copy
import functools
from typing import Any

from numpyro.infer.autoguide import AutoGuide

from ..errors import InputError
from ..latents import initial_value
from ..structure import Structure
from ..types import Guide, Model


def bind(guide: Any, model: Model, structure: Structure) -> Guide:
    """Make the guide of `model` that `guide` stands for.

    Parameters
    ----------
    guide
        One of ours (``AutoNormal``, ``MCDropout(0.1)``), an autoguide of NumPyro's (the class, a
        `functools.partial` of it, or an instance), or a NumPyro program ``(x, y=None)``.

    Notes
    -----
    An autoguide of NumPyro's keeps what it met in its first call, tracers included, so each
    traced function binds its own.
    """
    if isinstance(guide, type) and hasattr(guide, "bind"):
        guide = guide()
    if hasattr(guide, "bind"):
        return guide.bind(model, structure)
    if isinstance(guide, AutoGuide):
        return copy.copy(guide)
    wrapped = guide.func if isinstance(guide, functools.partial) else guide
    if isinstance(wrapped, type) and issubclass(wrapped, AutoGuide):
        given = guide.keywords if isinstance(guide, functools.partial) else {}
        return guide(model, **({} if "init_loc_fn" in given else {"init_loc_fn": initial_value}))
    if callable(guide) and not isinstance(guide, type):
        return guide
    raise InputError(
        "guide",
        expected="a guide of ppbdl.guides, an autoguide of NumPyro's, or a program (x, y=None)",
        got=repr(guide),
        remedy="For mean-field variational inference pass ppbdl.guides.AutoNormal.",
    )
