"""A pandas data frame becomes the arrays of a `Data`, or an error that names the column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from .errors import DataError, InputError

MOST_NUMERIC_CLASSES = 50  # more different floats than this are a measurement, not labels


def encode(frame: Any, target: str, task: str) -> dict[str, Any]:
    """The fields x, y, feature_names and classes of a `Data`; see `Data.from_frame`."""
    _check_frame(frame, target)
    if task not in (targets := {"regression": _numeric, "count": _count, "classification": _codes}):
        raise InputError(
            "task", expected=f"one of {', '.join(targets)}", got=repr(task), remedy="Pass one."
        )
    y, classes = targets[task](frame[target])
    columns: dict[str, np.ndarray] = {}
    for name in frame.columns.drop(target):
        columns |= _inputs(str(name), frame[name])
    return {
        "x": np.stack(list(columns.values()), axis=1),
        "y": y,
        "feature_names": tuple(columns),
        "classes": classes,
    }


def _check_frame(frame: Any, target: str) -> None:
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            "frame",
            expected="a pandas DataFrame",
            got=type(frame).__name__,
            remedy="Pass arrays to Data(x, y).",
        )
    names = [str(name) for name in frame.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            "frame",
            expected="columns of different names",
            got=f"more than one {', '.join(twice)}",
            remedy="Rename or drop the duplicates.",
        )
    if target not in frame.columns:
        raise DataError(
            "target",
            expected=f"one of the columns {', '.join(names)}",
            got=repr(target),
            remedy="Check the spelling.",
        )
    if len(names) < 2 or frame.empty:
        raise DataError(
            "frame",
            expected="at least one row and a column besides the target",
            got=f"{len(frame)} rows and {len(names)} columns",
            remedy="Check how the table was read.",
        )
    missing = dict(zip(names, frame.isna().to_numpy().sum(axis=0), strict=True))
    if any(missing.values()):
        raise DataError(
            "frame",
            expected="no missing values",
            got=", ".join(f"{count} in {name}" for name, count in missing.items() if count),
            remedy="Drop those rows (frame.dropna()), drop those columns, or fill them in.",
        )


def _is_number(column: pd.Series) -> bool:
    real = types.is_numeric_dtype(column) and not types.is_complex_dtype(column)
    return real or types.is_bool_dtype(column)


def _levels(argument: str, column: pd.Series) -> list:
    """The sorted levels of a column of categories, text, or objects that compare as text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [level for level in column.cat.categories if (column == level).any()]
    kind = types.infer_dtype(column, skipna=False)
    if not _is_number(column) and kind not in ("string", "boolean", "integer", "mixed-integer"):
        raise DataError(
            argument,
            expected="a column of numbers, booleans, categories or text",
            got=f"{kind} ({column.dtype})",
            remedy="Turn it into numbers first, such as days since the first date.",
        )
    return sorted(column.unique().tolist(), key=lambda level: (isinstance(level, str), level))


def _inputs(name: str, column: pd.Series) -> dict[str, np.ndarray]:
    """One column as it is, or one per level."""
    if _is_number(column):
        return {name: column.to_numpy(float)}
    argument = f"column {name!r}"
    levels = _levels(argument, column)
    if not isinstance(column.dtype, pd.CategoricalDtype):
        _refuse_numbers_as_text(argument, levels)
    if len(levels) > max(10, len(column) // 2):
        raise DataError(
            argument,
            expected="categories that repeat",
            got=f"{len(levels)} different ones in {len(column)} rows, such as {levels[0]!r}",
            remedy="Drop it if it only identifies the row, or group its rare values.",
        )
    shown = levels[1:] if len(levels) == 2 else levels
    return {f"{name}={level}": (column == level).to_numpy(float) for level in shown}


def _refuse_numbers_as_text(argument: str, levels: list) -> None:
    """One stray '?' turns a column of numbers into text; do not make categories of it."""
    if isinstance(levels[0], bool):
        return
    stray = [level for level in levels if not _reads_as_number(level)]
    if len(stray) < len(levels) / 2:
        shown = f", save {', '.join(map(repr, stray[:3]))}" if len(stray) else ""
        raise DataError(
            argument,
            expected="numbers, or categories with names",
            got=f"text that reads as numbers{shown}",
            remedy="Convert it with pandas.to_numeric, or to dtype category if it is one.",
        )


def _reads_as_number(level: Any) -> bool:
    try:
        float(level)
    except ValueError:
        return False
    return True


def _numeric(column: pd.Series) -> tuple[np.ndarray, None]:
    argument = f"target {column.name!r}"
    if not _is_number(column) or types.is_bool_dtype(column):
        raise DataError(
            argument,
            expected="numbers",
            got=str(column.dtype),
            remedy='For labels use task="classification"; else convert it to numbers.',
        )
    _refuse_constant(argument, column)
    return column.to_numpy(float), None


def _count(column: pd.Series) -> tuple[np.ndarray, None]:
    y, _ = _numeric(column)
    bad = np.flatnonzero((y < 0) | (y != np.floor(y)) | ~np.isfinite(y))
    if bad.size:
        raise DataError(
            f"target {column.name!r}",
            expected="counts 0, 1, 2, ...",
            got=f"{bad.size} others, first {y[bad[0]]:g} at row {bad[0]}",
            remedy='Use task="regression" for measurements.',
        )
    return y.astype(np.int64), None


def _codes(column: pd.Series) -> tuple[np.ndarray, tuple]:
    argument = f"target {column.name!r}"
    levels = _levels(argument, column)
    many = types.is_float_dtype(column) and len(levels) > MOST_NUMERIC_CLASSES
    if many or len(levels) > max(10, len(column) // 2):
        raise DataError(
            argument,
            expected="labels of classes",
            got=f"{len(levels)} different values in {len(column)} rows",
            remedy='Use task="regression" for measurements.'
            if _is_number(column)
            else "Group the rare labels.",
        )
    _refuse_constant(argument, column)
    codes = {level: code for code, level in enumerate(levels)}
    return np.array([codes[level] for level in column.tolist()]), tuple(levels)


def _refuse_constant(argument: str, column: pd.Series) -> None:
    if column.nunique() == 1:
        raise DataError(
            argument,
            expected="a target that varies",
            got=f"the value {column.iloc[0]} in all {len(column)} rows",
            remedy="Check that this is the column you meant.",
        )
