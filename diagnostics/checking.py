"""All checks of one fit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from . import checks
from .cross_validation import CrossValidation, loo
from .thinning import thinned
from .verdict import Check

Statistics = Mapping[str, Callable[[np.ndarray], float]]


def check(fit: xr.DataTree, statistics: Statistics | None = None) -> list[Check]:
    """Run every check that `ppbdl.diagnostics.checks` exports on one fit, in its order.

    Of more than 5,000 rows, 5,000 random ones are looked at: see `thinned`.

    Parameters
    ----------
    fit
        One fit's DataTree, whoever made it.
    statistics
        Functions of a data set ``(row,)`` by name: does the fit make data like the observed in
        these? See `ppbdl.diagnostics.checks.predictive_statistic`.

    Returns
    -------
    list of Check
        One each; what has no meaning for the fit says ``"does not apply"``.

    Examples
    --------
    >>> stats = xr.Dataset({"diverging": (("chain", "draw"), np.ones((4, 100), bool))})
    >>> found = check(xr.DataTree.from_dict({"/sample_stats": stats}))
    >>> [outcome.name for outcome in found if outcome.verdict == "fail"]
    ['divergences']
    """
    few = thinned(fit)
    return checks_of(few, loo(few), statistics)


def checks_of(
    fit: xr.DataTree, found: CrossValidation, statistics: Statistics | None
) -> list[Check]:
    """Run the checks on a thinned fit whose LOO, the dearest of all numbers, is known."""
    known = {"loo_reliability": {"found": found}}
    runs = {
        name: functools.partial(getattr(checks, name), fit, **known.get(name, {}))
        for name in checks.__all__
    }
    yours = (statistics or {}).items()
    return [
        *(_computed(name, run) for name, run in runs.items()),
        *(checks.predictive_statistic(fit, statistic, name) for name, statistic in yours),
    ]


def _computed(name: str, run: Callable[[], Check]) -> Check:
    try:
        return run()
    except Exception as error:
        # Trees come from anywhere: a check that one of them breaks must not cost the others. But
        # what was not looked at has not passed.
        sentence = f"It could not be computed ({type(error).__name__}: {error})."
        return Check(name.replace("_", " "), None, "", "warn", sentence)
