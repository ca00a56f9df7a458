"""Did the fit end, and are its numbers finite?"""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..reading import attribute, observed_name
from ..verdict import Check

_GROUPS = ("uncertainty", "predictions", "predictions_log_likelihood", "log_likelihood")


def completion(fit: xr.DataTree) -> Check:
    """Fail where the fit says that it failed, or where what it predicts is not finite.

    Of a tree that holds a sample of the rows, the attribute ``not_finite`` counts over all of them.

    Examples
    --------
    >>> completion(xr.DataTree(dataset=xr.Dataset(attrs={"failure": "NaN at step 7."}))).verdict
    'fail'
    """
    name, threshold = "the fit ended", "no failure, every number finite"
    failure = str(attribute(fit, "failure", ""))
    if failure:
        return Check(name, 1.0, threshold, "fail", f"The fit failed: {failure.rstrip('.')}.")
    if not any(group in fit.children for group in _GROUPS):
        sentence = "The tree holds no predictions or log likelihoods to look at."
        return Check(name, None, threshold, "does not apply", sentence)
    bad = {group: _not_finite(fit, group) for group in _GROUPS}
    bad = {group: count for group, count in bad.items() if count}
    everywhere = int(attribute(fit, "not_finite", 0))
    if everywhere:
        bad = {"all rows": everywhere}
    if bad:
        listed = ", ".join(f"{count} in {group}" for group, count in bad.items())
        sentence = (
            f"Not finite: {listed}. Look for a learning rate or a scale that blew up, "
            "and fit again."
        )
        return Check(name, float(sum(bad.values())), threshold, "fail", sentence)
    return Check(name, 0.0, threshold, "pass", "It ended, and its numbers are finite.")


def _not_finite(fit: xr.DataTree, group: str) -> int:
    if group not in fit.children:
        return 0
    site = observed_name(fit)
    arrays = [
        array.values
        for key, array in fit[group].data_vars.items()
        # An impossible observation has log likelihood -inf, which is a number's failure too.
        if array.dtype.kind == "f" and (group == "uncertainty" or str(key).startswith(site))
    ]
    return sum(int(np.count_nonzero(~np.isfinite(array))) for array in arrays)
