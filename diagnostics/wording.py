"""How numbers and strangers' names are written, wherever the report shows them."""

from __future__ import annotations

import math

NONE = "–"


def number(value: float | None, form: str = ".3g") -> str:
    """Write a number: a true minus, a dash for the unknown; the form ``"%"`` is a whole percent.

    Examples
    --------
    >>> number(-1.234, ".1f"), number(0.256, "%"), number(None), number(float("-inf"))
    ('−1.2', '26%', '–', '−∞')
    """
    if value is None or math.isnan(value):
        return NONE
    text = f"{value:.0%}" if form == "%" else f"{value:{form}}"
    return text.replace("-", "−").replace("inf", "∞")


def with_error(value: float | None, error: float | None) -> str:
    """Write a number and its standard error.

    Examples
    --------
    >>> with_error(-27.61, 2.32), with_error(None, None)
    ('−27.6 ± 2.3', '–')
    """
    if value is None or error is None or not math.isfinite(value):
        return NONE
    return f"{number(value, '.1f')} ± {number(error, '.1f')}"


def whole(value: float) -> str:
    """Write a count, its thousands apart.

    Examples
    --------
    >>> whole(12345)
    '12\\u202f345'
    """
    return f"{value:,.0f}".replace(",", "\u202f")


def printable(text: str) -> str:
    """Replace what has no shape of its own: control characters, lone surrogates, turned text.

    Examples
    --------
    >>> printable("a\\x1b[31m\\u202eb")
    'a�[31m�b'
    """
    kept = "\u202f\u00a0"  # spaces that don't break, which `whole` writes
    return "".join(c if c.isprintable() or c in kept else "\N{REPLACEMENT CHARACTER}" for c in text)


def shortened(text: str, most: int = 40) -> str:
    """Cut a name that a figure has no room for.

    Examples
    --------
    >>> shortened("a name as long as this", most=10)
    'a name as…'
    """
    text = printable(text)
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
