"""Scores of held-out predictions, on plain arrays: exact definitions, nothing estimated twice.

Where the literature has several definitions of one name, the docstring says which this is.
Draws lead: ``(draw, row)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, ndtr

from .errors import DiagnosticsError


def rmse(y: np.ndarray, mean: np.ndarray) -> float:
    """Root mean squared error of the predictive mean, in units of y.

    Examples
    --------
    >>> rmse(np.array([0.0, 0.0]), np.array([3.0, 4.0]))
    3.5355339059327378
    """
    same_rows("mean", len(y), len(mean))
    return float(np.sqrt(np.mean((y - mean) ** 2)))


def log_score(log_likelihood: np.ndarray) -> np.ndarray:
    """Log density of each row under the mixture of all draws, ``(row,)``.

    ``log (1/T) sum_t p(y_i | draw t)``: the mixture, not one distribution with its moments.

    Parameters
    ----------
    log_likelihood
        ``(draw, row)``.

    Examples
    --------
    >>> log_score(np.log(np.array([[0.2], [0.4]]))).round(6).tolist()
    [-1.203973]
    """
    return logsumexp(log_likelihood, axis=0) - np.log(len(log_likelihood))


def gaussian_log_score(y: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Log density of each row under one normal with the mixture's two moments, ``(row,)``.

    This is what Deep Ensembles report (Lakshminarayanan et al. 2017, arXiv:1612.01474).

    Examples
    --------
    >>> gaussian_log_score(np.zeros(1), np.zeros(1), np.ones(1)).round(6).tolist()
    [-0.918939]
    """
    return -0.5 * (np.log(2 * np.pi * variance) + (y - mean) ** 2 / variance)


def crps(y: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of each row from draws, ``(row,)``; lower is better.

    ``E|X - y| - E|X - X'| / 2`` of the draws' empirical distribution (n, not n - 1), in units of
    y, by sorting (Gneiting and Raftery 2007, doi:10.1198/016214506000001437, equation 21).

    Parameters
    ----------
    y
        ``(row,)``.
    draws
        ``(draw, row)``.

    Examples
    --------
    >>> crps(np.array([0.0]), np.array([[1.0], [3.0]])).tolist()
    [1.5]
    """
    same_rows("draws", len(y), draws.shape[1])
    ordered = np.sort(draws, axis=0)
    n = len(ordered)
    weight = (2 * np.arange(1, n + 1) - 1 - n)[:, None]
    return np.abs(ordered - y).mean(axis=0) - (weight * ordered).sum(axis=0) / n**2


def crps_gaussian(y: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of a normal distribution; lower is better.

    Examples
    --------
    >>> float(crps_gaussian(np.array(0.0), np.array(0.0), np.array(1.0)).round(6))
    0.233695
    """
    z = (y - mean) / sd
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return sd * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))


def nll(y: np.ndarray, probs: np.ndarray) -> float:
    """Mean negative log probability of the true class under the mean probabilities, in nats.

    Parameters
    ----------
    y
        Labels ``(row,)``, integers from 0.
    probs
        ``(row, class)``: the mean over draws (its log, not the mean of logs).

    Examples
    --------
    >>> round(nll(np.array([0]), np.array([[0.5, 0.5]])), 6)
    0.693147
    """
    same_rows("probs", len(y), len(probs))
    # A probability that underflowed to zero costs 708 nats, not infinity.
    picked = probs[np.arange(len(y)), y.astype(int)]
    return float(-np.log(np.maximum(picked, np.finfo(float).tiny)).mean())


def brier(y: np.ndarray, probs: np.ndarray) -> float:
    """Brier score summed over classes, 0 to 2; lower is better.

    Examples
    --------
    >>> round(brier(np.array([0, 1]), np.array([[0.8, 0.2], [0.3, 0.7]])), 6)
    0.13
    """
    same_rows("probs", len(y), len(probs))
    return float(((probs - np.eye(probs.shape[1])[y.astype(int)]) ** 2).sum(axis=1).mean())


@dataclass(frozen=True)
class BrierParts:
    """The parts of a Brier score: ``reliability - resolution + uncertainty + within``.

    Attributes
    ----------
    reliability
        How far probabilities lie from the shares that came true; 0 where calibrated.
    resolution
        How far those shares lie from the base rates; the larger, the better rows are told apart.
    uncertainty
        The base rates' own score, which no model changes.
    within
        What bins hide, near 0 if narrow (Stephenson et al. 2008, doi:10.1175/2007WAF2006116.1).
    """

    reliability: float
    resolution: float
    uncertainty: float
    within: float


def brier_decomposition(y: np.ndarray, probs: np.ndarray, bins: int = 15) -> BrierParts:
    """Split the Brier score of `brier` (Murphy 1973) over equal-width bins of each class.

    Examples
    --------
    >>> parts = brier_decomposition(np.array([0, 1]), np.array([[0.8, 0.2], [0.3, 0.7]]))
    >>> round(parts.reliability - parts.resolution + parts.uncertainty + parts.within, 6)
    0.13
    """
    same_rows("probs", len(y), len(probs))
    truth = np.eye(probs.shape[1])[y.astype(int)]
    base, edges = truth.mean(axis=0), np.linspace(0.0, 1.0, bins + 1)[1:-1]
    reliability = resolution = 0.0
    for stated, true, rate in zip(probs.T, truth.T, base, strict=True):
        which = np.digitize(stated, edges, right=True)
        count = np.bincount(which, minlength=bins)
        filled = count > 0
        mean, share = (np.bincount(which, x, bins)[filled] / count[filled] for x in (stated, true))
        reliability += float((count[filled] * (mean - share) ** 2).sum() / len(y))
        resolution += float((count[filled] * (share - rate) ** 2).sum() / len(y))
    uncertainty = float((base * (1 - base)).sum())
    within = brier(y, probs) - reliability + resolution - uncertainty
    return BrierParts(reliability, resolution, uncertainty, within)


def accuracy(y: np.ndarray, probs: np.ndarray) -> float:
    """Share of rows whose most probable class is the true one.

    Examples
    --------
    >>> accuracy(np.array([0, 1]), np.array([[0.8, 0.2], [0.7, 0.3]]))
    0.5
    """
    same_rows("probs", len(y), len(probs))
    return float((probs.argmax(axis=1) == y).mean())


def ece(y: np.ndarray, probs: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of the top class in bins of equal width.

    ``sum_b n_b / N |accuracy_b - confidence_b|`` over the bins ``(i/bins, (i+1)/bins]`` (Guo et
    al. 2017, arXiv:1706.04599, equation 5).

    Examples
    --------
    >>> round(ece(np.array([0, 1]), np.array([[0.8, 0.2], [0.8, 0.2]])), 6)
    0.3
    """
    same_rows("probs", len(y), len(probs))
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == y
    which = np.digitize(confidence, np.linspace(0.0, 1.0, bins + 1)[1:-1], right=True)
    return float(np.abs(np.bincount(which, correct - confidence, bins)).sum() / len(y))


def adaptive_ece(y: np.ndarray, probs: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of the top class in bins of equal count.

    Examples
    --------
    >>> round(adaptive_ece(np.array([0, 1]), np.array([[0.8, 0.2], [0.8, 0.2]]), bins=1), 6)
    0.3
    """
    same_rows("probs", len(y), len(probs))
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == y
    order = np.argsort(confidence, kind="stable")
    gaps = np.array_split((correct - confidence)[order], bins)
    return float(sum(abs(gap.sum()) for gap in gaps) / len(y))


def pit(y: np.ndarray, draws: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Probability integral transform of each row, in (0, 1); uniform where calibrated.

    Ties (of counts) are broken at random, by `rng` or a fixed seed, so that discrete predictions
    are uniform too (Czado et al. 2009, doi:10.1111/j.1541-0420.2009.01191.x).

    Examples
    --------
    >>> bool(0.5 <= pit(np.array([2.5]), np.array([[1.0], [2.0], [3.0]]))[0] <= 0.75)
    True
    """
    same_rows("draws", len(y), draws.shape[1])
    below, ties = (draws < y).sum(axis=0), (draws == y).sum(axis=0)
    uniform = (rng or np.random.default_rng(0)).uniform(size=len(y))
    return (below + uniform * (ties + 1)) / (len(draws) + 1)


def interval(draws: np.ndarray, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Return the central interval's ends of each row, ``(row,)`` each.

    Examples
    --------
    >>> interval(np.linspace(0.0, 1.0, 101)[:, None])
    (array([0.05]), array([0.95]))
    """
    lower, upper = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return lower, upper


def interval_score(
    y: np.ndarray, lower: np.ndarray, upper: np.ndarray, level: float = 0.9
) -> np.ndarray:
    """Interval score of each row, ``(row,)``, in units of y; lower is better.

    The width, plus ``2 / (1 - level)`` times the distance of y from an interval that misses it
    (Gneiting and Raftery 2007, doi:10.1198/016214506000001437, equation 43).

    Examples
    --------
    >>> interval_score(np.array([0.0, 3.0]), np.full(2, -1.0), np.full(2, 1.0), 0.9).tolist()
    [2.0, 42.0]
    """
    same_rows("lower", len(y), len(lower))
    same_rows("upper", len(y), len(upper))
    missed = np.maximum(lower - y, 0) + np.maximum(y - upper, 0)
    return upper - lower + 2 * missed / round(1 - level, 12)


def coverage(y: np.ndarray, draws: np.ndarray, level: float = 0.9) -> float:
    """Share of rows inside their central interval, judged by `pit` so that counts are exact too.

    Examples
    --------
    >>> coverage(np.array([0.5, 2.0]), np.linspace(0.0, 1.0, 100)[:, None].repeat(2, axis=1))
    0.5
    """
    return float((np.abs(pit(y, draws) - 0.5) <= level / 2).mean())


def sharpness(variance: np.ndarray) -> float:
    """Mean predictive standard deviation, in units of y (not the root of the mean variance).

    Examples
    --------
    >>> sharpness(np.array([1.0, 9.0]))
    2.0
    """
    return float(np.sqrt(variance).mean())


def same_rows(argument: str, expected: int, got: int) -> None:
    if expected != got or not expected:
        raise DiagnosticsError(
            argument,
            expected=f"one entry for each of the {expected} rows of y (and at least one)",
            got=str(got),
            remedy="Pass predictions of the same rows, draws in front.",
        )
