"""How every figure looks, and how it enters a page: as an image inside the page itself."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, QUIET, FAINT = "#22303c", "#71808d", "#d8dee3"
ALEATORIC, EPISTEMIC, SURPRISE = "#bcd3e8", "#4f86b8", "#c8502f"
COLOURS = ("#2f6ea5", "#d98324", "#3c8d6c", "#a4508b", "#7a6a53",
           "#5b6fb5", "#b8443b", "#5f9ea0", "#8a8a2b", "#5d5d66")  # fmt: skip

# Two lines of one dash differ in colour, for the colour-blind too: by a CIELAB distance of 11 or
# more as protanopia, deuteranopia or tritanopia (Machado et al. 2009) shows them.
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))

_LARGEST_SVG = 60_000
_DIGITS = re.compile(rb"(\.\d\d)\d+")
_STYLE = {
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.5,
    "figure.constrained_layout.use": False,
    # Metric-compatible faces: what matplotlib measures is what a browser draws.
    "font.family": ["sans-serif"],
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    # Ids inside an SVG are random unless salted; a report of equal input has equal bytes.
    "svg.hashsalt": "ppbdl",
    "text.color": INK,
    # A column named "cost_$" is a name, not mathematics.
    "text.parse_math": False,
    "xtick.color": QUIET,
    "xtick.labelsize": 8,
    "ytick.color": QUIET,
    "ytick.labelsize": 8,
}


@dataclass(frozen=True)
class Picture:
    """A figure as the page needs it.

    Parameters
    ----------
    title
        A few words above the figure, such as the method's name.
    alternative
        What the figure shows, for who cannot see it.
    source
        A ``data:`` URI.
    wide
        Whether it takes the page's whole width.
    """

    title: str
    alternative: str
    source: str
    wide: bool = False


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the report's style; the caller's own style and open figures stay as they were."""
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib import pyplot as plt

    open_before = set(plt.get_fignums())
    style: Any = _STYLE | {"axes.prop_cycle": cycler(color=COLOURS)}
    with mpl.rc_context(), plt.ioff(), warnings.catch_warnings():
        mpl.rcdefaults()  # the caller's style is none of the report's
        mpl.rcParams.update(style)
        # What a plot has to warn of (few draws, layout) is a check's sentence in the report.
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for number in set(plt.get_fignums()) - open_before:
                plt.close(number)


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of that size, in inches, which pyplot does not know."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def line_of(i: int) -> dict[str, Any]:
    """Return the colour and dash of the i-th line of a figure."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]}


def encode(figure: Figure) -> str:
    """Return a figure as a data URI: SVG, or PNG where that is over 60 kB and PNG is smaller."""
    svg = _saved(figure, "svg", metadata={"Date": None})
    # A hundredth of a point is enough for any eye, and a third of the bytes less.
    svg = re.sub(rb' (?:d|x|y)="[^"]*"', lambda found: _DIGITS.sub(rb"\1", found[0]), svg)
    png = _saved(figure, "png", dpi=140) if len(svg) > _LARGEST_SVG else svg
    kind, smallest = ("svg+xml", svg) if len(svg) <= len(png) else ("png", png)
    return f"data:image/{kind};base64,{base64.b64encode(smallest).decode()}"


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, bbox_inches="tight", pad_inches=0.04, **options)
    return buffer.getvalue()
