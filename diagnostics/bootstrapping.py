"""Bootstrap intervals of a score of held-out rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .errors import DiagnosticsError


def bootstrap_interval(
    score: Callable[[np.ndarray, np.ndarray], float],
    y: np.ndarray,
    predicted: np.ndarray,
    level: float = 0.95,
    resamples: int = 500,
) -> tuple[float, float]:
    """Return the bootstrap interval of a score, rows resampled with their predictions.

    The basic bootstrap, which takes away the bias that resampling adds (Davison and Hinkley 1997,
    section 5.2): that of a calibration error is considerable. Its ends never fall below 0.

    Parameters
    ----------
    score
        A score of `y` and `predicted` that is never negative, such as `ppbdl.diagnostics.ece`.
    y
        Observations ``(row,)``.
    predicted
        Predictions with rows in front, such as class probabilities ``(row, class)``.
    level, resamples
        Probability that the interval holds the score of ever more such rows; about, for few. And
        the number of resamples, from a fixed seed.

    Raises
    ------
    DiagnosticsError
        If there is only one row, or the numbers of rows differ.

    Examples
    --------
    >>> from ppbdl.diagnostics import brier
    >>> rng = np.random.default_rng(0)
    >>> y, probs = rng.integers(2, size=400), np.full((400, 2), 0.5)
    >>> bootstrap_interval(brier, y, probs)  # the same for every row: nothing to doubt
    (0.5, 0.5)
    """
    if len(y) < 2 or len(predicted) != len(y):
        raise DiagnosticsError(
            "predicted",
            expected="predictions of at least two rows, as many as y has",
            got=f"{len(predicted)} for {len(y)}",
            remedy="Pass rows in front.",
        )
    from scipy.stats import bootstrap

    found = bootstrap(
        (np.arange(len(y)),),
        lambda rows: score(y[rows], predicted[rows]),
        vectorized=False,
        method="basic",
        n_resamples=resamples,
        confidence_level=level,
        batch=100,
        rng=np.random.default_rng(0),
    )
    low, high = found.confidence_interval
    return max(0.0, float(low)), max(0.0, float(high))
