"""Predictive uncertainty split into aleatoric (noise) and epistemic (ignorance).

Regression and counts (Kendall and Gal 2017, arXiv:1703.04977, equation 9; the law of total
variance)::

    Var[y] = mean_t s_t^2  +  Var_t mu_t
             aleatoric        epistemic

Classes (Depeweg et al. 2018, arXiv:1710.07283; Gal et al. 2017)::

    H[mean_t p_t] = mean_t H[p_t]  +  mutual information
    total           aleatoric         epistemic

and as covariance matrices of the one-hot label (Kwon et al. 2020,
doi:10.1016/j.csda.2019.106816, equation 4), which add to ``diag(p) - p p'`` exactly.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from .errors import DiagnosticsError
from .reading import class_draws, draws, observed_name


def variance_split(means: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split the predictive variance by the law of total variance.

    Parameters
    ----------
    means, variances
        Conditional mean and variance of y under each draw, ``(draw, ...)``, in units of y and
        its square. The variance over draws has the denominator n.

    Returns
    -------
    aleatoric, epistemic
        Variances ``(...)``, in squared units of y.

    Examples
    --------
    >>> variance_split(np.array([[0.0], [2.0]]), np.array([[1.0], [3.0]]))
    (array([2.]), array([1.]))
    """
    return variances.mean(axis=0), means.var(axis=0)


def entropy_split(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split the predictive entropy into expected entropy and mutual information, in nats.

    Parameters
    ----------
    probs
        Class probabilities under each draw, ``(draw, ..., class)``.

    Returns
    -------
    total, aleatoric, epistemic
        Each ``(...)``. The mutual information is never negative, rounding included.

    Examples
    --------
    >>> [float(part.round(6)) for part in entropy_split(np.array([[0.9, 0.1], [0.5, 0.5]]))]
    [0.610864, 0.509115, 0.101749]
    """
    total = _entropy(probs.mean(axis=0))
    aleatoric = _entropy(probs).mean(axis=0)
    return total, aleatoric, np.maximum(total - aleatoric, 0.0)


def kwon_matrices(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Kwon et al.'s aleatoric and epistemic covariance matrices of the one-hot label.

    Parameters
    ----------
    probs
        Class probabilities under each draw, ``(draw, ..., class)``.

    Returns
    -------
    aleatoric, epistemic
        Matrices ``(..., class, class)`` whose sum is ``diag(p) - p p'``, p the mean over draws.

    Examples
    --------
    >>> aleatoric, epistemic = kwon_matrices(np.array([[0.9, 0.1], [0.5, 0.5]]))
    >>> np.diag(aleatoric).round(2).tolist(), np.diag(epistemic).round(2).tolist()
    ([0.17, 0.17], [0.04, 0.04])
    """
    mean = probs.mean(axis=0)
    second_moment = np.einsum("t...c,t...d->...cd", probs, probs) / len(probs)
    aleatoric = mean[..., None] * np.eye(probs.shape[-1]) - second_moment
    # Centred before squaring: the difference of moments cancels where draws nearly agree.
    centred = probs - mean
    epistemic = np.einsum("t...c,t...d->...cd", centred, centred) / len(probs)
    return aleatoric, epistemic


def kwon_diagonals(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the diagonals of `kwon_matrices` alone, ``(..., class)``: variances of each label.

    Examples
    --------
    >>> kwon_diagonals(np.array([[0.9, 0.1], [0.5, 0.5]]))[1].round(2).tolist()
    [0.04, 0.04]
    """
    return (probs * (1.0 - probs)).mean(axis=0), probs.var(axis=0)


def decompose(fit: xr.DataTree) -> xr.Dataset:
    """Return each held-out row's uncertainty, split; computed only where the tree lacks it.

    Parameters
    ----------
    fit
        One fit's DataTree, with a group ``uncertainty``, or with ``y_mean`` and ``y_variance``
        or ``y_probs`` among its ``predictions``.

    Returns
    -------
    xarray.Dataset
        Regression and counts: ``mean``, ``aleatoric``, ``epistemic`` (test_row). Classes:
        ``probs`` (test_row, class), ``total``, ``aleatoric``, ``epistemic`` (test_row), and
        ``kwon_aleatoric``, ``kwon_epistemic`` (test_row, class).

    Raises
    ------
    DiagnosticsError
        If the tree holds neither.
    """
    if "uncertainty" in fit.children and all(fit["uncertainty"].sizes.values()):
        return fit["uncertainty"].to_dataset()
    probs = class_draws(fit)
    if probs is not None:
        return _split_classes(probs.reshape(-1, *probs.shape[2:]))
    name = observed_name(fit)
    means, variances = (draws(fit, "predictions", f"{name}_{part}") for part in _MOMENTS)
    if means is None or variances is None:
        raise DiagnosticsError(
            "fit",
            expected=f"a group uncertainty, or {name}_mean and {name}_variance in predictions",
            got=f"the groups {sorted(fit.children)}",
            remedy="Predict on held-out rows and store each draw's mean and variance.",
        )
    rows = means.shape[-1]
    aleatoric, epistemic = variance_split(means.reshape(-1, rows), variances.reshape(-1, rows))
    parts = {"mean": means.mean(axis=(0, 1)), "aleatoric": aleatoric, "epistemic": epistemic}
    return xr.Dataset({part: ("test_row", array) for part, array in parts.items()})


_MOMENTS = ("mean", "variance")


def _split_classes(probs: np.ndarray) -> xr.Dataset:
    total, aleatoric, epistemic = entropy_split(probs)
    kwon_aleatoric, kwon_epistemic = kwon_diagonals(probs)
    rows, classes = ("test_row",), ("test_row", "class")
    return xr.Dataset(
        {
            "probs": (classes, probs.mean(axis=0)),
            "total": (rows, total),
            "aleatoric": (rows, aleatoric),
            "epistemic": (rows, epistemic),
            "kwon_aleatoric": (classes, kwon_aleatoric),
            "kwon_epistemic": (classes, kwon_epistemic),
        }
    )


def _entropy(probs: np.ndarray) -> np.ndarray:
    # The limit p log p -> 0 at p = 0, without a warning.
    return -np.sum(probs * np.log(np.where(probs > 0, probs, 1.0)), axis=-1)
