"""The report's sections: figures, tables and checks, what they show, and what one lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import overviews, tables
from .canvas import ALEATORIC, COLOURS, EPISTEMIC, INK, SURPRISE, Picture
from .comparison import Assessment
from .drawings import loss_curve, reliability, shared_span, uncertainty_along_rows
from .figures import (
    class_events,
    forest,
    pareto_k,
    pit_curve,
    predictive_check,
    prior_check,
    ranks,
)
from .predictive import predictive_draws
from .reading import kind_of, task_of
from .tables import Table

Drawn = tuple[tuple[Picture, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Parameters
    ----------
    anchor, title, lead
        The place to link to, the heading, and what to look for.
    pictures, tables
        What there is to see; may be empty.
    checks
        Names of the checks that belong to it.
    legend
        Colour and meaning, in the order to show.
    missing
        For each fit without a figure that it could have: why, and how to add it.
    """

    anchor: str
    title: str
    lead: str
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    checks: tuple[str, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()


def sections_of(assessments: list[Assessment], chosen: Assessment) -> list[Section]:
    """Return the report's sections, in order; together they hold every check once.

    `chosen` is the fit whose doubtful rows are listed.
    """
    classes = any(task_of(each.fit) == "classification" for each in assessments)
    every = [
        _chains(assessments),
        _losses(assessments),
        _predictive_checks(assessments, classes),
        _leave_one_out(assessments),
        _calibration(assessments, classes),
        _uncertainty(assessments, classes, chosen),
        _agreement(assessments, classes),
        _cost(assessments),
    ]
    told = {name for section in every for name in section.checks}
    # Of every fit: one that could not be computed goes by another name.
    names = dict.fromkeys(check.name for each in assessments for check in each.checks)
    others = tuple(name for name in names if name not in told)
    lead = "What no figure shows."
    return [*every, Section("others", "Other checks", lead, checks=others)]


def _chains(assessments: list[Assessment]) -> Section:
    sampled = [each for each in assessments if kind_of(each.fit) == "mcmc"]
    lead = (
        "Three functionals, chain by chain: the densities should lie on each other, and the rank "
        "curves should stay near zero, none apart from the rest."
    )
    lack = "{}: rank plots need at least two chains and draws of predictions or log likelihoods."
    pictures, missing = _each(sampled, ranks, lack)
    names = ("R-hat of predictions", "ESS of predictions", "stuck chains", "divergences", "E-BFMI",
             "tree depth", "nested R-hat of predictions")  # fmt: skip
    return Section("chains", "Do the chains agree?", lead, pictures, (), names, (), missing)


def _losses(assessments: list[Assessment]) -> Section:
    optimised = [each for each in assessments if "optimization" in each.fit.children]
    lead = (
        "Minus the ELBO (or the log joint), smoothed over the noisy steps; the fall at the start "
        "is cut off. The check compares the two shaded quarters: they should be level."
    )
    pictures, missing = _each(optimised, loss_curve, "{}: no finite loss in optimization.")
    names = ("convergence of the loss", "convergence of the iterates", "PSIS k-hat")
    return Section("losses", "Did the optimiser finish?", lead, pictures, (), names, (), missing)


def _predictive_checks(assessments: list[Assessment], classes: bool) -> Section:
    if classes:
        lead = (
            "How often each class came true against how probable it was said to be, by isotonic "
            "regression (Dimitriadis et al. 2021), with 95% bands. The diagonal is right."
        )
        lack = "{}: no held-out class probabilities with their labels."
        pictures, missing = _each(assessments, class_events, lack)
    else:
        lead = (
            "How often each count was observed, dots, against how often the fit makes it, diamonds "
            "with 95% intervals, on a root scale. Dots outside are what the model cannot make."
            if any(task_of(each.fit) == "count" for each in assessments)
            else "Data sets drawn from each fit, thin, over the observed one, dark. Where the dark "
            "line leaves the bundle, the model cannot make data like yours."
        )
        lack = "{}: no draws of y. Store posterior_predictive or predictions."
        pictures, missing = _each(assessments, predictive_check, lack)
        told = _each([each for each in assessments if "prior_predictive" in each.fit.children][:1],
                     prior_check, "{}: too few draws from the prior to draw them.")  # fmt: skip
        pictures, missing = pictures + told[0], missing + told[1]
    names = ("possible replicates", "dispersion of counts", "explained variance",
             "prior predictive", "prior sensitivity", "soundness of the flow")  # fmt: skip
    # Those of the user's own statistics.
    names += tuple(c.name for c in assessments[0].checks if c.name.startswith("replicates: "))
    title = "Can the fit make data like yours?"
    return Section("predictive-check", title, lead, pictures, (), names, (), missing)


def _leave_one_out(assessments: list[Assessment]) -> Section:
    lead = (
        "Pareto k of each training row. Rows above the dashed line change the posterior so much "
        "when left out that LOO cannot be relied on there: outliers, or a model too flexible."
    )
    able = [each for each in assessments if each.loo.elpd is not None]
    pictures, missing = _each(able, pareto_k, "{}: too many rows to draw.")
    shown, lost = _told(lambda: tables.leave_one_out(assessments))
    title, names = "Which rows does leave-one-out stumble on?", ("LOO reliability",)
    return Section("leave-one-out", title, lead, pictures, shown, names, (), missing + lost)


def _calibration(assessments: list[Assessment], classes: bool) -> Section:
    if classes:
        lead = (
            "How often the top class is right against how sure the fit was, in the bins of the "
            "ECE; dots grow with their rows. Inside the grey band chance explains the difference. "
            "Below the diagonal is overconfident."
        )
        lack = "{}: no held-out class probabilities with their labels."
        pictures, missing = _each(assessments, reliability, lack)
    else:
        lead = (
            "Where each observation fell within its own prediction (its PIT), as the difference "
            "from uniform. Flat is calibrated; a hump to one side of zero means bias, below then "
            "above too wide predictions, above then below too narrow ones. A p under α says that "
            "chance does not explain it."
        )
        lack = (
            "{}: neither leave-one-out nor held-out draws. Store posterior_predictive or "
            "predictions."
        )
        pictures, missing = _each(assessments, pit_curve, lack)
        every, failed = _drawn("all methods", lambda: overviews.coverage_by_level(assessments))
        pictures, missing = pictures + every, missing + failed
    shown, lost = _told(
        lambda: tables.calibration_numbers(assessments), lambda: tables.remedies(assessments)
    )
    names = ("coverage of intervals", "uniformity of the PIT", "calibration of classes",
             "surprising rows", "simulation-based calibration")  # fmt: skip
    return Section("calibration", "Calibration", lead, pictures, shown, names, (), missing + lost)


def _uncertainty(assessments: list[Assessment], classes: bool, chosen: Assessment) -> Section:
    span = shared_span(assessments)
    lack = "{}: no held-out uncertainty. Keep rows back when fitting, and store predictions."
    pictures, missing = _each(assessments, lambda each: uncertainty_along_rows(each, span), lack)
    legend = ((ALEATORIC, "aleatoric (noise)"), (EPISTEMIC, "epistemic (ignorance)"))
    if classes:
        lead = (
            "Each held-out row's predictive entropy. Aleatoric entropy stays however much data "
            "there is; epistemic entropy shrinks with more. Misses should gather at the right."
        )
        legend += ((SURPRISE, "wrong class"),)
        every, failed = _drawn("all methods", lambda: overviews.rejection(assessments))
        pictures, missing = pictures + every, missing + failed
    else:
        lead = (
            "Held-out rows from the lowest prediction to the highest, each with its 90% band. The "
            "inner band is what more data could remove; the outer one is noise. About one point "
            "in ten should fall outside."
        )
        legend += ((INK, "observed, inside"), (SURPRISE, "observed, outside"))
    names = ("spread of draws", "diversity of members", "use of the code")
    shown, lost = _told(lambda: tables.rows_in_doubt(chosen))
    title = "Uncertainty along the data"
    return Section("uncertainty", title, lead, pictures, shown, names, legend, missing + lost)


def _agreement(assessments: list[Assessment], classes: bool) -> Section:
    lead = (
        "How far each method's predictions lie from the reference's, and on which rows."
        if len(assessments) > 1
        else "Five held-out rows: median, 50% and 90% intervals, and a line where each fell."
    )
    pictures, missing = _drawn("all methods", lambda: overviews.disagreement_map(assessments))
    legend: tuple[tuple[str, str], ...] = ()
    if not classes:
        every, failed = _drawn("all methods", lambda: forest(assessments))
        pictures, missing = every + pictures, failed + missing
        if every and len(assessments) > 1:
            drawn = [each for each in assessments if predictive_draws(each.fit) is not None]
            legend = tuple((COLOURS[i % len(COLOURS)], each.name) for i, each in enumerate(drawn))
    makes = [lambda: tables.distances(assessments)]
    reference = next((each for each in assessments if each.is_reference), None)
    rivals = [each for each in assessments if each.distance and each.worst.verdict != "fail"]
    if reference is not None and rivals:
        furthest = max(rivals, key=lambda each: each.distance.get("total_variation", 0.0)
                       + each.distance.get("wasserstein", 0.0))  # fmt: skip
        makes.append(lambda: tables.disputed_rows(furthest, reference))
    shown, lost = _told(*makes)
    title = "Do the methods agree?" if len(assessments) > 1 else "Five predictions, close up"
    return Section("agreement", title, lead, pictures, shown, (), legend, missing + lost)


def _cost(assessments: list[Assessment]) -> Section:
    lead = "Gradients count minibatches; memory is what the largest compiled program holds."
    pictures, missing = _drawn("all methods", lambda: overviews.score_against_seconds(assessments))
    shown, lost = _told(lambda: tables.costs(assessments))
    missing += lost
    if not shown:
        missing += ("No fit records its seconds: set seconds_compiling and seconds_running.",)
    return Section("cost", "Cost", lead, pictures, shown, (), (), missing)


def _told(*makes: Callable[[], Table | None]) -> tuple[tuple[Table, ...], tuple[str, ...]]:
    """Make tables; collect those that there are, and why others are not."""
    found: list[Table] = []
    missing: list[str] = []
    for make in makes:
        try:
            table = make()
        except Exception as error:  # as of figures
            missing.append(f"A table could not be made ({type(error).__name__}: {error}).")
        else:
            found += [] if table is None else [table]
    return tuple(found), tuple(missing)


def _each(
    assessments: Iterable[Assessment], draw: Callable[[Assessment], Picture | None], lack: str
) -> Drawn:
    """Draw a figure of each fit; collect those that there are, and why the others are not."""
    pictures: list[Picture] = []
    missing: list[str] = []
    for each in assessments:
        found, failed = _drawn(each.name, lambda each=each: draw(each))
        pictures += found
        missing += failed or ([] if found else [lack.format(each.name)])
    return tuple(pictures), tuple(missing)


def _drawn(name: str, draw: Callable[[], Picture | None]) -> Drawn:
    try:
        picture = draw()
    except Exception as error:
        # Trees come from anywhere: a figure that one of them breaks must not cost the page.
        return (), (f"{name}: this figure could not be drawn ({type(error).__name__}: {error}).",)
    return ((picture,) if picture else ()), ()
