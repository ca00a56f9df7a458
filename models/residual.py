"""Flows of planar and Sylvester maps: the identity and a bump, of one direction or of a few.

They are one pass in one direction and a search in the other, see `ppbdl.flows.residual`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import haiku as hk
import jax.numpy as jnp

from ppbdl.errors import require_whole
from ppbdl.flows import Bijection, Planar, Sylvester, mlp
from ppbdl.types import Array

from .density import FlowDensity


@dataclass(frozen=True, eq=False)
class PlanarFlow(FlowDensity):
    """A stack of planar maps: Rezende and Mohamed (2015), *Variational Inference with Flows*.

    Each map bends space along one direction, so that many are wanted.

    Parameters
    ----------
    features, layers, prior
        As for `FlowDensity`.
    width
        Units of the networks that move the maps with a context; without one there are none.
    samples
        Whether the maps lead from z to y: it then samples in one pass, and scores by bisection,
        as a posterior of codes wants it.  Otherwise they lead from y to z.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> data = ppbdl.Data(None, np.random.default_rng(0).normal(size=(100, 2)))
    >>> model = PlanarFlow(features=2, layers=4)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.MAP(steps=50), progress=False)
    >>> model.fitted(posterior).sample(ppbdl.types.as_key(1), (7,)).shape
    (7, 2)
    """

    layers: int = 16
    samples: bool = False

    def conditioner(self, context: int) -> tuple[Callable[..., Any], int]:
        scale = 1 / math.sqrt(self.features)  # as Planar.start
        shapes = {"direction": (self.features,), "shift": (self.features,), "bias": ()}
        scales = {"direction": scale, "shift": 0.1 * scale, "bias": 0.0}
        return _steered(tuple(shapes.items()), tuple(scales.items()), self.width, context), 0

    def bijection(self, net: Callable[[Array], Any]) -> Bijection:
        planar = Planar(**net(jnp.zeros(0)))
        return planar if self.samples else planar.inv


@dataclass(frozen=True, eq=False)
class SylvesterFlow(FlowDensity):
    """A stack of Sylvester maps: van den Berg et al. (2018), *Sylvester Normalizing Flows*.

    Each map bends space along `rank` directions: a planar flow without its bottleneck.  With a
    context, Householder reflections included, it is theirs for amortised posteriors (H-SNF).

    Parameters
    ----------
    features, layers, width, prior, samples
        As for `PlanarFlow`.
    rank
        Directions of each map, at most `features`, and reflections that turn them.

    Examples
    --------
    >>> import functools, numpy as np, ppbdl
    >>> from ppbdl.models import VAE, Dense, FlowPosterior, Normal
    >>> y = np.random.default_rng(0).normal(size=(64, 4))
    >>> flow = functools.partial(SylvesterFlow, layers=2, rank=2, samples=True)
    >>> vae = VAE((4,), 3, Normal(1.0), Dense((16,)), posterior=FlowPosterior(flow, context=8))
    >>> svi = ppbdl.SVI(vae.guide, steps=20, draws=1)
    >>> posterior = ppbdl.fit(0, vae, ppbdl.Data(None, y), svi, progress=False)
    >>> vae.encode(posterior, y).sample(ppbdl.types.as_key(1)).shape
    (64, 3)
    """

    layers: int = 4
    rank: int = 2
    samples: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(rank=self.rank)

    def conditioner(self, context: int) -> tuple[Callable[..., Any], int]:
        square = (self.rank, self.rank)
        shapes = {
            "reflections": (self.rank, self.features),
            "outer": square,
            "inner": square,
            "bias": (self.rank,),
        }
        scales = {"reflections": 1.0, "outer": 0.1, "inner": 0.1, "bias": 0.0}
        return _steered(tuple(shapes.items()), tuple(scales.items()), self.width, context), 0

    def bijection(self, net: Callable[[Array], Any]) -> Bijection:
        sylvester = Sylvester(**net(jnp.zeros(0)))
        return sylvester if self.samples else sylvester.inv


@functools.lru_cache(maxsize=256)
def _steered(
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    scales: tuple[tuple[str, float], ...],
    width: int,
    context: int,
) -> Callable[..., Any]:
    """Make a conditioner that gives weights of these shapes, moved by the context if any."""
    sizes = [math.prod(shape) for _, shape in shapes]
    ends = [sum(sizes[:i]) for i in range(1, len(sizes))]

    def network(_: Array, given: Array | None = None) -> dict[str, Array]:
        weights = {
            name: hk.get_parameter(name, shape, init=hk.initializers.RandomNormal(scale))
            for (name, shape), (_, scale) in zip(shapes, scales, strict=True)
        }
        if given is None:
            return weights
        moves = jnp.split(mlp(sum(sizes), (width, width))(given), ends, axis=-1)
        return {
            name: weights[name] + move.reshape(*move.shape[:-1], *shape)
            for (name, shape), move in zip(shapes, moves, strict=True)
        }

    return network
