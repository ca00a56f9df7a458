"""What a report says, as plain data: the page, the JSON and the terminal each show the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .checking import Statistics
from .comparison import Assessment, assess
from .narrative import contest_of, recommendation, what_else
from .reading import (
    attribute,
    held_out,
    kind_of,
    observed_name,
    seconds_of,
    settings_of,
    task_of,
    training,
)
from .sections import Section, sections_of
from .verdict import Check, severity, worst
from .wording import NONE, number, whole, with_error

APPLIES_NOT = "does not apply"


def content_of(tree: xr.DataTree, statistics: Statistics | None = None) -> dict[str, Any]:
    """Assess a tree's fits and say everything that the report says of them.

    Returns
    -------
    dict
        ``title``, ``subtitle``, ``facts``, ``recommended`` (a fit's name, or None),
        ``recommendation``, ``besides`` (more sentences), ``heads`` and ``methods`` (the table of
        scores), ``sections`` (figures, tables, and what each check found of each fit), ``absent``
        (checks that apply to no fit, and why), and ``fits`` (each with its checks, scores, costs
        and provenance, as numbers).
    """
    assessments = assess(tree, statistics)
    contest = contest_of(assessments)
    # A fit that failed at once knows nothing of the data.
    first = next((each.fit for each in assessments if each.fit.children), assessments[0].fit)
    chosen = contest.chosen
    sections = sections_of(assessments, chosen or assessments[0])
    data = str(attribute(first, "data_name", ""))
    heads, methods = _filled(
        _heads(assessments), [_method(each, assessments, each is chosen) for each in assessments]
    )
    return {
        "title": str(tree.attrs.get("title", "")) or data or assessments[0].name,
        "subtitle": _subtitle(assessments),
        "facts": _facts(first),
        "recommended": None if chosen is None else chosen.name,
        "recommendation": recommendation(assessments, contest),
        "besides": what_else(assessments, contest) + _not_judged(first) + _looked_at(first),
        "heads": heads,
        "methods": methods,
        "sections": [_section(one, assessments) for one in sections],
        "absent": _absent(assessments),
        "fits": [_fit(each) for each in assessments],
    }


def _subtitle(assessments: list[Assessment]) -> str:
    first = assessments[0].fit
    what = {"density": "density estimation", "count": "counts"}.get(task_of(first), task_of(first))
    count = len(assessments)
    return f"{what.capitalize()}, {'one fit' if count == 1 else f'{count} fits'}"


def _facts(fit: xr.DataTree) -> list[tuple[str, str]]:
    """Return what was fitted on what, as pairs of heading and value; the unknown is left out."""
    y, y_test = training(fit), held_out(fit)
    constant = fit["constant_data"] if "constant_data" in fit.children else {}
    features = constant["x"].shape[-1] if "x" in constant and constant["x"].ndim > 1 else ""
    facts = {
        "data": attribute(fit, "data_name", ""),
        "target": attribute(fit, "target", ""),
        "training rows": attribute(fit, "n_train", _rows(fit, "training", y) or ""),
        "held-out rows": _rows(fit, "held_out", y_test) or "none",
        "features": features,
        "likelihood": attribute(fit, "likelihood", ""),
        "parameters": attribute(fit, "n_parameters", ""),
        "device": attribute(fit, "device", ""),
    }
    return [(name, _plain(value)) for name, value in facts.items() if str(value)]


def _rows(fit: xr.DataTree, kind: str, y: np.ndarray | None) -> int:
    """Return how many rows there were before the fit was thinned."""
    return int(attribute(fit, f"{kind}_rows", 0 if y is None else len(y)))


def _not_judged(fit: xr.DataTree) -> list[str]:
    name = observed_name(fit)
    observed = fit["observed_data"].data_vars if "observed_data" in fit.children else ()
    others = [str(other) for other in observed if other != name]
    return [f"Judged is {name} alone; observed are also {', '.join(others)}."] if others else []


def _looked_at(fit: xr.DataTree) -> list[str]:
    """Say of how many rows a check or a figure looked at a sample, and what that may miss."""
    seen = {"training": training(fit), "held_out": held_out(fit)}
    some = {
        kind: (len(y), rows)
        for kind, y in seen.items()
        if y is not None and (rows := _rows(fit, kind, y)) > len(y)
    }
    if not some:
        return []
    error = max(98 * np.sqrt(1 / few - 1 / rows) for few, rows in some.values())
    sampled = " and ".join(
        f"{whole(few)} of {whole(rows)} {kind.replace('_', '-')} rows"
        for kind, (few, rows) in some.items()
    )
    return [
        f"Checks and figures look at {sampled}, drawn at random: a share found in them is within "
        f"{error:.1f} points of that of all rows (95%). Scores are of every row."
    ]


def _plain(value: Any) -> str:
    counts = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole(int(value)) if counts else str(value)


_NUMBERS = (("RMSE", "rmse", ".3g"), ("coverage 90%", "coverage_90", "%"))
_CLASSES = (("NLL", "nll", ".3f"), ("accuracy", "accuracy", "%"), ("ECE", "ece", ".3f"))


def _own(assessments: list[Assessment]) -> tuple[tuple[str, str, str], ...]:
    classes = any(task_of(each.fit) == "classification" for each in assessments)
    return _CLASSES if classes else _NUMBERS


def _heads(assessments: list[Assessment]) -> list[str]:
    own = (head for head, _, _ in _own(assessments))
    return ["held-out ELPD", "LOO", *own, "epistemic", "distance", "seconds"]


def _method(each: Assessment, assessments: list[Assessment], chosen: bool) -> dict[str, Any]:
    found, gravest = each.scores, each.worst
    apart = each.distance.get("total_variation", each.distance.get("wasserstein"))
    cells = [
        with_error(found.get("elpd"), found.get("elpd_se")),
        APPLIES_NOT if each.loo.reason else with_error(each.loo.elpd, each.loo.se),
        *(number(found.get(key), form) for _, key, form in _own(assessments)),
        number(found.get("epistemic_share"), "%"),
        "reference" if each.is_reference else number(apart),
        number(sum(seconds_of(each.fit)), ".1f"),
    ]
    return {
        "name": each.name,
        "verdict": gravest.verdict,
        "because": gravest.name if gravest.verdict in ("warn", "fail") else "",
        "cells": cells,
        "chosen": chosen and len(assessments) > 1,
        "loo_note": each.loo.reason,
    }


def _filled(heads: list[str], rows: list[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Leave out the columns that no fit has anything for."""
    kept = [i for i in range(len(heads)) if any(row["cells"][i] != NONE for row in rows)]
    slim = [{**row, "cells": [row["cells"][i] for i in kept]} for row in rows]
    return [heads[i] for i in kept], slim


def _section(section: Section, assessments: list[Assessment]) -> dict[str, Any]:
    checks = [_check(name, assessments) for name in section.checks]
    return {
        "anchor": section.anchor,
        "title": section.title,
        "lead": section.lead,
        "checks": [check for check in checks if check["verdict"] != APPLIES_NOT],
        "figures": [vars(picture) for picture in section.pictures],
        "tables": [vars(table) for table in section.tables],
        "legend": section.legend,
        "missing": section.missing,
    }


def _check(name: str, assessments: list[Assessment]) -> dict[str, Any]:
    """Return what one check found of every fit."""
    found = [each.check(name) for each in assessments]
    gravest = worst(found)
    outcomes = [
        {"fit": each.name, **_outcome(check)}
        for each, check in zip(assessments, found, strict=True)
    ]
    return {
        "name": name,
        "verdict": gravest.verdict,
        "reference": gravest.reference,
        "gravest": next(one for one in outcomes if one["verdict"] == gravest.verdict),
        "outcomes": outcomes,
    }


def _absent(assessments: list[Assessment]) -> list[dict[str, str]]:
    """Return the checks that apply to no fit, with the first fit's reason."""
    names = dict.fromkeys(check.name for each in assessments for check in each.checks)
    every = [[each.check(name) for each in assessments] for name in names]
    return [
        {"name": found[0].name, "sentence": found[0].sentence}
        for found in every
        if worst(found).verdict == APPLIES_NOT
    ]


def _fit(each: Assessment) -> dict[str, Any]:
    fit, loo = each.fit, each.loo
    costs = ("seconds_compiling", "seconds_running", "gradients", "peak_bytes", "n_parameters")
    checks = sorted(each.checks, key=severity, reverse=True)
    return {
        "name": each.name,
        "method": str(attribute(fit, "method", each.name)),
        "kind": kind_of(fit),
        "verdict": each.worst.verdict,
        "is_reference": each.is_reference,
        "checks": [_outcome(check) for check in checks],
        "scores": each.scores,
        "loo": {"elpd": loo.elpd, "se": loo.se, "subsampling_se": loo.subsampling_se,
                "route": loo.route, "reason": loo.reason},
        "distance": each.distance,
        "cost": {name: attribute(fit, name, None) for name in costs},
        "seed": str(attribute(fit, "seed", NONE)),
        "settings": {key: str(value) for key, value in settings_of(fit).items()},
        "versions": {key: str(value) for key, value in settings_of(fit, "versions").items()},
    }  # fmt: skip


def _outcome(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "verdict": check.verdict,
        "value": check.value,
        "shown": number(check.value, "%" if "coverage" in check.name else ".3g"),
        "threshold": check.threshold,
        "sentence": check.sentence,
        "reference": check.reference,
    }
