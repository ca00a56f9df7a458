"""Equal layers in a scan: a program that is no longer for sixteen layers than for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from numpyro import distributions as dist

from ..types import Array
from .bijection import Bijection, Chain


class Repeat(Bijection):
    """`layer` of each entry of `weights` in turn, compiled once.

    Parameters
    ----------
    layer
        Makes a bijection, or a `Chain` of a few, from one layer's weights.  It keeps shapes.
    weights
        A tree of arrays with the layers in front, such as ``jax.vmap(start)(keys)`` gives.

    Examples
    --------
    >>> import functools, jax
    >>> from ppbdl.flows import Planar
    >>> keys = jax.random.split(jax.random.key(0), 16)
    >>> weights = jax.vmap(functools.partial(Planar.start, features=2))(keys)
    >>> Repeat(lambda layer: Planar(**layer), weights)(jax.numpy.ones(2)).shape
    (2,)
    """

    arrays = ("weights",)

    def __init__(self, layer: Callable[[Any], dist.transforms.Transform], weights: Any):
        self.layer, self.weights = layer, weights

    @property
    def domain(self) -> Any:
        return self._one(jax.tree.map(lambda leaf: leaf[0], self.weights)).domain

    @property
    def codomain(self) -> Any:
        return self._one(jax.tree.map(lambda leaf: leaf[0], self.weights)).codomain

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y, log_dets = jax.lax.scan(
            lambda x, weights: self._one(weights).forward_and_log_det(x), x, self.weights
        )
        return y, log_dets.sum(0)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        x, log_dets = jax.lax.scan(
            lambda y, weights: self._one(weights).inverse_and_log_det(y),
            y,
            self.weights,
            reverse=True,
        )
        return x, log_dets.sum(0)

    def _one(self, weights: Any) -> Chain:
        return Chain([self.layer(weights)])
