"""What the diagnostics read from a tree, whoever made it: names, kinds and plain arrays.

Every array leaves here as NumPy with ``(chain, draw)`` in front and all further dimensions
flattened into rows (classes stay last), so that no check depends on a tree's dimension names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr

from .errors import DiagnosticsError

Kind = Literal["mcmc", "density", "implicit"]
Task = Literal["regression", "classification", "count", "density"]

TRAINING_GROUPS = (
    "log_likelihood",
    "posterior_predictive",
    "prior_predictive",
    "observed_data",
    "constant_data",
)
HELD_OUT_GROUPS = (
    "predictions",
    "predictions_log_likelihood",
    "predictions_observed_data",
    "predictions_constant_data",
    "uncertainty",
)
_DRAWS = ("chain", "draw")
_OBSERVING_GROUPS = (
    "observed_data",
    "log_likelihood",
    "predictions_observed_data",
    "predictions_log_likelihood",
    "predictions",
)


def attribute(fit: xr.DataTree, name: str, default: Any) -> Any:
    """Return a root attribute, or `default` where it is missing or empty."""
    value = fit.attrs.get(name, default)
    return default if value is None or (isinstance(value, str) and not value) else value


def settings_of(fit: xr.DataTree, name: str = "settings") -> dict[str, Any]:
    """Return a JSON attribute (`settings` or `versions`) as a dictionary, empty if unreadable."""
    value = attribute(fit, name, {})
    if isinstance(value, Mapping):
        return dict(value)
    try:
        parsed = json.loads(value)
    except (TypeError, ValueError):
        return {name: str(value)}
    return parsed if isinstance(parsed, dict) else {name: parsed}


def observed_name(fit: xr.DataTree) -> str:
    """Return the observed site's name: the attribute ``observed``, else the first one found."""
    named = str(attribute(fit, "observed", ""))
    if named:
        return named
    for group in _OBSERVING_GROUPS:
        if group in fit.children and fit[group].data_vars:
            return str(next(iter(fit[group].data_vars)))
    return "y"


def kind_of(fit: xr.DataTree) -> Kind:
    """Return how the draws arose: ``mcmc``, ``density`` (log_q known) or ``implicit``."""
    named = attribute(fit, "kind", "")
    if named in ("mcmc", "density", "implicit"):
        return named
    return "density" if draws(fit, "sample_stats", "log_q") is not None else "mcmc"


def task_of(fit: xr.DataTree) -> Task:
    """Return the task, guessed from class probabilities and the observations' type if unnamed."""
    named = attribute(fit, "task", "")
    if named in ("regression", "classification", "count", "density"):
        return named
    if class_draws(fit) is not None or _has(fit, "uncertainty", "probs"):
        return "classification"
    y = values(fit, "observed_data", observed_name(fit))
    y = values(fit, "predictions_observed_data", observed_name(fit)) if y is None else y
    if y is None or y.dtype.kind not in "biu":
        return "regression"
    if set(np.unique(y)) <= {0, 1}:
        return "classification"
    return "count" if y.min() >= 0 and y.max() < _LARGEST_COUNT else "regression"


def draws(fit: xr.DataTree, group: str, name: str) -> np.ndarray | None:
    """Return a variable as ``(chain, draw, row)`` (rows flattened), or None where it is absent."""
    name = likelihood_name(fit, group) if group in _LIKELIHOODS else name
    if not _has(fit, group, name):
        return None
    array = fit[group][name]
    if "chain" not in array.dims or "draw" not in array.dims:
        return None
    array = array.transpose("chain", "draw", ...)
    return np.asarray(array.values).reshape(*array.shape[:2], -1)


_LIKELIHOODS = ("log_likelihood", "predictions_log_likelihood")


def likelihood_name(fit: xr.DataTree, group: str) -> str:
    """Return the observed site's name in a group of log likelihoods: its own, or the only one."""
    name = observed_name(fit)
    names = list(fit[group].data_vars) if group in fit.children else []
    return str(names[0]) if name not in names and len(names) == 1 else name


def class_draws(fit: xr.DataTree) -> np.ndarray | None:
    """Return held-out class probabilities as ``(chain, draw, row, class)``, or None."""
    name = f"{observed_name(fit)}_probs"
    if not _has(fit, "predictions", name):
        return None
    array = fit["predictions"][name].transpose("chain", "draw", ...)
    if array.ndim == 3:  # of a binary y, that of the second class alone
        return np.stack([1 - array.values, array.values], axis=-1)
    return np.asarray(array.values).reshape(*array.shape[:2], -1, array.shape[-1])


_LARGEST_COUNT = 10_000  # above, whole numbers are amounts


def values(fit: xr.DataTree, group: str, name: str) -> np.ndarray | None:
    """Return a variable without draws, flattened to ``(row,)``, or None where it is absent."""
    return np.asarray(fit[group][name].values).ravel() if _has(fit, group, name) else None


def losses(fit: xr.DataTree) -> np.ndarray | None:
    """Return the minimised objective ``(chain, step)``, in nats, or None."""
    if not _has(fit, "optimization", "loss"):
        return None
    array = fit["optimization"]["loss"]
    steps = [dim for dim in array.dims if dim != "chain"]
    array = array.transpose("chain", *steps) if "chain" in array.dims else array
    return np.asarray(array.values, dtype=float).reshape(-1, array.shape[-1])


def kept_losses(fit: xr.DataTree) -> xr.DataArray | None:
    """Return the loss ``(chain, look)`` of rows kept back by early stopping, or None."""
    if not _has(fit, "optimization", "kept_loss"):
        return None
    return fit["optimization"]["kept_loss"].transpose("chain", "look")


def held_out(fit: xr.DataTree) -> np.ndarray | None:
    """Return the held-out observations ``(row,)``, or None where the tree kept none back.

    Classes are numbered from 0: names by the coordinate of the probabilities, and numbers from 1,
    where the last is that of the classes, less 1. None where a label is missing.
    """
    y = values(fit, "predictions_observed_data", observed_name(fit))
    name = f"{observed_name(fit)}_probs"
    if y is None or not _has(fit, "predictions", name) or task_of(fit) != "classification":
        return y
    probs = fit["predictions"][name]
    if y.dtype.kind in "USO":
        names = [str(label) for label in probs.coords[probs.dims[-1]].values.tolist()]
        if unknown := {str(label) for label in y} - set(names):
            raise DiagnosticsError(
                f"predictions_observed_data/{observed_name(fit)}",
                expected=f"classes that the probabilities' coordinate names: {names}",
                got=str(sorted(unknown)),
                remedy="Name the classes by the last coordinate of the probabilities.",
            )
        return np.array([names.index(str(label)) for label in y])
    if y.dtype.kind == "f" and np.isnan(y).any():
        return None
    return y - 1 if probs.ndim > 3 and y.min() >= 1 and y.max() == probs.shape[-1] else y


def training(fit: xr.DataTree) -> np.ndarray | None:
    """Return the training observations ``(row,)``, or None."""
    return values(fit, "observed_data", observed_name(fit))


def missing(y: np.ndarray) -> str:
    """Return what to say of observations that are missing (NaN), empty where none is."""
    count = int(np.isnan(y).sum()) if y.dtype.kind == "f" else 0
    return f"{count} of {len(y)} observations are missing: leave those rows out." if count else ""


def seconds_of(fit: xr.DataTree) -> tuple[float, float]:
    """Return the seconds of compiling and of running, NaN where the tree does not tell them."""
    return number_of(fit, "seconds_compiling"), number_of(fit, "seconds_running")


def number_of(fit: xr.DataTree, name: str) -> float:
    """Return a root attribute as a number, NaN where it is missing or a stranger's text."""
    try:
        return float(attribute(fit, name, np.nan))
    except (TypeError, ValueError):
        return float("nan")


def row_dims(fit: xr.DataTree, groups: Iterable[str]) -> set[str]:
    """Return the names of the dimensions that the observed site's rows have in these groups."""
    name = observed_name(fit)
    own = {
        str(dim): size
        for group in groups
        if _has(fit, group, name)
        for dim, size in fit[group][name].sizes.items()
        if dim not in _DRAWS
    }
    # ArviZ names the dimensions of each variable apart: as many entries are the same rows.
    others = {
        str(dim)
        for group in groups
        if group in fit.children
        for array in fit[group].data_vars.values()
        for dim in [one for one in array.dims if one not in _DRAWS][:1]
        if array.sizes[dim] in own.values()
    }
    return set(own) | others


def row_labels(fit: xr.DataTree, groups: Iterable[str], rows: int) -> np.ndarray:
    """Return the names of that many rows: their coordinate's, else their places."""
    for dim in row_dims(fit, groups):
        for group in groups:
            if group in fit.children and dim in fit[group].coords:
                labels = np.asarray(fit[group].coords[dim].values)
                if len(labels) == rows:
                    return labels
    return np.arange(rows)


def evenly(count: int, at_most: int) -> np.ndarray:
    """Return at most `at_most` evenly spaced indices below `count`, first and last included.

    Examples
    --------
    >>> evenly(3, 5).tolist(), evenly(101, 3).tolist()
    ([0, 1, 2], [0, 50, 100])
    """
    return np.unique(np.linspace(0, count - 1, min(count, at_most)).round().astype(int))


def _has(fit: xr.DataTree, group: str, name: str) -> bool:
    return group in fit.children and name in fit[group].data_vars and fit[group][name].size > 0
