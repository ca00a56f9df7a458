"""Conditioners: Haiku networks that tell a transformer what to do, given what is kept.

Each is a plain Haiku function of ``(h)``, or of ``(h, context)`` where a context's width is given,
whose last layer starts at zero: the flow starts as the identity.  A context has the batch of h, or
broadcasts to it.  Equal settings give the same function, so that a network is looked at once.

    net = haiku_module("net", mlp(outputs, context=3), jnp.zeros((1, kept)), jnp.zeros((1, 3)))
    Coupling(affine(), lambda h: net(h, context), mask)
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from ..errors import InputError, require_whole
from ..types import Array

_ZERO = hk.initializers.Constant(0.0)


@functools.lru_cache(maxsize=256)
def mlp(
    outputs: int,
    hidden: tuple[int, ...] = (64, 64),
    context: int = 0,
    activation: Callable[[Array], Array] = jax.nn.relu,
) -> Callable[..., Array]:
    """Make a dense network from (..., anything) to (..., outputs).

    Examples
    --------
    >>> import haiku as hk, jax
    >>> net = hk.without_apply_rng(hk.transform(mlp(4)))
    >>> weights = net.init(jax.random.key(0), jax.numpy.ones((1, 2)))
    >>> float(abs(net.apply(weights, jax.numpy.ones((5, 2)))).max())
    0.0
    """
    require_whole(outputs=outputs)

    def network(h: Array, given: Array | None = None) -> Array:
        h = _beside(h, given, context)
        for units in hidden:
            h = activation(hk.Linear(units)(h))
        return hk.Linear(outputs, w_init=_ZERO)(h)

    return network


@functools.lru_cache(maxsize=256)
def cnn(
    outputs: int,
    hidden: int = 64,
    context: int = 0,
    activation: Callable[[Array], Array] = jax.nn.relu,
) -> Callable[..., Array]:
    """Make Glow's 3x3, 1x1 and 3x3 convolutions: (..., h, w, anything) to (..., h, w, outputs).

    A context is (..., context), the same for every pixel, or (..., h, w, context).
    """
    require_whole(outputs=outputs, hidden=hidden)

    def network(h: Array, given: Array | None = None) -> Array:
        if given is not None and given.ndim < h.ndim:
            given = given[..., None, None, :]
        h = _beside(h, given, context)
        h = activation(hk.Conv2D(hidden, 3)(h))
        h = activation(hk.Conv2D(hidden, 1)(h))
        return hk.Conv2D(outputs, 3, w_init=_ZERO)(h)

    return network


@functools.lru_cache(maxsize=256)
def made(
    features: int,
    width: int,
    hidden: tuple[int, ...] = (64, 64),
    context: int = 0,
    activation: Callable[[Array], Array] = jax.nn.relu,
) -> Callable[..., Array]:
    """Make a masked network: `width` numbers for each feature, from the features before it.

    Germain et al. (2015), *MADE*: a unit of degree m sees the first m features, and the output for
    feature d the units of degree below d.  A context has degree 0: all see it.

    Raises
    ------
    InputError
        If a hidden layer is too narrow for every feature to depend on all that come before it.

    Examples
    --------
    >>> import haiku as hk, jax
    >>> net = hk.without_apply_rng(hk.transform(made(3, width=2)))
    >>> weights = net.init(jax.random.key(0), jax.numpy.ones((1, 3)))
    >>> net.apply(weights, jax.numpy.ones((5, 3))).shape
    (5, 6)
    """
    require_whole(features=features, width=width)
    least = 0 if context or features == 1 else 1
    degrees = [np.concatenate([np.arange(1, features + 1), np.zeros(context, int)])]
    for units in hidden:
        degrees.append(least + np.arange(units) % (features - least))
    masks = [low[:, None] <= high for low, high in itertools.pairwise(degrees)]
    last = np.repeat(np.arange(1, features + 1), width)
    masks.append(degrees[-1][:, None] < last)
    _require_connected(masks, features, context, width)

    def network(h: Array, given: Array | None = None) -> Array:
        if h.shape[-1] != features:
            raise InputError(
                "x",
                expected=f"{features} features",
                got=f"shape {h.shape}",
                remedy="Make the network for the flow's number of features.",
            )
        h = _beside(h, given, context)
        for mask in masks[:-1]:
            h = activation(MaskedLinear(mask)(h))
        return MaskedLinear(masks[-1], w_init=_ZERO)(h)

    return network


class MaskedLinear(hk.Module):
    """A dense layer without the connections where `mask`, (inputs, units), is False."""

    def __init__(self, mask: np.ndarray, w_init: Any = None, name: str = "linear"):
        super().__init__(name=name)
        self.mask = mask
        # Truncated normals, as in hk.Linear, of the mean number of connections into a unit.
        scale = 1 / math.sqrt(max(1.0, mask.sum(0).mean()))
        self.w_init = hk.initializers.TruncatedNormal(scale) if w_init is None else w_init

    def __call__(self, x: Array) -> Array:
        w = hk.get_parameter("w", self.mask.shape, x.dtype, init=self.w_init)
        b = hk.get_parameter("b", self.mask.shape[1:], x.dtype, init=jnp.zeros)
        return x @ (w * self.mask.astype(w.dtype)) + b


def _beside(h: Array, given: Array | None, context: int) -> Array:
    """Put the context beside h, on the last axis."""
    came = 0 if given is None else given.shape[-1]
    if came != context:
        raise InputError(
            "context",
            expected=f"width {context}",
            got=f"width {came}" if came else "no context",
            remedy="Give the network the context's width when it is made, and the context.",
        )
    if given is None:
        return h
    return jnp.concatenate([h, jnp.broadcast_to(given, (*h.shape[:-1], context))], axis=-1)


def _require_connected(masks: list[np.ndarray], features: int, context: int, width: int) -> None:
    paths = np.eye(features + context, dtype=int)
    for mask in masks:
        paths = np.minimum(paths @ mask, 1)
    wanted = np.tri(features, k=-1, dtype=bool).T.repeat(width, axis=1)
    wanted = np.concatenate([wanted, np.ones((context, features * width), bool)])
    missing = int((wanted & (paths == 0)).sum()) // width
    if missing:
        raise InputError(
            "hidden",
            expected=f"layers of at least {features - 1 + bool(context)} units, so that every "
            "feature depends on all before it",
            got=f"{missing} dependences left out",
            remedy="Widen the hidden layers.",
        )
