"""Noise for weights: normals and signs that a CPU makes as fast as it uses them.

JAX's threefry is a cipher: on a CPU a normal from it costs more than a weight's share of the
forward and backward pass.  Here element i of an array is, for two words a, b drawn from the key,

    word_i   = mix(mix(i + a) xor (i + b))                  a counter hash: 32 bits
    normal_i = +-isf((word_i >> 1 + 1/2) / 2^32)            the sign is the word's lowest bit

with `mix` the finaliser lowbias32 (https://github.com/skeeto/hash-prospector) and isf the inverse
survival function of N(0, 1), to float32's rounding.  The counter enters twice, so that a word may
come again, as in truly random ones, and so that no two keys' streams are shifts of one another.
Normals reach 6.34 standard deviations and are symmetric about 0 exactly.  All of it is plain
arithmetic, which XLA makes one loop of; an optimisation barrier keeps it from making that loop
again in everything that uses the noise, forwards and backwards (thirteen times in an MLP's step).

On other platforms threefry fuses and is cheap, and JAX's own generators serve: the same key gives
the same noise on the same kind of platform only.  The hash is no cipher: it is for noise that an
optimiser averages over.  `tests/test_noise.py` holds it to a battery of tests.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .errors import InputError
from .types import Array, Key

# ln(1 + r) / r for sqrt(1/2) <= 1 + r < sqrt(2): the logarithm's error is 2.1e-7 at most.
_LOG = (
    1.0000032477,
    -0.50001965137,
    0.33303298223,
    -0.24881339751,
    0.20604674413,
    -0.18901977410,
    0.11827471936,
)
# Phi^-1((1 + x) / 2) / x as a function of w = -ln(1 - x^2), the variable of Giles (2010), "Approxi-
# mating the erfinv function": a ratio for all of 0 < w < 21.5, of relative error 1.2e-7 at most.
_ABOVE = (1.25331428, 0.452392548, 0.0898295016, 0.0118748951, 9.99401353e-4, 2.92884897e-5)
_BELOW = (1.0, 0.099160407, 0.0326706229, 0.00227977807, 1.69785203e-4, 1.00842396e-6)


def normal(key: Key, shape: tuple[int, ...] = (), dtype: Any = jnp.float32) -> Array:
    """Draw standard normals: by the hash in float32 on a CPU, by `jax.random.normal` elsewhere.

    Raises
    ------
    InputError
        If the shape has more elements than the counter has values.

    Examples
    --------
    >>> import jax
    >>> normal(jax.random.key(0), (784, 400)).std().round(2)
    Array(1., dtype=float32)
    """
    _require_countable(shape)
    return _normal(key, shape, jax.dtypes.canonicalize_dtype(dtype))


def rademacher(key: Key, shape: tuple[int, ...] = (), dtype: Any = jnp.float32) -> Array:
    """Draw signs, -1 or 1 alike: by the hash on a CPU, by `jax.random.rademacher` elsewhere.

    Raises
    ------
    InputError
        If the shape has more elements than the counter has values.

    Examples
    --------
    >>> import jax
    >>> sorted(set(rademacher(jax.random.key(0), (100,)).tolist()))
    [-1.0, 1.0]
    """
    _require_countable(shape)
    return _rademacher(key, shape, jax.dtypes.canonicalize_dtype(dtype))


def _require_countable(shape: tuple[int, ...]) -> None:
    if math.prod(shape) > 2**32:
        raise InputError(
            "shape",
            expected="at most 2^32 elements",
            got=str(shape),
            remedy="Split the key and draw in parts.",
        )


@partial(jax.jit, static_argnums=(1, 2))
def _normal(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    draw = partial(jax.random.normal, shape=shape, dtype=dtype)
    if dtype != jnp.float32:
        return draw(key)
    # Chosen when the program is lowered, for the platform that will run it: no branch is left.
    return lax.platform_dependent(
        key,
        cpu=lambda key: lax.optimization_barrier(gaussian(words(key, shape))),
        default=lambda key: draw(key),
    )


@partial(jax.jit, static_argnums=(1, 2))
def _rademacher(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    def draw(key: Key) -> Array:
        signs = jnp.where(words(key, shape) >> 31 == 0, 1, -1).astype(dtype)
        return lax.optimization_barrier(signs)

    return lax.platform_dependent(
        key, cpu=draw, default=lambda key: jax.random.rademacher(key, shape, dtype)
    )


def words(key: Key, shape: tuple[int, ...]) -> Array:
    """Hash the flat index of each element to 32 bits."""
    # Well mixed, however alike the keys; apart, lest XLA make them again for every element.
    a, b = lax.optimization_barrier(jax.random.bits(key, (2,), jnp.uint32))
    return hashed(lax.iota(jnp.uint32, math.prod(shape)).reshape(shape), a, b)


def hashed(i: Array, a: Array, b: Array) -> Array:
    """Hash counters under the key's two words."""
    return _mix(_mix(i + a) ^ (i + b))


def gaussian(word: Array) -> Array:
    """Map 32 random bits to a float32 normal."""
    p = (lax.convert_element_type(word >> 1, jnp.float32) + 0.5) * 2.0**-31  # P(|z| is larger)
    x = 1 - p
    w = -_log(p * (1 + x))
    size = x * (_polynomial(_ABOVE, w) / _polynomial(_BELOW, w))
    return lax.bitcast_convert_type(
        lax.bitcast_convert_type(size, jnp.uint32) | (word << 31), jnp.float32
    )


def _mix(x: Array) -> Array:
    """Mix 32 bits, one to one: lowbias32."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _log(y: Array) -> Array:
    """Take logarithms of normal positive floats; XLA's own costs more, for it minds the others."""
    bits = lax.bitcast_convert_type(y, jnp.int32)
    exponent = (bits - 0x3F3504F3) >> 23  # y = 2^exponent (1 + r); the constant is sqrt(1/2)'s bits
    r = lax.bitcast_convert_type(bits - (exponent << 23), jnp.float32) - 1
    return lax.convert_element_type(exponent, jnp.float32) * math.log(2) + r * _polynomial(_LOG, r)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value
