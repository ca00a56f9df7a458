"""The data sets that ship inside, and the others beside a developer's checkout."""

import doctest

import numpy as np
import pytest

import ppbdl.datasets.loading
from ppbdl.datasets import load
from ppbdl.errors import DataError, InputError

SHIPPED = ppbdl.datasets.loading._SHIPPED
SHAPES = {  # rows, features, splits
    "yacht": (308, 6, 20),
    "energy": (768, 8, 20),
    "concrete": (1030, 8, 20),
    "power-plant": (9568, 4, 20),
    "protein-tertiary-structure": (45730, 9, 5),
    "wine-quality-red": (1599, 11, 20),
    "bostonHousing": (506, 13, 20),
}


def check(name, split, folder=None):
    rows, features, _ = SHAPES[name]
    train, test = load(name, split, folder)
    assert train.rows + test.rows == rows
    assert test.rows == pytest.approx(rows / 10, abs=1)
    assert train.x.shape[1] == len(train.feature_names) == features
    assert train.scaling is test.scaling is None
    assert train.name == name
    train.standardized()


@pytest.mark.parametrize("name", ["yacht", "energy"])
@pytest.mark.parametrize("split", [0, 19])
def test_a_shipped_set_loads(name, split):
    check(name, split)


@pytest.mark.parametrize("name", SHAPES)
def test_a_set_in_a_folder_loads(name, shared_data):
    check(name, SHAPES[name][2] - 1, shared_data / "uci")


def test_the_splits_are_the_published_ones():
    """Of all rows, each is in exactly one part; another split has another test part."""
    (train, test), (_, other) = load("yacht", 0), load("yacht", 1)
    with np.load(SHIPPED / "yacht.npz", allow_pickle=False) as arrays:
        together = np.concatenate([arrays["index_train"][0], arrays["index_test"][0]])
        assert sorted(together) == list(range(308))
        np.testing.assert_allclose(test.y, arrays["y"][arrays["index_test"][0]], rtol=1e-6)
    assert not np.array_equal(test.y, other.y)
    assert not np.array_equal(train.y[: test.rows], test.y)


def test_the_columns_are_in_the_order_of_their_names():
    """Each has the range that the set's description gives for it."""
    train, test = load("yacht")
    column = dict(zip(train.feature_names, np.concatenate([train.x, test.x]).T, strict=True))
    assert np.ptp(column["Froude number"]) == pytest.approx(0.450 - 0.125)
    assert column["prismatic coefficient"].min() == pytest.approx(0.53)
    train, test = load("energy")
    column = dict(zip(train.feature_names, np.concatenate([train.x, test.x]).T, strict=True))
    assert set(column["overall height"]) == {3.5, 7.0}
    assert set(column["orientation"]) == {2, 3, 4, 5}
    # A building's surface is its walls and its roof and floor.
    surface = column["wall area"] + 2 * column["roof area"]
    np.testing.assert_allclose(column["surface area"], surface)


def test_an_altered_file_is_refused(tmp_path):
    content = bytearray((SHIPPED / "yacht.npz").read_bytes())
    content[1000] ^= 1
    (tmp_path / "yacht.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"yacht\.npz: expected sha256 a546eb1a39e5.* altered"):
        load("yacht", folder=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(name="iris"), "name: expected one of yacht, energy, .*, got 'iris'"),
        (dict(name="concrete"), "name: expected a set that ships inside, got 'concrete'"),
        (dict(name="yacht", split=20), "split: expected an integer from 0 to 19, got 20"),
        (dict(name="yacht", split=-1), "split: expected an integer from 0 to 19, got -1"),
        (dict(name="yacht", split=True), "split: expected an integer from 0 to 19, got True"),
        (dict(name="yacht", folder="nowhere"), r"folder: expected a folder with yacht\.npz"),
    ],
)
def test_what_is_not_there_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        load(**arguments)


def test_the_example_runs():
    assert doctest.testmod(ppbdl.datasets.loading).failed == 0
