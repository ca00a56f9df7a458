"""Figures of a classifier's uncertainty, from plain arrays to a matplotlib `Figure`.

Each takes what it shows by name, such as the method's, and returns a figure that pyplot does not
know: keep it with ``figure.savefig("novelty.png", dpi=150)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .canvas import EPISTEMIC, FAINT, INK, QUIET, SURPRISE, house_style, line_of, new_figure
from .errors import DiagnosticsError
from .novelty import separation
from .reading import evenly
from .rejection import RejectionCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 40
_DOTS = 200
# A class is worth a colour where its mean probability ever exceeds this.
_SEEN = 0.1


def plot_scores(scores: Mapping[str, tuple[np.ndarray, np.ndarray]], score: str) -> Figure:
    """Histograms of one score for known and novel rows, a panel a method, on one scale.

    A dashed line marks the threshold that flags at most 5 % of the known rows. The ordinate goes
    by the square root, since most known rows crowd into the lowest bin.

    Parameters
    ----------
    scores
        By method: the scores of the known rows and of the novel ones, ``(row,)`` each.
    score
        What they are, with the unit: the label of the abscissa.

    Raises
    ------
    DiagnosticsError
        If there is no method, or `separation` refuses its scores.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> known, novel = rng.gamma(1.0, size=500), rng.gamma(4.0, size=100)
    >>> figure = plot_scores({"VI": (known, novel)}, "entropy, nats")
    >>> figure.axes[0].get_xlabel()
    'entropy, nats'
    """
    require_some("scores", scores)
    found = {name: separation(*sides) for name, sides in scores.items()}
    every = np.concatenate([side for sides in scores.values() for side in sides])
    edges = np.histogram_bin_edges(every, _BINS)
    with house_style():
        figure = new_figure(2.4 * len(scores) + 2.1, 2.6)
        panels = figure.subplots(1, len(scores), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (name, (known, novel)) in zip(panels, scores.items(), strict=True):
            axes.hist(known, edges, weights=_share(known), color=EPISTEMIC, alpha=0.55,
                      label="known")  # fmt: skip
            axes.hist(novel, edges, weights=_share(novel), histtype="step", color=SURPRISE,
                      linewidth=1.4, label="novel")  # fmt: skip
            if np.isfinite(found[name].threshold):
                axes.axvline(found[name].threshold, color=INK, linewidth=0.9, linestyle=(0, (4, 3)),
                             label="rejects 5% of the known")  # fmt: skip
            axes.set(title=f"{name}\nAUROC {found[name].auroc:.3f}", xlabel=score)
        panels[0].set_yscale("function", functions=(_root, np.square))
        panels[0].set_ylabel("share of rows, root scale")
        _legend(figure)
    return figure


def plot_rejection(curves: Mapping[str, RejectionCurve]) -> Figure:
    """Accuracy against the share of rows rejected, a line a method.

    The last hundredth is left out: it is the accuracy of a handful of rows.

    Parameters
    ----------
    curves
        By method: what `rejection_curve` gave.

    Raises
    ------
    DiagnosticsError
        If there is no curve.

    Examples
    --------
    >>> from ppbdl.diagnostics import rejection_curve
    >>> curve = rejection_curve(np.array([True, False, True]), np.array([0.1, 0.9, 0.2]))
    >>> len(plot_rejection({"VI": curve}).axes[0].lines)
    1
    """
    require_some("curves", curves)
    with house_style():
        figure = new_figure(6.2, 3.2)
        axes = figure.subplots()
        for i, (name, curve) in enumerate(curves.items()):
            shown = curve.rejected <= 0.99
            axes.plot(curve.rejected[shown], curve.accuracy[shown], **line_of(i),
                      label=f"{name}, area {curve.area:.3f}")  # fmt: skip
        axes.set(xlabel="share of rows rejected", ylabel="accuracy of the rows kept", xlim=(0, 1))
        _legend(figure)
    return figure


def plot_class_draws(
    draws: Mapping[str, np.ndarray], rows: Sequence[str], classes: Sequence[str]
) -> Figure:
    """Class probabilities of single rows over the draws: a panel for each row and method.

    Dots are draws (at most 200, evenly taken), the bar spans their central 90 %, and the upright
    mark is their mean: the prediction.

    Parameters
    ----------
    draws
        By method: class probabilities under each draw, ``(draw, row, class)``; a point network
        has one draw.
    rows, classes
        A title for each row, and a name for each class.

    Raises
    ------
    DiagnosticsError
        If there is no method, or a shape does not match `rows` and `classes`.

    Examples
    --------
    >>> probs = np.random.default_rng(0).dirichlet(np.ones(3), size=(50, 2))
    >>> figure = plot_class_draws({"VI": probs}, ["boot", "sneaker"], ["bag", "boot", "shirt"])
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['boot', 'sneaker']
    """
    require_some("draws", draws)
    _shaped(draws, {"rows": len(rows), "classes": len(classes)})
    place = np.arange(len(classes))
    with house_style():
        height = 0.6 + len(rows) * (0.3 + 0.2 * len(classes))
        figure = new_figure(2.7 + 2.0 * len(draws), height)
        shape = (len(rows), len(draws))
        grid = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
        for column, (name, probs) in enumerate(draws.items()):
            grid[0, column].set_title(name)
            grid[-1, column].set_xlabel("class probability")
            for row, title in enumerate(rows):
                _strips(grid[row, column], probs[:, row])
                grid[row, 0].set_ylabel(title)
        grid[0, 0].set(xlim=(-0.04, 1.04), ylim=(len(classes) - 0.5, -0.5), xticks=(0, 0.5, 1))
        grid[0, 0].set_yticks(place, classes)
        _legend(figure)
    return figure


def plot_sweep(
    draws: Mapping[str, np.ndarray], x: np.ndarray, xlabel: str, classes: Sequence[str]
) -> Figure:
    """Class probabilities along a sweep of the input: mean, and central 90 % band of the draws.

    A panel a method. Classes whose mean never exceeds 0.1 share one grey.

    Parameters
    ----------
    draws
        By method: class probabilities under each draw, ``(draw, row, class)``.
    x, xlabel
        What is swept, ``(row,)``, such as the angle by which a digit is turned; and its name,
        with the unit.
    classes
        A name for each class.

    Raises
    ------
    DiagnosticsError
        If there is no method, or a shape does not match `x` and `classes`.

    Examples
    --------
    >>> angle = np.linspace(0.0, 180.0, 19)
    >>> probs = np.random.default_rng(0).dirichlet(np.ones(3), size=(50, 19))
    >>> figure = plot_sweep({"VI": probs}, angle, "angle, degrees", ["0", "1", "2"])
    >>> figure.axes[0].get_ylabel()
    'class probability'
    """
    require_some("draws", draws)
    _shaped(draws, {"x": len(x), "classes": len(classes)})
    means = {name: probs.mean(axis=0) for name, probs in draws.items()}
    seen = np.max([mean.max(axis=0) for mean in means.values()], axis=0) > _SEEN
    with house_style():
        figure = new_figure(2.4 * len(draws) + 1.7, 2.6)
        panels = figure.subplots(1, len(draws), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (name, probs) in zip(panels, draws.items(), strict=True):
            lower, upper = np.quantile(probs, [0.05, 0.95], axis=0)
            for i in np.flatnonzero(seen).tolist():
                line = line_of(i)
                axes.fill_between(x, lower[:, i], upper[:, i], color=line["color"], alpha=0.18,
                                  linewidth=0)  # fmt: skip
                axes.plot(x, means[name][:, i], **line, label=classes[i])
            for i in np.flatnonzero(~seen):
                axes.plot(x, means[name][:, i], color=QUIET, linewidth=0.6, zorder=1,
                          label="other classes")  # fmt: skip
            axes.set(title=name, xlabel=xlabel, xlim=(np.min(x), np.max(x)), ylim=(-0.02, 1.02))
        panels[0].set_ylabel("class probability")
        _legend(figure, "mean and 90% band")
    return figure


def _strips(axes: Any, probs: np.ndarray) -> None:
    """Draw one row's probabilities, ``(draw, class)``, a strip a class."""
    place = np.arange(probs.shape[1])
    shown = probs[evenly(len(probs), _DOTS)]
    aside = np.random.default_rng(0).uniform(-0.28, 0.28, size=shown.shape)
    lower, upper = np.quantile(probs, [0.05, 0.95], axis=0)
    axes.hlines(place, 0, 1, color=FAINT, linewidth=0.5, zorder=0)
    axes.scatter(shown, place + aside, 5, color=EPISTEMIC, alpha=0.45, linewidth=0, label="a draw")
    axes.hlines(place, lower, upper, color=INK, linewidth=1.0, label="90% of the draws")
    axes.scatter(probs.mean(axis=0), place, 60, color=SURPRISE, marker="|", linewidth=1.8,
                 zorder=3, label="mean")  # fmt: skip


def _root(share: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(share, 0.0))


def _share(side: np.ndarray) -> np.ndarray:
    return np.full(len(side), 1 / len(side))


def _legend(figure: Figure, title: str = "") -> None:
    """List at the right what the panels label, each label once."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(list(found.values()), list(found), loc="outside right upper", title=title)


def require_some(argument: str, named: Mapping[str, Any]) -> None:
    if not named:
        raise DiagnosticsError(
            argument,
            expected="at least one method, by name",
            got="none",
            remedy='Pass {"name": ...}.',
        )


def _shaped(draws: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> None:
    for name, probs in draws.items():
        if np.ndim(probs) != 3 or probs.shape[1:] != tuple(sizes.values()):
            stated = ", ".join(f"{size} {argument}" for argument, size in sizes.items())
            raise DiagnosticsError(
                f"draws[{name!r}]",
                expected=f"probabilities (draw, row, class) for {stated}",
                got=f"an array {np.shape(probs)}",
                remedy="Flatten chains and draws to one axis, and select the rows to show.",
            )
