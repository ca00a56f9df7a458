"""Data: what is let in, in which form, and what is refused at the door."""

import doctest
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ppbdl.data
from ppbdl.data import Data, Scaling
from ppbdl.errors import DataError, InputError

KEY = jax.random.key(0)
NAN = float("nan")
X = np.arange(12.0).reshape(6, 2)
Y = np.arange(6.0)


def with_entry(array, position, value):
    changed = np.array(array)
    changed[position] = value
    return changed


REFUSED = {
    "nothing": (dict(x=None), "x", "None for both"),
    "empty": (dict(x=np.zeros((0, 3))), "x", "shape (0, 3)"),
    "empty list": (dict(x=[]), "x", "shape (0,)"),
    "empty dict": (dict(x={}), "x", "an empty dict"),
    "scalar": (dict(x=3.0), "x", "a scalar"),
    "ragged": (dict(x=[[1.0], [1.0, 2.0]]), "x", "list"),
    "NaN in x": (dict(x=with_entry(X, (3, 1), NAN)), "x", "1 of 12 not finite"),
    "its place": (dict(x=with_entry(X, (3, 1), NAN)), "x", "row 3, column 1"),
    "its name": (
        dict(x=with_entry(X, (3, 1), np.inf), feature_names=("age", "height")),
        "x",
        "first at row 3 of height",
    ),
    "many": (dict(x=X * NAN), "x", "first at row 0, column 0; row 0, column 1; row 1, column 0."),
    "in an image": (dict(x=with_entry(np.ones((2, 4, 4)), (1, 2, 3), NAN)), "x", "(1, 2, 3)"),
    "infinity in y": (dict(x=X, y=with_entry(Y, 4, -np.inf)), "y", "first at row 4"),
    "named y": (dict(x=X, y=with_entry(Y, 4, NAN), target_name="price"), "y", "row 4 of price"),
    "in a dict": (dict(x={"a": [1.0, NAN]}), "x['a']", "row 1"),
    "overflow": (dict(x=[[1e300], [0.0]]), "x", "1 of 2 not finite"),
    "lost in rounding": (dict(x=1.7e9 + X), "x", "large constant with small variations"),
    "lost, named": (dict(x=1.7e9 + X, feature_names=("time", "b")), "x", "variations in time"),
    "long integers": (dict(x={"a": [0, 2**40]}), "x['a']", "1 of 2 out of range, first at row 1"),
    "lengths": (dict(x=X, y=Y[:5]), "y", "as many rows as x, 6, got 5"),
    "lengths in a dict": (dict(x={"a": X, "b": Y[:4]}), "x['b']", "as x['a'], 6, got 4"),
    "lengths of y": (dict(x=X, y={"a": Y, "b": Y[:4]}), "y['b']", "as many rows as x, 6, got 4"),
    "text": (dict(x=["a", "b"]), "x", "dtype <U1"),
    "objects": (dict(x=np.array([[1, None]], dtype=object)), "x", "dtype object"),
    "complex": (dict(x=[1j, 2.0]), "x", "dtype complex128"),
    "dates": (dict(x=np.array(["2020-01-01"], "datetime64[D]")), "x", "dtype datetime64"),
    "masked": (dict(x=np.ma.masked_equal([1.0, 2.0], 2.0)), "x", "1 masked"),
    "text labels": (dict(x=X, y=list("aabbcc")), "y", "dtype <U1"),
    "label too large": (dict(x=X, y=[0, 1, 2, 0, 1, 2], classes="ab"), "y", "2 of 6"),
    "negative label": (dict(x=X, y=[0, 1, -1, 0, 1, 0], classes="ab"), "y", "first at row 2"),
    "fractional label": (dict(x=X, y=[0, 1, 0.5, 0, 1, 0], classes="ab"), "y", "from 0 to 1"),
    "classes, no y": (dict(x=X, classes="ab"), "y", "NoneType"),
    "names": (dict(x=X, feature_names=("a",)), "feature_names", "1 names"),
    "size": (dict(x=X, size=5), "size", "at least 6"),
    "size, fractional": (dict(x=X, size=7.5), "size", "got 7.5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arrays_are_refused_by_name(case):
    fields, argument, message = REFUSED[case]
    with pytest.raises(DataError) as caught:
        Data(**fields)
    assert caught.value.argument == argument
    assert message in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (X, np.float32),
        (X.astype(np.float16), np.float32),
        (jnp.ones((6, 2), jnp.bfloat16), np.float32),
        (np.arange(12).reshape(6, 2), np.float32),  # columns of features
        (X > 3, np.float32),
        (np.arange(6), np.int32),  # indices
        (np.zeros((6, 4, 4), np.uint8), np.int32),
        ([[1, 2.5]], np.float32),
    ],
)
def test_dtypes_are_those_jax_computes_with(x, dtype):
    assert Data(x).x.dtype == dtype


def test_entries_of_a_dict_keep_their_kind():
    data = Data({"tokens": np.arange(12).reshape(6, 2), "mask": Y > 2, "x": Y}, {"y": Y > 2})
    assert [data.x[name].dtype for name in ("tokens", "mask", "x")] == [np.int32, bool, np.float32]
    assert data.y["y"].dtype == np.int32
    assert data.take([1, 3]).x["tokens"].tolist() == [[2, 3], [6, 7]]
    assert data.standardized().x["x"].tolist() == Y.tolist()  # a dict is not scaled


def test_double_precision_is_kept_when_it_is_on(x64):
    data = Data(1.7e9 + X, Y)
    assert data.x.dtype == np.float64
    np.testing.assert_allclose(data.standardized().x[:, 0].std(), 1.0)


def test_an_unconditional_model_has_inputs_of_width_zero():
    data = Data(None, np.ones((6, 28, 28)))
    assert data.x.shape == (6, 0)
    assert data.rows == data.size == 6


def test_one_row_may_be_predicted_but_not_fitted():
    assert Data([[1.0, 2.0]]).rows == 1
    single = Data([[1.0, 2.0]], [1.0])
    with pytest.raises(DataError, match="a single row"):
        single.require_trainable()


@pytest.mark.parametrize("fields", [dict(y=np.ones(6)), dict(y=np.ones(6, int), classes="ab")])
def test_a_constant_target_is_not_fitted(fields):
    with pytest.raises(DataError, match=r"y: .* the value 1(\.0)? in all 6 rows"):
        Data(X, **fields).require_trainable()


def test_constant_counts_and_dicts_can_be_fitted():
    Data(X, np.ones(6, int)).require_trainable()
    Data(X, {"y": np.ones(6)}).require_trainable()


def test_pandas_objects_bring_their_names():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": Y, "b": np.arange(6)})
    data = Data(frame, pd.Series(Y, name="price"))
    assert (data.feature_names, data.target_name) == (("a", "b"), "price")
    with pytest.raises(DataError, match="another index"):
        Data(frame, pd.Series(Y).sort_values(ascending=False))
    with pytest.raises(DataError, match=r"dtype object in city\. .*from_frame"):
        Data(frame.assign(city="Bergen"))


def test_pandas_is_loaded_for_frames_only():
    code = "import sys, ppbdl.data; print('ppbdl.frame' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


# Standardisation and its inverse


@given(
    shift=st.floats(-1e3, 1e3),
    spread=st.floats(1, 1e3),
    outputs=st.sampled_from([(), (1,), (3,)]),
)
@settings(max_examples=25, deadline=None)
def test_scaling_is_inverted_in_the_users_units(shift, spread, outputs):
    generator = np.random.default_rng(1)
    raw = shift + spread * generator.normal(size=(50, *outputs))
    data = Data(generator.normal(size=(50, 2)), raw).standardized()
    np.testing.assert_allclose(data.y.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(data.y.std(axis=0), 1, rtol=1e-3)
    np.testing.assert_allclose(data.scaling.mean(data.y), raw, rtol=1e-3, atol=1e-3 * spread)
    np.testing.assert_allclose(data.scaling.variance(1.0), raw.var(axis=0), rtol=1e-3)


def test_the_log_density_is_that_of_the_users_units():
    from scipy.stats import norm

    y = np.array([[3.0, 10.0], [5.0, 40.0], [8.0, 20.0]])
    scaling = Data(np.eye(3), y).standardized().scaling
    own = norm.logpdf(scaling.y(y)).sum(-1)  # a unit normal per output of each row
    users = norm.logpdf(y, scaling.y_mean, scaling.y_sd).sum(-1)
    np.testing.assert_allclose(scaling.log_density(own), users, rtol=1e-5)


def test_a_constant_feature_becomes_zero():
    data = Data(np.column_stack([Y, np.full(6, 7.1)]), Y).standardized()
    assert (data.x[:, 1] == 0).all()
    assert data.scaling.x_sd[1] == 1


def test_classes_counts_and_indices_are_not_scaled():
    data = Data(np.arange(6), [0, 1, 0, 1, 0, 1], classes=("no", "yes")).standardized()
    assert data.x.tolist() == list(range(6))
    assert data.y.tolist() == [0, 1, 0, 1, 0, 1]
    for inverse in (data.scaling.mean, data.scaling.variance, data.scaling.log_density):
        assert inverse(2.5) == 2.5
    assert Scaling().x(3) == Scaling().y(3) == 3


def test_standardising_twice_or_a_constant_output_is_refused():
    with pytest.raises(DataError, match="already standardised"):
        Data(X, Y).standardized().standardized()
    with pytest.raises(DataError, match="the same value in every row of 1"):
        Data(X, np.column_stack([Y, np.ones(6)])).standardized()


# Parts


@given(rows=st.integers(2, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=40, deadline=None)
def test_a_split_holds_every_row_once(rows, share, seed):
    if not 0 < round(share * rows) < rows:
        return
    train, test = Data(np.arange(rows)).split(jax.random.key(seed), share)
    assert test.rows == round(share * rows)
    assert sorted([*train.x, *test.x]) == list(range(rows))
    assert train.size == train.rows


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=20, deadline=None)
def test_a_split_gives_each_class_its_share(seed):
    y = np.repeat([0, 1, 2], [10, 30, 60])
    _, test = Data(np.arange(100), y, classes=tuple("abc")).split(jax.random.key(seed), 0.25)
    np.testing.assert_allclose(np.bincount(test.y), [2.5, 7.5, 15], atol=1)


def test_a_split_is_decided_by_its_key():
    data = Data(np.arange(30))
    first, again, other = (data.split(jax.random.key(seed), 7)[1].x for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("test_size", [0, 6, -1, 0.0, 1.0, 0.01, 1.5, NAN, True, "a", None])
def test_a_split_leaves_both_parts_a_row(test_size):
    with pytest.raises(DataError, match="test_size: "):
        Data(X).split(KEY, test_size)


@given(rows=st.integers(1, 50), data=st.data())
@settings(max_examples=40, deadline=None)
def test_an_epoch_holds_every_row_once_and_knows_its_scale(rows, data):
    batch_size = data.draw(st.integers(1, rows))
    batches = list(Data(np.arange(rows), np.arange(rows)).batches(KEY, batch_size))
    assert sorted(np.concatenate([batch.x for batch in batches])) == list(range(rows))
    assert [batch.rows for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 0 < batches[-1].rows <= batch_size
    for batch in batches:
        assert batch.size == rows
        assert batch.scale == rows / batch.rows
        assert (batch.x == batch.y).all()


def test_the_minibatch_sum_is_unbiased():
    """The mean of scale x (sum over a batch) over all batches of equal size is the full sum."""
    batches = Data(X, Y).batches(KEY, 2)
    assert np.mean([batch.scale * batch.y.sum() for batch in batches]) == pytest.approx(Y.sum())


def test_batches_of_a_standardised_part_keep_what_they_know():
    data = Data(X, Y, feature_names=("a", "b"), target_name="c", name="set").standardized()
    batch = next(data.batches(KEY, 2))
    assert (batch.scaling, batch.feature_names) == (data.scaling, ("a", "b"))
    assert repr(batch) == "Data(set, x float32[2, 2], y float32[2], size 6, standardised)"


@pytest.mark.parametrize("batch_size", [0, -1, 7, 2.5, True, None, "a"])
def test_a_batch_fits_into_the_data(batch_size):
    with pytest.raises(DataError, match="batch_size: expected an integer from 1 to 6"):
        Data(X).batches(KEY, batch_size)


@pytest.mark.parametrize("rows", [[6], [-1], [0.5], [], [[0]], 0, [True]])
def test_take_is_refused_outside_the_rows(rows):
    with pytest.raises(DataError, match="rows: expected one or more indices from 0 to 5"):
        Data(X).take(rows)


def test_take_follows_indices_and_masks():
    assert Data(Y).take([5, 0, 0]).x.tolist() == [5, 0, 0]
    assert Data(Y).take(Y > 3).x.tolist() == [4, 5]


def test_the_example_runs():
    assert doctest.testmod(ppbdl.data).failed == 0


def test_an_input_error_is_a_value_error():
    assert issubclass(DataError, InputError)
    assert issubclass(InputError, ValueError)
