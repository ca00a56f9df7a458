"""The figures that ArviZ lacks: uncertainty split along the rows, losses, reliability."""

from __future__ import annotations

import numpy as np

from .canvas import (
    ALEATORIC,
    COLOURS,
    EPISTEMIC,
    FAINT,
    INK,
    QUIET,
    SURPRISE,
    Picture,
    encode,
    house_style,
)
from .comparison import Assessment
from .decomposition import decompose
from .errors import DiagnosticsError
from .predictive import predictive_probs
from .reading import attribute, evenly, held_out, losses, observed_name, task_of

_SIZE = (4.0, 2.6)
_MOST_ROWS = 300
_90 = 1.645


def uncertainty_along_rows(each: Assessment, span: tuple[float, float] | None) -> Picture | None:
    """Held-out rows in order, each with its uncertainty split into aleatoric and epistemic.

    Numbers: rows by predicted mean, with 90% bands of the epistemic part within the total, on
    the ordinate `span` that all methods share. Classes: rows by total entropy, stacked; crosses
    mark the rows whose class was missed. None where the tree has no decomposition.
    """
    try:
        split = decompose(each.fit)
    except DiagnosticsError:
        return None
    from matplotlib.figure import Figure

    with house_style():
        figure = Figure(figsize=_SIZE)
        axes = figure.subplots()
        if "mean" in split:
            _bands(axes, each, *(split[part].values.ravel() for part in _PARTS))
            axes.set(xlabel="held-out rows by predicted mean", ylabel=_target(each), ylim=span)
        else:
            _stack(axes, each, *(split[part].values.ravel() for part in _PARTS[1:]))
            axes.set(xlabel="held-out rows by total uncertainty", ylabel="entropy, nats", ylim=span)
        source = encode(figure)
    share = each.scores.get("epistemic_share")
    title = each.name if share is None else f"{each.name} · {share:.0%} epistemic"
    text = f"Held-out rows of {each.name} with their uncertainty, aleatoric and epistemic."
    return Picture(title, text, source)


_PARTS = ("mean", "aleatoric", "epistemic")


def shared_span(assessments: list[Assessment]) -> tuple[float, float] | None:
    """Return one ordinate for all methods' uncertainty, or None where nothing is known."""
    ends: list[float] = []
    for each in assessments:
        try:
            split = decompose(each.fit)
        except DiagnosticsError:
            continue
        total = split["aleatoric"].values + split["epistemic"].values
        if "mean" not in split:
            ends += [0.0, float(total.max()) * 1.08]
            continue
        reach = 1.06 * _90 * np.sqrt(total)
        ends += [(split["mean"].values - reach).min(), (split["mean"].values + reach).max()]
        y = held_out(each.fit)
        if y is not None and len(y):
            # One fit far off would press all others into a line: its band leaves the frame.
            low, high = float(np.nanmin(y)), float(np.nanmax(y))
            ends = [*np.clip(ends, 2 * low - high, 2 * high - low), low, high]
    finite = [float(end) for end in ends if np.isfinite(end)]
    return (min(finite), max(finite)) if finite else None


def loss_curve(each: Assessment) -> Picture | None:
    """The minimised objective by step, with the two quarters that the check compares."""
    loss = losses(each.fit)
    if loss is None or not np.isfinite(loss).any():
        return None
    from matplotlib.figure import Figure

    steps = np.arange(loss.shape[1])
    shown = evenly(len(steps), 1000)
    with house_style():
        figure = Figure(figsize=_SIZE)
        axes = figure.subplots()
        for chain, curve in enumerate(loss):
            axes.plot(steps[shown], curve[shown], color=FAINT, linewidth=0.5, zorder=1)
            axes.plot(*_smooth(steps, curve), color=COLOURS[chain % len(COLOURS)], zorder=2)
        # The fall at the start would hide what matters: whether the end is level.
        late = loss[:, len(steps) // 2 :]
        late = late[np.isfinite(late)] if np.isfinite(late).any() else loss[np.isfinite(loss)]
        low, high = np.quantile(late, [0.01, 0.9])
        axes.set_ylim(low - 0.1 * (high - low) - 1e-9, high + 2 * (high - low) + 1e-9)
        axes.axvspan(len(steps) / 2, 3 * len(steps) / 4, color=FAINT, alpha=0.35, linewidth=0)
        axes.axvspan(3 * len(steps) / 4, len(steps), color=FAINT, alpha=0.7, linewidth=0)
        axes.set(xlabel="step", ylabel="loss, nats", xlim=(0, len(steps)))
        source = encode(figure)
    return Picture(each.name, f"Loss of {each.name} by step, noisy and smoothed.", source)


def reliability(each: Assessment, bins: int = 15) -> Picture | None:
    """Accuracy against confidence in the bins of the ECE; None without classes."""
    probs, y = predictive_probs(each.fit), held_out(each.fit)
    if probs is None or y is None:
        return None
    from matplotlib.figure import Figure

    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == y
    edges = np.linspace(0.0, 1.0, bins + 1)
    which = np.digitize(confidence, edges[1:-1], right=True)
    count = np.bincount(which, minlength=bins)
    full = np.flatnonzero(count)
    accuracy = np.bincount(which, correct, bins)[full] / count[full]
    stated = np.bincount(which, confidence, bins)[full] / count[full]
    error = 1.96 * np.sqrt(stated * (1 - stated) / count[full])
    with house_style():
        figure = Figure(figsize=_SIZE)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
        band = np.clip([stated - error, stated + error], 0, 1)
        axes.fill_between(stated, *band, color=FAINT, alpha=0.7, linewidth=0)
        axes.plot(stated, accuracy, color=COLOURS[0], linewidth=1.0)
        axes.scatter(stated, accuracy, 6 + 120 * count[full] / len(y), color=COLOURS[0], zorder=3)
        low = max(0.0, float(min(stated.min(), accuracy.min())) - 0.08)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(low, 1.03), ylim=(low, 1.03))
        source = encode(figure)
    text = f"Accuracy of {each.name} against its confidence; the diagonal is calibrated."
    title = f"{each.name} · ECE {each.scores['ece']:.3f}"
    return Picture(title, text, source)


def _bands(
    axes, each: Assessment, mean: np.ndarray, aleatoric: np.ndarray, epistemic: np.ndarray
) -> None:
    order = np.argsort(mean, kind="stable")
    order = order[evenly(len(order), _MOST_ROWS)]
    place, centre = np.arange(len(order)), mean[order]
    total = _90 * np.sqrt((aleatoric + epistemic)[order])
    own = _90 * np.sqrt(epistemic[order])
    # Counts cannot fall below zero, though a symmetric band could.
    floor = 0.0 if task_of(each.fit) == "count" else -np.inf
    lower = np.maximum(centre - total, floor)
    axes.fill_between(place, lower, centre + total, color=ALEATORIC, linewidth=0)
    axes.fill_between(place, centre - own, centre + own, color=EPISTEMIC, linewidth=0)
    axes.plot(place, centre, color=INK, linewidth=0.9)
    y = held_out(each.fit)
    if y is not None:
        outside = np.abs(y[order] - centre) > total
        colours = np.where(outside, SURPRISE, INK)
        axes.scatter(place, y[order], 9, c=colours, zorder=3, linewidth=0)


def _stack(axes, each: Assessment, aleatoric: np.ndarray, epistemic: np.ndarray) -> None:
    total = aleatoric + epistemic
    order = np.argsort(total, kind="stable")
    order = order[evenly(len(order), _MOST_ROWS)]
    place = np.arange(len(order))
    axes.fill_between(place, 0, aleatoric[order], color=ALEATORIC, linewidth=0, step="mid")
    axes.fill_between(
        place, aleatoric[order], total[order], color=EPISTEMIC, linewidth=0, step="mid"
    )
    y, probs = held_out(each.fit), predictive_probs(each.fit)
    if y is not None and probs is not None:
        missed = (probs.argmax(axis=1) != y)[order]
        above = total[order][missed] + 0.02 * total.max()
        axes.scatter(place[missed], above, 11, color=SURPRISE, marker="x", linewidth=0.9, zorder=3)


def _smooth(steps: np.ndarray, curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return medians of up to 80 blocks, which spikes leave alone."""
    width = max(1, len(steps) // 80)
    blocks = len(steps) // width
    with np.errstate(invalid="ignore"):
        medians = np.median(curve[: blocks * width].reshape(blocks, width), axis=1)
    return steps[: blocks * width].reshape(blocks, width).mean(axis=1), medians


def _target(each: Assessment) -> str:
    return str(attribute(each.fit, "target", observed_name(each.fit)))
