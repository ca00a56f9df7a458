"""Data: inputs, targets, and the number of rows they stand for, checked at the door.

Everything here is NumPy on the host. Whatever could make a fit fail later (a NaN, a label out of
range, a column of text) is refused here with one `DataError`, before anything is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import jax
import numpy as np

from .arrays import each, finite, float_type, labels, length, same_index, same_length
from .errors import DataError
from .scaling import Scaling as Scaling


@dataclass(frozen=True, eq=False)
class Data:
    """Rows of inputs and targets, and the number of rows that they stand for.

    Floats become JAX's default float (float32, or float64 under ``jax_enable_x64``) and integers
    int32. Lists, NumPy and JAX arrays and pandas objects are taken.

    Parameters
    ----------
    x
        Inputs, shape (rows, ...), or a dict of arrays with equal numbers of rows. None is an
        unconditional model's input: it becomes an array of shape (rows, 0). Two axes are columns
        of features, and integers among them become floats; other integers (indices of groups,
        tokens; every entry of a dict) stay integers.
    y
        Targets, shape (rows, ...), or a dict of arrays, or None. Floats are a regression's;
        integers are classes or counts.
    size
        The N that these rows stand for: their number, unless this is a minibatch.
    scaling
        How `standardized` came from the user's units; None if it did not.
    feature_names
        One name for each column of a two-dimensional `x`.
    target_name, name
        Names of the target and of the data set.
    classes
        Labels of the classes; `y` then holds 0 .. ``len(classes) - 1``.

    Raises
    ------
    DataError
        If the data are empty, not finite, of unequal lengths, or not numbers.

    Examples
    --------
    >>> import jax, numpy as np
    >>> data = Data(np.arange(20.0).reshape(10, 2), np.arange(10.0))
    >>> train, test = data.split(jax.random.key(0), test_size=0.2)
    >>> train.rows, test.rows
    (8, 2)
    >>> [(batch.rows, batch.size) for batch in train.batches(jax.random.key(1), batch_size=5)]
    [(5, 8), (3, 8)]
    """

    x: Any
    y: Any = None
    size: int = None  # pyright: ignore[reportAssignmentType]  # filled in at the door
    scaling: Scaling | None = None
    feature_names: tuple[str, ...] = ()
    target_name: str = ""
    classes: tuple | None = None
    name: str = ""

    def __post_init__(self):
        x, y, size = self.x, self.y, self.size
        if x is None and y is None:
            raise DataError("x", expected="inputs", got="None for both x and y", remedy="Pass x.")
        same_index(x, y)
        names = tuple(map(str, self.feature_names or getattr(x, "columns", ())))
        series_name = getattr(y, "name", None)
        target_name = self.target_name or (series_name if isinstance(series_name, str) else "")
        if y is not None:
            y = finite("y", y, (target_name,))
        if isinstance(self.classes, int):
            raise DataError(
                "classes",
                expected="the classes' labels",
                got=repr(self.classes),
                remedy=f"Pass classes=range({self.classes}).",
            )
        if self.classes is not None:
            y = labels(y, self.classes)
        x = np.zeros((length(y), 0), float_type()) if x is None else finite("x", x, names)
        if names and np.shape(x)[1:] != (len(names),):
            raise DataError(
                "feature_names",
                expected="one name for each column of a two-dimensional x",
                got=f"{len(names)} names",
                remedy="Pass as many names as x has columns, or none.",
            )
        same_length(x, y)
        size = length(x) if size is None else size
        if not isinstance(size, int | np.integer) or size < length(x):
            raise DataError(
                "size",
                expected=f"an integer of at least {length(x)}, the number of rows",
                got=repr(size),
                remedy="Leave it out unless the rows are a minibatch.",
            )
        classes = None if self.classes is None else tuple(self.classes)
        checked = {"x": x, "y": y, "size": int(size), "classes": classes}
        checked |= {"feature_names": names, "target_name": target_name}
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # frozen once it is built

    def __repr__(self) -> str:
        def shape(value):
            entries = value if isinstance(value, dict) else {"": value}
            return ", ".join(f"{k} {v.dtype}{list(v.shape)}".strip() for k, v in entries.items())

        parts = [self.name, f"x {shape(self.x)}"]
        parts += [] if self.y is None else [f"y {shape(self.y)}"]
        parts += [] if self.size == self.rows else [f"size {self.size}"]
        parts += [] if self.scaling is None else ["standardised"]
        return f"Data({', '.join(filter(None, parts))})"

    @property
    def rows(self) -> int:
        """The number of rows here, M."""
        return length(self.x)

    @property
    def scale(self) -> float:
        """N / M, by which a minibatch's log likelihood is multiplied."""
        return self.size / self.rows

    @classmethod
    def from_frame(
        cls, frame: Any, target: str, task: str = "regression", *, name: str = ""
    ) -> Data:
        """Encode a pandas data frame.

        Numbers and booleans are taken as they are. A column of categories or text becomes one
        column per level, named ``city=Bergen`` (a binary one becomes a single column).

        Parameters
        ----------
        frame
            A pandas ``DataFrame`` without missing values.
        target
            The column to predict; all others are inputs.
        task
            ``"regression"``, ``"classification"`` (any labels, remembered in `classes`) or
            ``"count"``.
        name
            Name of the data set.

        Raises
        ------
        DataError
            If a column has missing values, dates or anything else that is no number or category,
            or if the target does not suit the task.
        """
        from .frame import encode  # here, because it needs pandas and arrays do not

        return cls(**encode(frame, target, task), target_name=str(target), name=name)

    def take(self, rows: Any) -> Data:
        """The rows of the given indices (or of a boolean mask), standing for themselves."""
        rows = np.asarray(rows)
        if rows.dtype == bool and rows.shape == (self.rows,):
            rows = np.flatnonzero(rows)
        whole = rows.ndim == 1 and rows.dtype.kind in "iu" and rows.size > 0
        if not whole or rows.min() < 0 or rows.max() >= self.rows:
            raise DataError(
                "rows",
                expected=f"one or more indices from 0 to {self.rows - 1}, or a mask",
                got=f"{rows.dtype} of shape {rows.shape}"
                + (f" from {rows.min()} to {rows.max()}" if whole else ""),
                remedy="Pass a one-dimensional integer array.",
            )
        x, y = each(itemgetter(rows), self.x), each(itemgetter(rows), self.y)
        return replace(self, x=x, y=y, size=len(rows))

    def split(self, key: jax.Array, test_size: float = 0.1) -> tuple[Data, Data]:
        """Split at random into (train, test), each in the order of these rows.

        Parameters
        ----------
        key
            A PRNG key.
        test_size
            A share of the rows (float) or a number of rows (int). With `classes`, each class has
            that share, to within one row.
        """
        n_test = 0
        if isinstance(test_size, float) and 0 < test_size < 1:
            n_test = round(test_size * self.rows)
        elif isinstance(test_size, int | np.integer) and not isinstance(test_size, bool):
            n_test = int(test_size)
        if not 0 < n_test < self.rows:
            raise DataError(
                "test_size",
                expected="a share or a number of rows that leaves both parts a row",
                got=f"{test_size!r} of {self.rows} rows",
                remedy=f"Pass a share such as 0.1, or 1 to {self.rows - 1} rows.",
            )
        generator = _generator(key)
        order = generator.permutation(self.rows)
        if self.classes is not None:  # then every (rows / n_test)th row of the rows by class
            order = order[np.argsort(self.y[order], kind="stable")]
        picks = (np.arange(n_test) + generator.random()) * (self.rows / n_test)
        test = np.zeros(self.rows, bool)
        test[order[picks.astype(int)]] = True
        return self.take(~test), self.take(test)

    def batches(self, key: jax.Array, batch_size: int) -> Iterator[Data]:
        """One epoch of minibatches: every row once, in random order; the last may be smaller.

        Each batch keeps this data's `size`, so that its `scale` is N / M, also for the last one.
        """
        whole = not isinstance(batch_size, bool) and isinstance(batch_size, int | np.integer)
        if not whole or not 0 < batch_size <= self.rows:
            raise DataError(
                "batch_size",
                expected=f"an integer from 1 to {self.rows}, the number of rows",
                got=repr(batch_size),
                remedy="Pass a smaller batch_size, or None for all rows.",
            )
        order = _generator(key).permutation(self.rows)
        starts = range(0, self.rows, batch_size)
        return (replace(self.take(order[i : i + batch_size]), size=self.size) for i in starts)

    def standardized(self) -> Data:
        """Standardise x and y by their own means and standard deviations, kept in `scaling`.

        A regression's y (floats) is standardised, classes and counts are not; dicts and integer
        inputs are left as they are. A fit to the result predicts from raw inputs, in the user's
        units, so held-out rows stay raw.
        """
        if self.scaling is not None:
            raise DataError(
                "data",
                expected="data in the user's units",
                got="data that are already standardised",
                remedy="Call standardized() once.",
            )
        self.require_trainable()
        scaling = Scaling.of(self.x, self.y)
        y = None if self.y is None else scaling.y(self.y)
        return replace(self, x=scaling.x(self.x), y=y, scaling=scaling)

    def require_trainable(self) -> None:
        """Raise `DataError` if there is one row only, or y is constant: predictable, not fittable.

        A y of one single value is refused for a regression (floats) and for declared `classes`.
        """
        if self.y is not None and self.rows < 2:
            raise DataError(
                "data",
                expected="at least 2 rows to fit",
                got="a single row",
                remedy="Pass more rows.",
            )
        y: Any = self.y
        declared = isinstance(y, np.ndarray) and (y.dtype.kind == "f" or self.classes)
        if declared and (y == y.flat[0]).all():
            raise DataError(
                "y",
                expected="a target that varies",
                got=f"the value {y.flat[0]} in all {self.rows} rows",
                remedy="Check that this is the column you meant.",
            )


def _generator(key: jax.Array) -> np.random.Generator:
    """A host generator seeded by a PRNG key, so that a shuffle compiles nothing."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
