"""Which fit to use and why, in sentences made from the verdicts and the held-out scores."""

from __future__ import annotations

import numpy as np

from .comparison import Assessment
from .metrics import log_score
from .reading import attribute, draws, observed_name
from .wording import number, with_error

# Scores differ if by over 2 standard errors and 4 nats (Sivula et al. 2020, arXiv:2008.10296).
_ERRORS, _NATS = 2.0, 4.0


def recommendation(assessments: list[Assessment]) -> str:
    """Return which fit to use and why, in two sentences or so."""
    best, several = best_of(assessments), len(assessments) > 1
    able = [each for each in assessments if each.worst.verdict != "fail"]
    if not able:
        what = "No fit passes" if several else f"Don’t rely on {assessments[0].name}"
        gravest = assessments[0].worst
        reason = "mend what the checks name before using any prediction"
        return f"{what}: {reason if several else f'it fails “{gravest.name}”'}. " + (
            "" if several else gravest.sentence
        )
    if not several:
        return _alone(able[0])
    if best is None:
        return (
            f"{_and([each.name for each in able])} fail no check, but no held-out score tells them "
            "apart. Keep rows back when fitting, and store their log likelihood."
        )
    return _advice(best, recommended(assessments) or best, assessments)


def what_else(assessments: list[Assessment]) -> list[str]:
    """Return what failed, what predicts best, and how much is ignorance, a sentence each."""
    failures = _failures(assessments) if len(assessments) > 1 else ""
    sentences = [failures, _scores(assessments), _uncertainty(assessments)]
    return [sentence for sentence in sentences if sentence]


def best_of(assessments: list[Assessment]) -> Assessment | None:
    """Return the fit with the best held-out score among those that fail no check, or None."""
    able = [each for each in assessments if each.worst.verdict != "fail"]
    scored = [each for each in able if np.isfinite(each.scores.get("elpd", np.nan))]
    return max(scored, key=lambda each: each.scores["elpd"], default=None)


def recommended(assessments: list[Assessment]) -> Assessment | None:
    """Return the fit to use: sound and as good as the best, the reference before others; or None.

    Where no such fit passes every check it is the best of those that fail none.
    """
    best = best_of(assessments)
    if best is None:
        able = [each for each in assessments if each.worst.verdict != "fail"]
        return able[0] if len(able) == 1 else None
    sound = _sound(best, assessments) or [best]
    reference = next((each for each in sound if each.is_reference), None)
    return reference or max(sound, key=lambda each: each.scores["elpd"])


def score_difference(ours: Assessment, theirs: Assessment) -> tuple[float, float] | None:
    """Return the difference of two held-out scores and its standard error, rows paired, in nats."""
    a, b = _pointwise(ours), _pointwise(theirs)
    if a is None or b is None or a.shape != b.shape:
        return None
    return float((a - b).sum()), float(np.sqrt(len(a)) * (a - b).std())


def _pointwise(each: Assessment) -> np.ndarray | None:
    array = draws(each.fit, "predictions_log_likelihood", observed_name(each.fit))
    return None if array is None else log_score(array.reshape(-1, array.shape[-1]))


def _failures(assessments: list[Assessment]) -> str:
    failing = [each for each in assessments if each.worst.verdict == "fail"]
    if not failing:
        return ""
    by_check: dict[str, list[str]] = {}
    for each in failing:
        by_check.setdefault(each.worst.name, []).append(each.name)
    listed = "; ".join(f"{_and(names)} (“{check}”)" for check, names in by_check.items())
    text = f"Don’t rely on what fails: {listed}."
    if better := _failing_but_better(assessments):
        verb = "predicts" if len(better) == 1 else "predict"
        text += f" Yet {_and(better)} {verb} held-out rows best: worth mending first."
    return text


def _failing_but_better(assessments: list[Assessment]) -> list[str]:
    best, names = best_of(assessments), []
    for each in assessments:
        if best is None or each.worst.verdict != "fail":
            continue
        found = score_difference(each, best)
        if found is not None and _apart(*found):
            names.append(each.name)
    return names


def _scores(assessments: list[Assessment]) -> str:
    best = best_of(assessments)
    if best is None or len(assessments) == 1:
        return ""
    alike, behind = _split_by_score(best, assessments)
    some_fail = any(each.worst.verdict == "fail" for each in assessments)
    among = "Of the fits that fail no check" if some_fail else "Of all fits"
    score = with_error(best.scores["elpd"], best.scores["elpd_se"])
    text = f"{among}, {best.name} scores best (held-out log score {score})"
    if alike:
        text += f"; {_and(alike)} cannot be told apart from it"
    if behind:
        text += f"; {_and(behind)} {'is' if len(behind) == 1 else 'are'} behind"
    return text + "."


def _apart(gap: float, error: float) -> bool:
    return gap > max(_ERRORS * error, _NATS)


def _split_by_score(best: Assessment, assessments: list[Assessment]) -> tuple[list[str], list[str]]:
    alike, behind = [], []
    for each in assessments:
        found = score_difference(best, each)
        if each is best or found is None or each.worst.verdict == "fail":
            continue
        gap, error = found
        if not _apart(gap, error):
            alike.append(each.name)
        else:
            behind.append(f"{each.name} ({number(-gap, '.1f')} ± {error:.1f})")
    return alike, behind


def _advice(best: Assessment, chosen: Assessment, assessments: list[Assessment]) -> str:
    if chosen.worst.verdict != "pass":
        return (
            f"Use {chosen.name} with care: no fit that predicts as well passes every check. Its "
            f"“{chosen.worst.name}” warns: {_first(chosen.worst.sentence)}"
        )
    rivals = "nothing that does" if _failing_but_better(assessments) else "nothing"
    text = (
        f"Use {chosen.name}. It passes every check that applies to it, and {rivals} predicts "
        "measurably better."
    )
    cheapest = min(_sound(best, assessments), key=_seconds)
    if cheapest is not chosen and _seconds(cheapest) < 0.5 * _seconds(chosen):
        text += (
            f" {cheapest.name} predicts as well in {_seconds(cheapest):.0f} s instead of "
            f"{_seconds(chosen):.0f}."
        )
    return text


def _sound(best: Assessment, assessments: list[Assessment]) -> list[Assessment]:
    """Return the fits that pass every check and score as the best does."""
    alike = [best.name, *_split_by_score(best, assessments)[0]]
    return [e for e in assessments if e.name in alike and e.worst.verdict == "pass"]


def _alone(only: Assessment) -> str:
    if only.worst.verdict == "pass":
        return f"Use {only.name}. It passes every check that applies to it."
    if only.worst.verdict == "warn":
        reason = _first(only.worst.sentence)
        return f"Use {only.name} with care. Its “{only.worst.name}” warns: {reason}"
    return f"No check applies to {only.name}: the tree holds too little to judge it."


def _uncertainty(assessments: list[Assessment]) -> str:
    chosen = recommended(assessments)
    share = None if chosen is None else chosen.scores.get("epistemic_share")
    if chosen is None or share is None:
        return ""
    more = (
        "more data of this kind would hardly sharpen them"
        if share < 0.1
        else "more data would sharpen them somewhat"
        if share < 0.4
        else "more data would sharpen them much"
    )
    return f"{share:.0%} of the uncertainty of {chosen.name}’s predictions is epistemic: {more}."


def _seconds(each: Assessment) -> float:
    parts = (attribute(each.fit, f"seconds_{part}", np.nan) for part in ("compiling", "running"))
    total = float(sum(float(part) for part in parts))
    return total if np.isfinite(total) else float("inf")


def _first(text: str) -> str:
    """Return the first of some sentences, to be told within another."""
    first = text.split(". ")[0].rstrip(".")
    # "R-hat" and "E-BFMI" keep their capitals.
    return f"{first[0].lower() if first[1:2].islower() else first[0]}{first[1:]}."


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
