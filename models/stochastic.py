"""Stochastic hidden units: noise on a network's activations in place of its weights.

    h ~ N(m(x), diag(s(x)^2)),    y ~ likelihood(decoder(h))

Tang and Salakhutdinov (2013), *Learning Stochastic Feedforward Neural Networks*, with Gaussian
units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from ppbdl.errors import ModelError
from ppbdl.module import haiku_module
from ppbdl.types import Array


@dataclass(frozen=True, eq=False)
class StochasticUnits:
    """A network with a layer of Gaussian units; its weights are learned as point estimates.

    The spread of its predictions is aleatoric: noise of y given x, of any shape, several modes
    too.  Nothing makes it grow away from the data, as the weights' uncertainty does that of a
    `BNN`, whose spread is epistemic.  The variational-output-only network, a `BNN` with a prior on
    its last layer, ``{"linear_1.*": dist.Normal(0, 1), "*": None}``, is uncertain about how learned
    features are weighed: one draw of weights serves all rows, where here each row has its own h.

    `guide` draws h as the model does, q(h | x) = p(h | x).  The default loss is then minus

        E_{p(h | x)} log p(y | h) <= log p(y | x),

    which no noise can raise: s falls to 0, and the network becomes a deterministic one.  Several
    draws in one bound, log (1/K) sum_k p(y | h_k), keep the noise that explains the data:
    ``SVI(model.guide, loss=numpyro.infer.RenyiELBO(alpha=0, num_particles=20))``.  They are the
    importance weights of the paper in the bound of Burda et al. (2016), equation 8.  It favours
    noise that is too wide; for normal data by an eighth at K = 20, by a twentieth at K = 100.

    Parameters
    ----------
    encoder
        A Haiku function from inputs, (rows, ...), to (rows, 2 x units): m, and s before softplus.
    decoder
        A Haiku function from h, (rows, units), to the likelihood's outputs, (rows, outputs).
    likelihood
        One without latents of its own, such as ``Normal(noise=0.1)``, `HeteroscedasticNormal`,
        `Bernoulli`, `Categorical` or `Poisson`.

    Raises
    ------
    ModelError
        If the encoder's outputs are not (rows, 2 x units).

    Examples
    --------
    >>> import haiku as hk, numpy as np, ppbdl
    >>> from numpyro.infer import RenyiELBO
    >>> from ppbdl.models import Normal
    >>> model = StochasticUnits(
    ...     encoder=lambda x: hk.nets.MLP([10, 2 * 3])(x),
    ...     decoder=lambda h: hk.nets.MLP([10, 1])(h),
    ...     likelihood=Normal(noise=0.1),
    ... )
    >>> x = np.linspace(0, 1, 40)[:, None]
    >>> y = np.where(np.arange(40) % 2, 1, -1) * np.sqrt(x[:, 0])
    >>> svi = ppbdl.SVI(model.guide, steps=50, draws=100, loss=RenyiELBO(num_particles=5))
    >>> posterior = ppbdl.fit(0, model, ppbdl.Data(x, y), svi, progress=False)
    >>> ppbdl.predict(1, model, posterior, x[:2]).mean.shape
    (2,)
    """

    encoder: Any
    decoder: Any
    likelihood: Callable[..., None]

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare the model: the units ``h``, drawn anew for each row, and ``y``."""
        h = self._units(x)
        self.likelihood(haiku_module("decoder", self.decoder, h)(h), y)

    def guide(self, x: Any, y: Any = None) -> None:
        """Draw the units as the model does, whatever y is."""
        self._units(x)

    def _units(self, x: Any) -> Array:
        outputs = haiku_module("encoder", self.encoder, x)(x)
        if outputs.ndim != 2 or outputs.shape[1] % 2:
            raise ModelError(
                "encoder",
                expected="outputs of shape (rows, 2 x units): means, and scales before softplus",
                got=f"shape {outputs.shape}",
                remedy="End the encoder with twice as many units as h is to have.",
            )
        mean, spread = jnp.split(outputs, 2, axis=-1)
        units = dist.Normal(mean, jax.nn.softplus(spread)).to_event(1)
        with numpyro.plate("data", x.shape[0]):
            return jnp.asarray(numpyro.sample("h", units, infer={"local": True}))
