"""Equal layers in a scan: a program that is no longer for sixteen layers than for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from numpyro import distributions as dist

from ..types import Array
from .bijection import Bijection, Chain

_FEW = 8  # layers, up to which the loop is unrolled: they compile fast, and run faster by a fifth


class Repeat(Bijection):
    """`layer` of each entry of `weights` in turn, compiled once.

    Parameters
    ----------
    layer
        Makes a bijection, or a `Chain` of a few, from one layer's weights.  It keeps shapes.
    weights
        A tree of arrays with the layers in front, such as ``jax.vmap(start)(keys)`` gives, or
        ``haiku_module(..., copies=16)``.

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
        return self._scan(lambda layer, x: layer.forward_and_log_det(x), x, reverse=False)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        return self._scan(lambda layer, y: layer.inverse_and_log_det(y), y, reverse=True)

    def _scan(
        self, fused: Callable[[Chain, Array], tuple[Array, Array]], x: Array, reverse: bool
    ) -> tuple[Array, Array]:
        few = len(jax.tree.leaves(self.weights)[0]) <= _FEW
        x, log_dets = jax.lax.scan(
            lambda x, weights: fused(self._one(weights), x),
            x,
            self.weights,
            reverse=reverse,
            unroll=few,
        )
        return x, log_dets.sum(0)

    def _one(self, weights: Any) -> Chain:
        return Chain([self.layer(weights)])
