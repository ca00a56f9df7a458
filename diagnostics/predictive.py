"""The predictive distribution of held-out rows as plain draws, whatever the tree kept of it."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.special import ndtri

from .decomposition import decompose
from .errors import DiagnosticsError
from .reading import class_draws, draws, observed_name, task_of

# Below this many draws an interval's ends are the draws' own extremes: an ensemble of five would
# look overconfident for want of draws alone.
_ENOUGH = 100
_NUMBERS = ("regression", "count")


def predictive_draws(fit: xr.DataTree) -> np.ndarray | None:
    """Return draws of the held-out y, ``(draw, row)``, in units of y, or None.

    A tree with fewer than 100 draws of y (an ensemble, a MAP fit) gives instead evenly spaced
    quantiles of each draw's conditional distribution, taken as normal with that draw's mean and
    variance (rounded and kept from falling below zero for counts); so does one that kept the
    moments of ``uncertainty`` only, with a single normal distribution. None for classes and
    density estimates, whose rows have no single number to predict.
    """
    if task_of(fit) not in _NUMBERS:
        return None
    name = observed_name(fit)
    sampled = draws(fit, "predictions", name)
    if sampled is not None and sampled.shape[0] * sampled.shape[1] >= _ENOUGH:
        return sampled.reshape(-1, sampled.shape[-1]).astype(float)
    means = draws(fit, "predictions", f"{name}_mean")
    variances = draws(fit, "predictions", f"{name}_variance")
    if means is not None and variances is not None:
        rows = means.shape[-1]
        return _quantiles(fit, means.reshape(-1, rows), variances.reshape(-1, rows))
    moments = predictive_moments(fit)
    if moments is not None:
        return _quantiles(fit, moments[0][None], moments[1][None])
    return None if sampled is None else sampled.reshape(-1, sampled.shape[-1]).astype(float)


def predictive_moments(fit: xr.DataTree) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the held-out predictive mean and total variance, each ``(row,)``, or None."""
    if task_of(fit) not in _NUMBERS:
        return None
    try:
        split = decompose(fit)
    except DiagnosticsError:
        sampled = draws(fit, "predictions", observed_name(fit))
        if sampled is None:
            return None
        return sampled.mean(axis=(0, 1)), sampled.var(axis=(0, 1))
    if "mean" not in split:
        return None
    variance = split["aleatoric"].values + split["epistemic"].values
    return split["mean"].values.ravel(), variance.ravel()


def predictive_probs(fit: xr.DataTree) -> np.ndarray | None:
    """Return the held-out class probabilities, the mean over draws, ``(row, class)``, or None."""
    if "uncertainty" in fit.children and "probs" in fit["uncertainty"].data_vars:
        return np.asarray(fit["uncertainty"]["probs"].values)
    probs = class_draws(fit)
    return None if probs is None else probs.mean(axis=(0, 1))


def function_draws(fit: xr.DataTree) -> tuple[str, np.ndarray] | None:
    """Return what the weights do, in words, and its draws ``(chain, draw, row)``, or None.

    The first that the tree holds: the predictive mean of held-out rows, their class
    probabilities, or the log likelihood of training rows. Unlike weights, they are identified.
    """
    means = draws(fit, "predictions", f"{observed_name(fit)}_mean")
    if means is not None:
        return "the predicted mean of held-out rows", means
    probs = class_draws(fit)
    if probs is not None:
        # Rows of probabilities add to one: the last class tells nothing new.
        return "the held-out class probabilities", probs[..., :-1].reshape(*probs.shape[:2], -1)
    pointwise = draws(fit, "log_likelihood", observed_name(fit))
    return None if pointwise is None else ("the log likelihood of training rows", pointwise)


def _quantiles(fit: xr.DataTree, means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Represent the mixture of normals, ``(draw, row)``, by at least 400 quantiles a row."""
    each = max(1, -(-400 // len(means)))
    z = ndtri((np.arange(each) + 0.5) / each)
    quantiles = means[:, None] + np.sqrt(variances)[:, None] * z[:, None]
    quantiles = quantiles.reshape(-1, means.shape[-1])
    return np.maximum(np.rint(quantiles), 0.0) if task_of(fit) == "count" else quantiles
