"""Several fits of the same data side by side: one assessment, one row of the table, each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr

from .agreement import distance
from .checking import check
from .cross_validation import CrossValidation, loo
from .reading import attribute, fits_of, reference_name, task_of
from .scoring import scores
from .verdict import Check, worst

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Assessment:
    """Everything the diagnostics say of one fit.

    Parameters
    ----------
    name
        The fit's name within its comparison.
    fit
        Its DataTree.
    checks
        Every check's outcome, in the report's order.
    scores
        As returned by `scores`.
    loo
        Leave-one-out cross-validation, or why it does not apply.
    distance
        From the reference, as returned by `distance`; empty for the reference itself.
    is_reference
        Whether the others' distances are measured from this fit.
    """

    name: str
    fit: xr.DataTree
    checks: tuple[Check, ...]
    scores: dict[str, float]
    loo: CrossValidation
    distance: dict[str, float]
    is_reference: bool

    @property
    def worst(self) -> Check:
        """The gravest outcome among the checks."""
        return worst(self.checks)

    def check(self, name: str) -> Check:
        """Return the outcome of the check of that name."""
        return next(outcome for outcome in self.checks if outcome.name == name)


def assess(tree: xr.DataTree) -> list[Assessment]:
    """Assess every fit in a tree, a comparison's or a single one.

    Raises
    ------
    DiagnosticsError
        If the tree is empty, names a reference that it lacks, or holds fits of different rows.
    """
    fits, reference = fits_of(tree), reference_name(tree)
    return [
        Assessment(
            name=name,
            fit=fit,
            checks=tuple(check(fit)),
            scores=scores(fit),
            loo=loo(fit),
            distance={} if name == reference else distance(fit, fits[reference]),
            is_reference=name == reference and len(fits) > 1,
        )
        for name, fit in fits.items()
    ]


def compare(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a fit: scores, uncertainty, convergence, distance, cost and verdict.

    Parameters
    ----------
    tree
        A DataTree whose children are fits, or a single fit.

    Returns
    -------
    pandas.DataFrame
        Indexed by method. Numbers that do not apply are NaN; ``loo_note`` says why LOO's are.
        ``distance`` is the total variation (classes) or the Wasserstein-1 distance in units of y
        from the reference; ``verdict`` is the gravest check's, named in ``because``.

    Examples
    --------
    >>> import numpy as np
    >>> stats = xr.Dataset({"diverging": (("chain", "draw"), np.ones((4, 100), bool))})
    >>> fit = xr.DataTree.from_dict({"/sample_stats": stats})
    >>> compare(xr.DataTree.from_dict({"/NUTS": fit})).loc["NUTS", ["verdict", "because"]].tolist()
    ['fail', 'divergences']
    """
    return table_of(assess(tree))


def table_of(assessments: list[Assessment]) -> pd.DataFrame:
    """Return the table of assessments that were made already, as `compare` does."""
    import pandas as pd

    classes = any(task_of(each.fit) == "classification" for each in assessments)
    rows = {each.name: _row(each, classes) for each in assessments}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def _row(each: Assessment, classes: bool) -> dict[str, float | str]:
    nan, found = float("nan"), each.scores
    own = ("nll", "accuracy", "ece") if classes else ("rmse", "coverage_90")
    gravest = each.worst
    return {
        "elpd": found.get("elpd", nan),
        "elpd_se": found.get("elpd_se", nan),
        "loo": nan if each.loo.elpd is None else each.loo.elpd,
        "loo_se": nan if each.loo.se is None else each.loo.se,
        "loo_note": each.loo.reason,
        **{name: found.get(name, nan) for name in own},
        "epistemic_share": found.get("epistemic_share", nan),
        "aleatoric_share": found.get("aleatoric_share", nan),
        "rhat": _value(each, "R-hat of predictions"),
        "khat": _value(each, "PSIS k-hat"),
        "distance": each.distance.get("total_variation" if classes else "wasserstein", nan),
        "seconds_compiling": float(attribute(each.fit, "seconds_compiling", nan)),
        "seconds_running": float(attribute(each.fit, "seconds_running", nan)),
        "verdict": gravest.verdict,
        "because": "" if gravest.verdict in ("pass", "does not apply") else gravest.name,
    }


def _value(each: Assessment, name: str) -> float:
    value = each.check(name).value
    return float("nan") if value is None else value


def as_text(table: pd.DataFrame) -> str:
    """Render a table made by `compare` for a terminal: plain, aligned, about 110 columns.

    Examples
    --------
    >>> import numpy as np
    >>> stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros((4, 100), bool))})
    >>> fit = xr.DataTree.from_dict({"/sample_stats": stats})
    >>> print(as_text(compare(xr.DataTree.from_dict({"/NUTS": fit}))))
    method  elpd  LOO  RMSE  cov90  epist.  R-hat  k-hat  dist.  compile  run  verdict
    NUTS       -  n/a     -      -       -      -      -      -        -    -  pass
    """
    rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    columns = {
        heading: [_cell(row, key) for row in rows]
        for heading, key in _HEADINGS
        if key in table.columns
    }
    columns = {"method": [str(name) for name in table.index], **columns}
    columns["verdict"] = [
        f"{row['verdict']}: {row['because']}" if row["because"] else str(row["verdict"])
        for row in rows
    ]
    return _aligned(columns, left=("method", "verdict"))


_HEADINGS = (
    ("elpd", "elpd"),
    ("LOO", "loo"),
    ("RMSE", "rmse"),
    ("NLL", "nll"),
    ("acc.", "accuracy"),
    ("cov90", "coverage_90"),
    ("ECE", "ece"),
    ("epist.", "epistemic_share"),
    ("R-hat", "rhat"),
    ("k-hat", "khat"),
    ("dist.", "distance"),
    ("compile", "seconds_compiling"),
    ("run", "seconds_running"),
)
_SHARES = ("coverage_90", "epistemic_share", "aleatoric_share", "accuracy")


def _cell(row: dict[str, Any], key: str) -> str:
    value = float(row[key])
    if math.isnan(value):
        return "n/a" if key == "loo" and row["loo_note"] else "-"
    if key in ("elpd", "loo"):
        return f"{value:.1f} ±{row[f'{key}_se']:.1f}"
    if key in _SHARES:
        return f"{value:.0%}"
    return f"{value:.1f}" if key.startswith("seconds") else f"{value:#.3g}"


def _aligned(columns: dict[str, list[str]], left: tuple[str, ...]) -> str:
    widths = {name: max(map(len, (name, *cells))) for name, cells in columns.items()}
    lines = [list(columns), *map(list, zip(*columns.values(), strict=True))]
    return "\n".join(
        "  ".join(
            cell.ljust(widths[name]) if name in left else cell.rjust(widths[name])
            for name, cell in zip(columns, line, strict=True)
        ).rstrip()
        for line in lines
    )
