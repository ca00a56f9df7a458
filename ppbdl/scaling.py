"""Standardisation, kept with the data so that predictions come back in the user's units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import DataError


@dataclass(frozen=True, eq=False)
class Scaling:
    """The affine map between a user's units and standardised ones, and its inverse.

    A mean that is None means that this side is left as it is (classes, counts, indices).

    Parameters
    ----------
    x_mean, x_sd
        Means and standard deviations of the inputs over the rows, shape ``x.shape[1:]``.
        A constant column has sd 1, so that it becomes zero.
    y_mean, y_sd
        The same of the target, shape ``y.shape[1:]``.
    """

    x_mean: np.ndarray | None = None
    x_sd: np.ndarray | None = None
    y_mean: np.ndarray | None = None
    y_sd: np.ndarray | None = None

    @classmethod
    def of(cls, x: Any, y: Any) -> Scaling:
        """The scaling by the means and standard deviations of float arrays over their rows."""
        x_mean, x_sd, _ = _moments(x)
        y_mean, y_sd, constant = _moments(y)
        if np.any(constant):
            raise DataError(
                "y",
                expected="outputs that vary",
                got=f"the same value in every row of {int(np.sum(constant))} of them",
                remedy="Drop these outputs, or do not standardise.",
            )
        return cls(x_mean, x_sd, y_mean, y_sd)

    def x(self, raw: Any) -> Any:
        """Inputs of shape (rows, ...) in the user's units, standardised."""
        return raw if self.x_mean is None else (raw - self.x_mean) / self.x_sd

    def y(self, raw: Any) -> Any:
        """Targets of shape (..., rows, outputs) or (..., rows), standardised."""
        return raw if self.y_mean is None else (raw - self.y_mean) / self.y_sd

    def mean(self, standardised: Any) -> Any:
        """Means, quantiles or draws of y, in the user's units."""
        return standardised if self.y_mean is None else standardised * self.y_sd + self.y_mean

    def variance(self, standardised: Any) -> Any:
        """Variances of y, in the user's units squared."""
        return standardised if self.y_sd is None else standardised * self.y_sd**2

    def log_density(self, standardised: Any) -> Any:
        """Log density of each row's y (jointly over its outputs), per user's unit."""
        return standardised if self.y_sd is None else standardised - np.log(self.y_sd).sum()


def _moments(value: Any) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | bool]:
    """Mean and sd over the rows, and which columns are constant; None unless floats."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return None, None, False
    constant = (value == value[:1]).all(axis=0)
    # Double precision, since a float32 sum over many rows loses digits.
    mean = np.asarray(value.mean(axis=0, dtype=float))
    sd = np.where(constant, 1.0, value.std(axis=0, dtype=float))
    return mean.astype(value.dtype), sd.astype(value.dtype), constant
