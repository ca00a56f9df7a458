"""Tiny MNIST-like and pinned files, for the tests of images and of downloads."""

import gzip
import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest

from ppbdl.datasets import images

IDX_FILES = list(images._SETS["mnist"].layouts[0].files)


def _idx(array):
    """A gzipped IDX file."""
    header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


@pytest.fixture
def tiny_mnist():
    """Three images to train and two to test, by file."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (5, 28, 28), np.uint8), np.array([3, 1, 4, 1, 5], np.uint8)
    contents = [_idx(x[:3]), _idx(y[:3]), _idx(x[3:]), _idx(y[3:])]
    return x, y, dict(zip(IDX_FILES, contents, strict=True))


@pytest.fixture
def pin(monkeypatch):
    """Replace one layout's hashes by those of tiny files, and the set's address."""

    def replaced(name, contents, number=0, url=None):
        old = images._SETS[name]
        hashes = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
        layouts = list(old.layouts)
        layouts[number] = replace(layouts[number], files=hashes)
        new = replace(old, url=url or old.url, layouts=tuple(layouts))
        monkeypatch.setitem(images._SETS, name, new)

    return replaced


@pytest.fixture
def check_images():
    """Check that two parts are the images of x and y, divided by 255."""

    def check(parts, x, y, n_train):
        train, test = parts
        assert train.x.dtype == test.x.dtype == np.float32
        np.testing.assert_allclose(np.concatenate([train.x, test.x]) * 255, x, atol=1e-4)
        np.testing.assert_array_equal(np.concatenate([train.y, test.y]), y)
        assert train.rows == n_train

    return check
