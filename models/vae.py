"""A variational autoencoder: a code for each row, and a network that decodes it.

    z ~ N(0, I),    y ~ likelihood(decoder(z)),    q(z | y) = N(mu(y), diag(sigma(y)^2))

Kingma and Welling (2014), *Auto-Encoding Variational Bayes*.  It is unconditional: ``x`` is
(rows, 0), and y is what is generated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from ppbdl.errors import InputError, require_whole
from ppbdl.module import haiku_module


@dataclass(frozen=True, eq=False)
class VAE:
    """A small dense variational autoencoder.

    Parameters
    ----------
    features
        Width of y, (rows, features).
    latent
        Dimension of the code, the site ``z`` (rows, latent).
    width
        Units of the one hidden layer of the encoder and of the decoder.
    likelihood
        ``"bernoulli"`` for y in [0, 1], or ``"normal"`` with one learned noise.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> y = np.random.default_rng(0).normal(size=(64, 4))
    >>> vae = VAE(features=4, latent=2, width=16, likelihood="normal")
    >>> posterior = ppbdl.fit(
    ...     0, vae, ppbdl.Data(None, y), ppbdl.SVI(vae.guide, steps=50, draws=4), progress=False
    ... )
    >>> ppbdl.predict(1, vae, posterior, np.empty((5, 0)), draws=True).draws["y"].shape
    (1, 4, 5, 4)
    """

    features: int
    latent: int = 2
    width: int = 64
    likelihood: str = "bernoulli"

    def __post_init__(self) -> None:
        require_whole(features=self.features, latent=self.latent, width=self.width)
        if self.likelihood not in ("bernoulli", "normal"):
            raise InputError(
                "likelihood",
                expected="'bernoulli' or 'normal'",
                got=repr(self.likelihood),
                remedy="Choose 'normal' for y outside [0, 1].",
            )

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare the generative model."""
        code = jax.ShapeDtypeStruct((x.shape[0], self.latent), jnp.result_type(float))
        decoder = haiku_module("decoder", self._decoder, code)
        with numpyro.plate("data", x.shape[0]):
            prior = dist.Normal(0.0, 1.0).expand([self.latent]).to_event(1)
            # A code says nothing of other rows: it is drawn anew for each, never kept.
            z = numpyro.sample("z", prior, infer={"local": True})
            outputs = decoder(z)
            if self.likelihood == "bernoulli":
                fn = dist.Bernoulli(logits=outputs)
            else:
                log_noise: Any = numpyro.param("log_noise", jnp.zeros(()))
                fn = dist.Normal(outputs, jnp.exp(log_noise))
            numpyro.sample("y", fn.to_event(1), obs=y)

    def guide(self, x: Any, y: Any = None) -> None:
        """Declare the amortised posterior q(z | y)."""
        encoder = haiku_module("encoder", self._encoder, y)
        mean, log_scale = jnp.split(encoder(y), 2, axis=-1)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", dist.Normal(mean, jnp.exp(log_scale)).to_event(1))

    def _decoder(self, z: Any) -> Any:
        return hk.nets.MLP([self.width, self.features], name="decoder")(z)

    def _encoder(self, y: Any) -> Any:
        return hk.nets.MLP([self.width, 2 * self.latent], name="encoder")(y)
