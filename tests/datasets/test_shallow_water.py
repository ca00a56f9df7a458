"""The simulated sea against what is exact: its waves, what it conserves, and its order."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppbdl.datasets import shallow_water
from ppbdl.datasets.shallow_water import simulate_shallow_water
from ppbdl.errors import InputError

SMALL = 1e-6  # the height of waves to which the equations are linear
advance = jax.jit(shallow_water._run)


def wave(size, north, east, f):
    """One plane wave of k = 2 pi (east, north), at its own phase speed, and its frequency.

    The frequency is the exact one, omega^2 = f^2 + k^2, and the
    velocities follow from h_t = -(u_x + v_y) and the momentum equations without advection.
    """
    k, m = 2 * np.pi * east, 2 * np.pi * north
    omega = np.sqrt(f**2 + k**2 + m**2)
    ticks = np.arange(size) / size
    middle = ticks + 0.5 / size

    def phase(y, x):
        return k * x[None, :] + m * y[:, None]

    scale = SMALL / (k**2 + m**2)
    at_u, at_v = phase(middle, ticks), phase(ticks, middle)
    h = 1 + SMALL * np.cos(phase(middle, middle))
    u = scale * (omega * k * np.cos(at_u) - f * m * np.sin(at_u))
    v = scale * (omega * m * np.cos(at_v) + f * k * np.sin(at_v))
    return tuple(map(jnp.asarray, (h, u, v))), omega


def energy(state):
    h, u, v = state
    kinetic = shallow_water._mean(h, 1, 1) * u**2 + shallow_water._mean(h, 1, 0) * v**2
    return (kinetic + h**2).mean() / 2


def run(state, f, time, steps):
    return [np.asarray(each) for each in advance(state, f, time / steps, steps)]


def drop(size):
    return shallow_water._at_rest(size, jnp.array([0.3, 0.6]), 0.3, 0.1)


@pytest.mark.parametrize("f", [0.0, 4.0])
@pytest.mark.parametrize(("north", "east"), [(0, 1), (2, 0), (-1, 2)])
def test_a_plane_wave_returns_after_its_period(north, east, f, x64):
    """It is late by the differences' error only, which is of second order in the cells' size."""
    lag = []
    for size in (16, 32):
        start, omega = wave(size, north, east, f)
        h, _, _ = run(start, f, 2 * np.pi / omega, 8 * size)
        amplitude = np.fft.fft2(h)[north, east] / np.fft.fft2(start[0])[north, east]
        lag.append(-np.angle(amplitude) / (2 * np.pi))
        assert abs(amplitude) == pytest.approx(1, abs=0.05 * (16 / size) ** 2)
    assert abs(lag[1]) < 0.02
    assert lag[0] / lag[1] == pytest.approx(4, rel=0.15)


def test_a_wave_of_the_grid_itself_returns_exactly(x64):
    """On the C grid omega^2 = f^2 cos^2(k d / 2) + (2 / d)^2 sin^2(k d / 2), for waves to the east.

    Arakawa and Lamb (1977).  u and v are then scaled as the differences want it.
    """
    size, f, turn = 32, 4.0, 2 * np.pi * 3 / 32 / 2
    slope, omega = 2 * size * np.sin(turn), np.hypot(f * np.cos(turn), 2 * size * np.sin(turn))
    side, middle = (6 * np.pi * (np.arange(size) + shift) / size for shift in (0, 0.5))
    still = np.zeros((size, size))
    h, u = 1 + SMALL * np.cos(middle) + still, SMALL * omega / slope * np.cos(side) + still
    v = SMALL * f * np.cos(turn) / slope * np.sin(middle) + still
    start = tuple(map(jnp.asarray, (h, u, v)))
    period = 2 * np.pi / omega
    for begun, ended in zip(start, run(start, f, period, 400), strict=True):
        np.testing.assert_allclose(ended, begun, atol=1e-5 * SMALL)
    half = run(start, f, period / 2, 200)[0]
    np.testing.assert_allclose(half - 1, 1 - h, atol=1e-5 * SMALL)


def test_mass_is_conserved_to_rounding_and_energy_to_fifth_order(x64):
    """A step multiplies an oscillation's square by 1 - (omega dt)^6 / 72, nearly."""
    start, lost = drop(32), []
    for steps in (32, 64, 128):
        ended = run(start, 4.0, 1.0, steps)
        assert ended[0].mean() == pytest.approx(1, abs=1e-13)
        lost.append(float(1 - (energy(ended) - 0.5) / (energy(start) - 0.5)))
    assert 0 < lost[1] < 1e-3  # of the excess over still water, at the snapshots' Courant number
    assert np.diff(np.log2(lost)).max() < -4.5  # 2^-5 in the limit


def test_energy_is_conserved_exactly_in_continuous_time(x64):
    """d(energy)/dt is zero to rounding for any state, not only a sea that comes from rest."""
    rng = np.random.default_rng(0)
    h, u, v = 0.3 * jnp.asarray(rng.uniform(-1, 1, (3, 16, 16)))
    state = 1 + h, u, v
    rate = shallow_water._tendency(state, 4.0)
    size = jnp.sqrt(sum((each**2).mean() for each in rate))
    _, change = jax.jvp(lambda *state: energy(state), state, rate)
    assert abs(change) < 1e-13 * size
    assert abs(rate[0].mean()) < 1e-13 * size


@pytest.mark.parametrize("north", [True, False])
def test_a_balanced_jet_stays(north, x64):
    """f v = dh/dx and no u, or -f u = dh/dy and no v, is a steady state of the full equations."""
    apart = []
    for size in (16, 32):
        middle, still = 2 * np.pi * (np.arange(size) + 0.5) / size, np.zeros((size, size))
        h, flow = 1 + 0.1 * np.sin(middle) + still, 2 * np.pi * 0.1 / 4 * np.cos(middle) + still
        start = (h, 0 * flow, flow) if north else (h.T, -flow.T, 0 * flow)
        ended = run(tuple(map(jnp.asarray, start)), 4.0, 1.0, 4 * size)
        apart.append(abs(ended[0] - start[0]).max())
    assert apart[0] < 0.005
    assert apart[1] < 0.3 * apart[0]


def test_the_sea_turns_with_the_earth_of_the_north():
    """Of small height, vorticity dv/dx - du/dy = f (h - h at first), everywhere and always.

    So says the conservation of (f + vorticity) / h (Rossby 1938); the differences err by 3 %.
    """
    size, place, age = 32, jnp.array([[0.3, 0.6]]), jnp.array([0.7])
    height, radius = jnp.array([1e-2]), jnp.array([0.15])
    h, u, v = np.moveaxis(shallow_water._snapshots(size, place, height, radius, age)[0], -1, 0)
    first = np.asarray(shallow_water._at_rest(size, place[0], height[0], radius[0])[0]) - 1

    def slope(a, axis):
        return (np.roll(a, -1, axis) - np.roll(a, 1, axis)) * size / 2

    vorticity, change = slope(v, 1) - slope(u, 0), h - first
    assert np.corrcoef(vorticity.ravel(), change.ravel())[0, 1] > 0.99
    assert (vorticity * change).sum() / (change**2).sum() == pytest.approx(4, rel=0.05)


def test_finer_seas_agree():
    """The same key gives the same sea at any size; the error is of second order."""
    coarse, middle, fine = (simulate_shallow_water(0, 6, size).y for size in (16, 32, 64))

    def halved(y):
        return y.reshape(6, len(y[0]) // 2, 2, -1, 2, 3).mean((2, 4))

    first, second = abs(halved(middle) - coarse).mean(), abs(halved(fine) - middle).mean()
    assert second < first / 3
    assert first < 0.3 * abs(fine).mean()


def test_a_moved_drop_gives_the_same_sea_elsewhere():
    parts = [jnp.array([value]) for value in (0.2, 0.1, 0.8)]
    here, there = (
        np.asarray(shallow_water._snapshots(32, jnp.array([place]), *parts)[0])
        for place in ([0.25, 0.5], [0.75, 0.125])
    )
    np.testing.assert_allclose(np.roll(here, (16, -12), (0, 1)), there, atol=1e-5)
    assert abs(here).max() > 0.02


def test_the_key_decides():
    a, b = simulate_shallow_water(7, 5, 16), simulate_shallow_water(jax.random.key(7), 5, 16)
    other = simulate_shallow_water(8, 5, 16)
    np.testing.assert_array_equal(a.y, b.y)
    assert abs(a.y - other.y).max() > 0.01
    assert a.y.shape == (5, 16, 16, 3)
    assert np.unique(a.y[..., 0].std((1, 2))).size == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(key="a", fields=2), "key: expected a single JAX random key"),
        (dict(key=0, fields=0), "fields: expected a positive whole number"),
        (dict(key=0, fields=2, size=16.5), "size: expected a positive whole number"),
        (dict(key=0, fields=2, size=4), "size: expected 8 or more"),
    ],
)
def test_what_cannot_be_simulated_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        simulate_shallow_water(**arguments)


def test_the_example_runs():
    assert doctest.testmod(shallow_water).failed == 0
