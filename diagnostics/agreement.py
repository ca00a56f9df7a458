"""How far one fit's predictive distribution lies from another's, row by row.

The measures of the Bayesian deep-learning competition (Izmailov et al. 2021, arXiv:2104.14421,
section 6; Wilson et al. 2022): agreement and total variation for classes, Wasserstein-1 for
numbers, each a mean over held-out rows.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from .errors import DiagnosticsError
from .predictive import predictive_draws, predictive_probs
from .reading import evenly

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
        in the reference's standard deviations) and ``sd_ratio`` (geometric mean). Empty where
        the trees lack predictions of held-out rows.

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
            "total_variation": float(0.5 * np.abs(ours - theirs).sum(axis=1).mean()),
        }
    ours, theirs = predictive_draws(fit), predictive_draws(reference)
    if ours is None or theirs is None:
        return {}
    _same_shape(ours.shape[1:], theirs.shape[1:])
    return _between_numbers(ours, theirs)


def _between_numbers(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    from scipy.stats import wasserstein_distance

    rows = evenly(ours.shape[1], _ROWS)
    ours, theirs = ours[:, rows], theirs[:, rows]
    apart = np.array([wasserstein_distance(a, b) for a, b in zip(ours.T, theirs.T, strict=True)])
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
