"""Anything array-like becomes a NumPy array of a dtype that JAX computes with, or an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import DataError

SHOWN = 3  # positions of bad entries that a message lists


def float_type() -> np.dtype:
    """float32, or float64 under ``jax_enable_x64``."""
    return np.dtype(jax.dtypes.canonicalize_dtype(np.float64))


def each(function: Callable, value: Any) -> Any:
    """Apply a function to an array, to every entry of a dict, or to nothing (None)."""
    if isinstance(value, dict):
        return {name: function(entry) for name, entry in value.items()}
    return None if value is None else function(value)


def length(value: Any) -> int:
    """The number of rows of an array, or of a dict's first entry."""
    return len(next(iter(value.values())) if isinstance(value, dict) else value)


def finite(argument: str, value: Any, names: Sequence[str] = ()) -> Any:
    """Convert an array, or a dict of arrays, of at least one row each, all finite numbers.

    Parameters
    ----------
    argument
        How the caller spells it, for the messages.
    value
        Array-like, shape (rows, ...), or a dict of such.
    names
        Names of the columns, for the messages.
    """
    if isinstance(value, dict):
        if not value:
            raise DataError(
                argument, expected="arrays by name", got="an empty dict", remedy="Pass an array."
            )
        return {name: _finite(f"{argument}[{name!r}]", entry) for name, entry in value.items()}
    array = _finite(argument, value, names)
    if argument == "x" and array.ndim == 2 and array.dtype.kind != "f":
        return array.astype(float_type())  # columns of features, not indices
    return array


def _finite(argument: str, value: Any, names: Sequence[str] = ()) -> np.ndarray:
    array = _numbers(argument, value)
    if array.ndim == 0 or len(array) == 0:
        raise DataError(
            argument,
            expected="an array of at least one row",
            got="a scalar" if array.ndim == 0 else f"an empty array of shape {array.shape}",
            remedy="Pass one row per observation.",
        )
    if array.dtype.kind in "iu":
        low, high = np.iinfo(np.int32).min, np.iinfo(np.int32).max
        refuse(argument, (array < low) | (array > high), "integers within 32 bits", "out of range")
        return array.astype(np.int32)
    if array.dtype.kind == "b":
        return array if argument.startswith("x") else array.astype(np.int32)
    with np.errstate(over="ignore"):  # an overflow becomes an infinity, refused below
        rounded = array.astype(float_type())
    refuse(argument, ~np.isfinite(rounded), "finite numbers", "not finite (NaN or infinity)", names)
    _resolved(argument, array, rounded, names)
    return rounded


def _numbers(argument: str, value: Any) -> np.ndarray:
    """As an array of booleans, integers or floats."""
    if np.ma.isMaskedArray(value) and np.ma.is_masked(value):
        raise DataError(
            argument,
            expected="an array without masked entries",
            got=f"{np.ma.count_masked(value)} masked",
            remedy="Drop or fill those rows.",
        )
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise DataError(
            argument,
            expected="an array",
            got=f"{type(value).__name__} ({error})",
            remedy="Give every row the same shape.",
        ) from error
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array if array.dtype.kind == "f" else array.astype(np.float32)  # bfloat16
    if array.dtype.kind in "biu":
        return array
    raise DataError(
        argument,
        expected="numbers",
        got=f"dtype {array.dtype}" + _text_columns(value),
        remedy="Convert it, or encode a table of mixed columns with Data.from_frame.",
    )


def _text_columns(value: Any) -> str:
    """The columns of a data frame that are no numbers, for a message."""
    if not hasattr(value, "columns"):
        return ""
    bad = [str(name) for name in value.columns if np.asarray(value[name]).dtype.kind not in "biuf"]
    return f" in {', '.join(bad)}"


def _resolved(argument: str, array: np.ndarray, rounded: np.ndarray, names: Sequence[str]) -> None:
    """Refuse a column whose variation is lost in rounding, such as seconds since 1970."""
    if array.dtype == rounded.dtype or array.ndim > 2:
        return
    lost = np.abs(array - rounded).max(axis=0) > 0.01 * array.std(axis=0)
    lost &= np.ptp(array, axis=0) > 0
    if lost.any():
        column = int(np.argmax(lost))
        raise DataError(
            argument,
            expected=f"numbers whose variation {rounded.dtype} resolves",
            got="a large constant with small variations in "
            + (names[column] if column < len(names) and names[column] else f"column {column}"),
            remedy="Subtract the constant, or set jax_enable_x64.",
        )


def refuse(
    argument: str, bad: np.ndarray, expected: str, what: str, names: Sequence[str] = ()
) -> None:
    """Raise `DataError` with the number and the first positions of the bad entries, if any."""
    if not bad.any():
        return

    def place(position):
        row, *rest = map(int, position)
        if not rest:
            return f"row {row}" + (f" of {names[0]}" if names and names[0] else "")
        if len(rest) == 1 and rest[0] < len(names) and names[rest[0]]:
            return f"row {row} of {names[rest[0]]}"
        return f"row {row}, column {rest[0]}" if len(rest) == 1 else f"index {(row, *rest)}"

    total = int(bad.sum())
    first = "; ".join(place(position) for position in np.argwhere(bad)[:SHOWN])
    raise DataError(
        argument,
        expected=expected,
        got=f"{total} of {bad.size} {what}, first at {first}",
        remedy="Drop or repair those rows.",
    )


def labels(y: Any, classes: Sequence) -> np.ndarray:
    """Check class indices, shape (rows,), against the number of classes."""
    n = len(classes)
    if not isinstance(y, np.ndarray):
        raise DataError(
            "y", expected="an array of class indices", got=type(y).__name__, remedy="Pass y."
        )
    wrong = (y != np.floor(y)) | (y < 0) | (y >= n)
    refuse("y", wrong, f"integer labels from 0 to {n - 1}", "not such labels")
    return y.astype(np.int32)


def same_length(x: Any, y: Any) -> None:
    """Check that every array has as many rows as the first."""
    named = {}
    for argument, value in (("x", x), ("y", y)):
        entries = value if isinstance(value, dict) else {"": value}
        for name, entry in entries.items():
            if entry is not None:
                named[f"{argument}[{name!r}]" if name else argument] = len(entry)
    (first, rows), *others = named.items()
    for name, number in others:
        if number != rows:
            raise DataError(
                name,
                expected=f"as many rows as {first}, {rows}",
                got=str(number),
                remedy="Give every array one entry for each row.",
            )


def same_index(x: Any, y: Any) -> None:
    """Check that pandas objects agree on their index, which arrays would silently drop."""
    pandas = all(hasattr(getattr(side, "index", None), "equals") for side in (x, y))
    if pandas and len(x) == len(y) and not x.index.equals(y.index):
        raise DataError(
            "y",
            expected="the index of x",
            got="another index, so rows would be paired wrongly",
            remedy="Align them with y.loc[x.index], or reset_index both.",
        )
