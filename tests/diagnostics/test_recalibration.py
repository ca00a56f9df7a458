"""Post-hoc remedies: closed forms, and the conformal guarantee by simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ppbdl import diagnostics as d


def labels(rng: np.random.Generator, probs: np.ndarray) -> np.ndarray:
    return (rng.uniform(size=(len(probs), 1)) > probs.cumsum(axis=1)[:, :-1]).sum(axis=1)


@pytest.mark.parametrize("sharpen", [0.4, 1.0, 3.0])
def test_temperature_undoes_a_power(sharpen: float) -> None:
    """Probabilities raised to a power have that temperature, of sd about 3% with 4,000 rows."""
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.ones(3), size=4000)
    y = labels(rng, true)
    powered = true**sharpen / (true**sharpen).sum(axis=1, keepdims=True)
    temperature = d.scale_temperature(powered, y)
    assert temperature.value == pytest.approx(sharpen, rel=0.15)
    np.testing.assert_allclose(temperature.apply(powered), true, atol=0.1)
    np.testing.assert_array_equal(temperature.apply(powered).argmax(axis=1), powered.argmax(axis=1))
    assert temperature.nll_before == pytest.approx(d.nll(y, powered))
    assert temperature.nll_after <= temperature.nll_before + 1e-9


def test_temperature_is_a_maximum_of_the_likelihood() -> None:
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(4), size=200)
    y = labels(rng, rng.dirichlet(np.ones(4), size=200))
    best = d.scale_temperature(probs, y)
    for factor in (0.9, 1.1):
        moved = d.Temperature(best.value * factor, 0.0, 0.0)
        assert d.nll(y, moved.apply(probs)) > best.nll_after


def test_temperature_mends_overconfidence_on_other_rows() -> None:
    rng = np.random.default_rng(2)
    true = rng.dirichlet(np.ones(3), size=4000)
    y, sharp = labels(rng, true), true**4 / (true**4).sum(axis=1, keepdims=True)
    temperature = d.scale_temperature(sharp[:2000], y[:2000])
    before, after = sharp[2000:], temperature.apply(sharp[2000:])
    assert d.ece(y[2000:], after) < 0.2 * d.ece(y[2000:], before)
    assert d.nll(y[2000:], after) < d.nll(y[2000:], before)


@pytest.mark.parametrize("rows", [19, 60])
@pytest.mark.parametrize("level", [0.5, 0.9])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_conformal_intervals_hold_their_level(rows: int, level: float, scale: float) -> None:
    """The mean coverage over splits lies in [level, level + 1/(n+1)], up to Monte Carlo error.

    400 splits with 50 new rows each: the standard error of the mean is measured, and five of
    them allowed, so that a right procedure fails once in a million.
    """
    rng = np.random.default_rng(rows)
    found = []
    for _ in range(400):
        noise = scale * rng.standard_t(4, size=rows + 50)
        draws = rng.normal(size=(80, rows + 50))
        intervals = d.conformal_intervals(draws[:, :rows], noise[:rows], level)
        lower, upper = intervals.apply(draws[:, rows:])
        found.append(((lower <= noise[rows:]) & (noise[rows:] <= upper)).mean())
    error = np.std(found) / np.sqrt(len(found))
    assert level - 5 * error <= np.mean(found) <= level + 1 / (rows + 1) + 5 * error
    assert error < 0.02


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_conformal_sets_hold_their_level(level: float) -> None:
    """As for intervals; the probabilities are far from the labels' distribution."""
    rng, rows, found = np.random.default_rng(3), 39, []
    for _ in range(400):
        true = rng.dirichlet(np.ones(4), size=rows + 50)
        y, probs = labels(rng, true), true**3 / (true**3).sum(axis=1, keepdims=True)
        sets = d.conformal_sets(probs[:rows], y[:rows], level)
        found.append(sets.apply(probs[rows:])[np.arange(50), y[rows:]].mean())
    error = np.std(found) / np.sqrt(len(found))
    assert level - 5 * error <= np.mean(found) <= level + 1 / (rows + 1) + 5 * error


def test_too_few_rows_promise_everything() -> None:
    rng = np.random.default_rng(4)
    intervals = d.conformal_intervals(rng.normal(size=(50, 8)), rng.normal(size=8), 0.9)
    lower, upper = intervals.apply(rng.normal(size=(50, 3)))
    assert np.isneginf(lower).all()
    assert np.isposinf(upper).all()
    sets = d.conformal_sets(np.full((8, 3), 1 / 3), np.zeros(8, int), 0.9)
    assert sets.apply(rng.dirichlet(np.ones(3), size=5)).all()
    # Nine rows are just enough: the largest of nine scores.
    nine = d.conformal_intervals(rng.normal(size=(50, 9)), rng.normal(size=9), 0.9)
    assert np.isfinite(nine.stretch)


def test_a_fit_too_wide_is_narrowed_and_never_inside_out() -> None:
    rng = np.random.default_rng(5)
    wide, y = 10 * rng.normal(size=(400, 500)), rng.normal(size=500)
    intervals = d.conformal_intervals(wide, y)
    lower, upper = intervals.apply(wide)
    assert intervals.stretch < 0
    assert (lower <= upper).all()
    assert (upper - lower).mean() < 0.3 * np.subtract(*d.interval(wide)[::-1]).mean()


PROBS, DRAWS = np.full((2, 2), 0.5), np.arange(8.0).reshape(4, 2)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: d.scale_temperature(np.zeros((0, 2)), np.zeros(0, int)), "probs"),
        (lambda: d.scale_temperature(np.array([[3.0, -2.0]]), np.zeros(1, int)), "probs"),
        (lambda: d.scale_temperature(PROBS, np.array([0, 2])), "y"),
        (lambda: d.scale_temperature(PROBS, np.array([0])), "y"),
        (lambda: d.conformal_sets(PROBS, np.array([0, 1]), 1.0), "level"),
        (lambda: d.conformal_intervals(DRAWS, np.zeros(3)), "y"),
        (lambda: d.conformal_intervals(np.ones((4, 2)), np.zeros(2)), "draws"),
        (lambda: d.conformal_intervals(DRAWS, np.zeros(2), 90), "level"),
    ],
)
def test_what_has_no_meaning_is_refused(call: Callable, argument: str) -> None:
    with pytest.raises(d.DiagnosticsError) as caught:
        call()
    assert caught.value.argument == argument
