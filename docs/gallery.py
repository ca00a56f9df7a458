"""A good and a bad fit side by side, as the report would show them: sentence and figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import xarray as xr
from matplotlib.figure import Figure

from ppbdl.diagnostics import Check, assess, drawings, figures
from ppbdl.diagnostics.canvas import Picture, encode


@dataclass(frozen=True)
class SideBySide:
    """Two fits as one check judges them. A page shows the value as two figures.

    Parameters
    ----------
    check
        A function of ``ppbdl.diagnostics.checks``.
    good, bad
        A fit that it passes, and one that it flags.
    picture
        The name of a figure of the report, or a function from a fit to a figure.
    """

    check: Callable[[xr.DataTree], Check]
    good: xr.DataTree
    bad: xr.DataTree
    picture: str | Callable[[xr.DataTree], Figure]

    def _repr_html_(self) -> str:
        good, bad = draw(self.picture, self.good), draw(self.picture, self.bad)
        cards = self._card("Good", self.good, good), self._card("Bad", self.bad, bad)
        wide = " wide" if good.wide else ""
        return f'<div class="pair{wide}">{"".join(cards)}</div>'

    def _card(self, title: str, fit: xr.DataTree, picture: Picture) -> str:
        outcome = self.check(fit)
        return (
            f'<figure class="card"><figcaption><strong>{title}</strong> '
            f'<span class="verdict {outcome.verdict}">{outcome.verdict}</span>'
            f"<p>{escape(outcome.sentence)}</p></figcaption>"
            f'<img src="{picture.source}" alt="{escape(picture.alternative)}"></figure>'
        )


def draw(picture: str | Callable[[xr.DataTree], Figure], fit: xr.DataTree) -> Picture:
    """Draw a fit, by a function of docs/pictures.py or as the report does."""
    if callable(picture):
        alternative = (picture.__doc__ or "").partition("\n")[0]
        return Picture(picture.__name__, alternative, encode(picture(fit)))
    # The one door to the report's own figures.
    each = assess(fit)[0]
    if picture == "uncertainty_along_rows":
        return drawings.uncertainty_along_rows(each, None)
    return getattr(drawings if hasattr(drawings, picture) else figures, picture)(each)
