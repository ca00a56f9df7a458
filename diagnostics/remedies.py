"""What a post-hoc remedy would buy, judged on rows that it was not fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from . import metrics as m
from .predictive import predictive_draws, predictive_probs
from .reading import held_out
from .recalibration import conformal_intervals, conformal_sets, scale_temperature

_FEW, _LEVEL = 20, 0.9


@dataclass(frozen=True)
class Remedy:
    """Scores before and after recalibration.

    Attributes
    ----------
    name
        ``"temperature scaling"`` or ``"split conformal intervals"``.
    value
        The temperature, or the stretch in predictive standard deviations.
    calibration_rows, test_rows
        Numbers of rows that it was fitted to, and judged on.
    before, after
        Scores of the test rows by name: ``nll``, ``brier``, ``ece`` and, after only,
        ``coverage_90`` and ``set_size`` of conformal sets; or ``coverage_90``, ``width_90`` and
        ``interval_score_90``.
    """

    name: str
    value: float
    calibration_rows: int
    test_rows: int
    before: dict[str, float]
    after: dict[str, float]


def remedy_of(fit: xr.DataTree) -> Remedy | None:
    """Fit temperature scaling or conformal intervals to half the held-out rows; judge on the rest.

    The halves are drawn at random from a fixed seed. None without held-out predictions of
    numbers or classes, with fewer than 40 rows, or where some are not finite.

    Examples
    --------
    >>> remedy_of(xr.DataTree()) is None
    True
    """
    y = held_out(fit)
    if y is None or len(y) < 2 * _FEW or not np.isfinite(np.asarray(y, dtype=float)).all():
        return None
    order = np.random.default_rng(0).permutation(len(y))
    fitted, judged = order[: len(y) // 2], order[len(y) // 2 :]
    probs = predictive_probs(fit)
    if probs is not None:
        return _of_classes(probs, y, fitted, judged) if np.isfinite(probs).all() else None
    sampled = predictive_draws(fit)
    if sampled is None or not np.isfinite(sampled).all() or (np.ptp(sampled, axis=0) == 0).any():
        return None
    return _of_numbers(sampled, y, fitted, judged)


def _of_classes(probs: np.ndarray, y: np.ndarray, fitted: np.ndarray, judged: np.ndarray) -> Remedy:
    temperature = scale_temperature(probs[fitted], y[fitted])
    scaled = temperature.apply(probs)
    sets = conformal_sets(probs[fitted], y[fitted], _LEVEL).apply(probs[judged])
    labels = y[judged].astype(int)
    scores = {"nll": m.nll, "brier": m.brier, "ece": m.ece}
    before = {name: score(y[judged], probs[judged]) for name, score in scores.items()}
    after = {name: score(y[judged], scaled[judged]) for name, score in scores.items()} | {
        "coverage_90": float(sets[np.arange(len(labels)), labels].mean()),
        "set_size": float(sets.sum(axis=1).mean()),
    }
    return Remedy("temperature scaling", temperature.value, len(fitted), len(judged), before, after)


def _of_numbers(
    sampled: np.ndarray, y: np.ndarray, fitted: np.ndarray, judged: np.ndarray
) -> Remedy:
    intervals = conformal_intervals(sampled[:, fitted], y[fitted], _LEVEL)
    before = m.interval(sampled[:, judged], _LEVEL)
    after = intervals.apply(sampled[:, judged])
    return Remedy(
        "split conformal intervals",
        intervals.stretch,
        len(fitted),
        len(judged),
        *(_interval_scores(y[judged], *ends) for ends in (before, after)),
    )


def _interval_scores(y: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> dict[str, float]:
    return {
        "coverage_90": float(((lower <= y) & (y <= upper)).mean()),
        "width_90": float((upper - lower).mean()),
        "interval_score_90": float(m.interval_score(y, lower, upper, _LEVEL).mean()),
    }
