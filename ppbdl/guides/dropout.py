"""Monte Carlo dropout as a guide: W = diag(z) M with z_i ~ Bernoulli(1 - rate).

Gal and Ghahramani (2016), *Dropout as a Bayesian Approximation*, equation (8): each unit that
feeds a layer is dropped with its row of weights, one mask for a minibatch.  The prior needs no
separate weight decay: under a standard normal prior E_q[-log p(W)] = (1 - rate)/2 |M|^2 + const,
which is their L2 term.  Biases and all other latents are point estimates.

A dropped site's ``infer["dropout"]`` is the pair (M, mask), from which further masks can be drawn:
the weights before dropping, and a function from uniforms on [0, 1) to as many units' masks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from ..errors import InputError, ModelError
from ..latents import initial_latents, is_real, transforms
from ..structure import Structure
from ..types import Array, Guide, Model

Mask = Callable[[Array], Array]


@dataclass(frozen=True)
class MCDropout:
    """The dropout guide: every real site with several input units loses rows at random.

    A site's last axis but one is taken for its input units, as in Haiku's weights (in, out) and
    convolution kernels (height, width, in, out).  The kept rows are not scaled up.  A single input
    unit is not dropped: without it a layer sees nothing, and BatchNorm's arrays look so too.

    Parameters
    ----------
    rate
        Probability of dropping a unit, in [0, 1).

    Raises
    ------
    InputError, ModelError
        If `rate` is no probability, or the model has no weight to drop.

    Examples
    --------
    >>> from ppbdl import SVI
    >>> SVI(MCDropout(0.1), steps=500).name
    'SVI MCDropout'
    """

    rate: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.rate, bool) or not 0 <= self.rate < 1:
            raise InputError(
                "rate", expected="a probability in [0, 1)", got=repr(self.rate), remedy="Try 0.1."
            )

    def bind(self, model: Model, structure: Structure) -> Guide:
        """Make the guide of `model`."""
        # The masks' entropy does not depend on M, so the objective can do without it.
        return dropping(self, model, structure, lambda name: (lambda u: u >= self.rate, 0.0))


def dropping(
    guide: Any, model: Model, structure: Structure, unit: Callable[[str], tuple[Mask, Any]]
) -> Guide:
    """Make the guide of `model` that drops rows of its weights.

    Parameters
    ----------
    guide
        Whose guide it is, to be named in errors.
    unit
        From a weight's name to its units' mask, as a function of uniforms, and the entropy of one
        unit's mask that the objective is to count, in nats.
    """
    weights = weights_of(guide, structure, lambda shape: shape[-2])
    units = [structure.latents[name][-2] for name in weights]

    def program(x: Any, y: Any = None) -> None:
        # By site, not flat: splitting and joining would cost a tenth of a step on a CPU.
        means: Any = numpyro.param(
            "auto_loc",
            lambda key: structure.unflatten(initial_latents(key, model, structure, x, y)),
        )
        # One draw for all masks: a random draw for each would be a program each.
        key: Any = numpyro.prng_key()
        uniforms = jax.random.uniform(key, (sum(units), 1))
        parts = jnp.split(uniforms, list(itertools.accumulate(units))[:-1])
        uniform = dict(zip(weights, parts, strict=True))
        for name, transform in transforms(model, structure, means, x, y).items():
            if name not in uniform:
                value = transform(means[name])
                numpyro.sample(name, dist.Delta(value, event_dim=value.ndim))
                continue
            mean, (mask, entropy) = means[name], unit(name)
            kept: Any = numpyro.deterministic(f"{name}.kept", mask(uniform[name]))
            value = mean * jnp.asarray(kept, mean.dtype)
            q = dist.Delta(value, -mean.shape[-2] * entropy, event_dim=value.ndim)
            numpyro.sample(name, q, infer={"dropout": (mean, mask)})

    return program


def weights_of(
    guide: Any, structure: Structure, inputs: Callable[[tuple[int, ...]], int]
) -> list[str]:
    """Name the latents that are weights: real, with two axes or more and several inputs.

    Raises
    ------
    ModelError
        If there are none.
    """
    weights = [
        name
        for name, shape in structure.latents.items()
        if len(shape) > 1 and inputs(shape) > 1 and is_real(structure.supports[name])
    ]
    if not weights:
        raise ModelError(
            "guide",
            expected=f"for {type(guide).__name__}, a model with a weight matrix among its latents",
            got=f"latents {list(structure.latents)}",
            remedy="Choose AutoNormal, or declare a network with random_haiku_module.",
        )
    return weights
