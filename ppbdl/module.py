"""The Haiku bridge: a network's weights become NumPyro sites.

`haiku_module` declares the weights as learnable parameters, `random_haiku_module` as random
variables with a prior.  Both take any Haiku function, transformed or not, with or without
random numbers (dropout) and state (BatchNorm), and return a callable network.

A weight's site is named by dots, ``net.linear_0.w``: ArviZ's trees reserve the slash.  Where
the network has a single top-level module, that module's own name is left out.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, cast

import haiku as hk
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import scope
from numpyro.primitives import Messenger, apply_stack, mutable

from .errors import ModelError
from .latents import init_to_normal, init_to_prior, is_real
from .types import Array

_WeightPrior = dist.Distribution | Callable[[str, tuple[int, ...]], dist.Distribution | None] | None
Prior = _WeightPrior | Mapping[str, _WeightPrior]


def fan_in_normal(name: str, shape: tuple[int, ...]) -> dist.Distribution:
    """Give the default prior: N(0, 1/fan_in) for weights, N(0, 1) for biases and other vectors.

    It keeps the prior variance of a layer's output independent of the layer's width
    (Neal 1996, *Bayesian Learning for Neural Networks*, section 2.1).
    """
    scale = 1.0 / math.sqrt(math.prod(shape[:-1])) if len(shape) > 1 else 1.0
    return dist.Normal(0.0, scale)


def haiku_module(
    name: str,
    nn_module: Any,
    *args: Any,
    input_shape: tuple[int, ...] | None = None,
    apply_rng: bool = False,
    **kwargs: Any,
) -> Callable[..., Any]:
    """Declare a Haiku network whose weights are parameters, to be learned as point estimates.

    Parameters
    ----------
    name
        Name of the network; its weights are the one parameter site ``{name}$params``, a dict
        by dotted name, and its state, if it has any, the mutable site ``{name}$state``.
    nn_module
        A Haiku function, or the result of `hk.transform` or `hk.transform_with_state`.
    *args, **kwargs
        Example inputs that show the network its shapes; the values are not used.
    input_shape
        Shape of a single float input, batch included, in place of example inputs.
    apply_rng
        Whether the network draws random numbers; it is then called with a key first.

    Returns
    -------
    The network: a callable of ``(*inputs)``, or of ``(key, *inputs)`` with `apply_rng`.

    Examples
    --------
    >>> import haiku as hk, jax.numpy as jnp, numpyro
    >>> def model(x, y=None):
    ...     net = haiku_module("net", lambda x: hk.nets.MLP([8, 1])(x), x)
    ...     return net(x)
    >>> with numpyro.handlers.seed(rng_seed=0):
    ...     model(jnp.ones((3, 2))).shape
    (3, 1)
    """
    network = _Network.of(nn_module, _example(args, input_shape, name), kwargs)
    weights: Any = numpyro.param(f"{name}$params", lambda key: network.init(key))
    return network.bind(name, weights, apply_rng)


def random_haiku_module(
    name: str,
    nn_module: Any,
    prior: Prior = fan_in_normal,
    *args: Any,
    input_shape: tuple[int, ...] | None = None,
    apply_rng: bool = False,
    **kwargs: Any,
) -> Callable[..., Any]:
    """Declare a Haiku network whose weights are random variables, one site per weight array.

    Parameters
    ----------
    prior
        A distribution, for every weight; a callable ``(name, shape) -> distribution``; or a
        dict from patterns such as ``"*.w"`` or ``"linear_0.*"`` to either, of which the first that
        matches the weight's dotted name holds.  A scalar distribution is expanded
        to the weight's shape.  Where there is None in place of a distribution, the weight is a
        parameter, to be learned as a point estimate.  A callable may sample hyperparameters;
        their sites get the network's name in front.  The default is `fan_in_normal`.
    name, nn_module, *args, input_shape, apply_rng, **kwargs
        As for `haiku_module`; the sites are ``{name}.linear_0.w`` and so on.

    Raises
    ------
    ModelError
        If no pattern matches a weight, or a prior's shape is not the weight's.

    Examples
    --------
    >>> import haiku as hk, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> def model(x, y=None):
    ...     net = random_haiku_module(
    ...         "net", lambda x: hk.nets.MLP([8, 1])(x), dist.Normal(0, 1), x
    ...     )
    ...     return net(x)
    >>> trace = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace(jnp.ones((3, 2)))
    >>> sorted(trace)
    ['net.linear_0.b', 'net.linear_0.w', 'net.linear_1.b', 'net.linear_1.w']
    """
    network = _Network.of(nn_module, _example(args, input_shape, name), kwargs)
    weights: dict[str, Any] = {}
    for leaf, shape in network.shapes.items():
        fn, start = _prior_of(prior, name, leaf, shape.shape), network.starts.get(leaf)
        if fn is None:
            weights[leaf] = numpyro.param(
                f"{name}.{leaf}", lambda key, leaf=leaf: network.init(key)[leaf]
            )
            continue
        # Haiku's own start, where there is one: a wide prior's draws saturate a network.
        hint = start if start is not None and is_real(fn.support) else init_to_prior
        weights[leaf] = numpyro.sample(f"{name}.{leaf}", fn, infer={"init": hint})
    return network.bind(name, weights, apply_rng)


class training(Messenger):
    """Within this handler, networks with a parameter ``is_training`` are told that it is True.

    SVI and its kin enter it for their objective.  Everywhere else it is False: BatchNorm, say,
    then uses the running averages of the fit.
    """

    def process_message(self, msg: dict[str, Any]) -> None:
        """Answer a network's question."""
        if msg["type"] == "is_training":
            msg["value"] = True


def _example(args: tuple, input_shape: tuple[int, ...] | None, name: str) -> tuple:
    if input_shape is not None:
        return (jax.ShapeDtypeStruct(tuple(input_shape), jnp.result_type(float)),)
    if not args:
        raise ModelError(
            "args",
            expected=f"an example input that shows the network {name!r} its shapes",
            got="none",
            remedy="Pass the inputs after the network and its prior, or input_shape=(batch, ...).",
        )
    return args


def _prior_of(
    prior: Prior, name: str, leaf: str, shape: tuple[int, ...]
) -> dist.Distribution | None:
    if isinstance(prior, Mapping):
        matches = [p for pattern, p in prior.items() if fnmatchcase(leaf, pattern)]
        if not matches:
            raise ModelError(
                "prior",
                expected=f"a pattern that matches the weight {leaf!r}",
                got=f"patterns {sorted(prior)}",
                remedy='Add an entry for it, or "*" as the last one.',
            )
        prior = matches[0]
    chosen: Any = prior
    if callable(prior) and not isinstance(prior, dist.Distribution):
        with scope(prefix=name, divider="."):
            chosen = prior(leaf, shape)
    if chosen is None:
        return None
    if chosen.shape() == ():
        chosen = chosen.expand(shape)
    if chosen.shape() != shape:
        raise ModelError(
            "prior",
            expected=f"a scalar distribution or one of shape {shape} for the weight {leaf!r}",
            got=f"shape {chosen.shape()}",
            remedy="Expand the distribution to the weight's shape.",
        )
    return chosen.to_event(len(chosen.batch_shape))


class _Network:
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
    def of(cls, nn_module: Any, example: tuple, kwargs: Mapping) -> _Network:
        leaves, treedef = jax.tree.flatten(example)
        shapes = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        return _network(nn_module, treedef, shapes, tuple(sorted(kwargs.items())))

    def _init(self, key: Array) -> Any:
        inputs = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), self._example)
        told = {"is_training": True} if self._asks else {}
        return self._transformed.init(key, *inputs, **self._kwargs, **told)

    def init(self, key: Array) -> dict[str, Array]:
        """Draw Haiku's own initial weights."""
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
def _network(nn_module: Any, treedef: Any, shapes: tuple, settings: tuple) -> _Network:
    # A model is traced several times for each fit; its network's shapes are found once.
    example, kwargs = treedef.unflatten([jax.ShapeDtypeStruct(*s) for s in shapes]), dict(settings)
    if isinstance(nn_module, hk.TransformedWithState):
        transformed = _with_rng(nn_module, 2)
    elif isinstance(nn_module, hk.Transformed):
        transformed = hk.with_empty_state(_with_rng(nn_module, 1))
    else:
        transformed = hk.transform_with_state(nn_module)
    asks = callable(nn_module) and "is_training" in inspect.signature(nn_module).parameters
    return _Network(transformed, example, kwargs, asks)


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
