"""How far a score would move had other rows been kept back: bootstrap intervals over rows.

The basic bootstrap (Davison and Hinkley 1997, section 5.2.1) reflects the quantiles of resampled
scores about the score found, ``2 t - t*_q``. It takes away the bias that resampling adds to scores
such as the ECE, which percentile intervals would count twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import DiagnosticsError


def bootstrap_interval(
    score: Callable[..., Any], *rows: int, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the basic bootstrap interval of a score of rows.

    Parameters
    ----------
    score
        A function of indices ``(row,)``, one array for each group of rows, that returns the score
        (a number or an array) of these rows alone.
    *rows
        The size of each group; groups are resampled apart, each to its own size.
    level
        Probability that the interval holds the score of ever more such rows; about, for few.
    resamples, seed
        Number of resamples and their seed.

    Returns
    -------
    low, high
        Ends, of the score's shape and in its units. They may pass a score's own bounds.

    Raises
    ------
    DiagnosticsError
        If a group has no row, or none is given.

    Examples
    --------
    >>> y = np.arange(100.0)
    >>> low, high = bootstrap_interval(lambda rows: y[rows].mean(), 100)
    >>> bool(43 < low < 45 and 54 < high < 56)
    True
    """
    if not rows or min(rows) < 1:
        raise DiagnosticsError(
            "rows",
            expected="the number of rows of each group, at least 1",
            got=str(rows),
            remedy="Pass len(y), or one length for each of two groups.",
        )
    rng = np.random.default_rng(seed)
    found = np.asarray(score(*(np.arange(size) for size in rows)), dtype=float)
    again = [
        np.asarray(score(*(rng.integers(size, size=size) for size in rows)), dtype=float)
        for _ in range(resamples)
    ]
    low, high = np.quantile(again, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return 2 * found - high, 2 * found - low
