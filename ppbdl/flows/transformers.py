"""Families of elementwise bijections, from which a coupling or an autoregressive map picks one.

A conditioner's numbers say which: zeros are the identity in each family.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from ..errors import InputError, require_positive
from ..types import Array
from .bijection import Bijection
from .elementwise import Affine
from .spline import RationalQuadraticSpline


@dataclass(frozen=True)
class Transformer:
    """A family of elementwise bijections.

    Parameters
    ----------
    width
        How many numbers pick a member, for each element.
    build
        Makes the member from an array (..., width).
    """

    width: int
    build: Callable[[Array], Bijection]


@functools.lru_cache
def additive() -> Transformer:
    """y = x + t: Dinh et al. (2015), *NICE*, whose volume never changes."""
    return Transformer(1, lambda raw: Affine(raw[..., 0], jnp.zeros((), raw.dtype)))


@functools.lru_cache
def affine(limit: float = 3.0) -> Transformer:
    """y = t + x exp(s): Dinh et al. (2017), *RealNVP*.

    `limit` bounds |s|, as limit tanh(s / limit), since early steps overflow without a bound.
    """
    require_positive(limit=limit)

    def build(raw: Array) -> Bijection:
        return Affine(raw[..., 0], limit * jnp.tanh(raw[..., 1] / limit))

    return Transformer(2, build)


@functools.lru_cache
def rational_quadratic(bins: int = 8, bound: float = 5.0) -> Transformer:
    """A monotone spline on [-bound, bound], the identity outside: Durkan et al. (2019), *NSF*."""
    require_positive(bound=bound)
    if not (isinstance(bins, int) and bins >= 2):
        raise InputError(
            "bins", expected="a whole number from 2", got=repr(bins), remedy="8 is usual."
        )
    return Transformer(3 * bins - 1, lambda raw: RationalQuadraticSpline(raw, bound))
