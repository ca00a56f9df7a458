"""A Bayesian neural network: any Haiku function, a prior over its weights, a likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppbdl.module import Prior, fan_in_normal, random_haiku_module

from .likelihoods import Normal


@dataclass(frozen=True, eq=False)
class BNN:
    """A Bayesian neural network.

    Parameters
    ----------
    net
        A Haiku function from inputs, (rows, ...), to the likelihood's outputs, (rows, outputs).
    prior
        The weights' prior, as for `random_haiku_module`; the default scales with fan-in.
    likelihood
        One of `Normal`, `HeteroscedasticNormal`, `Bernoulli`, `Categorical`, `Poisson`, or any
        callable ``(outputs, y=None)`` that observes y.

    Examples
    --------
    >>> import haiku as hk, jax, numpy as np, ppbdl
    >>> model = BNN(lambda x: hk.nets.MLP([20, 1], activation=jax.nn.tanh)(x))
    >>> x = np.linspace(-1, 1, 30)[:, None]
    >>> data = ppbdl.Data(x, np.sin(3 * x[:, 0]))
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.MAP(steps=100), progress=False)
    >>> sorted(posterior.draws)[:2]
    ['net.linear_0.b', 'net.linear_0.w']
    """

    net: Any
    prior: Prior = fan_in_normal
    likelihood: Callable[..., None] = Normal()

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare the model: a site for each weight array, the likelihood's own, and ``y``."""
        net = random_haiku_module("net", self.net, self.prior, x)
        self.likelihood(net(x), y)
