"""The report's tables: numbers that figures don't tell, as text in rows and columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import metrics as m
from .agreement import disagreements
from .bootstrapping import bootstrap_interval
from .comparison import Assessment
from .cross_validation import weights_of
from .errors import DiagnosticsError
from .predictive import predictive_draws, predictive_probs
from .reading import held_out, number_of, task_of
from .remedies import remedy_of
from .rows import uncertain_rows
from .wording import NONE, number, whole, with_error

if TYPE_CHECKING:
    import pandas as pd

_ROWS, _INPUTS = 5, 4


@dataclass(frozen=True)
class Table:
    """A table as the page needs it.

    Parameters
    ----------
    title
        A sentence above it.
    head
        The columns' names; the first column heads its rows.
    rows
        Its cells, as text.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def calibration_numbers(assessments: list[Assessment]) -> Table | None:
    """Coverage by level and proper scores, or ECE with intervals and the Brier score's parts."""
    if any(task_of(each.fit) == "classification" for each in assessments):
        head = ("method", "ECE", "ECE, equal counts", "Brier", "reliability", "resolution")
        title = (
            "Calibration error of the top class with bias-corrected 95% bootstrap intervals, and "
            "the Brier score with two of its parts (Murphy 1973): reliability, best near 0, and "
            f"resolution, best large. Of {_rows(assessments)} held-out rows."
        )
        return _table(title, head, ((each.name, *_class_numbers(each)) for each in assessments))
    head = ("method", "CRPS", *(f"within {level:.0%}" for level in _LEVELS), "width of 90%",
            "interval score, 90%")  # fmt: skip
    title = (
        f"Of {_rows(assessments)} held-out rows: those within their central intervals, and two "
        "proper scores in units of the target, best small."
    )
    return _table(title, head, ((each.name, *_number_numbers(each)) for each in assessments))


_LEVELS = (0.5, 0.8, 0.9, 0.95)


def _rows(assessments: list[Assessment]) -> str:
    known = (held_out(each.fit) for each in assessments)
    return whole(max((len(y) for y in known if y is not None), default=0))


def _number_numbers(each: Assessment) -> tuple[str, ...]:
    y, sampled = held_out(each.fit), predictive_draws(each.fit)
    if y is None or sampled is None or not np.isfinite(sampled).all():
        return ()
    lower, upper = m.interval(sampled)
    return (
        number(float(m.crps(y, sampled).mean())),
        *(number(m.coverage(y, sampled, level), "%") for level in _LEVELS),
        number(float((upper - lower).mean())),
        number(float(m.interval_score(y, lower, upper).mean())),
    )


def _class_numbers(each: Assessment) -> tuple[str, ...]:
    y, probs = held_out(each.fit), predictive_probs(each.fit)
    if y is None or probs is None or not np.isfinite(probs).all():
        return ()
    parts = m.brier_decomposition(y, probs)
    return (
        *(_with_interval(score, y, probs) for score in (m.ece, m.adaptive_ece)),
        number(m.brier(y, probs), ".3f"),
        number(parts.reliability, ".3f"),
        number(parts.resolution, ".3f"),
    )


def _with_interval(score, y: np.ndarray, probs: np.ndarray) -> str:
    if len(y) < 2:
        return NONE
    low, high = bootstrap_interval(score, y, probs)
    return f"{score(y, probs):.3f} ({low:.3f} to {high:.3f})"


def remedies(assessments: list[Assessment]) -> Table | None:
    """What recalibration would buy each fit, on rows that it was not fitted to."""
    found = {each.name: remedy_of(each.fit) for each in assessments}
    able = {name: remedy for name, remedy in found.items() if remedy is not None}
    if not able:
        return None
    first = next(iter(able.values()))
    title = (
        f"{first.name.capitalize()}, fitted to {first.calibration_rows} held-out rows drawn at "
        f"random and judged on the other {first.test_rows}: before → after."
    )
    what = {"ece": "ECE", "nll": "NLL", "brier": "Brier", "coverage_90": "coverage of 90%",
            "set_size": "classes in a 90% set", "width_90": "width",
            "interval_score_90": "interval score"}  # fmt: skip
    head = ("method", "temperature" if "ece" in first.before else "stretch, in sd",
            *(what[name] for name in first.after))  # fmt: skip
    rows = [
        (name, number(remedy.value), *(_change(remedy, score) for score in first.after))
        for name, remedy in able.items()
    ]
    return _table(title, head, rows)


def _change(remedy, score: str) -> str:
    form = "%" if score.startswith("coverage") else ".3g"
    after = number(remedy.after[score], form)
    return f"{number(remedy.before[score], form)} → {after}" if score in remedy.before else after


def rows_in_doubt(each: Assessment) -> Table | None:
    """The held-out rows of highest epistemic uncertainty, with their inputs."""
    try:
        found = uncertain_rows(each.fit, _ROWS)
    except DiagnosticsError:
        return None
    if not float(found["epistemic"].to_numpy().max()) > 0:
        return None  # a point estimate, which knows of no doubt
    unit = "nats" if task_of(each.fit) == "classification" else "squared units of the target"
    title = (
        f"The rows of which {each.name} knows least (uncertainties in {unit})."
        + " Isolation: how many times further from the training rows than they from each other."
        * ("isolation" in found)
    )
    return _of_frame(title, found.rename(columns={"epistemic_share": "epistemic share"}))


def disputed_rows(each: Assessment, reference: Assessment) -> Table | None:
    """The held-out rows where a fit and the reference disagree most."""
    try:
        found = disagreements(each.fit, reference.fit, _ROWS)
    except DiagnosticsError:
        return None
    title = f"The rows where {each.name} and {reference.name} disagree most."
    names = {"prediction": each.name, "reference": reference.name}
    return _of_frame(title, found.rename(columns=names))


def distances(assessments: list[Assessment]) -> Table | None:
    """How far each fit's predictions lie from the reference's."""
    what = {
        "agreement": ("same class", "%"),
        "total_variation": ("total variation", ".3g"),
        "wasserstein": ("Wasserstein-1", ".3g"),
        "wasserstein_sd": ("in sd", ".3g"),
        "mean_difference": ("of means, in sd", ".3g"),
        "sd_ratio": ("ratio of sd", ".3g"),
        "uncertainty_rank_correlation": ("rank correlation of doubts", ".2f"),
    }
    known = [key for key in what if any(key in each.distance for each in assessments)]
    if not known:
        return None
    reference = next(each.name for each in assessments if each.is_reference)
    title = f"Mean distance of held-out predictions from those of {reference}."
    rows = (
        (each.name, *(number(each.distance.get(key), what[key][1]) for key in known))
        for each in assessments
        if not each.is_reference
    )
    return _table(title, ("method", *(what[key][0] for key in known)), rows)


def leave_one_out(assessments: list[Assessment]) -> Table | None:
    """LOO of each fit that has it, and the weights by which stacking would mix them."""
    able = [each for each in assessments if each.loo.elpd is not None]
    if not able:
        return None
    weights = weights_of({each.name: each.loo for each in able})
    head = ("method", "ELPD, leave-one-out", "± of the subsample", "highest Pareto k",
            "rows above its limit", "stacking weight")  # fmt: skip
    rows = [
        (
            each.name,
            with_error(each.loo.elpd, each.loo.se),
            number(each.loo.subsampling_se or None, ".1f"),
            number(float(each.loo.pareto_k.max()), ".2f"),
            number(float((each.loo.pareto_k > each.loo.good_k).mean()), "%"),
            number(weights.get(each.name), ".2f"),
        )
        for each in able
    ]
    title = "Leave-one-out log score of the training rows, nats, and what stacking would mix."
    return _table(title, head, rows)


def costs(assessments: list[Assessment]) -> Table | None:
    """What each fit took."""
    rows = []
    for each in assessments:
        told = {key: number_of(each.fit, key) for key in _COSTS}
        known = {key: value for key, value in told.items() if np.isfinite(value) and value > 0}
        rows.append((each.name, *(_COSTS[key](known[key]) if key in known else NONE
                                  for key in _COSTS)))  # fmt: skip
    head = ("method", "seconds compiling", "seconds running", "gradients", "peak memory",
            "parameters")  # fmt: skip
    return _table("", head, rows)


_COSTS = {
    "seconds_compiling": lambda value: number(value, ".1f"),
    "seconds_running": lambda value: number(value, ".1f"),
    "gradients": whole,
    "peak_bytes": lambda value: f"{number(value / 2**20, '.3g')} MiB",
    "n_parameters": whole,
}


def _of_frame(title: str, frame: pd.DataFrame) -> Table | None:
    frame = frame.iloc[:, : 6 + _INPUTS]
    rows = [
        (str(row), *(_cell(value) for value in cells))
        for row, cells in zip(frame.index, frame.itertuples(index=False), strict=True)
    ]
    return _table(title, ("row", *map(str, frame.columns)), rows)


def _cell(value: object) -> str:
    return number(float(value)) if isinstance(value, int | float | np.number) else str(value)


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table | None:
    """Make a table of the rows that have more than a name, of the columns that have something."""
    full = [tuple(row) for row in rows if len(row) > 1]
    kept = [i for i in range(len(head)) if any(row[i] != NONE for row in full)]
    if len(kept) < 2:
        return None
    slim = tuple(tuple(row[i] for i in kept) for row in full)
    return Table(title, tuple(head[i] for i in kept), slim)
