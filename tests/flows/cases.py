"""The table: each bijection of ppbdl.flows with weights that are far from its start."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import transforms as numpyros
from numpyro.nn import BlockNeuralAutoregressiveNN

from ppbdl import flows
from ppbdl.flows import Affine, Autoregressive, Chain, Coupling, Repeat

TRANSFORMERS = {
    "additive": flows.additive(),
    "affine": flows.affine(),
    "rational_quadratic": flows.rational_quadratic(bins=5, bound=2.5),
}
IMAGE = (2, 2, 4)
MASKS = {
    "half": (flows.half, (5,), (5,)),
    "channel": (flows.channel, (4,), IMAGE),
    "checkerboard": (flows.checkerboard, IMAGE[:2], IMAGE),
}
# Nearly all of these tests' time is the compiler's, and little of it needed.
quickly = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)
key = functools.partial(jax.random.key, impl="rbg")  # the quickest to compile
COMBINED = {("channel", "affine"), ("checkerboard", "rational_quadratic")}
SLOW_TO_COMPILE = {
    "continuous",
    "glow",
    "repeated couplings",
    "coupling, checkerboard, rational_quadratic",
}


@dataclass(frozen=True)
class Case:
    """A bijection from weights; where it is tried: how far out, and where its formula changes."""

    build: Callable[[Any], flows.Bijection]
    weights: Callable[[jax.Array], Any]
    shape: tuple[int, ...] = (3,)
    edges: tuple[float, ...] = (0.0,)
    reach: float = 1e3
    factor: float = 1e4  # of the contract's tolerance


def normal(*shape):
    return lambda key: jax.random.normal(key, shape)


def nothing(key):
    return jnp.zeros(0)


def away(tree, key, scale=0.5):
    """Weights moved away from the start, at which most bijections are the identity."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    moved = [
        leaf + scale * jax.random.normal(k, leaf.shape)
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return treedef.unflatten(moved)


def network(function, *inputs):
    """A Haiku function as (weights from a key, apply)."""
    net = hk.without_apply_rng(hk.transform(function))
    return lambda key: away(net.init(key, *inputs), key, 0.2), net.apply


def coupling(transformer, mask, shape, context=None):
    chosen = TRANSFORMERS[transformer]
    kept = mask.array
    if kept.ndim == 3 and kept.shape[-1] == 1:
        net = flows.cnn(shape[-1] * chosen.width, 4, 0, jnp.tanh)
        weights, apply = network(net, np.ones((1, *shape)))
    else:
        width = 0 if context is None else context.shape[-1]
        inputs = [np.ones((1, kept.sum()))] + ([np.ones((1, width))] if width else [])
        net = flows.mlp(int((~kept).sum()) * chosen.width, (6,), width, jnp.tanh)
        weights, apply = network(net, *inputs)
    given = () if context is None else (context,)
    return Case(lambda w: Coupling(chosen, lambda h: apply(w, h, *given), mask), weights, shape)


def autoregressive(transformer, features=3, context=None, backwards=False):
    chosen = TRANSFORMERS[transformer]
    width = 0 if context is None else context.shape[-1]
    inputs = [np.ones((1, features))] + ([np.ones((1, width))] if width else [])
    net = flows.made(features, chosen.width, (7, 6), width, jnp.tanh)
    weights, apply = network(net, *inputs)
    given = () if context is None else (context,)

    def build(w):
        bijection = Autoregressive(chosen, lambda h: apply(w, h, *given))
        return bijection.inv if backwards else bijection

    return Case(build, weights, (features,))


def block(features):
    init, apply = BlockNeuralAutoregressiveNN(features, [4])
    return Case(
        lambda w: flows.BlockAutoregressive(lambda x: apply(w, x)),
        lambda key: init(key, (features,))[1],
        (features,),
    )


def repeated(layers=3):
    one = coupling("affine", flows.half(4), (4,))
    other = coupling("rational_quadratic", flows.half(4, flip=True), (4,))
    return Case(
        lambda w: Repeat(lambda w: Chain([one.build(w[0]), other.build(w[1])]), w),
        lambda key: jax.vmap(lambda k: (one.weights(k), other.weights(k)))(
            jax.random.split(key, layers)
        ),
        (4,),
    )


def glow():
    """Two scales of a squeeze, and a step of actnorm, 1x1 convolution and coupling."""

    def step(channels):
        couple = coupling("affine", flows.channel(channels), (2, 2, channels))
        order = tuple(np.random.default_rng(0).permutation(channels).tolist())

        def build(w):
            mix = flows.LU(**w[1], order=order)
            return Chain([couple.build(w[0]), mix, Affine(w[2], w[3])])

        def weights(key):
            mix, norm = (
                flows.LU.start(key, channels, 0.2),
                0.3 * jax.random.normal(key, (channels,)),
            )
            return couple.weights(key), mix, norm, norm

        return build, weights

    (outer, outer_weights), (inner, inner_weights) = step(4), step(8)
    squeeze = flows.Squeeze()

    def build(w):
        within = flows.Split(Chain([squeeze, inner(w[1]), squeeze.inv]))
        return Chain([squeeze, within, outer(w[0]), squeeze.inv])

    return Case(build, lambda key: (outer_weights(key), inner_weights(key)), (4, 4, 1))


def continuous(features, tolerance):
    """A velocity field; the case is held to 20 times the tolerance 1e-10."""

    def velocity(h):
        return hk.nets.MLP([6, features], activation=jnp.tanh)(h)

    weights, apply = network(velocity, np.ones(features + 1))

    def build(w):
        def field(t, x):
            return apply(w, jnp.append(x, t))

        return flows.Continuous(field, tolerance=tolerance)

    return Case(build, weights, (features,), reach=9, factor=1e7)


SPLINE_EDGES = (-2.5, 2.5, *np.nextafter([2.5, 2.5, -2.5], [0, 9, 0]).tolist())
CONTEXT = np.array([0.3, -1.2])

CASES: dict[str, Case] = {
    "affine": Case(lambda w: Affine(w[0], w[1]), normal(2, 3)),
    "numpyro's affine": Case(
        lambda w: flows.Fused(numpyros.AffineTransform(w, -jnp.exp(w))), normal(3)
    ),
    "numpyro's softplus": Case(
        lambda w: flows.Fused(numpyros.SoftplusTransform()), nothing, reach=30
    ),
    "numpyro's exp": Case(lambda w: flows.Fused(numpyros.ExpTransform()), nothing, reach=30),
    "numpyro's permutation": Case(
        lambda w: flows.Fused(numpyros.PermuteTransform(jnp.array([2, 0, 1]))), nothing
    ),
    "square": Case(lambda w: flows.Power(2.0, upper=2.0), nothing),
    "power": Case(lambda w: flows.Power(-1.7), nothing),
    "logit": Case(lambda w: flows.Logit(), nothing, reach=12),
    "scaled logit": Case(lambda w: flows.Logit(0.05), nothing, reach=12),
    "sigmoid": Case(lambda w: flows.Logit(0.05).inv, nothing, reach=12),
    "spline": Case(
        lambda w: flows.RationalQuadraticSpline(2 * w, 2.5), normal(3, 14), (3,), SPLINE_EDGES
    ),
    "steep spline": Case(  # a rounding of x moves its log slope by 1e-10
        lambda w: flows.RationalQuadraticSpline(6 * w, 2.5),
        normal(3, 14),
        edges=SPLINE_EDGES,
        factor=1e6,
    ),
    "reverse": Case(lambda w: flows.Reverse(), nothing),
    "lu": Case(
        lambda w: flows.LU(**w, order=(2, 0, 1)),
        lambda key: away(flows.LU.start(key, 3), key),
    ),
    "1x1 convolution": Case(
        lambda w: Chain([flows.Squeeze(), flows.LU(**w)]),
        lambda key: away(flows.LU.start(key, 4), key),
        (2, 4, 1),
    ),
    "squeeze": Case(lambda w: flows.Squeeze(), nothing, (4, 2, 3)),
    "split": Case(lambda w: flows.Split(Affine(w[0], w[1])), normal(2, 2), (2, 1, 3)),
    # Near the limits of what is invertible, to which these are held by their constraints.
    "planar": Case(
        lambda w: flows.Planar(w["direction"], w["shift"] - 2 * w["direction"], w["bias"]),
        lambda key: away(flows.Planar.start(key, 3), key, 1.0),
    ),
    "radial": Case(
        lambda w: flows.Radial(w["centre"], w["log_alpha"], w["raw"] - 3),
        lambda key: away(flows.Radial.start(key, 3), key),
    ),
    "sylvester": Case(
        lambda w: flows.Sylvester(
            w["reflections"], w["outer"] + 2 * jnp.eye(3), w["inner"] - 2 * jnp.eye(3), w["bias"]
        ),
        lambda key: away(flows.Sylvester.start(key, 4, 3), key),
        (4,),
    ),
    "maf given a context": autoregressive("affine", context=CONTEXT, backwards=True),
    "one feature given a context": autoregressive("affine", 1, CONTEXT),
    "block autoregressive": block(3),
    "coupling given a context": coupling("affine", flows.half(3), (3,), CONTEXT),
    "continuous": continuous(2, 1e-10),
    "repeated couplings": repeated(),
    "glow": glow(),
}
CASES |= {f"autoregressive, {name}": autoregressive(name) for name in TRANSFORMERS}
CASES |= {
    f"coupling, {name}, {transformer}": coupling(transformer, mask(*sizes, flip=flip), shape)
    for name, (mask, sizes, shape) in MASKS.items()
    for transformer, flip in zip(TRANSFORMERS, (False, True, True), strict=True)
    if name == "half" or (name, transformer) in COMBINED
}


@functools.cache
def weights(name: str) -> Any:
    """The case's weights; call it in double precision."""
    return quickly(CASES[name].weights)(key(len(name)))


def bijection(name: str) -> flows.Bijection:
    """The case's bijection."""
    return CASES[name].build(weights(name))
