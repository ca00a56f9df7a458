"""The formats that sets of labelled images come in, parsed from bytes that are in memory.

Each parser takes the contents of a layout's files by name, in the layout's order, and gives the
training and the test part.
"""

from __future__ import annotations

import gzip
import io
import math
import tarfile
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..errors import DataError

Part = tuple[np.ndarray, np.ndarray]
"""Images, uint8 of shape (rows, height, width, channels), and their labels."""

BATCHES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
"""CIFAR-10's files, training part first."""


def parse_idx_files(contents: dict[str, bytes]) -> tuple[Part, Part]:
    """The four files of MNIST, images before labels and training before test."""
    x_train, y_train, x_test, y_test = (
        _parse_idx(file, content, ndim=3 if "images" in file else 1)
        for file, content in contents.items()
    )
    return (x_train[..., None], y_train), (x_test[..., None], y_test)


def _parse_idx(file: str, content: bytes, ndim: int) -> np.ndarray:
    """A gzipped IDX file of bytes: the magic number 0x0800 + ndim, big-endian sizes, the values."""
    expected = f"a gzipped IDX file of bytes with {ndim} axes"
    try:
        raw = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise _misshapen(file, expected, str(error)) from error
    if len(raw) < 4 + 4 * ndim or raw[:4] != bytes((0, 0, 8, ndim)):
        raise _misshapen(file, expected, f"the first bytes {raw[:4].hex()!r}")
    shape = tuple(map(int, np.frombuffer(raw, ">u4", count=ndim, offset=4)))
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim)
    if len(values) != math.prod(shape):
        raise _misshapen(file, f"{math.prod(shape)} values, shape {shape}", f"{len(values)}")
    return values.reshape(shape)


def parse_tar(contents: dict[str, bytes]) -> tuple[Part, Part]:
    """CIFAR-10's archive, read in memory: nothing is extracted to the disk."""
    (content,) = contents.values()
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:
            if member.isfile() and (stream := archive.extractfile(member)):
                files[Path(member.name).name] = stream.read()
    if absent := [file for file in BATCHES if file not in files]:
        raise _misshapen(next(iter(contents)), "CIFAR-10's six batches", f"no {', '.join(absent)}")
    return parse_batches({file: files[file] for file in BATCHES})


def parse_batches(contents: dict[str, bytes]) -> tuple[Part, Part]:
    """CIFAR-10's batches: records of a label and three planes (red, green, blue) of 32 × 32."""
    labels, images = [], []
    for file, content in contents.items():
        if not content or len(content) % 3073:
            raise _misshapen(file, "records of 3073 bytes", f"{len(content)} bytes")
        records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
        labels.append(records[:, 0])
        images.append(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    *x_train, x_test = images
    *y_train, y_test = labels
    return (np.concatenate(x_train), np.concatenate(y_train)), (x_test, y_test)


def parse_jpeg_files(contents: dict[str, bytes]) -> tuple[Part, Part]:
    """The developers' copy, training part first."""
    train, test = map(_parse_jpegs, contents.values())
    return train, test


def _parse_jpegs(content: bytes) -> Part:
    """An npz of joined JPEG files: file i is ``jpeg[offsets[i]:offsets[i + 1]]``."""
    from PIL import Image  # here, because only this layout needs it

    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        joined, offsets, labels = arrays["jpeg"].tobytes(), arrays["offsets"], arrays["label"]
    files = (joined[start:end] for start, end in pairwise(offsets))
    return np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files]), labels


def _misshapen(file: str, expected: str, got: str) -> DataError:
    return DataError(file, expected=expected, got=got, remedy="Get the file again.")
