"""The simulated sensor: its parts against closed forms, and how hard the task is.

Statistical tests allow 5 standard errors: a false alarm in 2 million runs with other keys.
"""

import doctest

import jax
import numpy as np
import pytest
from scipy.stats import rankdata

from ppbdl.datasets import plumes, simulate_plumes
from ppbdl.errors import InputError


@pytest.fixture(scope="module")
def samples():
    """Two sets of 20,000 series and their classes."""
    both = [simulate_plumes(key, 20_000) for key in (0, 1)]
    return [(data.x[..., 0], data.y) for data in both]


def test_half_the_series_have_a_leak():
    data = simulate_plumes(3, series=101, length=7)
    assert data.x.shape == (101, 7, 1)
    assert data.x.dtype == np.float32
    assert np.bincount(data.y).tolist() == [51, 50]
    assert data.classes == ("no leak", "leak")
    assert 25 < np.diff(data.y).nonzero()[0].size < 75  # in random order: 50, standard deviation 5


def test_the_key_decides():
    a, b = simulate_plumes(7, 20), simulate_plumes(jax.random.key(7), 20)
    other = simulate_plumes(8, 20)
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.y, b.y)
    assert not np.isin(a.x, other.x).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(key="a", series=2), "key: expected a single JAX random key"),
        (dict(key=0, series=0), "series: expected a positive whole number"),
        (dict(key=0, series=2, length=1.5), "length: expected a positive whole number"),
    ],
)
def test_what_cannot_be_simulated_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        simulate_plumes(**arguments)


@pytest.mark.parametrize("d", [30.0, 200.0])
@pytest.mark.parametrize("speed", [0.05, 0.3])
def test_the_plume_carries_what_leaks(d, speed):
    """Through a plane across the current flows the leak's rate: u c, integrated aside and upward.

    Upward c falls as exp(-z^2 / (2 s_z^2)), whose integral is s_z sqrt(pi / 2).
    """
    aside = np.linspace(-2 * d, 2 * d, 2001)
    turn = 0.7  # of the whole picture
    c = plumes._concentration(
        np.full(1, speed * np.cos(turn)),
        np.full(1, speed * np.sin(turn)),
        np.hypot(d, aside),
        np.arctan2(aside, d) + turn,
    )
    carried = speed * np.trapezoid(c, aside) * 0.05 * d * np.sqrt(np.pi / 2)
    assert carried == pytest.approx(plumes._RATE, rel=1e-6)


def test_nothing_comes_against_the_current():
    upstream = plumes._concentration(
        np.full(1, 0.1), np.zeros(1), np.full(1, 50.0), np.full(1, 2.0)
    )
    assert upstream == 0


@pytest.mark.parametrize("sense", [-1, 1])
def test_the_plume_passes_once_in_each_tide(sense):
    """In a current that turns evenly, when it points from the leak to the sensor."""
    hours = np.arange(0, 2 * plumes._TIDE, 0.01)
    angle = 2 * np.pi * hours / plumes._TIDE
    bearing = 2.0
    c = plumes._concentration(
        0.2 * np.cos(angle), sense * 0.2 * np.sin(angle), np.full(1, 100.0), np.full(1, bearing)
    )
    peaks = hours[1:-1][(c[1:-1] > c[:-2]) & (c[1:-1] > c[2:])]
    first = (sense * bearing) % (2 * np.pi) / (2 * np.pi) * plumes._TIDE
    np.testing.assert_allclose(peaks, [first, first + plumes._TIDE], atol=0.01)
    assert (c > 0.01 * c.max()).mean() < 0.3  # and the rest of the time there is little


def test_the_natural_noise_is_stationary():
    n = 20_000
    noise = plumes._persistent(np.random.default_rng(0), (n, 40))
    assert noise[:, [0, 20, 39]].var(0) == pytest.approx(1, abs=5 * np.sqrt(2 / n))
    # The standard error of a correlation r is (1 - r^2) / sqrt(n).
    for lag in (1, 10):
        r = plumes._PERSISTENCE**lag
        found = np.corrcoef(noise[:, 39], noise[:, 39 - lag])[0, 1]
        assert found == pytest.approx(r, abs=5 * (1 - r**2) / np.sqrt(n))


def test_a_leak_only_adds(samples):
    """Natural series are symmetric about zero, so that maxima and minima balance."""
    x, y = samples[0]
    tilt = x.max(1) + x.min(1)
    natural, leaked = tilt[y == 0], tilt[y == 1]
    error = natural.std() / np.sqrt(len(natural))
    assert abs(natural.mean()) < 5 * error
    assert leaked.mean() > 5 * error


@pytest.mark.parametrize(
    ("feature", "accuracy", "auroc"),
    [
        (lambda x: x.max(1) - np.median(x, 1), 0.70, 0.77),
        (lambda x: np.diff(x).max(1), 0.81, 0.88),
    ],
    ids=["max - median", "largest rise"],
)
def test_simple_detectors_reach_what_is_documented(feature, accuracy, auroc, samples):
    """Any classifier of one feature, such as a logistic regression, is a threshold on it.

    With 20,000 series the standard errors are below 0.0036, and the figures are rounded to 0.005.
    """
    (x, y), (x_new, y_new) = samples
    score, new = feature(x), feature(x_new)
    order = np.argsort(score)
    threshold = score[order][np.cumsum(1 - 2 * y[order]).argmax()]
    allowed = 0.005 + 5 * 0.0036
    assert ((new > threshold) == y_new).mean() == pytest.approx(accuracy, abs=allowed)
    leaks = y_new.sum()
    wins = rankdata(new)[y_new == 1].sum() - leaks * (leaks + 1) / 2
    assert wins / (leaks * (len(y_new) - leaks)) == pytest.approx(auroc, abs=allowed)


def test_the_example_runs():
    assert doctest.testmod(plumes).failed == 0
