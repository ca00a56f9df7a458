"""The evidence of each row, log p(y), by importance sampling or annealed from the encoder's guess.

    p(y) = E w,   w = prod_t (p(y, z_t-1) / q(z_t-1 | y))^(b_t - b_t-1),   0 = b_0 < ... < b_T = 1,

with z_0 ~ q(z | y) and z_t after z_t-1 by a transition that leaves q^(1 - b_t) p(y, .)^b_t as it is
(Neal 2001, *Annealed Importance Sampling*, equation 11).  T = 1 has no transition: importance
sampling.  The transitions are those of Wu et al. (2017), *On the Quantitative Analysis of
Decoder-Based Generative Models*: ten leapfrog steps, of a size that seeks an acceptance of 0.65 as
it goes, by which the weights are exact but for the little that it learns of the codes themselves.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc_util import velocity_verlet

from ppbdl.compiling import remembered
from ppbdl.posterior import at_draw
from ppbdl.types import Array, Key

_LEAPFROGS, _ACCEPTED = 10, 0.65


def marginal(
    key: Key,
    model: Any,
    drawn: tuple[Any, Any],
    rows: tuple[Array, Any],
    samples: int,
    temperatures: int,
    at_once: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate log p(y | x) of each of the rows (y, x), and its standard error, streamed."""
    codes = max(1, min(samples, at_once // 100))
    times, some = -(-samples // codes), max(1, at_once // codes)
    sums, found = _summing(model, codes, temperatures), []
    for first in range(0, len(rows[0]), some):
        part = jax.tree.map(lambda a, i=first: a[i : i + some], rows)
        here = jax.random.fold_in(key, first)
        found.append(sums(here, drawn, times, *part))
    log_sum, log_squares = np.concatenate(found, axis=1)
    count = codes * times
    error = np.sqrt(np.maximum(np.exp(log_squares - 2 * log_sum) - 1 / count, 0.0))
    return log_sum - np.log(count), error


@remembered
def _summing(model: Any, codes: int, temperatures: int) -> Any:
    """Make the program for some rows."""
    return jax.jit(functools.partial(_sums, model, codes, temperatures))


def _sums(
    model: Any, codes: int, temperatures: int, key: Key, drawn: Any, times: int, y: Array, x: Any
) -> Array:
    """Sum each row's importance weights and their squares, as logarithms: (2, rows)."""
    q, prior = at_draw(model._encode, drawn)(y, x), at_draw(model._prior, drawn)(x)
    decode = at_draw(model._decode, drawn)
    every_y, every_x = jax.tree.map(lambda a: jnp.tile(a, (codes, *[1] * (a.ndim - 1))), (y, x))

    def log_ratio(z: Array) -> Array:
        fits = decode(z.reshape(-1, model.latent), every_x).log_prob(every_y)
        return fits.reshape(codes, -1) + prior.log_prob(z) - q.log_prob(z)

    def add(i: Any, sums: Array) -> Array:
        here = jax.random.split(jax.random.fold_in(key, i))
        z = q.sample(here[0], (codes,))
        weights = _annealed(here[1], temperatures, z, log_ratio, q.log_prob)
        both = jnp.stack([weights, 2 * weights])
        return jnp.logaddexp(sums, jax.nn.logsumexp(both, axis=1))

    start = jnp.full((2, len(y)), -jnp.inf)
    return jax.lax.fori_loop(0, times, add, start)


def _annealed(key: Key, temperatures: int, z: Array, log_ratio: Any, log_q: Any) -> Array:
    """Give the log weights of codes (codes, rows, latent) from q, after all temperatures."""

    def log_density(z: Array, b: Array) -> Array:
        return log_q(z) + b * log_ratio(z)

    def move(t: Any, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        z, log_w, size = state
        log_w = log_w + log_ratio(z) / temperatures
        z, accepted = _transition(
            jax.random.fold_in(key, t), z, size, lambda z: log_density(z, (t + 1) / temperatures)
        )
        return z, log_w, size * jnp.where(accepted > _ACCEPTED, 1.05, 0.95)

    sizes = jnp.full(z.shape[1], 0.1)  # of a row's leapfrog steps
    state = z, jnp.zeros(z.shape[:2]), sizes
    z, log_w, _ = jax.lax.fori_loop(0, temperatures - 1, move, state)
    return log_w + log_ratio(z) / temperatures


def _transition(key: Key, z: Array, size: Array, log_density: Any) -> tuple[Array, Array]:
    """Move every code by Hamiltonian Monte Carlo; give each row's mean acceptance too."""
    # NumPyro's integrator of all codes at once; whole kernels, of one each, would decode one each.
    keys = jax.random.split(key)
    begin, leap = velocity_verlet(lambda z: -log_density(z).sum(), lambda _, r: 0.5 * (r**2).sum())
    start = begin(z, jax.random.normal(keys[0], z.shape))
    end = jax.lax.fori_loop(0, _LEAPFROGS, lambda _, s: leap(size[:, None], None, s), start)
    log_odds = log_density(end.z) - log_density(z) + 0.5 * (start.r**2 - end.r**2).sum(-1)
    odds = jnp.exp(jnp.minimum(jnp.nan_to_num(log_odds, nan=-jnp.inf), 0.0))
    takes = jax.random.uniform(keys[1], odds.shape) < odds
    return jnp.where(takes[..., None], end.z, z), odds.mean(0)
