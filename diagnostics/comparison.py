"""Several fits of the same data side by side: one assessment, one row of the table, each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from .agreement import distance
from .branches import fits_of, reference_name
from .checking import Statistics, checks_of
from .cross_validation import CrossValidation, loo
from .errors import DiagnosticsError
from .reading import seconds_of, task_of
from .scoring import scored_rows, scores_of
from .thinning import thinned
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
        Its DataTree, `thinned`: of many rows some.
    checks
        Every check's outcome, in the report's order.
    scores
        As returned by `scores`.
    row_scores
        The log score of each held-out row, all of them, ``(row,)``; None without any.
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
    row_scores: np.ndarray | None
    loo: CrossValidation
    distance: dict[str, float]
    is_reference: bool

    @property
    def worst(self) -> Check:
        """The gravest outcome among the checks."""
        return worst(self.checks)

    def check(self, name: str) -> Check:
        """Return the outcome of the check of that name, or that it could not be computed."""
        absent = Check(name, None, "", "does not apply", "It could not be computed: see below.")
        return next((outcome for outcome in self.checks if outcome.name == name), absent)


def assess(tree: xr.DataTree, statistics: Statistics | None = None) -> list[Assessment]:
    """Assess every fit in a tree, a comparison's or a single one; `statistics` as for `check`.

    Raises
    ------
    DiagnosticsError
        If the tree is empty, names a reference that it lacks, or holds fits of different rows.
    """
    fits, reference = fits_of(tree), reference_name(tree)
    few = {name: thinned(fit) for name, fit in fits.items()}
    rows = {name: scored_rows(fit) for name, fit in fits.items()}
    _same_rows({name: len(each["log_score"]) for name, each in rows.items() if "log_score" in each})
    found = {name: loo(fit) for name, fit in fits.items()}
    return [
        Assessment(
            name=name,
            fit=few[name],
            checks=tuple(checks_of(few[name], found[name], statistics)),
            scores=scores_of(rows[name]),
            row_scores=rows[name].get("log_score"),
            loo=found[name],
            distance={} if name == reference else distance(few[name], few[reference]),
            is_reference=name == reference and len(fits) > 1,
        )
        for name in fits
    ]


def _same_rows(sizes: dict[str, int]) -> None:
    if len(set(sizes.values())) > 1:
        raise DiagnosticsError(
            "tree",
            expected="fits scored on the same held-out rows",
            got=f"different numbers of them: {sizes}",
            remedy="Predict the same rows with every fit, or report the fits one by one.",
        )


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
        "seconds_compiling": seconds_of(each.fit)[0],
        "seconds_running": seconds_of(each.fit)[1],
        "verdict": gravest.verdict,
        "because": "" if gravest.verdict in ("pass", "does not apply") else gravest.name,
    }


def _value(each: Assessment, name: str) -> float:
    value = each.check(name).value
    return float("nan") if value is None else value
