"""Can the fit generate data like the observed? (Gelman, Meng and Stern 1996.)"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from ..reading import draws, evenly, held_out, missing, observed_name, task_of, training
from ..verdict import Check

REFERENCE = (
    "Gelman, Meng and Stern 1996, Statistica Sinica 6, 733-760; "
    "Gelman et al. 2013, doi:10.1201/b16018, section 6.3"
)
_REPLICATES, _FEWEST = 1000, 400


def predictive_statistic(
    fit: xr.DataTree, statistic: Callable[[np.ndarray], float], name: str
) -> Check:
    """Two-sided predictive p-value of a statistic of your choice.

    Parameters
    ----------
    fit
        One fit's DataTree with draws of y: ``posterior_predictive`` and ``observed_data``, else
        ``predictions`` and ``predictions_observed_data``.
    statistic
        A function of one data set ``(row,)``.
    name
        What it is, for the check's name and sentence.

    Returns
    -------
    Check
        Its value is p: twice the smaller of the shares of replicated data sets whose statistic is
        at least, and at most, the observed one. It warns under 0.01 and fails where, besides, the
        observed statistic lies over 5 standard deviations of the replicated from their mean. Over
        training rows that the fit has seen, p falls under 0.01 less than once in a hundred.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> replicated = xr.Dataset({"y": (("chain", "draw", "row"), rng.normal(size=(1, 400, 50)))})
    >>> for scale in (1, 3):
    ...     observed = xr.Dataset({"y": ("row", scale * rng.normal(size=50))})
    ...     groups = {"/observed_data": observed, "/posterior_predictive": replicated}
    ...     fit = xr.DataTree.from_dict(groups)
    ...     print(predictive_statistic(fit, np.std, "standard deviation").verdict)
    pass
    fail
    """
    title, threshold = f"replicates: {name}", "p at least 0.01"
    pair = _replicates(fit)
    if pair is None:
        return Check(title, None, threshold, "does not apply", _lack(fit), REFERENCE)
    y, replicated = pair
    observed, found = _of_each(y, replicated, statistic)
    if not np.isfinite(observed) or not np.isfinite(found).all():
        sentence = f"The {name} of the observed data or of some replicate is not finite."
        return Check(title, None, threshold, "does not apply", sentence, REFERENCE)
    p, distance = two_sided(observed, found), _distance(observed, found)
    told = f"The observed {name} is {observed:.3g}, the replicates' {_range(found)} (p {p:.2g})"
    if p >= 0.01:
        return Check(title, p, threshold, "pass", f"{told}: alike.", REFERENCE)
    sentence = f"{told}: the model cannot make data like yours in this. Change its likelihood."
    return Check(title, p, threshold, "fail" if distance > 5 else "warn", sentence, REFERENCE)


def possible_replicates(fit: xr.DataTree) -> Check:
    """Share of replicated values below zero, where no observation is.

    It warns above 1%, fails above 5% of counts: these are the model's own impossible values, no
    matter of chance.
    """
    name, threshold = "possible replicates", "at most 1% below zero"
    pair = _replicates(fit) if task_of(fit) in ("regression", "count") else None
    if pair is None:
        return Check(name, None, threshold, "does not apply", _lack(fit), REFERENCE)
    y, replicated = pair
    if y.min() < 0:
        sentence = "The observations are negative, too: any value is possible."
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    share, counts = float((replicated < 0).mean()), bool((y == np.rint(y)).all())
    if share <= 0.01:
        sentence = f"{share:.1%} of the replicated values are negative, as no observation is."
        return Check(name, share, threshold, "pass", sentence, REFERENCE)
    what, remedy = (
        ("whole numbers from 0 on", "a count likelihood (Poisson, or negative binomial)")
        if counts
        else ("never negative", "a positive likelihood (log-normal, gamma), or the log of y")
    )
    sentence = (
        f"Observations are {what}, and {share:.0%} of the replicated values are negative: the "
        f"likelihood is misspecified. Use {remedy}."
    )
    verdict = "fail" if counts and share > 0.05 else "warn"
    return Check(name, share, threshold, verdict, sentence, REFERENCE)


def dispersion_of_counts(fit: xr.DataTree) -> Check:
    """Spread and zeros of counts against those of the replicates: the less likely of the two.

    Each is a `predictive_statistic`; both together warn under p 0.005 each.
    """
    name, threshold = "dispersion of counts", "p at least 0.005 each"
    pair = _replicates(fit)
    if pair is None or not all(map(_counts, pair)) or task_of(fit) not in ("regression", "count"):
        counts = "It needs counts, observed and replicated: whole numbers from 0 on."
        sentence = _lack(fit) if pair is None else counts
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    y, replicated = pair
    if len(replicated) < _FEWEST:
        sentence = f"It needs {_FEWEST} replicates for a p-value to be small; here are few draws."
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    spread, zeros = (_of_each(y, replicated, s) for s in (_variance_ratio, _zeros))
    p, pz = two_sided(*spread), two_sided(*zeros)
    if min(p, pz) >= 0.005:
        sentence = "The replicates vary as the counts do, and have as many zeros."
        return Check(name, min(p, pz), threshold, "pass", sentence, REFERENCE)
    if p <= pz:
        more = spread[0] > spread[1].mean()
        sentence = (
            f"Variance over mean is {spread[0]:.2g}, the replicates' {_range(spread[1])}: the "
            f"counts are {'over' if more else 'under'}dispersed. Use "
            f"{'a negative binomial' if more else 'a likelihood of smaller variance'}."
        )
    else:
        more = zeros[0] > zeros[1].mean()
        sentence = (
            f"{zeros[0]:.0%} of the counts are zero, of the replicates' {_range(zeros[1], '.0%')}: "
            + ("use a zero-inflated likelihood." if more else "the likelihood makes zeros up.")
        )
    worst = spread if p <= pz else zeros
    verdict = "fail" if _distance(*worst) > 5 else "warn"
    return Check(name, min(p, pz), threshold, verdict, sentence, REFERENCE)


_ABSENT = "It needs observed numbers and draws of y: posterior_predictive, or predictions."


def _replicates(fit: xr.DataTree) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the observed data ``(row,)`` and at most 1,000 replicates of them, or None."""
    name = observed_name(fit)
    for y, group in _pairs(fit):
        sampled = draws(fit, group, name)
        if y is None or not len(y) or sampled is None or y.dtype.kind not in "biuf":
            continue
        sampled = sampled.reshape(-1, sampled.shape[-1])
        if sampled.shape[-1] == len(y) and np.isfinite(sampled).all() and np.isfinite(y).all():
            return y.astype(float), sampled[evenly(len(sampled), _REPLICATES)].astype(float)
    return None


def _pairs(fit: xr.DataTree) -> tuple[tuple[np.ndarray | None, str], ...]:
    return (training(fit), "posterior_predictive"), (held_out(fit), "predictions")


def _lack(fit: xr.DataTree) -> str:
    """Return why there is nothing to compare."""
    beside = (y for y, group in _pairs(fit) if y is not None and group in fit.children)
    return next(filter(None, map(missing, beside)), _ABSENT)


def _of_each(
    y: np.ndarray, replicated: np.ndarray, statistic: Callable[[np.ndarray], float]
) -> tuple[float, np.ndarray]:
    return float(statistic(y)), np.array([float(statistic(one)) for one in replicated])


def two_sided(observed: float, found: np.ndarray) -> float:
    # The observed one counts as a replicate, so that p is never 0.
    above, below = (
        (side.sum() + 1) / (len(found) + 1) for side in (found >= observed, found <= observed)
    )
    return float(min(1.0, 2 * min(above, below)))


def _distance(observed: float, found: np.ndarray) -> float:
    gap = abs(observed - found.mean())
    return float(gap / found.std()) if found.std() > 0 else float("inf") if gap > 0 else 0.0


def _range(found: np.ndarray, form: str = ".3g") -> str:
    low, high = np.quantile(found, [0.005, 0.995])
    return f"{low:{form}} to {high:{form}}"


def _counts(y: np.ndarray) -> bool:
    return bool(y.min() >= 0 and y.max() > 1 and (y == np.rint(y)).all())


def _variance_ratio(y: np.ndarray) -> float:
    mean = np.abs(y.mean())
    return float(y.var() / mean) if mean > 0 else 0.0


def _zeros(y: np.ndarray) -> float:
    return float((y == 0).mean())
