"""MC dropout with masks for each example, as in the networks that are trained by dropout.

A dropout guide draws W = diag(z) M, one z for a minibatch.  Here each example has a z of its own,

    f(x; diag(z) M) = f(x * z; M),

and a convolution drops whole channels of an example, as the guide does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..types import Array, Model
from .per_example import Layer, PerExample


def masks_per_example(model: Model, guide_trace: Mapping[str, Any]) -> Model:
    """Run a model at a dropout guide's draw, with masks for each example.

    Parameters
    ----------
    model
        A model over Haiku networks; to be run within `numpyro.handlers.seed`.
    guide_trace
        A trace of `MCDropout` or `ConcreteDropout`.

    Raises
    ------
    ModelError
        When run: if the guide drops nothing, or a layer's inputs lack the rows in front.

    Examples
    --------
    >>> from ppbdl import SVI, MCDropout
    >>> SVI(MCDropout(0.1), estimator=masks_per_example).name
    'SVI MCDropout'
    """
    return PerExample(model, guide_trace, _masked, "a dropout guide such as MCDropout")


def _masked(layer: Layer) -> Array | None:
    dropped = {w: site["infer"]["dropout"] for w, site in layer.sites.items() if _drops(site)}
    if not dropped:
        return None
    [(name, (weight, mask_of))] = dropped.items()  # Haiku's linear layers have one matrix each
    kept = layer.weights | {name: weight}
    rows, units = layer.inputs.shape[0], weight.shape[-2]
    mask = mask_of(jax.random.uniform(layer.key, (rows, units), weight.dtype))
    if not jnp.issubdtype(layer.inputs.dtype, jnp.inexact):  # an embedding's units are its words
        words = layer.inputs.reshape(rows, -1)
        chosen = jnp.take_along_axis(mask, words, axis=1).reshape(layer.inputs.shape)
        return layer(layer.inputs, kept) * chosen[..., None]
    if layer.transposed:  # there the last axis but one is the outputs'
        bias = layer(jnp.zeros_like(layer.inputs[:1]), kept)
        outputs = layer(layer.inputs, kept) - bias
        return outputs * mask.reshape(layer.units(outputs)) + bias
    groups = layer.inputs.shape[layer.channels] // units
    inputs = layer.inputs * jnp.tile(mask, groups).reshape(layer.units(layer.inputs))
    return layer(inputs, kept)


def _drops(site: Mapping[str, Any]) -> bool:
    return "dropout" in site["infer"]
