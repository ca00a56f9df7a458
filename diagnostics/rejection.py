"""Accuracy of the rows that remain as a classifier passes its most uncertain ones to a person.

With the rows in order of their uncertainty, and c_i whether row i is right::

    accuracy(k) = 1/k sum_{i <= k} c_i                    the k most certain rows of n
    area        = 1/n sum_k accuracy(k)

The area is one minus the area under the risk-coverage curve (Geifman and El-Yaniv 2017,
arXiv:1705.08500). A useless order keeps the accuracy a of all rows, and its area; the best order,
every mistake last, reaches ``a (1 - log a)`` for many rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import DiagnosticsError


@dataclass(frozen=True)
class RejectionCurve:
    """Accuracy of the rows kept, by the share rejected.

    Attributes
    ----------
    rejected
        Share of the rows rejected, ``(row,)``: 0, 1/n, ..., (n - 1)/n.
    accuracy
        Accuracy of the others, ``(row,)``.
    area
        Mean of that accuracy over the shares, 0 to 1; higher is better.
    """

    rejected: np.ndarray
    accuracy: np.ndarray
    area: float


def rejection_curve(correct: np.ndarray, uncertainty: np.ndarray) -> RejectionCurve:
    """Return the accuracy of the rows kept as the most uncertain are rejected.

    Rows of equal uncertainty are rejected in no particular order: the curve is the mean over all
    orders of theirs, and so does not depend on the order in which rows are passed.

    Parameters
    ----------
    correct
        Whether each row's top class is right, ``(row,)``. A row of a class that the model never
        saw counts as wrong: pass False for it.
    uncertainty
        A score of `novelty_scores`, ``(row,)``; the rows of the largest are rejected first.

    Raises
    ------
    DiagnosticsError
        If there are no rows, their numbers differ, or an entry has no meaning.

    Examples
    --------
    >>> curve = rejection_curve(np.array([True, False, True]), np.array([0.1, 0.9, 0.2]))
    >>> curve.rejected.round(2).tolist(), curve.accuracy.round(2).tolist(), round(curve.area, 3)
    ([0.0, 0.33, 0.67], [0.67, 1.0, 1.0], 0.889)
    """
    correct, uncertainty = _checked(correct, uncertainty)
    _, which, count = np.unique(uncertainty, return_inverse=True, return_counts=True)
    # The mean over the orders of tied rows: each is right as often as they are on average.
    share = np.bincount(which, correct) / count
    rows = len(correct)
    kept = np.arange(1, rows + 1)
    accuracy = np.minimum(np.cumsum(np.repeat(share, count)) / kept, 1.0)
    return RejectionCurve((rows - kept[::-1]) / rows, accuracy[::-1], float(accuracy.mean()))


def _checked(correct: np.ndarray, uncertainty: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    correct, uncertainty = np.asarray(correct), np.asarray(uncertainty, dtype=float)
    if correct.ndim != 1 or not correct.size or not np.isin(correct, (0, 1)).all():
        raise DiagnosticsError(
            "correct",
            expected="True or False for each of at least one row",
            got=f"an array {correct.shape} of {correct.dtype}",
            remedy="Pass probs.argmax(axis=1) == y.",
        )
    if uncertainty.shape != correct.shape or np.isnan(uncertainty).any():
        raise DiagnosticsError(
            "uncertainty",
            expected=f"a number for each of the {len(correct)} rows of correct",
            got=f"an array {uncertainty.shape}, {np.isnan(uncertainty).sum()} of it NaN",
            remedy="Score every row; mend a model whose predictions are NaN.",
        )
    return correct.astype(float), uncertainty
