"""Which fit to use and why, in sentences made from the verdicts and the scores.

Fits are compared by the log scores of the same rows, paired: of rows kept back or, where no fit has
any, of rows left out in turn (LOO). They differ if by over 2 standard errors and 4 nats (Sivula et
al. 2020, arXiv:2008.10296).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .comparison import Assessment
from .predictive import function_draws
from .reading import attribute, kind_of, seconds_of
from .wording import number, with_error

_ERRORS, _NATS = 2.0, 4.0
_FEWEST = 5  # rows, for a standard error to have a meaning
# Without any of these nothing is known of a fit but that it ended.
_TELLING = ("R-hat of predictions", "R-hat of parameters", "LOO reliability", "PSIS k-hat",
            "coverage of intervals", "uniformity of the PIT", "calibration of classes",
            "soundness of the flow", "divergences")  # fmt: skip


@dataclass(frozen=True)
class Contest:
    """The fits that fail no check, and what they are compared by.

    Attributes
    ----------
    able
        The fits that fail no check.
    by
        ``"held-out"``, ``"leave-one-out"``, or empty where no two fits can be compared.
    rows
        By name, the log score of each row ``(row,)`` of all fits that have one, failed ones too.
    total
        How many rows the scores stand for.
    """

    able: list[Assessment]
    by: str
    rows: dict[str, np.ndarray]
    total: int

    @property
    def best(self) -> Assessment | None:
        """The able fit with the best score, or None."""
        scored = [each for each in self.able if each.name in self.rows]
        return max(scored, key=lambda each: self.rows[each.name].sum(), default=None)

    def gap(self, ours: Assessment, theirs: Assessment) -> tuple[float, float] | None:
        """Return how much better ours scores, in nats, and the standard error; None unscored."""
        if ours.name not in self.rows or theirs.name not in self.rows:
            return None
        apart = self.rows[ours.name] - self.rows[theirs.name]
        return float(self.total * apart.mean()), float(self.total * apart.std() / len(apart) ** 0.5)

    def beats(self, ours: Assessment, theirs: Assessment) -> bool:
        """Tell whether ours scores measurably better."""
        found = self.gap(ours, theirs)
        return found is not None and found[0] > max(_ERRORS * found[1], _NATS)

    @property
    def alike(self) -> list[Assessment]:
        """The able fits that the best one does not beat, itself among them."""
        best = self.best
        scored = [each for each in self.able if each.name in self.rows]
        return [each for each in scored if best is not None and not self.beats(best, each)]

    @property
    def chosen(self) -> Assessment | None:
        """The fit to use: sound and as good as the best, the reference before others; or None.

        Where no such fit passes every check it is the best of those that fail none.
        """
        best = self.best
        if best is None:
            return self.able[0] if len(self.able) == 1 and _shown(self.able[0]) else None
        sound = [each for each in self.alike if _sound(each)] or [best]
        reference = next((each for each in sound if each.is_reference), None)
        return reference or max(sound, key=lambda each: self.rows[each.name].sum())


def contest_of(assessments: list[Assessment]) -> Contest:
    """Return how the fits are compared, and by which scores."""
    able = [each for each in assessments if each.worst.verdict != "fail"]
    held_out = {e.name: e.row_scores for e in assessments if e.row_scores is not None}
    held_out = {name: rows for name, rows in held_out.items() if np.isfinite(rows).all()}
    if held_out and len(next(iter(held_out.values()))) >= _FEWEST:
        return Contest(able, "held-out", held_out, len(next(iter(held_out.values()))))
    left_out = {
        each.name: np.asarray(each.loo.details.elpd_i, dtype=float).ravel()
        for each in assessments
        if each.loo.details is not None
    }
    sizes = {len(rows) for rows in left_out.values()}
    if len(sizes) != 1:
        return Contest(able, "", {}, 0)
    total = int(attribute(assessments[0].fit, "training_rows", sizes.pop()))
    return Contest(able, "leave-one-out", left_out, total)


def recommendation(assessments: list[Assessment], contest: Contest) -> str:
    """Return which fit to use and why, in two sentences or so."""
    several, able, chosen = len(assessments) > 1, contest.able, contest.chosen
    if not able and several:
        return "No fit passes: mend what the checks name before using any prediction."
    if not able:
        only = assessments[0]
        return f"Don’t rely on {only.name}: it fails “{only.worst.name}”. {only.worst.sentence}"
    if chosen is None or not _shown(chosen):
        names, verb = _and([each.name for each in able]), "s" if len(able) == 1 else ""
        if not any(map(_shown, able)):
            return (
                f"Nothing here tells whether {names} can be trusted: the tree{'s' * several} "
                f"hold{'' if several else 's'} too little to judge by."
            )
        return (
            f"{names} fail{verb} no check, but no score tells them apart. Keep rows back when "
            "fitting, and store their log likelihood."
        )
    better = _failing_but_better(assessments, contest)
    if not _sound(chosen) and better:
        verb = "It predicts" if len(better) == 1 else "They predict"
        return (
            f"Mend {_and(better)} first. {verb} measurably better than {chosen.name}, which fails "
            f"no check, but warns of “{chosen.worst.name}”."
        )
    if not _sound(chosen):
        among = "no fit that predicts as well passes every check. Its" if several else "its"
        sentence = _first(chosen.worst.sentence)
        if chosen.worst.verdict == "pass":
            return f"Use {chosen.name} with care: {_ONE_CHAIN}"
        return f"Use {chosen.name} with care: {among} “{chosen.worst.name}” warns. {sentence}"
    text = f"Use {chosen.name}. It passes every check that applies to it"
    if not several or contest.best is None:
        return f"{text}."
    unscored = any(each.name not in contest.rows for each in able)
    rivals = "nothing that does" if better else "nothing"
    rivals = "of those with a score nothing" if unscored else rivals
    text += f", and {rivals} predicts measurably better."
    cheapest = min((each for each in contest.alike if _sound(each)), key=_seconds, default=chosen)
    if np.isfinite(_seconds(chosen)) and _seconds(cheapest) < 0.5 * _seconds(chosen):
        text += (
            f" {cheapest.name} predicts as well in {_seconds(cheapest):.0f} s instead of "
            f"{_seconds(chosen):.0f}."
        )
    return text


def what_else(assessments: list[Assessment], contest: Contest) -> list[str]:
    """Return what failed, what predicts best, and how much is ignorance, a sentence each."""
    several = len(assessments) > 1
    sentences = [
        _failures(assessments, contest) if several else "",
        _scores(contest) if several else "",
        _uncertainty(contest),
    ]
    return [sentence for sentence in sentences if sentence]


_ONE_CHAIN = "one chain cannot show that it converged. Run at least 4."


def _sound(each: Assessment) -> bool:
    """Tell whether a fit passes every check, and its convergence could be checked."""
    sampled = function_draws(each.fit) if kind_of(each.fit) == "mcmc" else None
    alone = sampled is not None and len(sampled[1]) == 1
    return each.worst.verdict == "pass" and not alone


def _shown(each: Assessment) -> bool:
    """Tell whether some check of the predictions, or of chains, had something to look at."""
    judged = (check for check in each.checks if check.name in _TELLING)
    return any(check.verdict != "does not apply" for check in judged)


def _failures(assessments: list[Assessment], contest: Contest) -> str:
    by_check: dict[str, list[str]] = {}
    for each in assessments:
        if each.worst.verdict == "fail":
            by_check.setdefault(each.worst.name, []).append(each.name)
    if not by_check:
        return ""
    listed = "; ".join(f"{_and(names)} (“{check}”)" for check, names in by_check.items())
    text = f"Don’t rely on what fails: {listed}."
    if better := _failing_but_better(assessments, contest):
        verb = "predicts" if len(better) == 1 else "predict"
        text += f" Yet {_and(better)} {verb} {contest.by} rows best: worth mending first."
    return text


def _failing_but_better(assessments: list[Assessment], contest: Contest) -> list[str]:
    failing = [each for each in assessments if each.worst.verdict == "fail"]
    best = contest.best
    return [each.name for each in failing if best is not None and contest.beats(each, best)]


def _scores(contest: Contest) -> str:
    best = contest.best
    if best is None:
        return ""
    if contest.by == "held-out":
        score = with_error(best.scores["elpd"], best.scores["elpd_se"])
    else:
        score = with_error(best.loo.elpd, best.loo.se)
    text = f"Of the fits that fail no check, {best.name} scores best ({contest.by} {score} nats)"
    alike = [each.name for each in contest.alike if each is not best]
    behind = [each for each in contest.able if contest.beats(best, each)]
    if alike:
        text += f"; {_and(alike)} cannot be told apart from it"
    if behind:
        gaps = [contest.gap(each, best) or (0.0, 0.0) for each in behind]
        told = [
            f"{each.name} is {with_error(-gap, error)} nats behind"
            for each, (gap, error) in zip(behind, gaps, strict=True)
        ]
        text += f"; {_and(told)}"
    unscored = [each.name for each in contest.able if each.name not in contest.rows]
    if unscored:
        text += f"; {_and(unscored)} {'has' if len(unscored) == 1 else 'have'} no score"
    return text + "."


def _uncertainty(contest: Contest) -> str:
    # A sampler knows the epistemic share best; an ensemble of few members understates it.
    chosen = next((each for each in contest.able if each.is_reference), contest.chosen)
    share = None if chosen is None else chosen.scores.get("epistemic_share")
    if chosen is None or share is None:
        return ""
    if not share:
        return f"{chosen.name} is a point estimate: it says nothing of its own ignorance."
    more = (
        "more data of this kind would hardly sharpen them"
        if share < 0.1
        else "more data would sharpen them somewhat"
        if share < 0.4
        else "more data would sharpen them much"
    )
    told = number(share, "%")
    return f"{told} of the uncertainty of {chosen.name}’s predictions is epistemic: {more}."


def _seconds(each: Assessment) -> float:
    total = sum(seconds_of(each.fit))
    return total if np.isfinite(total) else float("inf")


def _first(text: str) -> str:
    """Return the first of some sentences."""
    return text.split(". ")[0].rstrip(".") + "."


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
