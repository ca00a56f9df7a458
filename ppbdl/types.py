"""The protocols of the house: what a model, a guide, an estimator and a method are."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from .errors import InputError

if TYPE_CHECKING:
    from .data import Data
    from .posterior import Posterior

Array = jax.Array
Key = jax.Array
"""A JAX random key; always the first argument, split where it is used."""


class Model(Protocol):
    """A NumPyro program of the generative model p(latents) p(y | x, latents).

    Called with ``y`` it observes it; called with ``y=None`` it generates it.
    """

    def __call__(self, x: Any, y: Any = None) -> Any: ...


@runtime_checkable
class Requiring(Protocol):
    """A model that refuses data by their values, before a fit."""

    def require(self, data: Data) -> None: ...


@runtime_checkable
class Examining(Protocol):
    """A model that looks its own fits over, for what no other would think of."""

    def examine(self, key: Key, posterior: Posterior, data: Data) -> Posterior: ...


class Guide(Protocol):
    """A NumPyro program of the approximate posterior, of the model's own signature."""

    def __call__(self, x: Any, y: Any = None) -> Any: ...


class Estimator(Protocol):
    """A handler that runs a model at the draw in a trace of its guide."""

    def __call__(self, model: Any, guide_trace: Any, /) -> Any: ...


@runtime_checkable
class Inference(Protocol):
    """Settings of an inference method, and one verb that applies them."""

    def run(self, key: Key, model: Model, data: Data, *, progress: bool = False) -> Posterior: ...


def as_key(key: Any) -> Key:
    """Take a typed key, a raw one, or an integer seed; give a typed key."""
    if isinstance(key, Integral) and not isinstance(key, bool):
        return jax.random.key(int(key))
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if typed and key.shape == ():
        return key
    if isinstance(key, jax.Array) and key.shape == (2,) and key.dtype == jnp.uint32:
        return jax.random.wrap_key_data(key)
    raise InputError(
        "key",
        expected="a single JAX random key or an integer seed",
        got=repr(key),
        remedy="Pass jax.random.key(0).",
    )
