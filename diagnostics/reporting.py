"""One report about one fit or several: a page without a script, JSON, and text for a terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .checking import Statistics
from .content import content_of
from .errors import DiagnosticsError
from .wording import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_IDENTIFIER = re.compile(r"(?:doi:|arXiv:)[^\s,;)]+")


@dataclass(frozen=True)
class Report:
    """What `report` found. A notebook shows its page, ``print`` and ``rich.print`` its summary.

    Attributes
    ----------
    content
        All that the report says, as plain data; see `ppbdl.diagnostics.content.content_of`.
    """

    content: dict[str, Any]

    @property
    def html(self) -> str:
        """The page: one self-contained document."""
        import jinja2

        environment = jinja2.Environment(
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            # Names come from strangers' data: none of their characters may turn the page's text.
            finalize=lambda value: printable(value) if type(value) is str else value,
        )
        environment.filters["linked"] = _linked
        return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(self.content)

    @property
    def json(self) -> str:
        """The same content as JSON, but for the figures, of which it has titles and texts."""
        return json.dumps(_plain(self.content), indent=1, allow_nan=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page at `path` and, beside it, the same content as JSON; return the page."""
        page = Path(path)
        if page.suffix == ".json":
            raise DiagnosticsError(
                "path",
                expected="that of the page, such as report.html; the JSON is written beside it",
                got=str(page),
                remedy="Give the path the ending .html.",
            )
        page.write_text(self.html, encoding="utf-8", newline="\n")
        page.with_suffix(".json").write_text(self.json + "\n", encoding="utf-8", newline="\n")
        return page

    def _repr_html_(self) -> str:
        # A frame keeps the page's style and the notebook's apart.
        title, style = printable(self.content["title"]), "width:100%;height:85vh;border:0"
        page = f'srcdoc="{escape(self.html)}" title="{escape(title)}"'
        return f'<iframe {page} style="{style}"></iframe>'

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from .terminal import summary

        yield summary(self.content)

    def __str__(self) -> str:
        from rich.console import Console

        width = shutil.get_terminal_size((120, 40)).columns
        console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False)
        console.print(self)
        return console.file.getvalue().rstrip()  # pyright: ignore[reportAttributeAccessIssue]

    def __repr__(self) -> str:
        verdicts = ", ".join(f"{fit['name']} {fit['verdict']}" for fit in self.content["fits"])
        return f"Report({self.content['title']!r}: {verdicts})"


def report(
    tree: xr.DataTree,
    path: str | os.PathLike[str] | None = None,
    *,
    statistics: Statistics | None = None,
) -> Report:
    """Say what was fitted, and which fit to believe, where, and why.

    Parameters
    ----------
    tree
        A comparison (a DataTree whose children are fits) or a single fit, whoever made it.
        Sections whose groups are missing say so, and how to add them.
    path
        Where to write the page, and the JSON beside it. Equal trees give equal bytes; no time of
        day is written. None writes nothing.
    statistics
        Functions of a data set ``(row,)`` by name, such as ``{"largest": np.max}``: is the observed
        value one that the fit's own data sets have?

    Raises
    ------
    DiagnosticsError
        If `tree` is not a DataTree, is empty, or its fits predict different rows.

    Examples
    --------
    >>> stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros((4, 100), bool))})
    >>> fit = xr.DataTree.from_dict({"/sample_stats": stats})
    >>> report(xr.DataTree.from_dict({"/NUTS": fit}))
    Report('NUTS': NUTS pass)
    """
    found = Report(content_of(tree, statistics))
    if path is not None:
        found.save(path)
    return found


def _linked(reference: str) -> Iterator[tuple[str, str]]:
    """Part a reference into text and links: pairs of text and address, which may be empty."""
    end = 0
    for found in _IDENTIFIER.finditer(reference):
        yield reference[end : found.start()], ""
        kind, _, name = found[0].partition(":")
        at = "https://doi.org/" if kind == "doi" else "https://arxiv.org/abs/"
        yield found[0], at + name
        end = found.end()
    yield reference[end:], ""


def _plain(value: Any) -> Any:
    """Leave out what JSON has no word for: the bytes of figures, and what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items() if key != "source"}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
