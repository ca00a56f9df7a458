"""Flipout: pseudo-independent weights for each example, from one draw and random signs.

Wen, Vicol, Ba, Tran and Grosse (2018), *Flipout*, equation (4): with W = M + D, D symmetric about
zero and independent between entries, an example's own weights M + D * (s r') have the same
distribution for any signs s and r, and

    f(x; M + D * (s r')) = f(x; M) + f(x * s; D) * r.

A convolution's signs are one for each channel, the same at all places: an example has one kernel.
Exact for dense layers, convolutions (transposed ones too) and embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..noise import rademacher
from ..types import Array, Model
from .per_example import Layer, PerExample


def flipout(model: Model, guide_trace: Mapping[str, Any]) -> Model:
    """Run a model at a guide's draw, with each example's weights flipped by signs of its own.

    Parameters
    ----------
    model
        A model over Haiku networks; to be run within `numpyro.handlers.seed`.
    guide_trace
        A trace of a guide whose weights are independent normals, such as `AutoNormal`.

    Raises
    ------
    ModelError
        When run: if no layer has normal weights, or a layer's inputs lack the rows in front.

    Examples
    --------
    >>> from ppbdl import SVI
    >>> SVI(estimator=flipout).settings["estimator"]
    'flipout'
    """
    return PerExample(model, guide_trace, _flipped, "a guide with normal weights")


def _flipped(layer: Layer) -> Array | None:
    normals = layer.normals()
    if not normals:
        return None
    # A weight that is no normal, a point estimate say, has its own value and no deviation.
    means = layer.weights | {weight: loc for weight, (loc, _) in normals.items()}
    deviations = {weight: value - means[weight] for weight, value in layer.weights.items()}
    key_in, key_out = jax.random.split(layer.key)
    mean = layer(layer.inputs, means)
    inputs = layer.inputs
    if jnp.issubdtype(inputs.dtype, jnp.inexact):  # an embedding's rows need no signs of their own
        inputs = inputs * rademacher(key_in, layer.units(inputs), inputs.dtype)
    noise = layer(inputs, deviations)
    return mean + noise * rademacher(key_out, layer.units(noise), noise.dtype)
