"""The report's summary for a terminal, by rich."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .wording import NONE, printable

_STYLE = {"pass": "green", "warn": "yellow", "fail": "red", "does not apply": "dim"}


def summary(content: dict[str, Any]) -> Group:
    """Return title, recommendation, the table of methods, and what warns or fails."""
    words = [Text(printable(content["title"]), "bold"), Text(printable(content["subtitle"]), "dim")]
    words += [Text(), Text(printable(content["recommendation"]), "bold")]
    words += [Text(printable(sentence)) for sentence in content["besides"]]
    return Group(*words, Text(), _methods(content), *_findings(content))


def _methods(content: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("method", no_wrap=True)
    table.add_column("verdict", min_width=12)
    for head in content["heads"]:
        table.add_column(head, justify="right", overflow="fold")
    for row in content["methods"]:
        verdict = f"{row['verdict']}: {row['because']}" if row["because"] else row["verdict"]
        name = Text(printable(row["name"]), "bold" if row["chosen"] else "")
        cells = [_BRIEF.get(cell) or cell.replace(" ± ", "\u00a0±\u00a0") for cell in row["cells"]]
        shown = (Text(cell, "dim" if cell in (NONE, "n/a") else "") for cell in cells)
        table.add_row(name, Text(verdict, _STYLE[row["verdict"]]), *shown)
    return table


_BRIEF = {"does not apply": "n/a", "reference": "ref."}


def _findings(content: dict[str, Any]) -> list[Text]:
    """Say what each check that warns or fails found at worst, and of which fits."""
    lines: list[Text] = []
    for check in (check for section in content["sections"] for check in section["checks"]):
        flagged = [one for one in check["outcomes"] if one["verdict"] in ("warn", "fail")]
        if flagged:
            gravest, names = check["gravest"], [printable(one["fit"]) for one in flagged]
            line = Text(f"{gravest['verdict']}: {check['name']}", _STYLE[gravest["verdict"]])
            if len(content["fits"]) > 1:
                line.append(f" ({', '.join(names)})", "dim")
                line.append(f". {printable(gravest['fit'])}", "default")
            line.append(f": {printable(gravest['sentence'])}", "default")
            lines.append(line)
    return [Text(), *lines] if lines else []
