"""Held-out rows as a table: what was observed, what went in, and which are uncertain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .decomposition import decompose
from .reading import HELD_OUT_GROUPS, held_out, observed_name, row_labels, task_of

if TYPE_CHECKING:
    import pandas as pd

_MOST_INPUTS = 50


def uncertain_rows(fit: xr.DataTree, most: int = 10) -> pd.DataFrame:
    """Return the held-out rows whose epistemic uncertainty is highest, with their inputs.

    Parameters
    ----------
    fit
        One fit's DataTree, with what `decompose` needs.
    most
        How many rows to return.

    Returns
    -------
    pandas.DataFrame
        Indexed by held-out row (its coordinate, else its place), the most uncertain first:
        ``epistemic`` and ``aleatoric`` (squared units of y, or nats for classes),
        ``epistemic_share`` of the two's sum, ``prediction`` (the mean, or the most probable
        class); then, where the tree has them, ``isolation``, ``observed`` and the inputs by name
        (of rows with more than 50, none). Isolation says why a row may be uncertain: its distance
        to the nearest training row, features standardised, over the median distance of a training
        row to its nearest other; well above 1 it lies far from the data.

    Raises
    ------
    DiagnosticsError
        If the tree holds no draws of predictions.

    Examples
    --------
    >>> split = {"mean": [1.0, 2.0], "aleatoric": [0.5, 0.5], "epistemic": [0.1, 0.4]}
    >>> split = xr.Dataset({name: ("test_row", part) for name, part in split.items()})
    >>> x = xr.Dataset({"x": (("test_row", "feature"), [[7.0], [9.0]])}, {"feature": ["age"]})
    >>> groups = {"/uncertainty": split, "/predictions_constant_data": x}
    >>> table = uncertain_rows(xr.DataTree.from_dict(groups), most=1)
    >>> table[["epistemic", "prediction", "age"]].round(2).to_dict("index")
    {1: {'epistemic': 0.4, 'prediction': 2.0, 'age': 9.0}}
    """
    import pandas as pd

    split = decompose(fit)
    parts = {name: split[name].values.ravel() for name in ("epistemic", "aleatoric")}
    total = parts["epistemic"] + parts["aleatoric"]
    parts["epistemic_share"] = np.divide(
        parts["epistemic"], total, out=np.zeros_like(total, dtype=float), where=total > 0
    )
    if "mean" in split:
        predicted = split["mean"].values.ravel()
    else:
        predicted = class_labels(fit, split["probs"].values.argmax(axis=-1).ravel())
    alone = _isolation(fit, len(total))
    parts |= {"prediction": predicted} | ({} if alone is None else {"isolation": alone})
    table = pd.DataFrame(parts).join(held_out_rows(fit))
    table.index = row_labels(fit, HELD_OUT_GROUPS, len(table))
    ordered = table.sort_values("epistemic", ascending=False, kind="stable")
    return ordered.rename_axis("row").head(most)


def _isolation(fit: xr.DataTree, rows: int) -> np.ndarray | None:
    from scipy.spatial import KDTree

    known, asked = (
        _numbers(fit, group) for group in ("constant_data", "predictions_constant_data")
    )
    names = sorted(known)
    if not names or names != sorted(asked) or len(known[names[0]]) < 3:
        return None
    known, asked = (np.column_stack([table[name] for name in names]) for table in (known, asked))
    sd = known.std(axis=0)
    if len(asked) != rows or not (sd > 0).any():
        return None
    tree = KDTree(known[:, sd > 0] / sd[sd > 0])
    typical = np.median(tree.query(tree.data, k=2)[0][:, 1])
    if not typical > 0:
        return None
    found = tree.query(asked[:, sd > 0] / sd[sd > 0])[0] / typical
    # What never varied among the training rows, and does now, is infinitely far.
    new = (asked[:, sd == 0] != known[0, sd == 0]).any(axis=1)
    return np.where(new, np.inf, found)


def held_out_rows(fit: xr.DataTree) -> pd.DataFrame:
    """Return held-out rows: ``observed`` and their inputs by name, as far as the tree has them."""
    import pandas as pd

    columns: dict[str, Any] = {}
    y = held_out(fit)
    if y is not None:
        columns["observed"] = class_labels(fit, y) if task_of(fit) == "classification" else y
    if "predictions_constant_data" in fit.children:
        for name, array in fit["predictions_constant_data"].data_vars.items():
            columns |= _inputs(str(name), array, taken=set(columns))
    lengths = {len(column) for column in columns.values()}
    return pd.DataFrame(columns) if len(lengths) == 1 else pd.DataFrame(index=pd.RangeIndex(0))


def class_labels(fit: xr.DataTree, labels: np.ndarray) -> np.ndarray:
    """Return the classes' names, where the tree's coordinate ``class`` has them, else `labels`."""
    name = f"{observed_name(fit)}_probs"
    for group, which in (("predictions", name), ("uncertainty", "probs")):
        if group in fit.children and which in fit[group].data_vars:
            array = fit[group][which]
            if array.dims[-1] in array.coords:
                return np.asarray(array.coords[array.dims[-1]].values)[labels.astype(int)]
    return labels


def _numbers(fit: xr.DataTree, group: str) -> dict[str, np.ndarray]:
    """Return the inputs of a group's rows by name, empty unless all are finite numbers of rows."""
    found: dict[str, np.ndarray] = {}
    if group in fit.children:
        for name, array in fit[group].data_vars.items():
            found |= _inputs(str(name), array, taken=set())
    sound = all(x.dtype.kind in "biuf" and np.isfinite(x).all() for x in found.values())
    return found if sound and len({len(x) for x in found.values()}) == 1 else {}


def _inputs(name: str, array: xr.DataArray, taken: set[str]) -> dict[str, np.ndarray]:
    table = np.asarray(array.values).reshape(len(array), -1) if array.ndim else np.empty((0, 0))
    if not table.size or table.shape[1] > _MOST_INPUTS:
        return {}
    last = array.dims[-1]
    if array.ndim == 2 and last in array.coords:
        names = [str(label) for label in array.coords[last].values]
    else:
        names = [name] if array.ndim == 1 else [f"{name}[{i}]" for i in range(table.shape[1])]
    # A feature may be called as one of the table's own columns is.
    own = {"distance", "prediction", "reference", "epistemic", "aleatoric", "epistemic_share",
           "isolation"}  # fmt: skip
    names = [f"{name}.{one}" if one in taken | own | {"observed"} else one for one in names]
    return dict(zip(names, table.T, strict=True))
