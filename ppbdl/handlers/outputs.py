"""Local reparameterisation: draw a layer's outputs in place of its weights.

Kingma, Salimans and Welling (2015), *Variational Dropout and the Local Reparameterization Trick*,
equation (6): with independent normal weights N(m, s^2) the outputs of a dense layer are, given its
inputs, independent normals,

    f(x; W) ~ N(f(x; m), f(x^2; s^2)).

Where a layer uses its weights at several places (a convolution, a dense layer on a sequence) the
outputs of an example are correlated between places; as is usual, that correlation is left out:
each place has noise of its own.  The marginal distributions are right, the objective's expectation
is approximate.  A layer that runs in a loop, or twice, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from ..errors import ModelError
from ..noise import normal
from ..types import Array, Model
from .per_example import Layer, PerExample


def local_reparameterization(model: Model, guide_trace: Mapping[str, Any]) -> Model:
    """Run a model at a guide's draw, with the linear layers' outputs drawn for each example.

    Parameters
    ----------
    model
        A model over Haiku networks; to be run within `numpyro.handlers.seed`.
    guide_trace
        A trace of a guide whose weights are independent normals, such as `AutoNormal`.

    Raises
    ------
    ModelError
        When run: if no layer has normal weights, a layer's inputs lack the rows in front, or a
        layer is used more than once.

    Examples
    --------
    >>> from ppbdl import SVI
    >>> SVI(estimator=local_reparameterization).settings["estimator"]
    'local_reparameterization'
    """
    return PerExample(model, guide_trace, _drawn, "a guide with normal weights")


def _drawn(layer: Layer) -> Array | None:
    normals = layer.normals()
    if not normals:
        return None
    if layer.repeated:
        raise ModelError(
            "estimator",
            expected="layers that are used once in a run of the network",
            got=f"the layer {layer.name!r} used again, or in a loop",
            remedy="Choose flipout, which keeps one draw of the weights for each example.",
        )
    means = layer.weights | {weight: loc for weight, (loc, _) in normals.items()}
    variances = {weight: jnp.zeros_like(value) for weight, value in layer.weights.items()}
    variances |= {weight: scale**2 for weight, (_, scale) in normals.items()}
    mean = layer(layer.inputs, means)
    inputs = layer.inputs
    if jnp.issubdtype(inputs.dtype, jnp.inexact):  # an embedding's are indices
        inputs = inputs**2
    # The root has no gradient at zero, where an example's inputs all are.
    sd = jnp.sqrt(layer(inputs, variances) + 1e-12)
    return mean + sd * normal(layer.key, mean.shape, mean.dtype)
