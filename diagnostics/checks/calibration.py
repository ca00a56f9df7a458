"""Are the stated uncertainties right on rows the fit has not seen?"""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..metrics import coverage, ece
from ..predictive import predictive_draws, predictive_probs
from ..reading import held_out, task_of
from ..verdict import Check, Verdict

_LEVEL = 0.9
_NONE = "The tree holds no predictions of held-out rows with their observations."


def coverage_of_intervals(fit: xr.DataTree) -> Check:
    """Share of held-out rows inside their 90% interval, against the binomial band of chance.

    Outside the band of 99% it warns, outside that of 99.99% it fails: a calibrated fit is
    flagged about once in a hundred.

    Examples
    --------
    >>> from ppbdl.diagnostics.checks import coverage_of_intervals
    >>> coverage_of_intervals(xr.DataTree()).verdict
    'does not apply'
    """
    reference = "Dawid 1984, doi:10.2307/2981683; binomial band of the number of rows"
    name = "coverage of 90% intervals"
    y, sampled = held_out(fit), predictive_draws(fit)
    if y is None or sampled is None:
        numbers = task_of(fit) in ("regression", "count")
        sentence = _NONE if numbers else "Only numbers have intervals."
        return Check(name, None, "about 90%", "does not apply", sentence, reference)
    if not np.isfinite(sampled).all():
        sentence = "Some predictions are not finite: see whether the fit ended."
        return Check(name, None, "about 90%", "does not apply", sentence, reference)
    inside = coverage(y, sampled, _LEVEL)
    low, high = _band(len(y), 0.99)
    widest = _band(len(y), 0.9999)
    verdict = _judge(low <= inside <= high, widest[0] <= inside <= widest[1])
    counted = f"90% intervals hold {inside:.0%} of {len(y)} held-out rows"
    if verdict == "pass":
        sentence = f"{counted}: as many as chance allows."
    elif inside < low:
        sentence = (
            f"{counted}: the fit is overconfident. Widen it (a learned noise scale, a richer "
            "posterior), or read its intervals as too narrow."
        )
    else:
        sentence = (
            f"{counted}: the fit is underconfident, its intervals wider than need be. Check the "
            "noise scale and the prior."
        )
    return Check(name, inside, f"{low:.0%} to {high:.0%}", verdict, sentence, reference)


def class_calibration(fit: xr.DataTree) -> Check:
    """ECE of held-out rows, against what calibrated probabilities give by chance.

    Labels drawn from the predicted probabilities show how large an ECE chance alone gives to
    this many rows (consistency resampling, 1,000 times from a fixed seed).
    """
    reference = "Guo et al. 2017, arXiv:1706.04599; Bröcker and Smith 2007, doi:10.1175/WAF993.1"
    name, probs, y = "calibration of classes", predictive_probs(fit), held_out(fit)
    if probs is None or y is None:
        sentence = _NONE if task_of(fit) == "classification" else "Only classes have it."
        return Check(name, None, "ECE as by chance", "does not apply", sentence, reference)
    if not np.isfinite(probs).all():
        sentence = "Some probabilities are not finite: see whether the fit ended."
        return Check(name, None, "ECE as by chance", "does not apply", sentence, reference)
    found = ece(y, probs)
    rng = np.random.default_rng(0)
    cumulative = probs.cumsum(axis=1)
    drawn = [(rng.uniform(size=(len(y), 1)) > cumulative[:, :-1]).sum(axis=1) for _ in range(1000)]
    limit, far = np.quantile([ece(labels, probs) for labels in drawn], [0.99, 0.999])
    verdict = _judge(found <= limit, found <= max(far, 1.5 * limit))
    surplus = float(probs.max(axis=1).mean() - (probs.argmax(axis=1) == y).mean())
    if verdict == "pass":
        sentence = f"ECE is {found:.3f} over {len(y)} rows: no more than chance gives."
    else:
        how = "overconfident" if surplus > 0 else "underconfident"
        sentence = (
            f"ECE is {found:.3f} over {len(y)} rows: the fit is {how} (confidence minus accuracy "
            f"{surplus:+.1%}). Recalibrate, by temperature scaling on rows kept back."
        )
    return Check(name, found, f"at most {limit:.3f}", verdict, sentence, reference)


def _band(rows: int, probability: float) -> tuple[float, float]:
    from scipy.stats import binom

    low, high = binom.interval(probability, rows, _LEVEL)
    return float(low) / rows, float(high) / rows


def _judge(within: bool, nearly: bool) -> Verdict:
    return "pass" if within else "warn" if nearly else "fail"
