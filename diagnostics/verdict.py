"""One check's outcome: a number, its threshold, a verdict and a sentence to act on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["pass", "warn", "fail", "does not apply"]

_SEVERITY: dict[Verdict, int] = {"does not apply": 0, "pass": 1, "warn": 2, "fail": 3}


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Parameters
    ----------
    name
        What was checked, in a few words.
    value
        The number that decided, or None where the check does not apply.
    threshold
        What passes, in words and numbers, such as ``"at most 1.01"``.
    verdict
        ``"pass"``, ``"warn"``, ``"fail"`` or ``"does not apply"``.
    sentence
        What it means here and what to do about it.
    reference
        Where the check and its threshold come from.
    """

    name: str
    value: float | None
    threshold: str
    verdict: Verdict
    sentence: str
    reference: str = ""


def worst(checks: Iterable[Check]) -> Check:
    """Return the gravest of the checks; among equals, the first.

    Examples
    --------
    >>> good = Check("R-hat", 1.0, "at most 1.01", "pass", "Chains agree.")
    >>> bad = Check("divergences", 9.0, "none", "fail", "Raise target_accept.")
    >>> worst([good, bad]).name
    'divergences'
    """
    return max(checks, key=severity)


def severity(check: Check) -> int:
    """Return how grave an outcome is: 0 where it does not apply, 3 where it fails."""
    return _SEVERITY[check.verdict]
