"""How far methods lie from a reference, and what they cost, in one figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .canvas import EPISTEMIC, FAINT, SURPRISE, house_style, new_figure
from .plots import require_some

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# So many times the median, a number would squeeze the others together.
_BEYOND = 1000.0


def plot_fidelity(measures: Mapping[str, Mapping[str, float]]) -> Figure:
    """Each method's distances from a reference, and its costs: a row a method, a panel a measure.

    Abscissae are logarithmic; a number beyond a thousand medians is written at the edge. Rows go
    by the first measure, the least on top; a method without a positive number there, such as the
    reference itself, comes first.

    Parameters
    ----------
    measures
        By measure, with its unit: by method, a number. Where it is not positive there is no dot.

    Raises
    ------
    DiagnosticsError
        If a measure has no positive number.

    Examples
    --------
    >>> far, seconds = {"NUTS": 0.0, "MAP": 0.3, "VI": 0.1}, {"NUTS": 60.0, "MAP": 2.0, "VI": 4.0}
    >>> figure = plot_fidelity({"total variation": far, "seconds": seconds})
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['NUTS', 'VI', 'MAP']
    """
    from matplotlib.ticker import LogLocator, NullLocator

    require_some("measures", measures)
    dots = {m: {n: v for n, v in of.items() if v > 0} for m, of in measures.items()}
    for measure, found in dots.items():
        require_some(f"measures[{measure!r}]", found)
    first = next(iter(dots.values()))
    every = dict.fromkeys(name for of in measures.values() for name in of)
    row = {name: i for i, name in enumerate(sorted(every, key=lambda name: first.get(name, 0.0)))}
    with house_style():
        figure = new_figure(2.3 * len(dots) + 1.3, 0.21 * len(row) + 0.8)
        panels = figure.subplots(1, len(dots), sharey=True, squeeze=False)[0]
        for axes, (measure, found) in zip(panels, dots.items(), strict=True):
            axes.grid(axis="y", color=FAINT, linewidth=0.5)
            axes.set_axisbelow(True)
            most = _BEYOND * float(np.median(list(found.values())))
            inside = {name: value for name, value in found.items() if value <= most}
            axes.scatter(list(inside.values()), [row[name] for name in inside], 22, EPISTEMIC)
            ends = min(inside.values()) / 2, max(inside.values()) * 2
            for name in found.keys() - inside.keys():
                axes.text(ends[1], row[name], f"{found[name]:.0e} ▶", color=SURPRISE, size=8,
                          ha="right", va="center")  # fmt: skip
            axes.set(xscale="log", xlabel=measure, xlim=ends)
            ticks = (1.0, 3.0) if ends[1] < 1e3 * ends[0] else (1.0,)
            axes.xaxis.set_major_locator(LogLocator(subs=ticks, numticks=6))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(range(len(row)), list(row))
        panels[0].set_ylim(len(row) - 0.5, -0.5)
    return figure
