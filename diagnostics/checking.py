"""All checks of one fit."""

from __future__ import annotations

import xarray as xr

from . import checks
from .thinning import thinned
from .verdict import Check


def check(fit: xr.DataTree) -> list[Check]:
    """Run every check that `ppbdl.diagnostics.checks` exports on one fit, in its order.

    Of more than 5,000 rows, 5,000 random ones are looked at: see `thinned`.

    Parameters
    ----------
    fit
        One fit's DataTree, whoever made it.

    Returns
    -------
    list of Check
        One each; what has no meaning for the fit says ``"does not apply"``.

    Examples
    --------
    >>> import numpy as np
    >>> stats = xr.Dataset({"diverging": (("chain", "draw"), np.ones((4, 100), bool))})
    >>> found = check(xr.DataTree.from_dict({"/sample_stats": stats}))
    >>> [outcome.name for outcome in found if outcome.verdict == "fail"]
    ['divergences']
    """
    fit = thinned(fit)
    return [getattr(checks, name)(fit) for name in checks.__all__]
