"""Concrete dropout: Monte Carlo dropout that learns each weight's rate p with the weights.

Gal, Hron and Kendall (2017), *Concrete Dropout*, arXiv:1705.07832.  A layer of K input units has
W = diag(z) M.  So that gradients reach p, the masks z are concrete (their equation 5),

    z = sigmoid((logit(u) - logit(p)) / t),   u ~ Uniform(0, 1),   t = 0.1,

and the objective counts their entropy in closed form, as that of the Bernoulli masks which they
relax (their equations 3 and 4): the bound gains K H(p), H(p) = -p log p - (1 - p) log(1 - p).
Under a standard normal prior and no data, -K H(p) + (1 - p)/2 |M|^2 is least at
p = sigmoid(|M|^2 / 2K): large weights are dropped, and data are what keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax.scipy.special import logit, xlog1py, xlogy
from numpyro.distributions import constraints

from ..errors import InputError
from ..structure import Structure
from ..types import Guide, Model
from .dropout import Mask, dropping

TEMPERATURE = 0.1  # as in the paper's experiments


@dataclass(frozen=True)
class ConcreteDropout:
    """The dropout guide with learned rates, one for each weight array.

    What is dropped, and what is a point estimate, is as in `MCDropout`.  The learned rate of the
    weight ``net.linear_0.w`` is ``posterior.params["net.linear_0.w.rate"]``, (chain,).  The
    fitted guide draws relaxed masks too: at a rate of 0.1 nine in ten are within 0.01 of 0 or 1.

    Parameters
    ----------
    init_rate
        Every rate at the start, in (0, 1).

    Raises
    ------
    InputError, ModelError
        If `init_rate` is no such probability, or the model has no weight to drop.

    Examples
    --------
    >>> from ppbdl import SVI
    >>> SVI(ConcreteDropout(init_rate=0.2), steps=500).name
    'SVI ConcreteDropout'
    """

    init_rate: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.init_rate, bool) or not 0 < self.init_rate < 1:
            raise InputError(
                "init_rate",
                expected="a probability in (0, 1)",
                got=repr(self.init_rate),
                remedy="Try 0.1.",
            )

    def bind(self, model: Model, structure: Structure) -> Guide:
        """Make the guide of `model`."""

        def unit(name: str) -> tuple[Mask, Any]:
            rate: Any = numpyro.param(
                f"{name}.rate", jnp.asarray(self.init_rate), constraint=constraints.unit_interval
            )
            entropy = -xlogy(rate, rate) - xlog1py(1 - rate, -rate)
            return lambda u: jax.nn.sigmoid((logit(u) - logit(rate)) / TEMPERATURE), entropy

        return dropping(self, model, structure, unit)
