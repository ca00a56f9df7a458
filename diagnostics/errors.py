"""The one error that the diagnostics raise: what was expected, what came, and the remedy."""

from __future__ import annotations


class DiagnosticsError(ValueError):
    """An argument from which no diagnostic can be computed.

    Parameters
    ----------
    argument
        Name of the argument at fault, as the caller spells it.
    expected, got
        What would have been accepted, and what came.
    remedy
        One thing the caller can do about it.

    Examples
    --------
    >>> print(DiagnosticsError("draws", expected="at least 1", got="0", remedy="Draw again."))
    draws: expected at least 1, got 0. Draw again.
    """

    def __init__(self, argument: str, *, expected: str, got: str, remedy: str):
        self.argument, self.expected, self.got, self.remedy = argument, expected, got, remedy
        super().__init__(f"{argument}: expected {expected}, got {got}. {remedy}")
