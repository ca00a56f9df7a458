"""All the scores that apply to one fit's held-out rows."""

from __future__ import annotations

import numpy as np
import xarray as xr

from . import metrics as m
from .decomposition import decompose
from .errors import DiagnosticsError
from .predictive import predictive_draws, predictive_moments, predictive_probs
from .reading import draws, held_out, observed_name, task_of
from .thinning import held_out_blocks


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
    return scores_of(scored_rows(fit))


def scored_rows(fit: xr.DataTree) -> dict[str, np.ndarray]:
    """Return what each held-out row adds to the scores, ``(row,)`` or ``(row, class)``.

    Of a large fit block by block: it is never in memory as a whole.
    """
    rng = np.random.default_rng(0)
    parts = [_of_rows(block, rng) for block in held_out_blocks(fit)]
    names = set.intersection(*(set(part) for part in parts))
    return {name: np.concatenate([part[name] for part in parts]) for name in sorted(names)}


def scores_of(rows: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the scores that `scored_rows` add up to."""
    found: dict[str, float] = {}
    if "log_score" in rows:
        density = rows["log_score"]
        found |= {
            "elpd": float(density.sum()),
            "elpd_se": float(np.sqrt(len(density)) * density.std()),
            "log_score": float(density.mean()),
        }
    if "probs" in rows and "y" in rows:
        y, probs = rows["y"], rows["probs"]
        found |= {
            "nll": m.nll(y, probs),
            "brier": m.brier(y, probs),
            "accuracy": m.accuracy(y, probs),
            "ece": m.ece(y, probs),
            "ece_adaptive": m.adaptive_ece(y, probs),
        }
    for score, name, after in _MEANS:
        if name in rows:
            found[score] = float(after(rows[name].mean()))
    aleatoric, epistemic = (rows.get(part, np.zeros(1)).mean() for part in _PARTS)
    if aleatoric + epistemic > 0:
        found["epistemic_share"] = float(epistemic / (aleatoric + epistemic))
        found["aleatoric_share"] = float(aleatoric / (aleatoric + epistemic))
    return found


_PARTS = ("aleatoric", "epistemic")
_MEANS = (
    ("rmse", "squared_error", np.sqrt),
    ("sharpness", "sd", float),
    ("log_score_gaussian", "gaussian", float),
    ("crps", "crps", float),
    ("coverage_50", "inside_50", float),
    ("coverage_90", "inside_90", float),
    ("width_90", "width", float),
)


def _of_rows(fit: xr.DataTree, rng: np.random.Generator) -> dict[str, np.ndarray]:
    rows: dict[str, np.ndarray] = {}
    pointwise = draws(fit, "predictions_log_likelihood", observed_name(fit))
    if pointwise is not None:
        rows["log_score"] = m.log_score(pointwise.reshape(-1, pointwise.shape[-1]))
    y = held_out(fit)
    if y is not None and task_of(fit) == "classification":
        probs = predictive_probs(fit)
        rows |= {} if probs is None else {"y": y, "probs": probs}
    elif y is not None:
        rows |= _of_numbers(fit, y, rng)
    try:
        split = decompose(fit)
    except DiagnosticsError:
        return rows
    return rows | {part: split[part].values.ravel() for part in _PARTS}


def _of_numbers(fit: xr.DataTree, y: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    rows: dict[str, np.ndarray] = {}
    moments, sampled = predictive_moments(fit), predictive_draws(fit)
    seen = ~np.isnan(y)
    if moments is not None:
        m.same_rows("mean", len(y), len(moments[0]))
        mean, variance = (moment[seen] for moment in moments)
        rows |= {"squared_error": (y[seen] - mean) ** 2, "sd": np.sqrt(variance)}
        if (variance > 0).all():
            rows["gaussian"] = m.gaussian_log_score(y[seen], mean, variance)
    if sampled is not None:
        m.same_rows("draws", len(y), sampled.shape[1])
        sampled = sampled[:, seen]
        lower, upper = m.interval(sampled)
        off_centre = np.abs(m.pit(y[seen], sampled, rng) - 0.5)
        rows |= {
            "crps": m.crps(y[seen], sampled),
            "inside_50": off_centre <= 0.25,
            "inside_90": off_centre <= 0.45,
            "width": upper - lower,
        }
    return rows
