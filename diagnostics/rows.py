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
    alone = _isolation(fit)
    parts |= {"prediction": predicted} | ({} if alone is None else {"isolation": alone})
    table = pd.DataFrame(parts).join(held_out_rows(fit))
    table.index = row_labels(fit, HELD_OUT_GROUPS, len(table))
    ordered = table.sort_values("epistemic", ascending=False, kind="stable")
    return ordered.rename_axis("row").head(most)


def _isolation(fit: xr.DataTree) -> np.ndarray | None:
    from scipy.spatial import KDTree

    pair = [_table(fit, group) for group in ("constant_data", "predictions_constant_data")]
    if any(x is None for x in pair) or pair[0].shape[1] != pair[1].shape[1] or len(pair[0]) < 3:
        return None
    sd = pair[0].std(axis=0)
    known, asked = (x[:, sd > 0] / sd[sd > 0] for x in pair)
    if not known.shape[1]:
        return None
    tree = KDTree(known)
    typical = np.median(tree.query(known, k=2)[0][:, 1])
    return tree.query(asked)[0] / typical if typical > 0 else None


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


def _table(fit: xr.DataTree, group: str) -> Any:
    """Return all the numbers of a group's rows, ``(row, number)``, or None with too many."""
    if group not in fit.children:
        return None
    arrays = [array.values for array in fit[group].data_vars.values() if array.ndim]
    numbers = all(array.dtype.kind in "biuf" for array in arrays)
    if len({len(array) for array in arrays}) != 1 or not numbers:
        return None
    table = np.hstack([array.reshape(len(array), -1) for array in arrays]).astype(float)
    return table if table.shape[1] <= _MOST_INPUTS and np.isfinite(table).all() else None


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
