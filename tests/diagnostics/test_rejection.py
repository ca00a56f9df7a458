"""The accuracy-against-rejection curve, by its definition and at its two ends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppbdl import diagnostics as d

ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40)


def unpack(rows) -> tuple[np.ndarray, np.ndarray]:
    correct, uncertainty = zip(*rows, strict=True)
    return np.array(correct), np.array(uncertainty, float)


def test_without_ties_it_is_the_accuracy_of_the_most_certain_rows() -> None:
    rng = np.random.default_rng(0)
    correct, uncertainty = rng.uniform(size=50) < 0.7, rng.normal(size=50)
    curve = d.rejection_curve(correct, uncertainty)
    order = np.argsort(uncertainty)
    for rejected, accuracy in zip(curve.rejected, curve.accuracy, strict=True):
        kept = order[: round(50 * (1 - rejected))]
        assert accuracy == pytest.approx(correct[kept].mean())
    assert curve.rejected.tolist() == [i / 50 for i in range(50)]
    assert curve.area == pytest.approx(curve.accuracy.mean())


def test_ties_are_the_mean_over_their_orders() -> None:
    correct = np.array([True, False, True, False, True])
    orders = [[0, *middle, 4] for middle in permutations([1, 2, 3])]
    curves = [d.rejection_curve(correct[order], np.arange(5.0)) for order in orders]
    tied = d.rejection_curve(correct, np.array([0.0, 1.0, 1.0, 1.0, 2.0]))
    np.testing.assert_allclose(tied.accuracy, np.mean([c.accuracy for c in curves], axis=0))


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_count(rows, random) -> None:
    before = d.rejection_curve(*unpack(rows))
    random.shuffle(rows)
    after = d.rejection_curve(*unpack(rows))
    np.testing.assert_allclose(after.accuracy, before.accuracy)


@given(ROWS)
def test_it_starts_at_the_accuracy_and_stays_a_share(rows) -> None:
    correct, uncertainty = unpack(rows)
    curve = d.rejection_curve(correct, uncertainty)
    assert curve.accuracy[0] == pytest.approx(correct.mean())
    assert curve.accuracy.min() >= 0
    assert curve.accuracy.max() <= 1


def test_a_useless_order_keeps_the_accuracy() -> None:
    curve = d.rejection_curve(np.array([True, True, False, True]), np.zeros(4))
    np.testing.assert_allclose(curve.accuracy, 0.75)
    assert curve.area == pytest.approx(0.75)


@pytest.mark.parametrize("right", [0.2, 0.9])
def test_the_best_order_reaches_its_closed_form(right: float) -> None:
    rows = 20_000
    correct = np.arange(rows) < right * rows
    curve = d.rejection_curve(correct, np.arange(rows))
    # The sum 1/(k+1) + ... + 1/n differs from log(n / k) by less than 1/k.
    assert curve.area == pytest.approx(right * (1 - np.log(right)), abs=1 / rows)


def test_novel_rows_that_count_as_wrong_are_worth_rejecting() -> None:
    known, novel = np.ones(80, bool), np.zeros(20, bool)
    curve = d.rejection_curve(np.r_[known, novel], np.r_[np.zeros(80), np.ones(20)])
    assert curve.accuracy[0] == pytest.approx(0.8)
    np.testing.assert_allclose(curve.accuracy[20:], 1.0)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: d.rejection_curve(np.array([]), np.array([])), "correct"),
        (lambda: d.rejection_curve(np.array([3, 7]), np.ones(2)), "correct"),
        (lambda: d.rejection_curve(np.array([np.nan, 1.0]), np.ones(2)), "correct"),
        (lambda: d.rejection_curve(np.ones((2, 2)), np.ones((2, 2))), "correct"),
        (lambda: d.rejection_curve(np.array([True]), np.ones(2)), "uncertainty"),
        (lambda: d.rejection_curve(np.array([True]), np.array([np.nan])), "uncertainty"),
    ],
)
def test_what_has_no_meaning_is_refused(call: Callable, argument: str) -> None:
    with pytest.raises(d.DiagnosticsError) as caught:
        call()
    assert caught.value.argument == argument
