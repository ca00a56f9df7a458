"""Fields from a few sensors, against what is known exactly: a Gaussian field of three modes."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import optax
import pytest

import ppbdl
from ppbdl.errors import InputError
from ppbdl.models.codes import StandardNormal
from ppbdl.models.conditional import SCVAE
from ppbdl.models.likelihoods import Normal
from ppbdl.models.networks import Dense

SHAPE, SENSORS, NOISE = (4, 4, 1), ((0, 1), (2, 3)), 0.5
AT = np.array([4 * i + j for i, j in SENSORS])
REST = np.setdiff1d(np.arange(16), AT)
NORTH, EAST = np.cos(np.pi * (np.indices(SHAPE[:2]).reshape(2, 16) + 0.5) / 4)
MODES = np.stack([1.2 * EAST, NORTH, 1.1 * NORTH * EAST])
MEAN = np.linspace(-1, 1, 16)


def waves(rows: int, seed: int) -> np.ndarray:
    """Fields y = b + W a + noise of standard deviation 0.3, of three amplitudes a ~ N(0, I)."""
    rng = np.random.default_rng(seed)
    y = MEAN + rng.normal(size=(rows, 3)) @ MODES + NOISE * rng.normal(size=(rows, 16))
    return y.reshape(-1, *SHAPE)


def exact(measured: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (rows, 14) and covariance (14, 14) of the other entries given the sensors'."""
    covariance = MODES.T @ MODES + NOISE**2 * np.eye(16)
    gain = np.linalg.solve(covariance[np.ix_(AT, AT)], covariance[AT])
    left = covariance - covariance[:, AT] @ gain
    mean = MEAN + (measured - MEAN[AT]) @ gain
    return mean[:, REST], left[np.ix_(REST, REST)]


@functools.cache
def fitted(learned: bool) -> tuple[SCVAE, ppbdl.Posterior]:
    prior = None if learned else StandardNormal()
    model = SCVAE(SHAPE, 3, Normal(NOISE), Dense(()), prior=prior, sensors=SENSORS)
    y = waves(4000, 0)
    adam = optax.adam(optax.exponential_decay(2e-2, 700, 0.5))
    # Without KL warm-up, p(z | m) and q begin apart, and a code in three may go unused for good.
    warm = optax.linear_schedule(0.0, 1.0, 500)
    svi = ppbdl.SVI(model.guide, adam, steps=3000, batch_size=500, draws=400, temperature=warm)
    data = ppbdl.Data(model.measure(y), y)
    return model, ppbdl.fit(0, model, data, svi, progress=False)


PRIORS = pytest.mark.parametrize("learned", [True, False], ids=["p(z | m)", "p(z)"])


@PRIORS
def test_the_fields_given_the_sensors_have_the_exact_moments(learned: bool) -> None:
    """Off the sensors linear networks hold the exact conditional, so that only the fit is off it.

    By least squares of 4,000 rows on 3 numbers the mean errs by about sqrt(3 / 4000) = 0.03 of the
    conditional sd, to which 400 draws add 0.05: 0.06 together, as a root mean square over entries
    that share few directions, of which twice is allowed.  The sd errs by sqrt(1 / 8000) = 0.011 of
    itself, of which five times is allowed; measured: 0.03, most of it the optimiser's.
    """
    model, posterior = fitted(learned)
    measured = np.asarray(model.measure(waves(200, 1)))
    mean, covariance = exact(measured)
    sd = np.sqrt(np.diag(covariance))
    draws = np.asarray(model.sample(1, posterior, measured, draws=400)).reshape(400, 200, 16)
    off = (draws.mean(0)[:, REST] - mean) / sd
    assert np.sqrt((off**2).mean()) < 0.12
    left = draws - draws.mean(0)
    found = np.einsum("dri,drj->ij", left, left) / (399 * 200)
    np.testing.assert_allclose(np.sqrt(np.diag(found)[REST]), sd, rtol=0.055)
    # Not the sd alone: entries that share a mode are wrong together.
    assert abs(found[np.ix_(REST, REST)] - covariance).max() < 0.11 * sd.max() ** 2
    # At a sensor the mean is what was measured, and the sd is the likelihood's.
    off = (draws.mean(0)[:, AT] - measured) / NOISE
    assert np.sqrt((off**2).mean()) < 0.12
    np.testing.assert_allclose(np.sqrt(np.diag(found)[AT]), NOISE, rtol=0.055)


@PRIORS
def test_nine_intervals_of_ten_cover_the_field(learned: bool) -> None:
    """A row's share of covered entries has an sd of at most 0.3: 0.005 for the mean of 4,000 rows.

    5 of these, a false alarm in 2 million, and 0.01 for the fit: an sd off by 3 % moves it 0.01.
    """
    model, posterior = fitted(learned)
    y = waves(4000, 2)
    draws = np.asarray(model.sample(3, posterior, model.measure(y), draws=199))
    low, high = np.sort(draws, axis=0)[[9, 189]]  # 10th and 190th of 199: 0.9 of the probability
    covered = ((low <= y) & (y <= high)).reshape(4000, 16)[:, REST]
    assert abs(covered.mean() - 0.9) < 5 * 0.3 / np.sqrt(4000) + 0.01


def test_predict_gives_the_same_moments() -> None:
    """400 draws leave each sd an error of 0.035 of itself, each mean of 0.05 sd."""
    model, posterior = fitted(True)
    measured = np.asarray(model.measure(waves(50, 1)))
    predicted = ppbdl.predict(4, model, posterior, measured)
    mean, covariance = exact(measured)
    sd = np.sqrt(np.diag(covariance))
    assert predicted.mean.shape == predicted.sd.shape == (50, *SHAPE)
    off = (np.asarray(predicted.mean).reshape(50, 16)[:, REST] - mean) / sd
    assert np.sqrt((off**2).mean()) < 0.12
    spread = np.asarray(predicted.sd).reshape(50, 16)[:, REST] / sd
    np.testing.assert_allclose(spread.mean(0), 1, atol=0.06)


def test_a_measurement_is_the_field_at_a_sensor_with_all_its_channels() -> None:
    y = np.arange(2 * 3 * 4 * 2.0).reshape(2, 3, 4, 2)
    model = SCVAE((3, 4, 2), sensors=((2, 1), (0, 3)), likelihood=Normal(1.0))
    np.testing.assert_array_equal(model.measure(y)[1], [*y[1, 2, 1], *y[1, 0, 3]])
    line = SCVAE((4,), sensors=(2, 0), likelihood=Normal(1.0))
    np.testing.assert_array_equal(line.measure(y[0, 0].T), y[0, 0].T[:, [2, 0]])


@pytest.mark.parametrize(
    ("shape", "sensors", "got"),
    [
        ((4, 4, 1), (), r"got \(\)"),
        ((4, 4, 1), ((0, 1), (2, 3), (0, 1)), "all different"),
        ((4, 4, 1), ((0, 1), (4, 0)), r"within \(4, 4\).*\(4, 0\)"),
        ((4, 4, 1), ((-1, 1),), r"\(-1, 1\)"),
        ((4, 4, 1), ((0.5, 1.0),), "0.5"),
        ((4, 4, 1), (3, 5), "such as"),
        ((4,), (), r"got \(\)"),
        ((4,), (1, 1), "all different"),
        ((4,), (4,), r"within \(4,\)"),
    ],
)
def test_sensors_that_cannot_be_are_refused(shape: Any, sensors: Any, got: str) -> None:
    with pytest.raises(InputError, match=f"sensors: .*{got}"):
        SCVAE(shape, sensors=sensors, likelihood=Normal(1.0))


def test_other_measurements_than_the_sensors_are_refused() -> None:
    model, posterior = fitted(True)
    with pytest.raises(InputError, match="x: expected the 2 measurements of each row, got"):
        model.sample(0, posterior, np.zeros((5, 3)))
    with pytest.raises(InputError, match="y: expected rows of shape"):
        model.measure(np.zeros((5, 4, 4)))
