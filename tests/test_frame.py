"""Data frames: how a column is encoded, and which ones are refused."""

import datetime

import jax
import numpy as np
import pandas as pd
import pytest

from ppbdl.data import Data
from ppbdl.errors import DataError, InputError

ROWS = 12
FRAME = pd.DataFrame(
    {
        "age": np.arange(ROWS) * 1.5,
        "rooms": np.arange(ROWS) % 4,
        "city": ["Oslo", "Bergen", "Rome"] * 4,
        "new": [True, False] * 6,
        "sex": pd.Categorical(["m", "f"] * 6, categories=["m", "f", "unseen"]),
        "maybe": pd.array([0, 1, 2] * 4, dtype="Int64"),
        "price": np.linspace(1, 2, ROWS),
    }
)


def test_each_kind_of_column_is_encoded():
    data = Data.from_frame(FRAME, "price", name="flats")
    assert data.feature_names == (
        *("age", "rooms", "city=Bergen", "city=Oslo", "city=Rome", "new", "sex=f", "maybe"),
    )
    assert data.x[1].tolist() == [1.5, 1, 1, 0, 0, 0, 1, 1]
    assert (data.target_name, data.name, data.classes) == ("price", "flats", None)
    np.testing.assert_array_equal(data.y, FRAME["price"].to_numpy(np.float32))


def test_held_out_rows_share_the_encoding():
    train, test = Data.from_frame(FRAME, "price").split(jax.random.key(0), 2)
    assert train.feature_names == test.feature_names


@pytest.mark.parametrize(
    ("target", "classes", "first"),
    [
        ("city", ("Bergen", "Oslo", "Rome"), [1, 0, 2]),
        ("new", (False, True), [1, 0, 1]),
        ("sex", ("m", "f"), [0, 1, 0]),
        ("rooms", (0, 1, 2, 3), [0, 1, 2]),
        ("maybe", (0, 1, 2), [0, 1, 2]),
    ],
)
def test_any_labels_become_classes(target, classes, first):
    data = Data.from_frame(FRAME, target, "classification")
    assert data.classes == classes
    assert data.y[:3].tolist() == first
    assert data.y.dtype == np.int32


def test_counts_stay_integers():
    data = Data.from_frame(FRAME.assign(rooms=FRAME["rooms"] * 1.0), "rooms", "count")
    assert data.y.dtype == np.int32
    assert data.y.tolist() == FRAME["rooms"].tolist()


def test_objects_that_are_booleans_are_a_column_of_them():
    frame = FRAME.assign(new=FRAME["new"].astype(object))
    assert "new=True" in Data.from_frame(frame, "price").feature_names


MISSING = FRAME.assign(
    age=[np.nan] * 3 + [1.0] * 9, city=[None] + ["Oslo"] * 11, price=[np.nan] + [1.0] * 11
)
PLUS = {
    "dates": (pd.Timestamp("2020-01-01"), "column 'plus'", "datetime64"),
    "days": (datetime.date(2020, 1, 1), "column 'plus'", "date (object)"),
    "durations": (pd.Timedelta(1), "column 'plus'", "timedelta"),
    "complex": (1j, "column 'plus'", "complex"),
    "lists": ([[1]] * ROWS, "column 'plus'", "mixed (object)"),
    "bytes": (b"a", "column 'plus'", "bytes"),
    "numbers as text": ([str(i) for i in range(ROWS)], "column 'plus'", "text that reads as"),
    "a stray mark": (["1.0", "2", "?", "4"] * 3, "column 'plus'", "save '?'"),
    "an identifier": ([f"id{i}" for i in range(ROWS)], "column 'plus'", "12 different ones"),
    "infinity": ([np.inf] + [1.0] * 11, "x", "row 0 of plus"),
}
REFUSED = {
    "missing": (MISSING, "price", "regression", "frame", "got 3 in age, 1 in city, 1 in price."),
    "unknown target": (FRAME, "cost", "regression", "target", "age, rooms, city"),
    "text target": (FRAME, "city", "regression", "target 'city'", 'task="classification"'),
    "bool target": (FRAME, "new", "regression", "target 'new'", 'task="classification"'),
    "constant": (FRAME.assign(price=1.0), "price", "regression", "target 'price'", "in all 12"),
    "one class": (FRAME.assign(city="a"), "city", "classification", "target 'city'", "value a in"),
    "measurement": (FRAME, "price", "classification", "target 'price'", 'task="regression"'),
    "fractions": (FRAME, "price", "count", "target 'price'", "10 others, first 1.09091 at row 1"),
    "negative": (FRAME.assign(rooms=FRAME["rooms"] - 1), "rooms", "count", "target 'rooms'", "-1"),
    "no rows": (FRAME[:0], "price", "regression", "frame", "0 rows"),
    "no features": (FRAME[["price"]], "price", "regression", "frame", "1 columns"),
    "no frame": (FRAME.to_numpy(), "price", "regression", "frame", "ndarray"),
    "twice": (FRAME.rename(columns={"age": "rooms"}), "price", "regression", "frame", "one rooms"),
} | {
    name: (FRAME.assign(plus=value), "price", "regression", argument, message)
    for name, (value, argument, message) in PLUS.items()
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_frames_are_refused_by_column(case):
    frame, target, task, argument, message = REFUSED[case]
    with pytest.raises(DataError) as caught:
        Data.from_frame(frame, target, task)
    assert caught.value.argument == argument
    assert message in str(caught.value)


def test_many_different_floats_are_no_classes():
    frame = pd.DataFrame({"a": np.arange(200), "b": np.arange(200) % 60 + 0.5})
    with pytest.raises(DataError, match="60 different values in 200 rows"):
        Data.from_frame(frame, "b", "classification")


def test_an_unknown_task_names_the_known():
    with pytest.raises(InputError, match="one of regression, count, classification, got 'rank'"):
        Data.from_frame(FRAME, "price", "rank")
