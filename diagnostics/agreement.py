"""How far one fit's predictive distribution lies from another's, row by row.

The measures of the Bayesian deep-learning competition (Izmailov et al. 2021, arXiv:2104.14421,
section 6; Wilson et al. 2022): agreement and total variation for classes, Wasserstein-1 for
numbers, each a mean over held-out rows. And whether the two are unsure of the same rows: the rank
correlation (Spearman's) of their epistemic uncertainties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from .decomposition import decompose
from .errors import DiagnosticsError
from .predictive import predictive_draws, predictive_probs
from .reading import HELD_OUT_GROUPS, evenly, row_labels
from .rows import class_labels, held_out_rows

if TYPE_CHECKING:
    import pandas as pd

_ROWS = 500


def distance(fit: xr.DataTree, reference: xr.DataTree) -> dict[str, float]:
    """Return the distance of a fit's held-out predictions from the reference's.

    Parameters
    ----------
    fit, reference
        Two fits' DataTrees with the same held-out rows.

    Returns
    -------
    dict
        Classes: ``agreement`` (share of rows with the same most probable class) and
        ``total_variation`` (0 to 1). Numbers: ``wasserstein`` (in units of y; of 500 evenly
        spaced rows where there are more), ``wasserstein_sd`` (in the reference's predictive
        standard deviations), ``mean_difference`` (mean absolute difference of predictive means,
        in the reference's standard deviations) and ``sd_ratio`` (geometric mean). Either:
        ``uncertainty_rank_correlation``, -1 to 1, where both tell the epistemic uncertainty of
        rows, and it differs between rows. Empty where the trees lack predictions of held-out rows.

    Raises
    ------
    DiagnosticsError
        If the two predict different numbers of rows or classes.
    """
    ours, theirs = predictive_probs(fit), predictive_probs(reference)
    if ours is not None and theirs is not None:
        _same_shape(ours.shape, theirs.shape)
        return {
            "agreement": float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()),
            "total_variation": float(_total_variation(ours, theirs).mean()),
        } | _of_uncertainties(fit, reference)
    ours, theirs = predictive_draws(fit), predictive_draws(reference)
    if ours is None or theirs is None:
        return {}
    _same_shape(ours.shape[1:], theirs.shape[1:])
    return _between_numbers(ours, theirs) | _of_uncertainties(fit, reference)


def disagreements(fit: xr.DataTree, reference: xr.DataTree, most: int = 10) -> pd.DataFrame:
    """Return the held-out rows where two fits disagree most, with both predictions and the inputs.

    Parameters
    ----------
    fit, reference
        Two fits' DataTrees with the same held-out rows.
    most
        How many rows to return.

    Returns
    -------
    pandas.DataFrame
        Indexed by held-out row, the furthest first. ``distance`` is the total variation (classes)
        or the Wasserstein-1 distance in units of y (numbers); ``prediction`` and ``reference``
        are the most probable class or the predictive mean; ``observed`` and the inputs follow,
        where the tree has them.

    Raises
    ------
    DiagnosticsError
        If a fit holds no predictions of held-out rows, or they are of different rows.
    """
    import pandas as pd

    ours, theirs, classes = _pair(fit, reference)
    if classes:
        pair = [class_labels(fit, probs.argmax(axis=1)) for probs in (ours, theirs)]
    else:
        pair = [sampled.mean(axis=0) for sampled in (ours, theirs)]
    apart = row_distances(fit, reference)
    table = pd.DataFrame({"distance": apart, "prediction": pair[0], "reference": pair[1]})
    table = table.join(held_out_rows(fit))
    table.index = row_labels(fit, HELD_OUT_GROUPS, len(table))
    table = table.rename_axis("row")
    return table.sort_values("distance", ascending=False, kind="stable").head(most)


def row_distances(fit: xr.DataTree, reference: xr.DataTree) -> np.ndarray:
    """Return each held-out row's distance between two fits' predictions, ``(row,)``.

    Total variation (classes), or Wasserstein-1 in units of y (numbers).

    Raises
    ------
    DiagnosticsError
        As `disagreements`.
    """
    ours, theirs, classes = _pair(fit, reference)
    return _total_variation(ours, theirs) if classes else _wasserstein(ours, theirs)


def _pair(fit: xr.DataTree, reference: xr.DataTree) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return both fits' class probabilities, or draws of numbers, and which of the two it is."""
    ours, theirs = predictive_probs(fit), predictive_probs(reference)
    classes = ours is not None and theirs is not None
    if not classes:
        ours, theirs = predictive_draws(fit), predictive_draws(reference)
    if ours is None or theirs is None:
        raise DiagnosticsError(
            "fit",
            expected="two fits with predictions of held-out rows",
            got="at least one without",
            remedy="Predict the same held-out rows with both, and store the predictions.",
        )
    if classes:
        _same_shape(ours.shape, theirs.shape)
    else:
        _same_shape(ours.shape[1:], theirs.shape[1:])
    return ours, theirs, classes


def _total_variation(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return 0.5 * np.abs(ours - theirs).sum(axis=1)


def _wasserstein(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    from scipy.stats import wasserstein_distance

    return np.array([wasserstein_distance(a, b) for a, b in zip(ours.T, theirs.T, strict=True)])


def _of_uncertainties(fit: xr.DataTree, reference: xr.DataTree) -> dict[str, float]:
    from scipy.stats import rankdata

    try:
        pair = [decompose(each)["epistemic"].values.ravel() for each in (fit, reference)]
    except DiagnosticsError:
        return {}
    if pair[0].shape != pair[1].shape or any(np.ptp(one) == 0 for one in pair):
        return {}
    if not all(np.isfinite(one).all() for one in pair):
        return {}
    correlation = np.corrcoef(*(rankdata(one) for one in pair))[0, 1]
    return {"uncertainty_rank_correlation": float(correlation)}


def _between_numbers(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    rows = evenly(ours.shape[1], _ROWS)
    ours, theirs = ours[:, rows], theirs[:, rows]
    apart = _wasserstein(ours, theirs)
    found = {"wasserstein": float(apart.mean())}
    sd, reference_sd = ours.std(axis=0), theirs.std(axis=0)
    if (sd > 0).all() and (reference_sd > 0).all():
        shift = np.abs(ours.mean(axis=0) - theirs.mean(axis=0))
        found |= {
            "wasserstein_sd": float((apart / reference_sd).mean()),
            "mean_difference": float((shift / reference_sd).mean()),
            "sd_ratio": float(np.exp(np.log(sd / reference_sd).mean())),
        }
    return found


def _same_shape(ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    if ours != theirs:
        raise DiagnosticsError(
            "reference",
            expected=f"predictions of shape {ours}, as the fit's",
            got=str(theirs),
            remedy="Compare fits that predict the same held-out rows.",
        )
