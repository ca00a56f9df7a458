"""Does the fit explain anything? Bayesian R-squared (Gelman et al. 2019)."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..predictive import predictive_moments
from ..reading import draws, held_out, missing, observed_name
from ..verdict import Check

REFERENCE = "Gelman et al. 2019, doi:10.1080/00031305.2018.1549100"


def explained_variance(fit: xr.DataTree) -> Check:
    """Bayesian R-squared over held-out rows; it warns where their mean would predict better.

    For each draw, the variance of its means over rows, as a share of that and its mean noise
    variance; the value is the mean over draws (ArviZ). It is the model's own claim, so the
    verdict rests on the observations: squared errors larger than those of the rows' own mean, by
    over 3 standard errors of the paired difference (of fits as good as the mean, 1 in 700). It
    fails where they are more than twice as large.

    Examples
    --------
    >>> explained_variance(xr.DataTree()).verdict
    'does not apply'
    """
    name, threshold = "explained variance", "better than the mean"
    site, y, moments = observed_name(fit), held_out(fit), predictive_moments(fit)
    means, variances = (draws(fit, "predictions", f"{site}_{x}") for x in ("mean", "variance"))
    if y is None or moments is None or means is None or variances is None or len(y) < 3:
        sentence = "It needs held-out numbers, and each draw's mean and variance of them."
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    if lack := missing(y):
        return Check(name, None, threshold, "does not apply", lack, REFERENCE)
    if not np.isfinite(means).all() or not np.isfinite(variances).all():
        sentence = "Some predictions are not finite: see whether the fit ended."
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    value = _bayesian(means, variances)
    worse = (y - moments[0]) ** 2 - (y - y.mean()) ** 2
    z = float(worse.mean() / max(worse.std(ddof=1) / np.sqrt(len(y)), np.finfo(float).tiny))
    held = 1 - np.mean((y - moments[0]) ** 2) / y.var() if y.var() > 0 else float("-inf")
    told = (
        f"The fit claims to explain {value:.0%} of the variance; of that of {len(y)} held-out rows "
        f"it explains {held:.0%}"
    )
    if z <= 3 and held > -1:
        return Check(name, value, threshold, "pass", f"{told}.", REFERENCE)
    sentence = (
        f"{told}: their mean alone predicts better. Look for overfitting, a shift between training "
        "and held-out rows, or units that were mixed up."
    )
    verdict = "warn" if held > -1 else "fail"
    return Check(name, value, threshold, verdict, sentence, REFERENCE)


def _bayesian(means: np.ndarray, variances: np.ndarray) -> float:
    import arviz as az

    pair = ("chain", "draw")
    each = {"mean": ((*pair, "row"), means), "noise": (pair, variances.mean(axis=-1))}
    tree = xr.DataTree.from_dict({"/posterior": xr.Dataset(each)})
    found = az.bayesian_r2(tree, "mean", "noise", scale_kind="var", summary=False)
    return float(np.mean(np.asarray(found)))
