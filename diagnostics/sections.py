"""The report's sections: which figures, what they show, and what to do where one is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .canvas import ALEATORIC, COLOURS, EPISTEMIC, INK, SURPRISE, Picture
from .comparison import Assessment
from .drawings import loss_curve, reliability, shared_span, uncertainty_along_rows
from .figures import forest, pareto_k, pit_curve, predictive_check, ranks
from .reading import kind_of, task_of


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Parameters
    ----------
    anchor, title, lead
        The place to link to, the heading, and what to look for.
    pictures
        The figures; may be empty.
    legend
        Colour and meaning, in the order to show.
    missing
        For each fit without a figure that it could have: why, and how to add it.
    """

    anchor: str
    title: str
    lead: str
    pictures: tuple[Picture, ...]
    legend: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()


def sections_of(assessments: list[Assessment]) -> list[Section]:
    """Return the report's sections of figures; one without any figure only says what it lacks."""
    classes = any(task_of(each.fit) == "classification" for each in assessments)
    every = [
        _uncertainty(assessments, classes),
        *([] if classes else [_side_by_side(assessments)]),
        _calibration(assessments, classes),
        *([] if classes else [_predictive_checks(assessments)]),
        _convergence(assessments),
        _losses(assessments),
        _leave_one_out(assessments),
    ]
    return [section for section in every if section.pictures or section.missing]


def _uncertainty(assessments: list[Assessment], classes: bool) -> Section:
    span = shared_span(assessments)
    lack = "{}: no held-out uncertainty. Keep rows back when fitting, and store predictions."
    pictures, missing = _each(assessments, lambda each: uncertainty_along_rows(each, span), lack)
    parts = ((ALEATORIC, "aleatoric (noise)"), (EPISTEMIC, "epistemic (ignorance)"))
    if classes:
        lead = (
            "Each held-out row's predictive entropy. Aleatoric entropy stays however much data "
            "there is; epistemic entropy shrinks with more. Misses should gather at the right."
        )
        return Section("uncertainty", "Uncertainty along the data", lead, pictures,
                       (*parts, (SURPRISE, "wrong class")), missing)  # fmt: skip
    lead = (
        "Held-out rows from the lowest prediction to the highest, each with its 90% band. The "
        "inner band is what more data could remove; the outer one is noise. About one point in "
        "ten should fall outside."
    )
    points = ((INK, "observed, inside"), (SURPRISE, "observed, outside"))
    return Section("uncertainty", "Uncertainty along the data", lead, pictures,
                   (*parts, *points), missing)  # fmt: skip


def _side_by_side(assessments: list[Assessment]) -> Section:
    lead = (
        "Five held-out rows as every method predicts them: median, 50% and 90% intervals, and a "
        "vertical line where the observation fell."
    )
    pictures = _drawn("all methods", lambda: forest(assessments))
    names = [each.name for each in assessments]
    legend = tuple((COLOURS[i % len(COLOURS)], name) for i, name in enumerate(names))
    return Section("side-by-side", "The same rows, side by side", lead, pictures[0],
                   legend if len(names) > 1 else (), pictures[1])  # fmt: skip


def _calibration(assessments: list[Assessment], classes: bool) -> Section:
    if classes:
        lead = (
            "How often the top class is right against how sure the fit was, in the bins of the "
            "ECE; dots grow with their rows. Inside the grey band chance explains the difference. "
            "Below the diagonal is overconfident."
        )
        lack = "{}: no held-out class probabilities with their labels."
        pictures, missing = _each(assessments, reliability, lack)
        return Section("calibration", "Calibration", lead, pictures, (), missing)
    lead = (
        "Where each observation fell within its own prediction (its PIT), as the difference from "
        "uniform. Flat is calibrated; a hump to one side of zero means bias, below then above "
        "too wide predictions, above then below too narrow ones. A p under α says that chance "
        "does not explain it."
    )
    lack = (
        "{}: neither leave-one-out nor held-out draws. Store posterior_predictive or predictions."
    )
    pictures, missing = _each(assessments, pit_curve, lack)
    return Section("calibration", "Calibration", lead, pictures, (), missing)


def _predictive_checks(assessments: list[Assessment]) -> Section:
    lead = (
        "Data sets drawn from each fit, thin, over the observed one, dark. Where the dark line "
        "leaves the bundle, the model cannot make data like yours."
    )
    lack = "{}: no draws of y. Store posterior_predictive or predictions."
    pictures, missing = _each(assessments, predictive_check, lack)
    return Section("predictive-check", "Posterior predictive check", lead, pictures, (), missing)


def _convergence(assessments: list[Assessment]) -> Section:
    sampled = [each for each in assessments if kind_of(each.fit) == "mcmc"]
    lead = (
        "Three functionals, chain by chain: the densities should lie on each other, and the rank "
        "curves should stay near zero, none apart from the rest."
    )
    lack = "{}: rank plots need at least two chains and draws of predictions or log likelihoods."
    pictures, missing = _each(sampled, ranks, lack)
    return Section("chains", "Do the chains agree?", lead, pictures, (), missing)


def _losses(assessments: list[Assessment]) -> Section:
    optimised = [each for each in assessments if "optimization" in each.fit.children]
    lead = (
        "Minus the ELBO (or the log joint), smoothed over the noisy steps; the fall at the start "
        "is cut off. The check compares the two shaded quarters: they should be level."
    )
    pictures, missing = _each(optimised, loss_curve, "{}: no finite loss in optimization.")
    return Section("losses", "Did the optimiser finish?", lead, pictures, (), missing)


def _leave_one_out(assessments: list[Assessment]) -> Section:
    lead = (
        "Pareto k of each training row. Rows above the dashed line change the posterior so much "
        "when left out that LOO cannot be relied on there: outliers, or a model too flexible."
    )
    able = [each for each in assessments if each.loo.elpd is not None]
    pictures, failed = _each(able, pareto_k, "{}: too many rows to draw.")
    reasons = tuple(f"{each.name}: {each.loo.reason}" for each in assessments if each.loo.reason)
    title = "Which rows does leave-one-out stumble on?"
    return Section("leave-one-out", title, lead, pictures, (), failed + reasons)


def _each(
    assessments: Iterable[Assessment], draw: Callable[[Assessment], Picture | None], lack: str
) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """Draw a figure of each fit; collect those that there are, and why the others are not."""
    pictures: list[Picture] = []
    missing: list[str] = []
    for each in assessments:
        found, failed = _drawn(each.name, lambda each=each: draw(each))
        pictures += found
        missing += failed or ([] if found else [lack.format(each.name)])
    return tuple(pictures), tuple(missing)


def _drawn(
    name: str, draw: Callable[[], Picture | None]
) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    try:
        picture = draw()
    except Exception as error:
        # Trees come from anywhere: a figure that one of them breaks must not cost the page.
        return (), (f"{name}: this figure could not be drawn ({type(error).__name__}: {error}).",)
    return ((picture,) if picture else ()), ()
