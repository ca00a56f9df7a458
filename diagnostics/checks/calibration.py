"""Are the stated uncertainties right on rows the fit has not seen?"""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..metrics import coverage, ece, pit
from ..predictive import predictive_draws, predictive_moments, predictive_probs
from ..reading import held_out, missing, observed_name, task_of, values
from ..remedies import remedy_of
from ..verdict import Check, Verdict

_LEVELS = (0.5, 0.8, 0.9, 0.95)
_NONE = "The tree holds no predictions of held-out rows with their observations."


def coverage_of_intervals(fit: xr.DataTree) -> Check:
    """Share of held-out rows inside their 50, 80, 90 and 95% intervals, against binomial bands.

    Each level's band is that of 99.75%, so that all four together hold 99% of calibrated fits;
    outside the bands of 99.9975% it fails, unless the intervals are too wide: that is a waste, but
    misleads nobody, and warns. The value is the share at the level furthest out.

    Examples
    --------
    >>> from ppbdl.diagnostics.checks import coverage_of_intervals
    >>> coverage_of_intervals(xr.DataTree()).verdict
    'does not apply'
    """
    reference = "Dawid 1984, doi:10.2307/2981683; binomial band of the number of rows"
    name, threshold = "coverage of intervals", "as many rows as stated, within chance"
    y, sampled, refusal = _numbers(fit)
    if y is None or sampled is None:
        return Check(name, None, threshold, "does not apply", refusal, reference)
    inside = {level: coverage(y, sampled, level) for level in _LEVELS}
    chance = {level: _chance(share, level, len(y)) for level, share in inside.items()}
    least = min(chance.values())
    # Where none is out of its band, the level that most people state.
    level = min(_LEVELS, key=lambda one: chance[one]) if least < 0.0025 else 0.9
    low, high = _band(len(y), level)
    verdict = _judge(least >= 0.0025, least >= 0.000025 or inside[level] > level)
    others = ", ".join(f"{one:.0%}: {inside[one]:.0%}" for one in _LEVELS if one != level)
    counted = f"{level:.0%} intervals hold {inside[level]:.0%} of {len(y)} held-out rows ({others})"
    if verdict == "pass":
        sentence = f"{counted}: as many as chance allows."
    elif inside[level] < level:
        sentence = (
            f"{counted}: the fit is overconfident. Widen it (a learned noise scale, a richer "
            "posterior, conformal intervals), or read its intervals as too narrow."
        )
    else:
        sentence = (
            f"{counted}: the fit is underconfident, its intervals wider than need be. Check the "
            "noise scale and the prior."
        )
    threshold = f"{low:.0%} to {high:.0%} of {level:.0%}"
    return Check(name, inside[level], threshold, verdict, sentence, reference)


def pit_uniformity(fit: xr.DataTree) -> Check:
    """p-value of the held-out rows' PIT being uniform: ArviZ's POT-C test.

    It warns under 0.002, fails under 0.00001. Of 4,000 uniform samples of 60 rows and as many of
    500, 0.3% and 0.2% fell under 0.002, one of them all under 0.0001.
    """
    reference = "Tesso and Vehtari 2026, arXiv:2603.02928 (POT-C)"
    name, threshold = "uniformity of the PIT", "p at least 0.002"
    y, sampled, refusal = _numbers(fit)
    if y is None or sampled is None:
        return Check(name, None, threshold, "does not apply", refusal, reference)
    from arviz_stats.base.array import array_stats

    values = pit(y, sampled)
    p = float(np.clip(array_stats.uniformity_test(values, method="pot_c")[0], 0.0, 1.0))
    if p >= 0.002:
        sentence = f"Observations fall anywhere in their predictions ({told(p)}), as they should."
        return Check(name, p, threshold, "pass", sentence, reference)
    sentence = f"{_shape(values, _error_over_sd(fit, y))} ({told(p, '.1g')})."
    return Check(name, p, threshold, _judge(False, p >= 1e-5), sentence, reference)


def class_calibration(fit: xr.DataTree) -> Check:
    """ECE of held-out rows, against what calibrated probabilities give by chance.

    Labels drawn from the predicted probabilities show how large an ECE chance alone gives to
    this many rows (consistency resampling, 1,000 times from a fixed seed): a calibrated fit is
    flagged once in 200.
    """
    reference = "Guo et al. 2017, arXiv:1706.04599; Bröcker and Smith 2007, doi:10.1175/WAF993.1"
    name, probs, y = "calibration of classes", predictive_probs(fit), held_out(fit)
    if probs is not None and (lack := unobserved(fit)):
        return Check(name, None, "ECE as by chance", "does not apply", lack, reference)
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
    limit, far = np.quantile([ece(labels, probs) for labels in drawn], [0.995, 0.999])
    verdict = _judge(found <= limit, found <= max(far, 1.5 * limit))
    surplus = float(probs.max(axis=1).mean() - (probs.argmax(axis=1) == y).mean())
    if verdict == "pass":
        sentence = f"ECE is {found:.3f} over {len(y)} rows: no more than chance gives."
    else:
        how = "overconfident" if surplus > 0 else "underconfident"
        sentence = (
            f"ECE is {found:.3f} over {len(y)} rows: the fit is {how} (confidence minus accuracy "
            f"{surplus:+.1%}). {_temperature(fit)}"
        )
    return Check(name, found, f"at most {limit:.3f}", verdict, sentence, reference)


def unobserved(fit: xr.DataTree) -> str:
    """Return what to say of held-out rows whose observation is missing, empty where none is."""
    y = values(fit, "predictions_observed_data", observed_name(fit))
    return "" if y is None else missing(y)


def told(p: float, form: str = ".2g") -> str:
    """Write a p-value; one that rounding takes to 0 is under what rounding leaves.

    Examples
    --------
    >>> told(0.01234), told(0.0)
    ('p 0.012', 'p under 1e-16')
    """
    return "p under 1e-16" if p < 1e-16 else f"p {p:{form}}"


def _numbers(fit: xr.DataTree) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    y, sampled = held_out(fit), predictive_draws(fit)
    if y is None or sampled is None:
        numbers = task_of(fit) in ("regression", "count")
        return None, None, _NONE if numbers else "Only numbers have intervals."
    if lack := unobserved(fit):
        return None, None, lack
    if not np.isfinite(sampled).all():
        return None, None, "Some predictions are not finite: see whether the fit ended."
    return y, sampled, ""


def _chance(share: float, level: float, rows: int) -> float:
    """Return the probability of a share at least so far out, both sides taken, if calibrated."""
    from scipy.stats import binom

    count = round(share * rows)
    tail = min(binom.cdf(count, rows, level), binom.sf(count - 1, rows, level))
    return min(1.0, 2 * float(tail))


def _band(rows: int, level: float) -> tuple[float, float]:
    from scipy.stats import binom

    low, high = binom.interval(0.9975, rows, level)
    return float(low) / rows, float(high) / rows


def _shape(values: np.ndarray, ratio: float | None) -> str:
    """Return what departs most from uniform, in standard errors: the middle or the width."""
    rows = len(values)
    shift = (values.mean() - 0.5) * np.sqrt(12 * rows)
    width = (np.abs(values - 0.5).mean() - 0.25) * np.sqrt(48 * rows)
    if abs(shift) > abs(width):
        where, how = ("above", "low") if shift > 0 else ("below", "high")
        return (
            f"Observations fall {where} their predictions too often: predictions are too {how}. "
            "Look for a missing feature or intercept, or rows of another kind"
        )
    scale = "" if ratio is None else f"; errors are {ratio:.2g} times the stated sd"
    if width > 0:
        return (
            f"Observations fall at the edges of their predictions too often: these are too "
            f"narrow{scale}. Learn the noise scale or raise it, or use heavier tails"
        )
    often = "Observations fall in the middle of their predictions too often"
    if ratio is not None and ratio > 0.95:
        # Too central, and yet errors as large as stated: a few of them are very large.
        return f"{often}, and a few far outside{scale}. Use heavier tails (Student's t)"
    return f"{often}: these are too wide{scale}. Learn the noise scale or lower it"


def _error_over_sd(fit: xr.DataTree, y: np.ndarray) -> float | None:
    moments = predictive_moments(fit)
    if moments is None or not (moments[1] > 0).all():
        return None
    return float(np.sqrt(np.mean((y - moments[0]) ** 2 / moments[1])))


def _temperature(fit: xr.DataTree) -> str:
    found = remedy_of(fit)
    if found is None:
        return "Recalibrate, by temperature scaling on rows kept back."
    if found.after["ece"] >= found.before["ece"]:
        return "Temperature scaling would not help: look for overfitting, and regularise."
    return (
        f"Recalibrate: a temperature of {found.value:.2g}, fitted to half of the held-out rows, "
        f"takes the other half's ECE from {found.before['ece']:.3f} to {found.after['ece']:.3f}."
    )


def _judge(within: bool, nearly: bool) -> Verdict:
    return "pass" if within else "warn" if nearly else "fail"
