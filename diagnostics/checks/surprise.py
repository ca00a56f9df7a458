"""Do more rows surprise the fit than chance allows: outliers, or wrong labels?"""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..metrics import pit
from ..predictive import predictive_draws, predictive_probs
from ..reading import HELD_OUT_GROUPS, held_out, row_labels
from ..verdict import Check
from .calibration import unobserved

REFERENCE = "Northcutt et al. 2021, arXiv:1911.00068; binomial tail of the number of rows"
_LEVEL = 0.01


def surprising_rows(fit: xr.DataTree) -> Check:
    """Share of held-out rows that the fit gives a chance of at most 1 in 100.

    The chance of a row is that of an observation at least so unlikely: for classes the summed
    probabilities of those no likelier than the true one, for numbers both tails of the PIT. It
    warns where as many rows come by chance once in a thousand times, fails once in a million.

    Examples
    --------
    >>> surprising_rows(xr.DataTree()).verdict
    'does not apply'
    """
    name, threshold = "surprising rows", "about 1%"
    if lack := unobserved(fit):
        return Check(name, None, threshold, "does not apply", lack, REFERENCE)
    chance, classes = _chances(fit)
    if chance is None:
        sentence = "It needs held-out rows with their observations, and at least 400 draws of y."
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    from scipy.stats import binom

    rows, rare = len(chance), np.flatnonzero(chance <= _LEVEL)
    share, limit = len(rare) / rows, binom.isf(0.001, rows, _LEVEL) / rows
    threshold = f"at most {limit:.1%}"
    told = f"{len(rare)} of {rows} held-out rows have a chance of at most 1% under the fit"
    if share <= limit:
        return Check(name, share, threshold, "pass", f"{told}: as many as expected.", REFERENCE)
    first = rare[np.argsort(chance[rare], kind="stable")][:5]
    worst = ", ".join(map(str, row_labels(fit, HELD_OUT_GROUPS, rows)[first]))
    remedy = (
        "Look for wrong labels there, or use a likelihood that allows for label noise."
        if classes
        else "Look for errors there, or use a likelihood with heavier tails (Student's t)."
    )
    tail = float(binom.sf(len(rare) - 1, rows, _LEVEL))
    sentence = (
        f"{told}, where about {max(1, round(rows * _LEVEL))} would (first: {worst}). {remedy}"
    )
    return Check(name, share, threshold, "warn" if tail > 1e-6 else "fail", sentence, REFERENCE)


def _chances(fit: xr.DataTree) -> tuple[np.ndarray | None, bool]:
    y, probs = held_out(fit), predictive_probs(fit)
    if y is None:
        return None, False
    if probs is not None:
        if not np.isfinite(probs).all():
            return None, True
        own = probs[np.arange(len(y)), y.astype(int)]
        # A hair above, so that equal probabilities count as equal.
        return np.where(probs <= own[:, None] * (1 + 1e-9), probs, 0.0).sum(axis=1), True
    sampled = predictive_draws(fit)
    if sampled is None or len(sampled) < 400 or not np.isfinite(sampled).all():
        return None, False
    values = pit(y, sampled)
    return 2 * np.minimum(values, 1 - values), False
