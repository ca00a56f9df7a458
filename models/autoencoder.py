"""The deterministic autoencoder, and the Bayesian one: y is rebuilt through a narrow layer.

    z = encoder(x),    y ~ likelihood(decoder(z)),    x = y

Hinton and Salakhutdinov (2006), *Reducing the Dimensionality of Data with Neural Networks*.  It is
a model of y given x, not of y: nothing tells what codes there are, so it has nothing to sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from ppbdl.errors import InputError, require_whole
from ppbdl.module import Prior
from ppbdl.posterior import Posterior, at_draw
from ppbdl.types import Array

from .density import declared
from .latent_variable import drawn_of
from .likelihoods import Bernoulli, Likelihood
from .networks import Dense


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """An autoencoder without a stochastic code; fit it to ``Data(y, y)``.

    With priors on its weights it is a Bayesian one, for any method (Daxberger and
    Hernandez-Lobato 2019, *Bayesian Variational Autoencoders*, have the decoder's): `predict` then
    tells how sure a reconstruction is, by how far the draws of the weights differ.

    Parameters
    ----------
    shape, likelihood, networks
        As for `LatentVariableModel`.
    latent
        Dimension of the code.
    encoder_prior, decoder_prior
        The priors of the networks' weights, as for `random_haiku_module`; None makes them
        parameters.

    Examples
    --------
    >>> import numpy as np, numpyro.distributions as dist, ppbdl
    >>> from ppbdl.models import Dense, Normal
    >>> y = np.random.default_rng(0).normal(size=(64, 4))
    >>> model = Autoencoder((4,), 2, Normal(0.5), Dense((16,)), decoder_prior=dist.Normal(0, 1))
    >>> svi = ppbdl.SVI(steps=50, draws=8, estimator=ppbdl.flipout)
    >>> posterior = ppbdl.fit(0, model, ppbdl.Data(y, y), svi, progress=False)
    >>> model.encode(posterior, y).mean.shape, model.reconstruct(posterior, y, draw=7).shape
    ((64, 2), (64, 4))
    >>> ppbdl.predict(1, model, posterior, y).epistemic.shape
    (64, 4)
    """

    shape: tuple[int, ...]
    latent: int = 2
    likelihood: Likelihood = Bernoulli()
    networks: Any = Dense()
    encoder_prior: Prior | None = None
    decoder_prior: Prior | None = None

    def __post_init__(self) -> None:
        require_whole(latent=self.latent, **{f"shape[{i}]": n for i, n in enumerate(self.shape)})

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare the model of y given x, which are the same rows."""
        self._require("x", x)
        self._require("y", x if y is None else y)
        fn = self._decode(self._encode(x))
        with numpyro.plate("data", len(x)):
            numpyro.sample("y", fn, obs=y)

    def encode(self, posterior: Posterior, y: Any, *, chain: int = 0, draw: int = 0) -> Any:
        """Give the codes of rows, (rows, latent), as a distribution without spread."""
        self._require("y", y)
        z = at_draw(self._encode, drawn_of(posterior, chain, draw))(jnp.asarray(y))
        return dist.Delta(z, event_dim=1)

    def decode(self, posterior: Posterior, z: Any, *, chain: int = 0, draw: int = 0) -> Any:
        """Give p(y | z), a distribution of (rows, *shape), for codes of (rows, latent)."""
        return at_draw(self._decode, drawn_of(posterior, chain, draw))(jnp.asarray(z))

    def reconstruct(self, posterior: Posterior, y: Any, *, chain: int = 0, draw: int = 0) -> Array:
        """Give the mean of y given its code, (rows, *shape)."""
        at: dict[str, int] = {"chain": chain, "draw": draw}
        return self.decode(posterior, self.encode(posterior, y, **at).mean, **at).mean

    def _require(self, name: str, rows: Any) -> None:
        if jnp.shape(rows)[1:] != self.shape:
            raise InputError(
                name,
                expected=f"rows of shape {self.shape}, the same ones as x and as y",
                got=f"shape {jnp.shape(rows)[1:]}",
                remedy="Pass Data(y, y), images with channels last.",
            )

    def _encode(self, x: Any) -> Array:
        network = self.networks.encoder(self.latent)
        encoder = declared("encoder", network, self.encoder_prior, self.shape, ())
        return encoder(jnp.asarray(x, jnp.result_type(float)))

    def _decode(self, z: Array) -> Any:
        network = self.networks.decoder(self.shape, self.likelihood.outputs)
        decoder = declared("decoder", network, self.decoder_prior, (self.latent,), ())
        return self.likelihood.distribution(decoder(z)).to_event(len(self.shape))
