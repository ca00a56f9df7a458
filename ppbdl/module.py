"""The Haiku bridge: a network's weights become NumPyro sites.

`haiku_module` declares the weights as learnable parameters, `random_haiku_module` as random
variables with a prior.  Both take any Haiku function, transformed or not, with or without
random numbers (dropout) and state (BatchNorm), and return a callable network.

A weight's site is named by dots, ``net.linear_0.w``: ArviZ's trees reserve the slash.  Where
the network has a single top-level module, that module's own name is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import scope
from numpyro.primitives import Messenger

from .errors import ModelError, require_whole
from .latents import init_to_prior, is_real
from .network import Network

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
    copies: int | None = None,
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
    copies
        Number of networks of one form, each with its own start and its own weights: every weight
        has them in front.  What is returned is a JAX tree, to be scanned or mapped over, of which
        each slice is a network: the layers of ``ppbdl.flows.Repeat``.  They draw no random
        numbers, have no state, and handlers such as `flipout` do not reach into them.

    Returns
    -------
    callable
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
    require_whole(copies=copies)
    network = Network.of(nn_module, _example(args, input_shape, name), kwargs)
    weights: Any = numpyro.param(f"{name}$params", lambda key: network.init(key, copies))
    return network.copies(weights) if copies else network.bind(name, weights, apply_rng)


def random_haiku_module(
    name: str,
    nn_module: Any,
    prior: Prior = fan_in_normal,
    *args: Any,
    input_shape: tuple[int, ...] | None = None,
    apply_rng: bool = False,
    copies: int | None = None,
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
    name, nn_module, *args, input_shape, apply_rng, copies, **kwargs
        As for `haiku_module`; the sites are ``{name}.linear_0.w`` and so on, and the prior is
        that of one copy.

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
    require_whole(copies=copies)
    network = Network.of(nn_module, _example(args, input_shape, name), kwargs)
    weights: dict[str, Any] = {}
    for leaf, shape in network.shapes.items():
        fn, start = _prior_of(prior, name, leaf, shape.shape), network.starts.get(leaf)
        if fn is None:
            weights[leaf] = numpyro.param(
                f"{name}.{leaf}", lambda key, leaf=leaf: network.init(key, copies)[leaf]
            )
            continue
        fn = fn.expand((copies,)).to_event(1) if copies else fn
        # Haiku's own start, where there is one: a wide prior's draws saturate a network.
        hint = start if start is not None and is_real(fn.support) else init_to_prior
        weights[leaf] = numpyro.sample(f"{name}.{leaf}", fn, infer={"init": hint})
    return network.copies(weights) if copies else network.bind(name, weights, apply_rng)


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
