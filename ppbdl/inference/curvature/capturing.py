"""The inputs of a network's linear layers, and the derivatives in their outputs.

A dense layer's outputs are W'a + b, so the gradient in W of whatever follows is a g', with g that
in the outputs.  A zero added to the outputs makes g one reverse pass, in which no gradient of a
weight is made; a convolution is a dense layer on patches of its inputs (Grosse and Martens 2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state
from numpyro.primitives import Messenger

from ...types import Array


class Layer(NamedTuple):
    """A linear layer of which one call makes up all that its weights do.

    Attributes
    ----------
    weight, bias
        The sites of its weights.
    window
        A convolution's window: shape, strides, padding, dilations and dimension numbers.
    channels
        The axis of the units in inputs and outputs.
    once
        Whether it is dense and has one place a row.
    """

    weight: str
    bias: str | None
    window: tuple[Any, ...] | None
    channels: int
    once: bool

    @property
    def sites(self) -> tuple[str, ...]:
        """Give the sites of its weights, in the order of its blocks."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def inputs(self, array: Array) -> Array:
        """Give its inputs as (rows, places, units), of a convolution the patches."""
        if self.window is None:
            return self.outputs(array)
        shape, strides, padding, dilated, dilation, numbers = self.window
        channels = array.shape[self.channels]
        patches = jax.lax.conv_general_dilated_patches(
            array, shape, strides, padding, dilated, dilation, dimension_numbers=numbers
        )
        flat = self.outputs(patches)  # each with the channels before the window's places
        split = flat.reshape(*flat.shape[:2], channels, -1)
        return jnp.swapaxes(split, -1, -2).reshape(flat.shape)

    def outputs(self, array: Array) -> Array:
        """Give what has the shape of its outputs as (rows, places, units)."""
        array = jnp.moveaxis(array, self.channels, -1)
        return array.reshape(array.shape[0], -1, array.shape[-1])


class Calls(Messenger):
    """Notes the linear layers that a model calls; `layers` are those that can be captured."""

    def __init__(self, fn: Any):
        self._found: dict[tuple[str, ...], list[Layer | None]] = {}
        super().__init__(fn)

    def __enter__(self) -> Any:
        self._level = get_opaque_trace_state(convention="haiku")
        return super().__enter__()

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Note a layer's call."""
        if msg["type"] != "haiku":
            return
        here = get_opaque_trace_state(convention="haiku")
        layer = _layer(msg) if here == self._level else None
        self._found.setdefault(tuple(msg["sites"].values()), []).append(layer)

    @property
    def layers(self) -> list[Layer]:
        """The layers that are called once, outside of loops, on rows."""
        return [calls[0] for calls in self._found.values() if len(calls) == 1 and calls[0]]

    @property
    def last(self) -> tuple[str, ...]:
        """The sites of the module that was called last."""
        return list(self._found)[-1] if self._found else ()


def _layer(msg: Mapping[str, Any]) -> Layer | None:
    module, sites = msg["module"], msg["sites"]
    shape = jnp.shape(msg["args"][0])
    if "w" not in sites or len(shape) < 2 or shape[0] != msg["rows"]:
        return None
    if type(module).__call__ is hk.Linear.__call__:
        return Layer(sites["w"], sites.get("b"), None, -1, len(shape) == 2)
    whole = isinstance(module, hk.ConvND) and type(module).__call__ is hk.ConvND.__call__
    if not whole or module.mask is not None or module.feature_group_count != 1:
        return None
    if len(shape) != module.num_spatial_dims + 2:
        return None
    padding = module.padding if isinstance(module.padding, str) else tuple(module.padding)
    window = (
        tuple(module.kernel_shape),
        tuple(module.stride),
        padding,
        tuple(module.lhs_dilation),
        tuple(module.kernel_dilation),
        module.dimension_numbers,
    )
    return Layer(sites["w"], sites.get("b"), window, module.channel_index, False)


class Capture(Messenger):
    """Adds to the outputs of some layers what it is given, and keeps the layers' inputs.

    Parameters
    ----------
    fn
        The model.
    layers
        The layers.
    added
        By weight, what to add; None where the outputs' shapes are yet to be found.
    """

    def __init__(self, fn: Any, layers: tuple[Layer, ...], added: Mapping[str, Array] | None):
        self._layers, self._added = {layer.weight: layer for layer in layers}, added
        self.inputs: dict[str, Array] = {}
        self.outputs: dict[str, Array] = {}
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Answer a layer's call."""
        layer = self._layers.get(msg["sites"].get("w", "")) if msg["type"] == "haiku" else None
        if layer is None:
            return
        outputs = msg["fn"](*msg["args"], **msg["kwargs"])
        if self._added is not None:
            outputs = outputs + self._added[layer.weight]
        self.inputs[layer.weight] = msg["args"][0]
        self.outputs[layer.weight] = msg["value"] = outputs


class Cut(Capture):
    """Gives outputs of the inputs alone: what still depends on the weights uses them elsewhere."""

    def __init__(self, fn: Any, layers: tuple[Layer, ...]):
        super().__init__(fn, layers, None)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Answer a layer's call."""
        super().process_message(msg)
        if msg["type"] == "haiku" and msg["value"] is not None:
            msg["value"] = jnp.zeros_like(msg["value"]) + jnp.sum(msg["args"][0])
