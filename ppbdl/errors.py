"""Errors at the door: what was wrong, what was expected, what came, and the remedy."""

from __future__ import annotations

from typing import Any


class InputError(ValueError):
    """An argument that cannot be used, found before anything is compiled.

    Parameters
    ----------
    argument
        Name of the argument at fault, as the caller spells it.
    expected, got
        What would have been accepted, and what came.
    remedy
        One thing the caller can do about it.
    """

    def __init__(self, argument: str, *, expected: str, got: str, remedy: str):
        self.argument, self.expected, self.got, self.remedy = argument, expected, got, remedy
        super().__init__(f"{argument}: expected {expected}, got {got}. {remedy}")


class DataError(InputError):
    """Data that cannot be fitted: empty, not finite, mismatched, constant, ..."""


class ModelError(InputError):
    """A model that cannot be fitted to these data, or not by this method."""


class FitError(RuntimeError):
    """A fit that met a NaN or an infinity and was stopped where it arose.

    Attributes
    ----------
    step
        The step (or draw) at which the first non-finite number arose, from 0.
    site
        The site whose density or gradient is not finite there.
    posterior
        The last good state as a :class:`ppbdl.Posterior`, or None if there was none yet.
    """

    def __init__(self, message: str, *, step: int, site: str, posterior: Any = None):
        self.step, self.site, self.posterior = step, site, posterior
        super().__init__(message)


def require_positive(**arguments: float | None) -> None:
    """Raise `InputError` for the first argument that is not a positive number; None passes."""
    for name, value in arguments.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and 0 < value < float("inf")):
            raise InputError(
                name, expected="a positive number", got=repr(value), remedy=f"Pass {name} > 0."
            )


def require_whole(**arguments: int | None) -> None:
    """Raise `InputError` for the first argument that is not a positive whole number."""
    for name, value in arguments.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and value > 0):
            raise InputError(
                name,
                expected="a positive whole number",
                got=repr(value),
                remedy=f"Pass {name} >= 1.",
            )
