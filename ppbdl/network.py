"""A Haiku network seen from outside: what its weights are, and what it makes of given ones.

The weights' shapes, and the moments of their initialisers, are read off an abstract run, once for
each function and shape of inputs.  When the network is applied, each call of a module that owns
weights goes through NumPyro's handlers, which may answer it in the module's place.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import haiku as hk
import jax
import jax.numpy as jnp
from numpyro.primitives import apply_stack, mutable

from .errors import ModelError
from .latents import init_to_normal
from .types import Array


class Network:
    """A Haiku function seen from outside: shapes by dotted name, initial values, application.

    `starts` has, by dotted name, where the weights start whose initialiser has known moments.
    """

    def __init__(
        self, transformed: hk.TransformedWithState, example: tuple, kwargs: Mapping, asks: bool
    ):
        self._transformed, self._example, self._kwargs = transformed, example, dict(kwargs)
        self._asks = asks and "is_training" not in kwargs
        found: dict[tuple[str, str], init_to_normal] = {}

        def note(create: Any, shape: Any, dtype: Any, init: Any, context: Any) -> Any:
            if (start := _start_of(init, shape)) is not None:
                found[context.module_name, context.name] = start
            return create(shape, dtype, init)

        def look() -> Any:  # Haiku lets itself be watched from within a transform only
            with hk.custom_creator(note):
                return self._init(jax.random.key(0))

        weights, self.state = jax.eval_shape(lambda: hk.transform(look).apply({}, None))
        paths, self._treedef = jax.tree_util.tree_flatten_with_path(weights)
        names = _dotted([path for path, _ in paths])
        self.shapes = dict(zip(names, [shape for _, shape in paths], strict=True))
        owners = [(str(path[0].key), str(path[1].key)) for path, _ in paths]
        self.starts = {
            leaf: found[owner] for leaf, owner in zip(names, owners, strict=True) if owner in found
        }
        self._owned: dict[str, dict[str, str]] = {}
        for leaf, (module, weight) in zip(names, owners, strict=True):
            self._owned.setdefault(module, {})[weight] = leaf

    @classmethod
    def of(cls, nn_module: Any, example: tuple, kwargs: Mapping) -> Network:
        """Look at a Haiku function, or find what an earlier look found."""
        leaves, treedef = jax.tree.flatten(example)
        shapes = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        return _network(nn_module, treedef, shapes, tuple(sorted(kwargs.items())))

    def _init(self, key: Array) -> Any:
        inputs = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), self._example)
        told = {"is_training": True} if self._asks else {}
        return self._transformed.init(key, *inputs, **self._kwargs, **told)

    def init(self, key: Array, copies: int | None = None) -> dict[str, Array]:
        """Draw Haiku's own initial weights, for so many copies in front, each drawn apart."""
        if copies is not None:
            return jax.vmap(self.init)(jax.random.split(key, copies))
        weights, _ = self._init(key)
        return dict(zip(self.shapes, jax.tree.leaves(weights), strict=True))

    def bind(self, name: str, weights: Mapping[str, Array], apply_rng: bool) -> Callable[..., Any]:
        """Give the weights to the network; its state lives in the mutable site of its name."""
        if set(weights) != set(self.shapes):
            raise ModelError(
                f"{name}$params",
                expected=f"weights {sorted(self.shapes)}",
                got=str(sorted(weights)),
                remedy="Fit again: these weights belong to another network.",
            )
        tree = jax.tree.unflatten(self._treedef, [weights[leaf] for leaf in self.shapes])
        holder: Any = None
        if jax.tree.leaves(self.state):
            holder = mutable(f"{name}$state", self._initial_state())

        def network(*inputs: Any, **kwargs: Any) -> Any:
            key, inputs = (inputs[0], inputs[1:]) if apply_rng else (None, inputs)
            state = {} if holder is None else holder["state"]
            if self._asks:
                kwargs = {"is_training": _is_training()} | kwargs
            rows = jax.tree.leaves(inputs)[0].shape[0]
            with hk.intercept_methods(functools.partial(self._announce, name, rows)):
                out, new_state = self._transformed.apply(tree, state, key, *inputs, **kwargs)
            if holder is not None:
                # Running statistics are not learned; a gradient through them would be wrong.
                holder["state"] = jax.lax.stop_gradient(new_state)
            return out

        return network

    def copies(self, weights: Mapping[str, Array]) -> Callable[..., Any]:
        """Give weights with the copies in front to as many networks: a JAX tree of functions.

        Handlers do not see inside: a copy runs in a loop, out of which nothing may leak.
        """
        if jax.tree.leaves(self.state):
            raise ModelError(
                "copies",
                expected="networks without state",
                got=f"state {sorted(self.state)}",
                remedy="Leave out BatchNorm, or declare the networks one by one.",
            )
        return jax.tree_util.Partial(self._of_a_copy, dict(weights))

    def _of_a_copy(self, weights: Mapping[str, Array], *inputs: Any, **kwargs: Any) -> Any:
        tree = jax.tree.unflatten(self._treedef, [weights[leaf] for leaf in self.shapes])
        if self._asks:
            kwargs = {"is_training": _is_training()} | kwargs
        return self._transformed.apply(tree, {}, None, *inputs, **kwargs)[0]

    def _announce(
        self, name: str, rows: int, call: Any, args: tuple, kwargs: dict, context: Any
    ) -> Any:
        """Send a module's call through NumPyro's handlers, with the sites of its weights."""
        # A module has no name until its constructor, a method as well, is through.
        own = context.method_name == "__call__" and self._owned.get(context.module.module_name)
        if not own:
            return call(*args, **kwargs)
        message = {
            "type": "haiku",
            "fn": call,
            "args": args,
            "kwargs": kwargs,
            "value": None,
            "module": context.module,
            "sites": {weight: f"{name}.{leaf}" for weight, leaf in own.items()},
            "rows": rows,
        }
        return apply_stack(message)["value"]

    def _initial_state(self) -> Any:
        # In a dict, since NumPyro's mutable sites are changed in place.
        return {"state": self._init(jax.random.key(0))[1]}


@functools.lru_cache(maxsize=256)
def _network(nn_module: Any, treedef: Any, shapes: tuple, settings: tuple) -> Network:
    # A model is traced several times for each fit; its network's shapes are found once.
    example, kwargs = treedef.unflatten([jax.ShapeDtypeStruct(*s) for s in shapes]), dict(settings)
    if isinstance(nn_module, hk.TransformedWithState):
        transformed = _with_rng(nn_module, 2)
    elif isinstance(nn_module, hk.Transformed):
        transformed = hk.with_empty_state(_with_rng(nn_module, 1))
    else:
        transformed = hk.transform_with_state(nn_module)
    asks = callable(nn_module) and "is_training" in inspect.signature(nn_module).parameters
    return Network(transformed, example, kwargs, asks)


def _is_training() -> bool:
    message = {"type": "is_training", "fn": lambda: False, "args": (), "kwargs": {}, "value": None}
    return apply_stack(message)["value"]


def _start_of(init: Any, shape: tuple[int, ...]) -> init_to_normal | None:
    """Give the moments of a Haiku initialiser, where they are known."""
    known = hk.initializers
    if init is jnp.zeros or init is jnp.ones:
        return init_to_normal(float(init is jnp.ones), 0.0)
    if isinstance(init, known.Constant) and jnp.ndim(constant := init.constant) == 0:
        return init_to_normal(float(cast(Any, constant)), 0.0)
    if isinstance(init, known.RandomNormal | known.TruncatedNormal):
        mean, sd = cast(Any, init.mean), cast(Any, init.stddev)
        if jnp.ndim(mean) or jnp.ndim(sd):
            return None
        # Cut at two standard deviations, as Haiku's is by default, a normal has 0.88 of them.
        shrink = 0.8796 if isinstance(init, known.TruncatedNormal) else 1.0
        return init_to_normal(float(mean), shrink * float(sd))
    if isinstance(init, known.VarianceScaling) and init.fan_in_axes is None and len(shape) > 1:
        fans = math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]
        fan = {"fan_in": fans[0], "fan_out": fans[1]}.get(init.mode, sum(fans) / 2)
        return init_to_normal(0.0, math.sqrt(init.scale / max(1.0, fan)))
    return None


def _with_rng(transformed: Any, at: int) -> Any:
    """Undo `hk.without_apply_rng`: the apply function takes a key, as its argument number `at`."""
    if list(inspect.signature(transformed.apply).parameters)[at : at + 1] == ["rng"]:
        return transformed
    apply = transformed.apply
    return transformed._replace(
        apply=lambda *args, **kwargs: apply(*args[:at], *args[at + 1 :], **kwargs)
    )


def _dotted(paths: list[tuple]) -> list[str]:
    """Name Haiku's leaves by dots, without the name of a single top-level module."""
    split = [[p for key in path for p in str(key.key).split("/") if p != "~"] for path in paths]
    if len({parts[0] for parts in split}) == 1:
        short = [".".join(parts[1:] if len(parts) > 2 else parts) for parts in split]
        if len(set(short)) == len(short):
            return short
    return [".".join(parts) for parts in split]
