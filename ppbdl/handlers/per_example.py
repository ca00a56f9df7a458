"""A draw of the weights for each example, without a copy of the weights for each example.

A linear layer, f(x; W), is linear in its inputs and in its weights.  So noise on the weights can
be moved to the layer's inputs and outputs, where there is an example's share of it, and the
layer's own function, called with other weights, does the rest: strides, dilations, groups and data
formats need no code of ours.

Modules that are not linear in this sense (normalisations, say) run at the guide's one draw for
the batch, as under `numpyro.handlers.replay`: every example's weights then still have the guide's
distribution, but examples share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.extend.core import get_opaque_trace_state
from numpyro.handlers import replay
from numpyro.primitives import Messenger

from ..errors import ModelError
from ..types import Array, Key

_CONVOLUTIONS = (hk.ConvND, hk.DepthwiseConv1D, hk.DepthwiseConv2D, hk.DepthwiseConv3D)
_CALLS = {kind.__call__ for kind in (hk.Linear, hk.Embed, hk.ConvNDTranspose, *_CONVOLUTIONS)}


@dataclass(frozen=True)
class Layer:
    """A linear layer's call, as an estimator sees it.

    Attributes
    ----------
    name
        The module's name.
    inputs
        What it was called with, (rows, ...); integers for an embedding.
    weights
        Its weights at the guide's draw, by Haiku's names: ``w``, ``b``.
    sites
        The guide's sites of those of them that it samples.
    key
        The layer's own random key: the same in every call of one run of the model, since an
        example has one draw of a weight however often it is used.
    channels
        The axis of the units in inputs and outputs.
    transposed
        Whether the weights' axes of input and output units are exchanged.
    repeated
        Whether the layer was called before in this run, or runs in a loop.
    """

    name: str
    inputs: Array
    weights: dict[str, Array]
    sites: Mapping[str, dict[str, Any]]
    key: Key
    channels: int
    transposed: bool
    repeated: bool
    call: Callable[[Array], Array]

    def __call__(self, inputs: Array, weights: Mapping[str, Array]) -> Array:
        """Run the module with other inputs and weights."""

        def getter(get: Any, value: Array, context: Any) -> Array:
            return get(weights.get(context.name, value))

        with hk.custom_getter(getter):
            return self.call(inputs)

    def units(self, array: Array) -> tuple[int, ...]:
        """Give the shape, against inputs or outputs, of one number for each row's unit."""
        shape = [1] * array.ndim
        shape[0], shape[self.channels] = array.shape[0], array.shape[self.channels]
        return tuple(shape)

    def normals(self) -> dict[str, tuple[Array, Array]]:
        """Give location and scale of the weights with a factorised normal posterior."""
        found: dict[str, tuple[Array, Array]] = {}
        for weight, site in self.sites.items():
            fn: Any = site["fn"]
            while isinstance(fn, (dist.Independent, dist.ExpandedDistribution)):
                fn = fn.base_dist
            if type(fn) is dist.Normal:
                loc: Any = fn.loc
                scale: Any = fn.scale
                shape = self.weights[weight].shape
                found[weight] = jnp.broadcast_to(loc, shape), jnp.broadcast_to(scale, shape)
        return found


Rule = Callable[[Layer], Array | None]
"""Gives a layer's outputs, or None where the guide's one draw must do."""


class PerExample(Messenger):
    """Run a model at a guide's draw, with the linear layers' outputs by a rule.

    Parameters
    ----------
    fn, guide_trace
        The model, and a trace of its guide.
    rule
        Gives a linear layer's outputs.
    needs
        What the rule asks of the guide, for the error where no layer has it.
    """

    def __init__(self, fn: Any, guide_trace: Any, rule: Rule, needs: str):
        super().__init__(replay(fn, guide_trace))
        self._trace, self._rule, self._needs = guide_trace, rule, needs

    def __enter__(self) -> Any:
        # Here, not at the first layer: that one may be inside a loop.
        self._key: Any = numpyro.prng_key()
        self._level = get_opaque_trace_state(convention="haiku")
        self._met: set[str] = set()
        self._replaced = False
        return super().__enter__()

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        super().__exit__(kind, value, traceback)
        if kind is None and not self._replaced:
            raise ModelError(
                "estimator",
                expected=f"a Haiku network with a linear layer, and {self._needs}",
                got=f"guide sites {[s for s, m in self._trace.items() if m['type'] == 'sample']}",
                remedy="Leave the estimator out: one draw of the weights for the whole batch.",
            )

    def process_message(self, msg: dict[str, Any]) -> None:
        """Answer a linear layer's call."""
        if msg["type"] != "haiku" or msg["value"] is not None:
            return
        module, sites = msg["module"], msg["sites"]
        sampled = {weight: self._trace[s] for weight, s in sites.items() if s in self._trace}
        if type(module).__call__ not in _CALLS or not sampled:
            return
        first = next(iter(sites.values()))
        here = get_opaque_trace_state(convention="haiku")
        inputs, *others = msg["args"]
        layer = Layer(
            name=module.module_name,
            inputs=inputs,
            weights=_held(module),
            sites=sampled,
            key=jax.random.fold_in(self._key, list(self._trace).index(sites[next(iter(sampled))])),
            channels=getattr(module, "channel_index", -1),
            transposed=isinstance(module, hk.ConvNDTranspose),
            repeated=first in self._met or here != self._level,
            call=lambda inputs: msg["fn"](inputs, *others, **msg["kwargs"]),
        )
        self._met.add(first)
        _require_rows(layer, module, msg["rows"])
        outputs = self._rule(layer)
        if outputs is not None:
            msg["value"], self._replaced = outputs, True


def _held(module: hk.Module) -> dict[str, Array]:
    prefix = f"{module.module_name}/"
    return {name.removeprefix(prefix): value for name, value in module.params_dict().items()}


def _require_rows(layer: Layer, module: Any, rows: int) -> None:
    least = 2 if not hasattr(module, "num_spatial_dims") else module.num_spatial_dims + 2
    least = 1 if isinstance(module, hk.Embed) else least
    shape = jnp.shape(layer.inputs)
    if len(shape) < least or shape[0] != rows:
        raise ModelError(
            "estimator",
            expected=f"inputs of the layer {layer.name!r} with the batch's {rows} rows in front",
            got=f"inputs of shape {shape}",
            remedy="Keep the rows first throughout the network, or leave the estimator out: one "
            "draw of the weights for the whole batch.",
        )
