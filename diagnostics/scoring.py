"""All the scores that apply to one fit's held-out rows."""

from __future__ import annotations

import numpy as np
import xarray as xr

from . import metrics as m
from .decomposition import decompose
from .errors import DiagnosticsError
from .predictive import predictive_draws, predictive_moments, predictive_probs
from .reading import draws, held_out, observed_name, task_of


def scores(fit: xr.DataTree) -> dict[str, float]:
    """Return the scores of the held-out rows that the tree's contents allow.

    Parameters
    ----------
    fit
        One fit's DataTree.

    Returns
    -------
    dict
        ``elpd`` (sum over held-out rows of the log density under the mixture of all draws),
        ``elpd_se``, ``log_score`` (its mean); for regression and counts also
        ``log_score_gaussian`` (one normal with the mixture's moments), ``rmse``, ``crps``,
        ``coverage_50``, ``coverage_90``, ``width_90``, ``sharpness``; for classes ``nll``,
        ``brier``, ``accuracy``, ``ece``, ``ece_adaptive``; and the shares ``epistemic_share``
        and ``aleatoric_share`` of the mean total uncertainty. Empty without held-out rows.

    Examples
    --------
    >>> log_p = xr.Dataset({"y": (("chain", "draw", "test_row"), np.zeros((1, 2, 3)))})
    >>> scores(xr.DataTree.from_dict({"/predictions_log_likelihood": log_p}))["elpd"]
    0.0
    """
    found: dict[str, float] = {}
    pointwise = draws(fit, "predictions_log_likelihood", observed_name(fit))
    if pointwise is not None:
        density = m.log_score(pointwise.reshape(-1, pointwise.shape[-1]))
        found |= {
            "elpd": float(density.sum()),
            "elpd_se": float(np.sqrt(len(density)) * density.std()),
            "log_score": float(density.mean()),
        }
    y = held_out(fit)
    if y is not None:
        classes = task_of(fit) == "classification"
        found |= _class_scores(fit, y) if classes else _number_scores(fit, y)
    return found | _shares(fit)


def _number_scores(fit: xr.DataTree, y: np.ndarray) -> dict[str, float]:
    found: dict[str, float] = {}
    moments, sampled = predictive_moments(fit), predictive_draws(fit)
    if moments is not None:
        mean, variance = moments
        found["rmse"] = m.rmse(y, mean)
        found["sharpness"] = m.sharpness(variance)
        if (variance > 0).all():
            found["log_score_gaussian"] = float(m.gaussian_log_score(y, mean, variance).mean())
    if sampled is not None:
        lower, upper = m.interval(sampled)
        found |= {
            "crps": float(m.crps(y, sampled).mean()),
            "coverage_50": m.coverage(y, sampled, 0.5),
            "coverage_90": m.coverage(y, sampled, 0.9),
            "width_90": float((upper - lower).mean()),
        }
    return found


def _class_scores(fit: xr.DataTree, y: np.ndarray) -> dict[str, float]:
    probs = predictive_probs(fit)
    if probs is None:
        return {}
    return {
        "nll": m.nll(y, probs),
        "brier": m.brier(y, probs),
        "accuracy": m.accuracy(y, probs),
        "ece": m.ece(y, probs),
        "ece_adaptive": m.adaptive_ece(y, probs),
    }


def _shares(fit: xr.DataTree) -> dict[str, float]:
    try:
        split = decompose(fit)
    except DiagnosticsError:
        return {}
    aleatoric, epistemic = (float(split[part].mean()) for part in ("aleatoric", "epistemic"))
    total = aleatoric + epistemic
    if not total > 0:
        return {}
    return {"epistemic_share": epistemic / total, "aleatoric_share": aleatoric / total}
