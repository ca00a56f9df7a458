"""Autoregressive maps: each element moves by an amount that the ones before it decide.

    y_d = tau(x_d; c_d(x_1 ... x_d-1))

Kingma et al. (2016), *Improved Variational Inference with Inverse Autoregressive Flow*;
Papamakarios et al. (2017), *Masked Autoregressive Flow*.  One pass of the conditioner gives y from
x; x from y takes a pass for each dimension.  So a flow of `Autoregressive` maps draws fast (IAF),
and one of ``Autoregressive(...).inv`` scores fast (MAF).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import InputError
from ..types import Array
from .bijection import Bijection
from .roots import triangular_root
from .transformers import Transformer


class Autoregressive(Bijection):
    """An autoregressive map of vectors; forward fast, backward a pass a dimension.

    Parameters
    ----------
    transformer
        `additive`, `affine` or `rational_quadratic`.
    conditioner
        Maps (..., features) to (..., features * transformer.width), of which the numbers for
        feature d depend on the features before d only: a `made` network.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ppbdl.flows import additive
    >>> before = lambda x: jnp.pad(x[..., :-1], (1, 0))
    >>> maf = Autoregressive(additive(), before).inv
    >>> maf(jnp.array([1.0, 1.0, 1.0])).tolist()
    [1.0, 0.0, 1.0]
    """

    def __init__(self, transformer: Transformer, conditioner: Callable[[Array], Array]):
        self.transformer, self.conditioner = transformer, conditioner

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y, log_det = self._at(x).forward_and_log_det(x)
        return y, jnp.broadcast_to(log_det, y.shape).sum(-1)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        @jax.checkpoint  # a gradient keeps x of every pass, not the conditioner's insides
        def improve(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
            x, log_det = self._at(state[0]).inverse_and_log_det(y)
            return x, jnp.broadcast_to(log_det, x.shape)

        # After d passes the first d elements are right, and the last pass's slopes with them.
        start = jnp.zeros_like(y), jnp.zeros_like(y)
        x, log_det = jax.lax.fori_loop(0, y.shape[-1], improve, start)
        return x, log_det.sum(-1)

    def _at(self, x: Array) -> Bijection:
        width, raw = self.transformer.width, self.conditioner(x)
        if raw.shape[-1] != x.shape[-1] * width:
            raise InputError(
                "conditioner",
                expected=f"{x.shape[-1]} x {width} = {x.shape[-1] * width} outputs",
                got=f"shape {raw.shape} from an input of shape {x.shape}",
                remedy="Make it with made(features, transformer.width).",
            )
        return self.transformer.build(raw.reshape(*raw.shape[:-1], x.shape[-1], width))


class BlockAutoregressive(Bijection):
    """NumPyro's block neural autoregressive map, with the inverse that it lacks.

    De Cao et al. (2019), *Block Neural Autoregressive Flow*: a network that increases in x_d and
    sees x_1 ... x_d-1.  Forward is one pass; backward bisects each dimension, some 70 passes for
    each in double precision.

    Parameters
    ----------
    network
        Maps x to (y, log dy_d/dx_d), both (..., features): numpyro.nn.BlockNeuralAutoregressiveNN's
        second function, its weights bound.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from numpyro.nn import BlockNeuralAutoregressiveNN
    >>> init, apply = BlockNeuralAutoregressiveNN(2)
    >>> _, weights = init(jax.random.key(0), (2,))
    >>> bijection = BlockAutoregressive(lambda x: apply(weights, x))
    >>> bijection.inv(bijection(jnp.array([1.0, 2.0]))).round(3).tolist()
    [1.0, 2.0]
    """

    def __init__(self, network: Callable[[Array], tuple[Array, Array]]):
        self.network = network

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y, log_slopes = self.network(x)
        return y, log_slopes.sum(-1)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        x = triangular_root(lambda x: self.network(x)[0], y)
        return x, -self.network(x)[1].sum(-1)
