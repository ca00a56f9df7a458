"""How uncertainty shrinks as data grow: what more rows would teach, and what they would not.

Epistemic uncertainty is ignorance, and falls with more rows, in a regular model as one over their
number; aleatoric uncertainty is noise, and stays. Where the sum has come down to the noise, more
rows of the same kind are of no use (Kendall and Gal 2017, arXiv:1703.04977).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from .branches import fits_of
from .canvas import ALEATORIC, EPISTEMIC, INK, house_style, new_figure
from .decomposition import decompose
from .errors import DiagnosticsError
from .metrics import log_score
from .reading import attribute, draws, observed_name, training

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def learning_curve(tree: xr.DataTree) -> pd.DataFrame:
    """Return the mean uncertainty of the held-out rows and their score, by training rows.

    Parameters
    ----------
    tree
        Fits to different numbers of rows, with the same held-out ones: of `ppbdl.fit_sizes`, or
        any, whose attribute ``n_train`` or group ``observed_data`` tells the number.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``rows``, ascending: ``epistemic``, ``aleatoric`` and ``total``, means over the
        held-out rows (squared units of y, or nats for classes); ``elpd``, the held-out log density
        a row, and ``elpd_se``, its standard error. Fits that failed are left out.

    Raises
    ------
    DiagnosticsError
        If a fit's number of rows, or what `decompose` needs, is missing, if two fits have as many
        rows, or if all of them failed.

    Examples
    --------
    >>> split = {"mean": [0.0], "aleatoric": [1.0], "epistemic": [0.5]}
    >>> split = xr.Dataset({name: ("test_row", part) for name, part in split.items()})
    >>> fits = {f"/{n} rows": xr.DataTree.from_dict({"/uncertainty": split}) for n in (20, 10)}
    >>> for name, fit in fits.items():
    ...     fit.attrs["n_train"] = int(name[1:3])
    >>> learning_curve(xr.DataTree.from_dict(fits))[["epistemic", "total"]].to_dict("index")
    {10: {'epistemic': 0.5, 'total': 1.5}, 20: {'epistemic': 0.5, 'total': 1.5}}
    """
    import pandas as pd

    fits = {name: fit for name, fit in fits_of(tree).items() if _ended(fit)}
    if not fits:
        raise DiagnosticsError(
            "tree",
            expected="at least one fit that did not fail",
            got="failures only",
            remedy="See what each says in its attribute failure.",
        )
    rows = {name: _rows(name, fit) for name, fit in fits.items()}
    if len(set(rows.values())) < len(rows):
        raise DiagnosticsError(
            "tree",
            expected="fits to different numbers of rows",
            got=str(rows),
            remedy="Pass one method's fits, one of each size.",
        )
    lines = {rows[name]: _line(fit) for name, fit in fits.items()}
    table = pd.DataFrame.from_dict(lines, orient="index").sort_index()
    table.index.name = "rows"
    return table


def plot_learning_curve(table: pd.DataFrame) -> Figure:
    """The two parts of the uncertainty by training rows, stacked, beside the held-out score.

    Parameters
    ----------
    table
        What `learning_curve` gave, of two sizes or more.

    Raises
    ------
    DiagnosticsError
        If there are fewer sizes.

    Examples
    --------
    >>> import pandas as pd
    >>> parts = {"epistemic": [0.2, 0.1], "aleatoric": [1.0, 1.0], "total": [1.2, 1.1]}
    >>> scores = {"elpd": [-1.6, -1.5], "elpd_se": [0.1, 0.1]}
    >>> table = pd.DataFrame(parts | scores, index=pd.Index([10, 20], name="rows"))
    >>> [axes.get_xlabel() for axes in plot_learning_curve(table).axes]
    ['training rows', 'training rows']
    """
    if len(table) < 2:
        raise DiagnosticsError(
            "table",
            expected="two sizes or more",
            got=str(len(table)),
            remedy="Fit more sizes: ppbdl.fit_sizes(..., sizes=(50, 100, 200)).",
        )
    rows = table.index.to_numpy()
    with house_style():
        figure = new_figure(7.2, 2.8)
        split, score = figure.subplots(1, 2)
        split.fill_between(rows, table["aleatoric"], color=ALEATORIC, linewidth=0, label="noise")
        split.fill_between(rows, table["aleatoric"], table["total"], color=EPISTEMIC, linewidth=0,
                           label="ignorance")  # fmt: skip
        split.set(ylabel="mean uncertainty", ylim=(0, None), title="Epistemic on aleatoric")
        split.legend(loc="upper right")
        score.errorbar(rows, table["elpd"], table["elpd_se"], color=INK, marker="o", markersize=4,
                       capsize=2)  # fmt: skip
        score.set(ylabel="log density a row", title="Held-out rows, ± standard error")
        for axes in (split, score):
            axes.set(xlabel="training rows", xscale="log")
            axes.set_xticks(rows, [f"{n:,}" for n in rows])
            axes.minorticks_off()
        split.set_xlim(rows[0], rows[-1])
    return figure


def _ended(fit: xr.DataTree) -> bool:
    return bool(fit.children) and not attribute(fit, "failure", "")


def _rows(name: str, fit: xr.DataTree) -> int:
    observed = training(fit)
    rows = int(attribute(fit, "n_train", 0)) or (0 if observed is None else len(observed))
    if not rows:
        raise DiagnosticsError(
            f"tree[{name!r}]",
            expected="the number of training rows: an attribute n_train, or observed_data",
            got="neither",
            remedy="Set fit.attrs['n_train'].",
        )
    return rows


def _line(fit: xr.DataTree) -> dict[str, float]:
    split = decompose(fit)
    epistemic, aleatoric = (float(split[part].mean()) for part in ("epistemic", "aleatoric"))
    line = {"epistemic": epistemic, "aleatoric": aleatoric, "total": epistemic + aleatoric}
    pointwise = draws(fit, "predictions_log_likelihood", observed_name(fit))
    if pointwise is None:
        return line | {"elpd": np.nan, "elpd_se": np.nan}
    score = log_score(pointwise.reshape(-1, pointwise.shape[-1]))
    error = float(score.std(ddof=1) / np.sqrt(len(score))) if len(score) > 1 else np.nan
    return line | {"elpd": float(score.mean()), "elpd_se": error}
