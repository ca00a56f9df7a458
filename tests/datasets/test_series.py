"""Sets of the UCR archive, in its own format and as npz."""

import doctest

import numpy as np
import pytest

import ppbdl.datasets.series
from ppbdl.datasets import load_series
from ppbdl.errors import DataError, InputError

SHAPES = {  # series to train and to test, length, labels
    "ECG200": (100, 100, 96, (1, 2)),
    "GunPoint": (50, 150, 150, (1, 2)),
    "ItalyPowerDemand": (67, 1029, 24, (1, 2)),
    "PhalangesOutlinesCorrect": (1800, 858, 80, (0, 1)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_pinned_set_loads(name, shared_data):
    n_train, n_test, length, labels = SHAPES[name]
    parts = load_series(name, shared_data / "ucr")
    with np.load(shared_data / "ucr" / f"{name}.npz", allow_pickle=False) as arrays:
        for data, part, n in zip(parts, ("train", "test"), (n_train, n_test), strict=True):
            assert data.x.shape == (n, length, 1)
            assert data.x.dtype == np.float32
            assert data.classes == labels
            assert data.name == name
            np.testing.assert_array_equal(data.x[..., 0], arrays[f"x_{part}"])
            np.testing.assert_array_equal(np.array(labels)[data.y], arrays[f"y_{part}"])


def write(folder, train, test, name="Tiny"):
    (folder / f"{name}_TRAIN.tsv").write_text(train)
    (folder / f"{name}_TEST.tsv").write_text(test)


def test_the_archives_text_loads(tmp_path):
    write(tmp_path, "1\t0.5\t-1e-3\n-1\t2\t3\n", "-1\t4\t5\n1\t6\t7\n-1\t8\t9\n")
    train, test = load_series("Tiny", tmp_path)
    np.testing.assert_allclose(train.x[..., 0], [[0.5, -1e-3], [2, 3]])
    np.testing.assert_allclose(test.x[..., 0], [[4, 5], [6, 7], [8, 9]])
    assert train.y.tolist() == [1, 0]
    assert test.y.tolist() == [0, 1, 0]
    assert train.classes == test.classes == (-1, 1)


def test_a_class_that_only_one_part_has_keeps_its_place(tmp_path):
    write(tmp_path, "1\t0\n3\t0\n", "3\t0\n2\t0\n")
    train, test = load_series("Tiny", tmp_path)
    assert train.classes == test.classes == (1, 2, 3)
    assert train.y.tolist() == [0, 2]
    assert test.y.tolist() == [2, 1]


@pytest.mark.parametrize("name", ["Tiny", "ECG200"])
def test_text_and_npz_agree(name, tmp_path, monkeypatch):
    """Also for a name whose npz is pinned: the archive's own text is not."""
    write(tmp_path, "1\t0.5\t1\n2\t2\t3\n", "2\t4\t5\n", name)
    text = load_series(name, tmp_path)
    monkeypatch.setattr(ppbdl.datasets.series, "_SHA256", {})
    arrays = {"x_train": [[0.5, 1], [2, 3]], "y_train": [1, 2], "x_test": [[4, 5]], "y_test": [2]}
    np.savez(tmp_path / f"{name}.npz", **arrays)
    for data in tmp_path.glob("*.tsv"):
        data.unlink()
    for a, b in zip(text, load_series(name, tmp_path), strict=True):
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.y, b.y)


def test_an_altered_npz_is_refused(tmp_path):
    (tmp_path / "GunPoint.npz").write_bytes(b"altered")
    with pytest.raises(DataError, match=r"GunPoint\.npz: expected sha256 b40ee1cd006b.* altered"):
        load_series("GunPoint", tmp_path)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            "1\t0\t0\n2\t0\n",
            "1\t0\t0\n",
            r"Tiny_TRAIN\.tsv: expected lines of a label and a series",
        ),
        ("1\t0\tzero\n", "1\t0\t0\n", r"Tiny_TRAIN\.tsv: .* got could not convert string"),
        ("1\t0\t0\n", "", r"Tiny_TEST\.tsv: expected lines"),
        ("1\t0\t0\n", "1\t0\n", r"Tiny: expected series of one length, got shapes \(1, 2\) to"),
        ("1.5\t0\n", "1\t0\n", "Tiny: expected whole numbers as labels"),
        ("NaN\t0\n", "1\t0\n", "Tiny: expected whole numbers as labels"),
        ("1\tNaN\n", "1\t0\n", "x: expected finite numbers"),
    ],
)
def test_text_that_is_no_set_is_refused(train, test, message, tmp_path):
    write(tmp_path, train, test)
    with pytest.raises(DataError, match=message):
        load_series("Tiny", tmp_path)


def test_an_npz_that_is_no_set_is_refused(tmp_path):
    path = tmp_path / "Tiny.npz"
    message = r"Tiny\.npz: expected an npz of x_train, y_train, x_test and y_test"
    for content in (b"", b"no npz", b"PK\3\4 nor this"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            load_series("Tiny", tmp_path)
    np.savez(path, x_train=np.zeros((2, 3)))
    with pytest.raises(DataError, match=message):
        load_series("Tiny", tmp_path)
    labels = np.array(["1", "2"])
    np.savez(path, x_train=np.eye(2), y_train=labels, x_test=np.eye(2), y_test=labels)
    with pytest.raises(DataError, match=r"Tiny: expected whole numbers as labels, got .*U1"):
        load_series("Tiny", tmp_path)


def test_what_is_not_there_is_named(tmp_path):
    (tmp_path / "Tiny_TRAIN.tsv").write_text("1\t0\n")
    message = r"a folder with Tiny\.npz, or with Tiny_TRAIN\.tsv and Tiny_TEST\.tsv, got"
    with pytest.raises(InputError, match=message):
        load_series("Tiny", tmp_path)


def test_the_example_runs():
    assert doctest.testmod(ppbdl.datasets.series).failed == 0
