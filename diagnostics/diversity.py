"""How much draws or an ensemble's members differ, against what the data must leave open.

Averaged over rows like the n training ones, the mutual information between a prediction and the
parameters of a regular posterior tends to the number of parameters that the data inform::

    2 n mean_i I(y_i; theta)  ->  p

(for numbers ``I = log(1 + Var_t mu_t / s^2) / 2``; Clarke and Barron 1990, doi:10.1109/18.54897).
Even the mean of n numbers has one parameter. Draws that are worth far less than one say that
they know more than any data could tell them: they have collapsed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from .decomposition import entropy_split
from .reading import attribute, class_draws, draws, evenly, held_out, observed_name, training

# Means over so many evenly spaced rows are as good as over all.
_ROWS = 5_000


@dataclass(frozen=True)
class Diversity:
    """How much the members of an ensemble, or the draws of a posterior, differ.

    Attributes
    ----------
    members
        How many there are.
    parameters
        Parameters' worth of uncertainty within them, ``2 n`` times the mean mutual information,
        without the bias of few members; None where the number n of training rows is not known.
    disagreement
        Share of the pairs of members, over held-out rows, that name different classes; None for
        numbers.
    spread
        Standard deviation of the members' means over rows, as a share of their root mean squared
        error; None for classes, and without held-out observations.
    error_correlation
        Mean correlation over rows of two members' errors (of being wrong, for classes); None
        where some member makes no error, or no row was observed.
    """

    members: int
    parameters: float | None
    disagreement: float | None
    spread: float | None
    error_correlation: float | None


def diversity_of(fit: xr.DataTree) -> Diversity | None:
    """Return the diversity of a fit's draws on its held-out rows, or None without their draws.

    Parameters
    ----------
    fit
        One fit's DataTree, with ``y_probs``, or ``y_mean`` and ``y_variance``, among its
        ``predictions``. All chains are taken together.

    Examples
    --------
    >>> probs = np.array([[[[0.9, 0.1]]], [[[0.2, 0.8]]], [[[0.6, 0.4]]]])
    >>> dims = ("chain", "draw", "test_row", "class")
    >>> fit = xr.DataTree.from_dict({"/predictions": xr.Dataset({"y_probs": (dims, probs)})})
    >>> fit.attrs["observed"] = "y"
    >>> round(diversity_of(fit).disagreement, 3)
    0.667
    """
    probs, y = _probs(fit), _observed(fit)
    if probs is not None:
        each = probs.reshape(-1, *probs.shape[2:])
        named = each.argmax(axis=-1)
        wrong = None if y is None else (named != y).astype(float)
        return Diversity(
            members=len(each),
            parameters=_parameters(fit, _information_of_classes(each)),
            disagreement=_disagreement(named, each.shape[-1]),
            spread=None,
            error_correlation=_correlation(wrong),
        )
    moments = _moments(fit)
    if moments is None:
        return None
    means, variances = (array.reshape(-1, array.shape[-1]) for array in moments)
    errors = None if y is None else y - means
    spread = None
    if errors is not None and len(means) > 1 and np.any(errors):
        spread = float(np.sqrt(means.var(axis=0, ddof=1).mean() / (errors**2).mean()))
    return Diversity(
        members=len(means),
        parameters=_parameters(fit, _information_of_numbers(means, variances)),
        disagreement=None,
        spread=spread,
        error_correlation=_correlation(errors),
    )


def parameters_by_chain(fit: xr.DataTree) -> np.ndarray | None:
    """Return the parameters' worth of uncertainty within each chain, ``(chain,)``, or None."""
    probs, moments = _probs(fit), _moments(fit)
    if probs is not None:
        found = [_parameters(fit, _information_of_classes(chain)) for chain in probs]
    elif moments is not None:
        found = [
            _parameters(fit, _information_of_numbers(*pair)) for pair in zip(*moments, strict=True)
        ]
    else:
        return None
    return None if None in found else np.array(found, dtype=float)


def _moments(fit: xr.DataTree) -> tuple[np.ndarray, np.ndarray] | None:
    name = observed_name(fit)
    means, variances = (draws(fit, "predictions", f"{name}_{x}") for x in ("mean", "variance"))
    if means is None or variances is None:
        return None
    rows = evenly(means.shape[-1], _ROWS)
    return means[..., rows], variances[..., rows]


def _probs(fit: xr.DataTree) -> np.ndarray | None:
    probs = class_draws(fit)
    return None if probs is None else probs[:, :, evenly(probs.shape[2], _ROWS)]


def _observed(fit: xr.DataTree) -> np.ndarray | None:
    y = held_out(fit)
    return None if y is None else y[evenly(len(y), _ROWS)]


def _parameters(fit: xr.DataTree, information: float | None) -> float | None:
    y = training(fit)
    pointwise = draws(fit, "log_likelihood", observed_name(fit))
    known = len(y) if y is not None else 0 if pointwise is None else pointwise.shape[-1]
    rows = float(attribute(fit, "n_train", known))
    return None if information is None or not rows else 2 * rows * information


def _information_of_numbers(means: np.ndarray, variances: np.ndarray) -> float | None:
    if len(means) < 2 or not (variances > 0).all() or not np.isfinite(means).all():
        return None
    ratio = means.var(axis=0, ddof=1) / variances.mean(axis=0)
    return float(0.5 * np.log1p(ratio).mean())


def _information_of_classes(probs: np.ndarray) -> float | None:
    if len(probs) < 2 or not np.isfinite(probs).all():
        return None
    # As a variance's, the mutual information of few members falls short by (T - 1) / T.
    return float(entropy_split(probs)[2].mean() * len(probs) / (len(probs) - 1))


def _disagreement(named: np.ndarray, classes: int) -> float | None:
    members = len(named)
    if members < 2:
        return None
    votes = np.stack([(named == label).sum(axis=0) for label in range(classes)])
    alike = (votes * (votes - 1)).sum(axis=0) / (members * (members - 1))
    return float(1 - alike.mean())


def _correlation(errors: np.ndarray | None) -> float | None:
    if errors is None or len(errors) < 2 or (np.ptp(errors, axis=1) == 0).any():
        return None
    standard = errors - errors.mean(axis=1, keepdims=True)
    standard /= np.sqrt((standard**2).sum(axis=1, keepdims=True))
    # The sum over all pairs at once: (sum of the unit vectors)^2, less each with itself.
    together, members = (standard.sum(axis=0) ** 2).sum(), len(errors)
    return float((together - members) / (members * (members - 1)))
