"""A simulated rotating shallow sea, in which a mound or a hollow of the surface has been let go.

*Equations* (Vallis 2017, chapter 3), for the depth h of the water and its velocity:

    du/dt = q h v - dB/dx,    dv/dt = -q h u - dB/dy,    dh/dt = -d(h u)/dx - d(h v)/dy,
    q = (f + dv/dx - du/dy) / h,    B = g h + (u^2 + v^2) / 2,

on a square whose opposite sides are joined.  *Units*: the side L, the mean depth H, and the speed
c = sqrt(g H) of long waves, so that time has the unit L / c.  The rotation is f = 4 c / L, so that
the radius of deformation c / f is a quarter of the side.  An upper layer 100 m deep, of reduced
gravity 0.02 m/s^2, on a square of 50 km is such a sea at 51 degrees north, with a unit of time of
10 hours.

*Scheme*: differences of second order on the C grid, by which the equations in continuous time
conserve mass and energy exactly (Sadourny 1975), then the classical Runge-Kutta method
of fourth order.  There is no friction.

*Beginning*: water at rest, whose surface is raised or lowered around one place.  All of it is
random: the place, uniform; the height a, of either sign, 0.1 to 0.3; the radius r, 0.08 to 0.15;
and the age of the snapshot, 0 to 1.  Waves leave the place in a ring and meet those that come from
the other side; part of the mound stays behind, and turns (Rossby 1938).  Five numbers make a field,
but since all of it lies where the place is, linear modes are many: 16 hold 90 % of the variance of
the elevation, and 42 hold 99 %.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..data import Data
from ..errors import InputError, require_whole
from ..types import Array, as_key

State = tuple[Array, Array, Array]  # h at the centres of cells, u at west sides, v at south sides

_ROTATION = 4.0
_COURANT = 0.5  # c dt / dx of the longest step; the scheme is stable to 1


def simulate_shallow_water(key: Any, fields: int, size: int = 32) -> Data:
    """Simulate snapshots of a shallow sea, each of a sea of its own.

    Parameters
    ----------
    key
        A PRNG key or an integer seed; the same key gives the same fields.
    fields
        Number of snapshots.
    size
        Cells along each side, at least 8; the cost is that of the third power.

    Returns
    -------
    data
        `y` of shape (fields, size, size, 3): the elevation of the surface above the mean depth, and
        the velocities to the east and to the north, at the centres of the cells.  Rows go north,
        columns east.  No `x`.

    Raises
    ------
    InputError
        If the key is none, or a number is not positive and whole, or the size below 8.

    References
    ----------
    Vallis (2017), Atmospheric and oceanic fluid dynamics. Sadourny (1975), The dynamics of
    finite-difference models of the shallow-water equations. Rossby (1938), On the mutual adjustment
    of pressure and velocity distributions in certain simple current systems, II.

    Examples
    --------
    >>> data = simulate_shallow_water(0, fields=4)
    >>> data
    Data(shallow water, x float32[4, 0], y float32[4, 32, 32, 3])
    >>> abs(data.y).max((0, 1, 2)).round(2)  # the elevation, and the two velocities
    array([0.21, 0.07, 0.07], dtype=float32)
    """
    require_whole(fields=fields, size=size)
    if size < 8:
        raise InputError("size", expected="8 or more", got=str(size), remedy="Pass size=32.")
    generator = np.random.default_rng(np.asarray(jax.random.key_data(as_key(key))).ravel())
    place = generator.uniform(0, 1, (fields, 2))
    height = generator.choice([-1, 1], fields) * generator.uniform(0.1, 0.3, fields)
    radius = generator.uniform(0.08, 0.15, fields)
    age = generator.uniform(0, 1, fields)
    drops = [jnp.asarray(each, float) for each in (place, height, radius, age)]
    return Data(None, np.asarray(_snapshots(size, *drops)), name="shallow water")


@functools.partial(jax.jit, static_argnums=0)
def _snapshots(size: int, *drops: Array) -> Array:
    """Let each drop go, and look at the sea at its age: (fields, size, size, 3)."""
    steps = int(np.ceil(size / _COURANT))

    def snapshot(drop: tuple[Array, ...]) -> Array:
        *bump, age = drop
        h, u, v = _run(_at_rest(size, *bump), _ROTATION, age / steps, steps)
        return jnp.stack([h - 1, _mean(u, -1, 1), _mean(v, -1, 0)], axis=-1)

    return jax.lax.map(snapshot, drops, batch_size=16)  # which fits a processor's cache


def _at_rest(size: int, place: Array, height: Any, radius: Any) -> State:
    """Raise the surface by a bump, a exp(-d^2 / (2 r^2)) near its middle, less its mean."""
    centres = (jnp.arange(size) + 0.5) / size
    near = jnp.cos(2 * jnp.pi * (centres - place[:, None])) - 1
    bump = height * jnp.exp((near[0][:, None] + near[1]) / (2 * jnp.pi * radius) ** 2)
    still = jnp.zeros((size, size))
    return 1 + bump - bump.mean(), still, still


def _run(state: State, f: Any, dt: Any, steps: int) -> State:
    """Take steps of the classical Runge-Kutta method."""

    def step(_: Any, state: State) -> State:
        k1 = _tendency(state, f)
        k2 = _tendency(_ahead(state, dt / 2, k1), f)
        k3 = _tendency(_ahead(state, dt / 2, k2), f)
        k4 = _tendency(_ahead(state, dt, k3), f)
        slope = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
        return _ahead(state, dt, slope)

    return jax.lax.fori_loop(0, steps, step, state)


def _ahead(state: State, dt: Any, slope: State) -> State:
    return jax.tree.map(lambda value, rate: value + dt * rate, state, slope)


def _tendency(state: State, f: Any) -> State:
    """Give d/dt of h, u and v; axis 0 goes north, axis 1 east (Sadourny 1975)."""
    h, u, v = state
    east, north = _mean(h, 1, 1) * u, _mean(h, 1, 0) * v  # transports through the sides
    corner = _mean(_mean(h, 1, 1), 1, 0)  # the depth at south-western corners
    q = (f + _rise(v, 1, 1) - _rise(u, 1, 0)) / corner
    bernoulli = h + (_mean(u**2, -1, 1) + _mean(v**2, -1, 0)) / 2
    return (
        -_rise(east, -1, 1) - _rise(north, -1, 0),
        _mean(q * _mean(north, 1, 1), -1, 0) - _rise(bernoulli, 1, 1),
        -_mean(q * _mean(east, 1, 0), -1, 1) - _rise(bernoulli, 1, 0),
    )


def _mean(a: Array, shift: int, axis: int) -> Array:
    """Average neighbours, half a cell back along the axis (shift 1) or ahead (-1)."""
    return (a + jnp.roll(a, shift, axis)) / 2


def _rise(a: Array, shift: int, axis: int) -> Array:
    """Differentiate, half a cell back along the axis (shift 1) or ahead (-1)."""
    return shift * (a - jnp.roll(a, shift, axis)) * a.shape[axis]
