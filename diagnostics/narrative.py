"""What to believe, in sentences made from the verdicts and the held-out scores."""

from __future__ import annotations

import numpy as np

from .comparison import Assessment
from .metrics import log_score
from .reading import attribute, draws, observed_name

_ALIKE = 2.0


def what_to_believe(assessments: list[Assessment]) -> list[str]:
    """Return a few sentences: what failed, what predicts best, what to use, what to distrust."""
    sentences = [_failures(assessments), _scores(assessments), _advice(assessments)]
    sentences.append(_uncertainty(assessments))
    return [sentence for sentence in sentences if sentence]


def best_of(assessments: list[Assessment]) -> Assessment | None:
    """Return the fit with the best held-out score among those that fail no check, or None."""
    able = [each for each in assessments if each.worst.verdict != "fail"]
    scored = [each for each in able if np.isfinite(each.scores.get("elpd", np.nan))]
    return max(scored, key=lambda each: each.scores["elpd"], default=None)


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
    listed = "; ".join(f"{each.name} fails “{each.worst.name}”" for each in failing)
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
        if found is not None and found[0] > _ALIKE * found[1]:
            names.append(each.name)
    return names


def _scores(assessments: list[Assessment]) -> str:
    best = best_of(assessments)
    if best is None or len(assessments) == 1:
        return ""
    alike, behind = _split_by_score(best, assessments)
    some_fail = any(each.worst.verdict == "fail" for each in assessments)
    among = "Of the fits that fail no check" if some_fail else "Of all fits"
    text = (
        f"{among}, {best.name} scores best (held-out log score {_signed(best.scores['elpd'])} ± "
        f"{best.scores['elpd_se']:.1f})"
    )
    if alike:
        text += f"; {_and(alike)} cannot be told apart from it"
    if behind:
        text += f"; {_and(behind)} {'is' if len(behind) == 1 else 'are'} behind"
    return text + "."


def _split_by_score(best: Assessment, assessments: list[Assessment]) -> tuple[list[str], list[str]]:
    alike, behind = [], []
    for each in assessments:
        found = score_difference(best, each)
        if each is best or found is None or each.worst.verdict == "fail":
            continue
        gap, error = found
        if gap <= _ALIKE * error:
            alike.append(each.name)
        else:
            behind.append(f"{each.name} ({_signed(-gap)} ± {error:.1f})")
    return alike, behind


def _advice(assessments: list[Assessment]) -> str:
    best = best_of(assessments)
    if best is None:
        if any(each.worst.verdict != "fail" for each in assessments):
            return "" if len(assessments) > 1 else _alone(assessments[0])
        return "No fit passes: mend what the checks name before using any prediction."
    if len(assessments) == 1:
        return _alone(best)
    alike = [best.name, *_split_by_score(best, assessments)[0]]
    among = [each for each in assessments if each.name in alike]
    sound = [each for each in among if each.worst.verdict == "pass"]
    if not sound:
        return (
            f"Use {best.name} with care: nothing that predicts as well passes every check "
            f"({best.worst.name} warns)."
        )
    chosen = next((each for each in sound if each.is_reference), None) or max(
        sound, key=lambda each: each.scores["elpd"]
    )
    text = f"Use {chosen.name}: it passes every check that applies to it"
    rivals = "nothing that does" if _failing_but_better(assessments) else "nothing"
    text += f" and {rivals} predicts measurably better."
    cheapest = min(sound, key=_seconds)
    if cheapest is not chosen and _seconds(cheapest) < 0.5 * _seconds(chosen):
        text += (
            f" {cheapest.name} predicts as well in {_seconds(cheapest):.0f} s instead of "
            f"{_seconds(chosen):.0f}."
        )
    return text


def _alone(only: Assessment) -> str:
    if only.worst.verdict == "fail":
        return ""
    if only.worst.verdict == "pass":
        return f"{only.name} passes every check that applies to it."
    if only.worst.verdict == "warn":
        return f"Use {only.name} with care: “{only.worst.name}” warns."
    return f"No check applies to {only.name}: the tree holds too little to judge it."


def _uncertainty(assessments: list[Assessment]) -> str:
    # A sampler knows the epistemic share best; an ensemble of few members understates it.
    sound = [each for each in assessments if each.worst.verdict != "fail"]
    chosen = next((each for each in sound if each.is_reference), None) or best_of(assessments)
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


def _signed(value: float) -> str:
    return f"{value:.1f}".replace("-", "−")


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
