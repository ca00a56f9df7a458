"""Figures of all fits at once: coverage, disagreement, rejection, and what a score costs."""

from __future__ import annotations

import numpy as np

from . import metrics as m
from .agreement import row_distances
from .canvas import COLOURS, FAINT, QUIET, Picture, encode, house_style, line_of, new_figure
from .comparison import Assessment
from .decomposition import decompose
from .errors import DiagnosticsError
from .plots import plot_rejection
from .predictive import predictive_draws, predictive_moments, predictive_probs
from .reading import evenly, held_out, seconds_of
from .rejection import RejectionCurve, rejection_curve
from .wording import shortened

_LEVELS = np.arange(0.02, 0.99, 0.02)
_MOST_ROWS = 120


def coverage_by_level(assessments: list[Assessment]) -> Picture | None:
    """Observed minus stated coverage of central intervals at every level, a line a fit."""
    lines: dict[str, np.ndarray] = {}
    rows = 0
    for each in assessments:
        y, sampled = held_out(each.fit), predictive_draws(each.fit)
        if y is None or sampled is None or not np.isfinite(sampled).all():
            continue
        rows = len(y)
        # A central interval of some level holds the observations whose PIT lies so near to 1/2.
        inside = 2 * np.abs(m.pit(y, sampled) - 0.5)
        lines[each.name] = np.array([(inside <= level).mean() - level for level in _LEVELS])
    if not lines:
        return None
    from scipy.stats import binom

    low, high = (ends / rows - _LEVELS for ends in binom.interval(0.99, rows, _LEVELS))
    with house_style():
        figure = new_figure(8.4, 3.0)
        axes = figure.subplots()
        axes.fill_between(_LEVELS, low, high, color=FAINT, alpha=0.6, linewidth=0)
        axes.axhline(0.0, color=QUIET, linewidth=0.8)
        for i, (name, line) in enumerate(lines.items()):
            axes.plot(_LEVELS, line, **line_of(i), label=shortened(name, 24))
        axes.set(xlabel="stated level of the interval", ylabel="observed − stated share",
                 xlim=(0, 1))  # fmt: skip
        figure.legend(loc="outside right upper")
        source = encode(figure)
    text = (
        f"Share of {rows} held-out rows within central intervals, less the stated level, for "
        "every fit; the grey band holds 99% of calibrated fits at each level."
    )
    return Picture("Coverage of intervals, all levels", text, source, wide=True)


def disagreement_map(assessments: list[Assessment]) -> Picture | None:
    """Held-out rows by the reference's prediction, a strip a fit, dark where the two differ."""
    reference = next((each for each in assessments if each.is_reference), None)
    others = [each for each in assessments if not each.is_reference and each.distance]
    if reference is None or not others:
        return None
    apart = {each.name: row_distances(each.fit, reference.fit) for each in others}
    order, what = _order(reference)
    probs = predictive_probs(reference.fit)
    moments = predictive_moments(reference.fit)
    if probs is None and moments is not None and (moments[1] > 0).all():
        apart = {name: found / np.sqrt(moments[1]) for name, found in apart.items()}
        unit = "Wasserstein-1, in sd of the reference"
    else:
        unit = "total variation" if probs is not None else "Wasserstein-1"
    shown = order[evenly(len(order), _MOST_ROWS)]
    table = np.array([found[shown] for found in apart.values()])
    with house_style():
        figure = new_figure(8.4, 0.9 + 0.24 * len(table))
        axes = figure.subplots()
        most = max(float(np.quantile(table, 0.99)), np.finfo(float).tiny)
        image = axes.imshow(table, cmap="Blues", vmin=0.0, vmax=most, interpolation="nearest",
                            aspect="auto", extent=(0, len(shown), len(table), 0))  # fmt: skip
        axes.set_yticks(np.arange(len(table)) + 0.5, [shortened(name, 24) for name in apart])
        axes.set(xlabel=f"held-out rows by {what} of {shortened(reference.name, 24)}", xticks=[])
        axes.tick_params(axis="y", length=0)
        bar = figure.colorbar(image, pad=0.01, aspect=max(4, 3 * len(table)))
        bar.outline.set_visible(False)
        bar.set_label(unit.replace(", ", ",\n"), size=8)
        source = encode(figure)
    worst = max(apart, key=lambda name: float(apart[name].max()))
    text = (
        f"Distance ({unit}) of every method's predictions from those of {reference.name}, by "
        f"held-out row; the largest is that of {worst}."
    )
    return Picture("Where they disagree", text, source, wide=True)


def rejection(assessments: list[Assessment]) -> Picture | None:
    """Accuracy of the rows kept as the most uncertain (total entropy) are rejected."""
    curves: dict[str, RejectionCurve] = {}
    for each in assessments:
        y, probs = held_out(each.fit), predictive_probs(each.fit)
        if y is None or probs is None or not np.isfinite(probs).all():
            continue
        try:
            split = decompose(each.fit)
        except DiagnosticsError:
            continue
        total = (split["aleatoric"] + split["epistemic"]).values.ravel()
        curves[shortened(each.name, 24)] = rejection_curve(probs.argmax(axis=1) == y, total)
    if not curves:
        return None
    with house_style():
        figure = plot_rejection(curves)
        figure.set_size_inches(8.4, 3.0)
        source = encode(figure)
    text = "Accuracy of the rows kept against the share of rows rejected, the most uncertain first."
    return Picture("Rejecting the most uncertain rows", text, source, wide=True)


def score_against_seconds(assessments: list[Assessment]) -> Picture | None:
    """Held-out score of each fit against the seconds that it took, with standard errors."""
    points: dict[str, tuple[float, float, float, str]] = {}
    for each in assessments:
        seconds = sum(seconds_of(each.fit))
        elpd = each.scores.get("elpd", np.nan)
        if np.isfinite([seconds, elpd]).all() and seconds > 0:
            points[each.name] = (seconds, elpd, each.scores["elpd_se"], each.worst.verdict)
    if len(points) < 2:
        return None
    from matplotlib.ticker import LogLocator, NullLocator

    with house_style():
        figure = new_figure(8.4, 3.0)
        axes = figure.subplots()
        for i, (name, (seconds, elpd, error, verdict)) in enumerate(points.items()):
            colour = COLOURS[i % len(COLOURS)]
            face = "white" if verdict == "fail" else colour
            axes.errorbar(seconds, elpd, error, color=colour, linewidth=1.0)
            axes.scatter(seconds, elpd, 34, color=colour, facecolor=face, zorder=3,
                         label=shortened(name, 24))  # fmt: skip
        # One fit far below would press all others into a line: its error bar leaves the frame.
        scores = np.array([elpd for _, elpd, _, _ in points.values()])
        reach = np.quantile(scores, 0.25), scores.max()
        spread = max(reach[1] - reach[0], max(error for _, _, error, _ in points.values()))
        axes.set_ylim(max(scores.min() - 0.6 * spread, reach[0] - 4 * spread), reach[1] + spread)
        axes.set(xscale="log", xlabel="seconds, compiling and running",
                 ylabel="held-out ELPD, nats")  # fmt: skip
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        figure.legend(loc="outside right upper")
        source = encode(figure)
    text = (
        "Held-out score of each fit against its seconds, with the score's standard error; hollow "
        "where a check fails."
    )
    return Picture("What a score costs", text, source, wide=True)


def _order(reference: Assessment) -> tuple[np.ndarray, str]:
    probs = predictive_probs(reference.fit)
    if probs is None:
        sampled = predictive_draws(reference.fit)
        assert sampled is not None  # or there would be no distances
        return np.argsort(sampled.mean(axis=0), kind="stable"), "predicted mean"
    confidence = probs.max(axis=1)
    return np.argsort(-confidence, kind="stable"), "doubt about the top class"
