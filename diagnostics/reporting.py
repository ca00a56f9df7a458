"""One self-contained page about one fit or several: no script, nothing loaded from elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .comparison import Assessment, assess
from .narrative import best_of, what_to_believe
from .reading import attribute, fits_of, held_out, settings_of, task_of, training
from .sections import sections_of

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_NONE = "–"


def report(tree: xr.DataTree, path: str | os.PathLike[str]) -> Path:
    """Write one HTML file that says what was fitted, and which fit to believe, where, and why.

    Parameters
    ----------
    tree
        A comparison (a DataTree whose children are fits) or a single fit, whoever made it.
        Sections whose groups are missing say so, and how to add them.
    path
        Where to write. Equal trees give equal bytes; no time of day is written.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    DiagnosticsError
        If `tree` is not a DataTree, is empty, or its fits predict different rows.

    Examples
    --------
    >>> import tempfile
    >>> stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros((4, 100), bool))})
    >>> fit = xr.DataTree.from_dict({"/sample_stats": stats})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report(fit, Path(folder) / "report.html").stat().st_size > 1000
    True
    """
    import jinja2

    assessments = assess(tree)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    target = Path(path)
    target.write_text(page.render(_content(tree, assessments)), encoding="utf-8", newline="\n")
    return target


def _content(tree: xr.DataTree, assessments: list[Assessment]) -> dict[str, Any]:
    first = assessments[0].fit
    data = str(attribute(first, "data_name", ""))
    title = str(tree.attrs.get("title", "")) or data or assessments[0].name
    best = best_of(assessments)
    heads, rows = _filled(
        _heads(assessments), [_row(each, assessments, each is best) for each in assessments]
    )
    return {
        "title": title,
        "subtitle": _subtitle(assessments),
        "facts": _facts(first),
        "believe": what_to_believe(assessments),
        "cards": [_card(each) for each in assessments],
        "heads": heads,
        "rows": rows,
        "sections": sections_of(assessments),
        "checks": [_checks(each) for each in assessments],
        "costs": _costs(assessments),
        "fits": [_provenance(name, fit) for name, fit in fits_of(tree).items()],
    }


def _subtitle(assessments: list[Assessment]) -> str:
    first = assessments[0].fit
    what = {"density": "density estimation", "count": "counts"}.get(task_of(first), task_of(first))
    number = len(assessments)
    methods = "one method" if number == 1 else f"{number} methods, one model"
    return f"{what}, {methods}"


def _facts(fit: xr.DataTree) -> list[tuple[str, str]]:
    """Return what was fitted on what, as pairs of heading and value; the unknown is left out."""
    y, y_test = training(fit), held_out(fit)
    rows = attribute(fit, "n_train", len(y) if y is not None else "")
    constant = fit["constant_data"] if "constant_data" in fit.children else {}
    features = constant["x"].shape[-1] if "x" in constant and constant["x"].ndim > 1 else ""
    facts = {
        "data": attribute(fit, "data_name", ""),
        "target": attribute(fit, "target", ""),
        "training rows": rows,
        "held-out rows": len(y_test) if y_test is not None else "none",
        "features": features,
        "likelihood": attribute(fit, "likelihood", ""),
        "parameters": attribute(fit, "n_parameters", ""),
        "device": attribute(fit, "device", ""),
    }
    return [(name, _plain(value)) for name, value in facts.items() if str(value)]


def _plain(value: Any) -> str:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return f"{int(value):,}".replace(",", "\u202f") if whole else str(value)


def _card(each: Assessment) -> dict[str, str]:
    gravest = each.worst
    texts = {
        "pass": "Passes every check that applies.",
        "does not apply": "No check applies to what the tree holds.",
    }
    sentence = texts.get(gravest.verdict, gravest.sentence)
    name = gravest.name if gravest.verdict in ("warn", "fail") else ""
    return {"name": each.name, "verdict": gravest.verdict, "because": name, "sentence": sentence}


_NUMBERS = (("RMSE", "rmse", ".3g"), ("coverage 90%", "coverage_90", "%"))
_CLASSES = (("NLL", "nll", ".3f"), ("accuracy", "accuracy", "%"), ("ECE", "ece", ".3f"))


def _own(assessments: list[Assessment]) -> tuple[tuple[str, str, str], ...]:
    classes = any(task_of(each.fit) == "classification" for each in assessments)
    return _CLASSES if classes else _NUMBERS


def _heads(assessments: list[Assessment]) -> list[str]:
    # Hyphens that don't break: "R-hat" is one word.
    return ["held-out ELPD", "LOO", *(head for head, _, _ in _own(assessments)), "epistemic",
            "aleatoric", "R\u2011hat", "k\u2011hat", "distance", "seconds"]  # fmt: skip


def _row(each: Assessment, assessments: list[Assessment], best: bool) -> dict[str, Any]:
    found = each.scores
    loo = "does not apply" if each.loo.reason else _with_error(each.loo.elpd, each.loo.se)
    rhat, khat = each.check("R-hat of predictions").value, each.check("PSIS k-hat").value
    apart = each.distance.get("total_variation", each.distance.get("wasserstein"))
    cells = [
        _with_error(found.get("elpd"), found.get("elpd_se")),
        loo,
        *(_number(found.get(key), form) for _, key, form in _own(assessments)),
        _number(found.get("epistemic_share"), "%"),
        _number(found.get("aleatoric_share"), "%"),
        _number(rhat, ".3f"),
        _number(khat, ".2f"),
        "reference" if each.is_reference else _number(apart, ".3g"),
        _number(sum(_seconds(each)), ".1f"),
    ]
    verdict = each.worst
    return {
        "name": each.name,
        "cells": cells,
        "best": best and len(assessments) > 1,
        "loo_note": each.loo.reason,
        "verdict": verdict.verdict,
        "because": verdict.name if verdict.verdict in ("warn", "fail") else "",
    }


def _filled(heads: list[str], rows: list[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Leave out the columns that no fit has anything for."""
    kept = [i for i in range(len(heads)) if any(row["cells"][i] != _NONE for row in rows)]
    slim = [{**row, "cells": [row["cells"][i] for i in kept]} for row in rows]
    return [heads[i] for i in kept], slim


def _checks(each: Assessment) -> dict[str, Any]:
    outcomes = [
        {
            "name": check.name,
            "verdict": check.verdict,
            "value": _number(check.value, "%" if "coverage" in check.name else ".3g"),
            "threshold": check.threshold,
            "sentence": check.sentence,
            "reference": check.reference,
        }
        for check in each.checks
    ]
    applies = [outcome for outcome in outcomes if outcome["verdict"] != "does not apply"]
    rest = [outcome for outcome in outcomes if outcome["verdict"] == "does not apply"]
    return {"name": each.name, "applies": applies, "rest": rest, "verdict": each.worst.verdict}


def _costs(assessments: list[Assessment]) -> list[dict[str, Any]]:
    """Return each fit's seconds, and its bars' widths in percent of the dearest fit."""
    seconds = {each.name: _seconds(each) for each in assessments}
    known = {name: pair for name, pair in seconds.items() if np.isfinite(sum(pair))}
    dearest = max((sum(pair) for pair in known.values()), default=0.0) or 1.0
    return [
        {
            "name": name,
            "compiling": f"{compiling:.1f}",
            "running": f"{running:.1f}",
            "compiling_width": f"{100 * compiling / dearest:.1f}",
            "running_width": f"{100 * running / dearest:.1f}",
        }
        for name, (compiling, running) in known.items()
    ]


def _provenance(name: str, fit: xr.DataTree) -> dict[str, Any]:
    settings = {key: str(value) for key, value in settings_of(fit).items()}
    versions = {key: str(value) for key, value in settings_of(fit, "versions").items()}
    seed = str(attribute(fit, "seed", _NONE))
    method = str(attribute(fit, "method", name))
    return {"name": name, "method": method, "seed": seed, "settings": settings,
            "versions": versions}  # fmt: skip


def _seconds(each: Assessment) -> tuple[float, float]:
    compiling, running = (
        float(attribute(each.fit, f"seconds_{part}", np.nan)) for part in ("compiling", "running")
    )
    return compiling, running


def _with_error(value: float | None, error: float | None) -> str:
    if value is None or error is None or not np.isfinite(value):
        return _NONE
    return f"{value:.1f} ± {error:.1f}".replace("-", "−")


def _number(value: float | None, form: str) -> str:
    if value is None or np.isnan(value):
        return _NONE
    text = f"{value:.0%}" if form == "%" else f"{value:{form}}"
    return text.replace("-", "−").replace("inf", "∞")
