"""A simulated sensor near the seabed, which may or may not stand near a leak of CO2.

The task, binary classification of series of measurements, is that of Gundersen et al. (2020), who
take them from a model of the ocean; here a tidal current and a Gaussian plume stand for it.

*Natural variability*: a semidiurnal oscillation of random amplitude and phase, a linear drift,
persistent first-order autoregressive noise of random amplitude, and the sensor's white noise. The
unit of concentration is the median amplitude of that oscillation, and of that noise.

*Leak*, somewhere on a disc of 400 m around the sensor. The current turns once in each tide (12.42
hours), on an ellipse of random size, shape and sense, upon a random mean current. It carries the
plume along, which therefore sweeps past the sensor about once in each tide, twice a day. A plume
of steady rate q above the bed has the mean concentration, at the bed (Csanady 1973),

    c = q / (pi u s_y s_z) exp(-y^2 / (2 s_y^2)),    s_y = 0.2 d,  s_z = 0.05 d,

a distance d > 0 downstream and y aside, at speed u. Turbulence makes it intermittent: the measured
concentration is c times an exponential variate, drawn anew for each measurement.

*How hard it is.* Leaks far away, or whose plume passes beside the sensor, are buried in the natural
variability, so no method is always right. A threshold on a series' maximum minus its median is
right for 70 % of series (AUROC 0.77), and one on its largest rise from one measurement to the next
for 81 % (AUROC 0.88): 20,000 series of the default length, thresholds chosen on 20,000 others.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ..data import Data
from ..errors import require_whole
from ..types import as_key

_INTERVAL = 1 / 3  # hours between measurements
_TIDE = 12.42  # hours, the principal lunar constituent M2
_PERSISTENCE = 0.95  # correlation of the natural noise over one interval
_RADIUS = 400.0  # metres within which a leak lies
_RATE = 500.0  # units of concentration times m^3/s


def simulate_plumes(key: Any, series: int, length: int = 144) -> Data:
    """Simulate series of a sensor's measurements, every 20 minutes; half of them near a leak.

    Parameters
    ----------
    key
        A PRNG key or an integer seed; the same key gives the same data.
    series
        Number of series, in random order of the classes. An odd one has one more without a leak.
    length
        Measurements in each series; 144 are two days, or almost four tides.

    Returns
    -------
    data
        `x` of shape (series, length, 1), concentrations above the site's mean; `y` is 1 where
        there is a leak.

    Raises
    ------
    InputError
        If the key is none, or a number is not positive and whole.

    References
    ----------
    Gundersen et al. (2020), Binary time series classification with Bayesian convolutional neural
    networks when monitoring for marine gas discharges. Csanady (1973), Turbulent diffusion in the
    environment.

    Examples
    --------
    >>> data = simulate_plumes(0, series=6)
    >>> data
    Data(plumes, x float32[6, 144, 1], y int32[6])
    >>> int(data.y.sum()), data.classes
    (3, ('no leak', 'leak'))
    """
    require_whole(series=series, length=length)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(as_key(key))).ravel())
    hours = _INTERVAL * np.arange(length)
    leak = generator.permutation(np.arange(series) % 2)
    x = _natural(generator, series, hours) + leak[:, None] * _leaked(generator, series, hours)
    return Data(x[..., None], leak, classes=("no leak", "leak"), name="plumes")


def _natural(generator: np.random.Generator, series: int, hours: np.ndarray) -> np.ndarray:
    """What a sensor measures without a leak, shape (series, length)."""
    amplitude, noise_amplitude = generator.lognormal(0, 0.5, (2, series, 1))
    phase = generator.uniform(0, 2 * np.pi, (series, 1))
    drift = generator.normal(size=(series, 1)) * hours / 24
    tide = amplitude * np.cos(2 * np.pi * hours / _TIDE + phase)
    noise = noise_amplitude * _persistent(generator, (series, len(hours)))
    return tide + drift + noise + 0.3 * generator.normal(size=noise.shape)


def _persistent(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Stationary first-order autoregressive noise of unit variance along the last axis."""
    noise = generator.normal(size=shape)
    for i in range(1, shape[1]):
        noise[:, i] *= np.sqrt(1 - _PERSISTENCE**2)
        noise[:, i] += _PERSISTENCE * noise[:, i - 1]
    return noise


def _leaked(generator: np.random.Generator, series: int, hours: np.ndarray) -> np.ndarray:
    """What a leak adds, shape (series, length)."""
    phase, bearing = generator.uniform(0, 2 * np.pi, (2, series, 1))
    major = generator.uniform(0.1, 0.3, (series, 1))  # m/s
    minor = major * generator.uniform(0.2, 1, (series, 1)) * generator.choice([-1, 1], (series, 1))
    mean_east, mean_north = generator.normal(0, 0.03, (2, series, 1))
    angle = 2 * np.pi * hours / _TIDE + phase
    # Uniform over the disc, but for the 20 m nearest to the sensor.
    distance = _RADIUS * np.sqrt(generator.uniform(0.05**2, 1, (series, 1)))
    mean = _concentration(
        major * np.cos(angle) + mean_east, minor * np.sin(angle) + mean_north, distance, bearing
    )
    return mean * generator.exponential(size=mean.shape)


def _concentration(
    east: np.ndarray, north: np.ndarray, distance: np.ndarray, bearing: np.ndarray
) -> np.ndarray:
    """The mean plume at a sensor, of which the leak knows the distance and bearing.

    The bearing is an angle from east (radians), the current is in m/s, and the arrays broadcast.
    """
    speed = np.hypot(east, north)
    toward, aside = np.cos(bearing), np.sin(bearing)
    downstream = distance * (east * toward + north * aside) / speed
    across = distance * (east * aside - north * toward) / speed
    d = np.maximum(downstream, 1.0)  # upstream of the leak nothing is divided by zero
    width, height = 0.2 * d, 0.05 * d
    speed = np.maximum(speed, 0.02)  # turbulence carries the plume on at slack water
    mean = _RATE / (np.pi * speed * width * height) * np.exp(-0.5 * (across / width) ** 2)
    return np.where(downstream > 0, mean, 0.0)
