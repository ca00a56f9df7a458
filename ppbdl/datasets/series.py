"""Labelled time series in the two formats in which sets of the UCR archive come."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from ..data import Data
from ..errors import DataError, InputError
from .verification import read_verified

# Of the npz files, which are ours: the archive publishes no hashes of its text files.
_SHA256 = {
    "ECG200": "4cbf48d3e7db26f87c9f05f6625439177a946dd895b64acdd02569fac117a2ac",
    "GunPoint": "b40ee1cd006befec0862b4263aa5e1bee6bea0e029df1e2ad87883a8dadf5893",
    "ItalyPowerDemand": "f7cf1c2439aa263107d48035d8c1a20f636ddf2e4549111d10fecbe23459e2d3",
    "PhalangesOutlinesCorrect": "391e85b65cbe931c45c92dca140997c2e4be12bb387102cdd54838093c6a3c98",
}


def load_series(name: str, folder: str | Path) -> tuple[Data, Data]:
    r"""Load a set of the UCR time series archive, with the archive's training and test parts.

    Parameters
    ----------
    name
        Any of the archive, such as ``"ECG200"``.
    folder
        Where the set lies: the archive's own ``name_TRAIN.tsv`` and ``name_TEST.tsv`` (a line for
        each series, its label first), or ``name.npz`` with the arrays ``x_train`` (series, length),
        ``y_train`` (series,), ``x_test`` and ``y_test``. For ECG200, GunPoint, ItalyPowerDemand
        and PhalangesOutlinesCorrect the npz's sha256 is checked.

    Returns
    -------
    train, test
        `x` of shape (series, length, 1), as in the archive; `y` the classes, from 0, whose labels
        in the archive (1 and 2, or -1 and 1, ...) are in `classes`.

    Raises
    ------
    InputError
        If the folder has no such set.
    DataError
        If a file is not the one published, or not in its format, or has series of unequal lengths
        or missing values.

    References
    ----------
    Dau et al. (2018), The UCR time series classification archive.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in ("TRAIN", "TEST"):
    ...         path = pathlib.Path(folder) / f"Tiny_{part}.tsv"
    ...         _ = path.write_text("-1\t0.0\t0.5\t0.1\n1\t2.0\t1.5\t1.9\n")
    ...     train, test = load_series("Tiny", folder)
    >>> train
    Data(Tiny, x float32[2, 3, 1], y int32[2])
    >>> train.y, train.classes
    (array([0, 1], dtype=int32), (-1, 1))
    """
    npz = Path(folder) / f"{name}.npz"
    texts = [Path(folder) / f"{name}_{part}.tsv" for part in ("TRAIN", "TEST")]
    if npz.is_file():
        x_train, y_train, x_test, y_test = _parse_npz(npz, _SHA256.get(name))
    elif all(path.is_file() for path in texts):
        x_train, y_train, x_test, y_test = (part for path in texts for part in _parse_text(path))
    else:
        raise InputError(
            "folder",
            expected=f"a folder with {npz.name}, or with {texts[0].name} and {texts[1].name}",
            got=repr(str(folder)),
            remedy="Get the set from the UCR time series archive.",
        )
    if x_train.shape[1:] != x_test.shape[1:] or x_train.ndim != 2:
        raise DataError(
            name,
            expected="series of one length",
            got=f"shapes {x_train.shape} to train and {x_test.shape} to test",
            remedy="Cut or pad them, and build Data(x, y) yourself.",
        )
    classes, y = np.unique(np.append(y_train, y_test), return_inverse=True)
    if classes.dtype.kind not in "iuf" or not all(float(each).is_integer() for each in classes):
        raise DataError(
            name,
            expected="whole numbers as labels",
            got=f"{classes[:3]} and so on, {classes.dtype}",
            remedy="Check that the set is one for classification.",
        )
    train, test = (
        Data(x[..., None], index, classes=tuple(map(int, classes)), name=name)
        for x, index in ((x_train, y[: y_train.size]), (x_test, y[y_train.size :]))
    )
    return train, test


def _parse_npz(path: Path, sha256: str | None) -> list[np.ndarray]:
    content = path.read_bytes() if sha256 is None else read_verified(path, sha256)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return [arrays[f"{side}_{part}"] for part in ("train", "test") for side in "xy"]
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _misshapen(path, "an npz of x_train, y_train, x_test and y_test", error) from error


def _parse_text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The series, shape (series, length), and the labels, which are the first column."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
        table = np.array(rows, dtype=float)
        return table[:, 1:], table[:, 0]
    except (ValueError, IndexError) as error:  # text, lines of unequal lengths, nothing
        raise _misshapen(path, "lines of a label and a series, all as long", error) from error


def _misshapen(path: Path, expected: str, error: Exception) -> DataError:
    return DataError(path.name, expected=expected, got=str(error), remedy="Get the file again.")
