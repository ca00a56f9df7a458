"""Post-hoc remedies for miscalibration, fitted on a calibration split that training never saw.

- **Temperature scaling** (Guo et al. 2017, arXiv:1706.04599): ``p_c^(1/T) / sum_d p_d^(1/T)``, T
  minimising the negative log likelihood of the calibration rows. The top class stays.
- **Split conformal prediction** (Vovk et al. 2005; Lei et al. 2018, arXiv:1604.04173): with n
  calibration scores s_i and q the ``ceil((n + 1) level)``-th smallest, ``{y: s(x, y) <= q}`` holds
  the next y with probability at least `level` (and at most ``level + 1 / (n + 1)`` without ties),
  whatever the model, where calibration rows and new ones are exchangeable. The guarantee is over
  calibration splits and rows together: of one split, coverage is Beta distributed about it.

Scores: for numbers the excess over the fit's own interval, ``max(lower - y, y - upper)`` in units
of the predictive sd (conformalised as in Romano et al. 2019, arXiv:1905.03222); for classes
``1 - p_y`` (Sadinle et al. 2019, arXiv:1609.00451). Fit on one split and judge on another: rows
that the remedy was fitted to say nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from .errors import DiagnosticsError
from .metrics import nll

_LOG_TEMPERATURES = (-5.0, 5.0)


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature; above 1 it softens, below 1 it sharpens.

    Attributes
    ----------
    value
        T.
    nll_before, nll_after
        Mean negative log probability of the calibration labels, in nats; the second is a little
        optimistic, as T was fitted to these rows.
    """

    value: float
    nll_before: float
    nll_after: float

    def apply(self, probs: np.ndarray) -> np.ndarray:
        """Return the recalibrated probabilities ``(..., class)``."""
        return _tempered(np.asarray(probs, dtype=float), self.value)


def scale_temperature(probs: np.ndarray, y: np.ndarray) -> Temperature:
    """Fit one temperature to the calibration rows by maximum likelihood.

    Parameters
    ----------
    probs
        Mean predictive probabilities ``(row, class)``.
    y
        Labels ``(row,)``, integers from 0.

    Raises
    ------
    DiagnosticsError
        If there are no rows, their numbers differ, or the entries are not probabilities and
        labels of theirs.

    Examples
    --------
    >>> probs = np.array([[0.99, 0.01]] * 4)
    >>> temperature = scale_temperature(probs, np.array([0, 0, 0, 1]))
    >>> round(temperature.value, 2), temperature.apply(probs[:1]).round(2)
    (4.18, array([[0.75, 0.25]]))
    """
    from scipy.optimize import minimize_scalar

    probs, y = _classes(probs, y)
    # The likelihood is concave in 1 / T, so that along log T there is one minimum.
    found: Any = minimize_scalar(
        lambda log_t: nll(y, _tempered(probs, np.exp(log_t))),
        bounds=_LOG_TEMPERATURES,
        method="bounded",
        options={"xatol": 1e-6},
    )
    value = float(np.exp(found.x))
    return Temperature(value, nll(y, probs), nll(y, _tempered(probs, value)))


@dataclass(frozen=True)
class ConformalIntervals:
    """Central intervals of each row, stretched so that they hold their level.

    Attributes
    ----------
    level
        Probability that they hold the next observation.
    stretch
        What is added at both ends of the fit's own interval, in predictive standard deviations;
        negative where the fit was too wide, infinite where the calibration rows are too few.
    coverage_before
        Share of the calibration rows in the fit's own intervals.
    """

    level: float
    stretch: float
    coverage_before: float

    def apply(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the intervals' ends ``(row,)`` each, from predictive draws ``(draw, row)``."""
        lower, upper, sd = _interval(np.asarray(draws, dtype=float), self.level)
        # A negative stretch cannot turn an interval inside out.
        half = np.maximum((upper - lower) / 2 + self.stretch * sd, 0.0)
        centre = (lower + upper) / 2
        return centre - half, centre + half


def conformal_intervals(draws: np.ndarray, y: np.ndarray, level: float = 0.9) -> ConformalIntervals:
    """Fit how far a fit's central intervals must be stretched to hold `level` of new rows.

    Parameters
    ----------
    draws
        Predictive draws of the calibration rows, ``(draw, row)``, in units of y.
    y
        Their observations ``(row,)``.
    level
        Between 0 and 1.

    Raises
    ------
    DiagnosticsError
        If there are no rows, their numbers differ, something is not finite, a row's draws are all
        equal, or the level is no probability.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> too_narrow, y = rng.normal(size=(500, 300)), 2 * rng.normal(size=300)
    >>> intervals = conformal_intervals(too_narrow, y)
    >>> lower, upper = intervals.apply(rng.normal(size=(500, 1)))
    >>> intervals.coverage_before < 0.7, bool(5.5 < upper[0] - lower[0] < 8)
    (True, True)
    """
    draws, y = _numbers(draws, y)
    _a_level(level)
    lower, upper, sd = _interval(draws, level)
    excess = np.maximum(lower - y, y - upper) / sd
    return ConformalIntervals(
        level, _conformal_quantile(excess, level), float((excess <= 0).mean())
    )


@dataclass(frozen=True)
class ConformalSets:
    """Sets of classes that hold the true one with a given probability.

    Attributes
    ----------
    level
        That probability.
    least
        A class belongs where its probability is at least this.
    """

    level: float
    least: float

    def apply(self, probs: np.ndarray) -> np.ndarray:
        """Return whether each class belongs, ``(row, class)`` of bool; a set may be empty."""
        return np.asarray(probs) >= self.least


def conformal_sets(probs: np.ndarray, y: np.ndarray, level: float = 0.9) -> ConformalSets:
    """Fit the least probability at which a class joins a row's set.

    Parameters
    ----------
    probs
        Mean predictive probabilities of the calibration rows, ``(row, class)``.
    y
        Their labels ``(row,)``, integers from 0.
    level
        Between 0 and 1.

    Raises
    ------
    DiagnosticsError
        As `scale_temperature`; or if the level is no probability.

    Examples
    --------
    >>> probs = np.array([[0.9, 0.1], [0.7, 0.3], [0.4, 0.6], [0.2, 0.8]])
    >>> sets = conformal_sets(probs, np.array([0, 0, 0, 1]), level=0.75)
    >>> sets.least, sets.apply(np.array([[0.55, 0.45], [0.65, 0.35]])).tolist()
    (0.4, [[True, True], [True, False]])
    """
    probs, y = _classes(probs, y)
    _a_level(level)
    picked = probs[np.arange(len(y)), y]
    return ConformalSets(level, -_conformal_quantile(-picked, level))


def _conformal_quantile(scores: np.ndarray, level: float) -> float:
    # Rounded first: (n + 1) level is whole more often than its floating-point value.
    rank = int(np.ceil(round((len(scores) + 1) * level, 9)))
    return float("inf") if rank > len(scores) else float(np.sort(scores)[rank - 1])


def _tempered(probs: np.ndarray, temperature: float) -> np.ndarray:
    logs = np.log(np.maximum(probs, np.finfo(float).tiny)) / temperature
    return softmax(logs, axis=-1)


def _interval(draws: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lower, upper = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return lower, upper, draws.std(axis=0)


def _classes(probs: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probs, y = np.asarray(probs, dtype=float), np.asarray(y)
    summed = probs.ndim == 2 and bool((np.abs(probs.sum(axis=1) - 1) < 1e-2).all())
    if not summed or not probs.size or not (probs >= 0).all():
        raise DiagnosticsError(
            "probs",
            expected="probabilities (row, class) of at least one row, each adding to 1",
            got=f"an array {probs.shape} of another kind",
            remedy="Average the draws' probabilities; don't pass logits or single draws.",
        )
    fits = y.shape == (len(probs),) and bool(np.isin(y, np.arange(probs.shape[1])).all())
    if not fits:
        raise DiagnosticsError(
            "y",
            expected=f"labels 0 to {probs.shape[1] - 1} of the {len(probs)} rows of probs",
            got=f"an array {y.shape} of other entries",
            remedy="Pass the calibration rows' labels, as integers from 0.",
        )
    return probs, y.astype(int)


def _numbers(draws: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    draws, y = np.asarray(draws, dtype=float), np.asarray(y, dtype=float)
    if draws.ndim != 2 or not np.isfinite(draws).all() or not (np.ptp(draws, axis=0) > 0).all():
        raise DiagnosticsError(
            "draws",
            expected="finite draws of y (draw, row) that differ in every row",
            got=f"an array {draws.shape} of another kind",
            remedy="Pass draws of y itself, noise included, draws in front.",
        )
    if y.shape != draws.shape[1:] or not y.size or not np.isfinite(y).all():
        raise DiagnosticsError(
            "y",
            expected=f"finite observations of the {draws.shape[1]} rows of draws",
            got=f"an array {y.shape}",
            remedy="Pass the calibration rows' observations.",
        )
    return draws, y


def _a_level(level: float) -> None:
    if not 0 < level < 1:
        raise DiagnosticsError(
            "level",
            expected="a probability between 0 and 1",
            got=repr(level),
            remedy="Pass 0.9 for 90%.",
        )
