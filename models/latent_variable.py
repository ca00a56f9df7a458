"""What all autoencoders with a stochastic code share: a code for each row, decoded and guessed.

    z ~ p(z | x),    y ~ likelihood(decoder(z, x)),    q(z | y, x) = posterior(encoder(y, x))

Kingma and Welling (2014), *Auto-Encoding Variational Bayes*; Rezende et al. (2014).  The networks'
weights are parameters, so that ``SVI(model.guide)`` maximises the evidence lower bound; how its
two parts are weighed is SVI's: ``temperature=beta`` is beta-VAE (Higgins et al. 2017), a schedule
of it is the annealing of the divergence, `FreeBits` spares what is free, `IWAE` is the tighter
bound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import block, seed

from ppbdl.data import Data
from ppbdl.errors import InputError, require_whole
from ppbdl.module import Prior, haiku_module, random_haiku_module
from ppbdl.posterior import Posterior, at_draw, one_draw
from ppbdl.structure import require_support
from ppbdl.types import Array, Key, as_key

from .codes import CodePosterior, CodePrior, DiagonalNormal, StandardNormal, moments
from .examination import examined
from .likelihoods import Bernoulli, Likelihood
from .marginal import marginal
from .networks import Dense


@dataclass(frozen=True, eq=False)
class LatentVariableModel(ABC):
    """A model of rows y, each with a code of its own, and the encoder that is its guide.

    Parameters
    ----------
    shape
        Of a row of y: (features,), or (height, width, channels).
    latent
        Dimension of the code, the site ``z`` (rows, latent).
    likelihood
        What the decoder's outputs say of each entry of y: `Bernoulli` (y of 0 and 1),
        `ContinuousBernoulli`, `DiscretizedLogistic`, `Normal(noise)`, `HeteroscedasticNormal`,
        `Categorical`, ...
    networks
        `Dense` or `Convolutional`: the encoder and the decoder.
    posterior
        The family of q(z | y): `DiagonalNormal`, `FullNormal`, `FlowPosterior` or
        `LadderPosterior`.
    prior
        p(z): `StandardNormal`, `MixturePrior`, `VampPrior`, `FlowPrior` or `LadderPrior`.
    weights
        The prior of the decoder's weights, as for `random_haiku_module`: a Bayesian decoder, whose
        guide is ``Completed(model.guide)``.  None makes them parameters.
    """

    shape: tuple[int, ...]
    latent: int = 2
    likelihood: Likelihood = Bernoulli()
    networks: Any = Dense()
    posterior: CodePosterior = DiagonalNormal()
    prior: CodePrior | None = StandardNormal()
    weights: Prior | None = None

    def __post_init__(self) -> None:
        require_whole(latent=self.latent, **{f"shape[{i}]": n for i, n in enumerate(self.shape)})

    @abstractmethod
    def _read(self, x: Any, y: Any) -> Any:
        """Take x for what it is, refuse what does not fit: what the next three are given."""

    @abstractmethod
    def _prior(self, x: Any) -> Any:
        """Declare p(z | x)."""

    @abstractmethod
    def _encode(self, y: Any, x: Any) -> Any:
        """Declare q(z | y, x)."""

    @abstractmethod
    def _decode(self, z: Any, x: Any) -> Any:
        """Declare p(y | z, x)."""

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare the generative model."""
        x_read, rows = self._read(x, y), numpyro.plate("data", jax.tree.leaves(x)[0].shape[0])
        prior = self._prior(x_read)
        with rows:
            # A code says nothing of other rows: it is drawn anew for each, never kept.
            z: Any = numpyro.sample("z", prior, infer={"local": True})
        fn = self._decode(z, x_read)
        with rows:
            numpyro.sample("y", fn, obs=y)

    def guide(self, x: Any, y: Any = None) -> None:
        """Declare the amortised posterior q(z | y)."""
        self._guess_noise()
        q = self._encode(y, self._read(x, y))
        with numpyro.plate("data", jax.tree.leaves(x)[0].shape[0]):
            numpyro.sample("z", q)

    def encode(self, posterior: Posterior, y: Any, x: Any = None, *, chain: int = 0) -> Any:
        """Give q(z | y), a distribution of (rows, latent).

        Parameters
        ----------
        posterior
            What `fit` gave for this model.
        y
            Rows, (rows, *shape).
        x
            What the model was fitted with as x; None without any.
        chain
            Which member of an ensemble.
        """
        y = jnp.asarray(y)
        return at_draw(self._encode, drawn_of(posterior, chain))(y, self._given(x, len(y), y))

    def decode(
        self, posterior: Posterior, z: Any, x: Any = None, *, chain: int = 0, draw: int = 0
    ) -> Any:
        """Give p(y | z), a distribution of (rows, *shape), for codes of (rows, latent)."""
        z = jnp.asarray(z)
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise InputError(
                "z",
                expected=f"codes of shape (rows, {self.latent})",
                got=f"shape {z.shape}",
                remedy="Pass codes of this model: encode(posterior, y).mean.",
            )
        return at_draw(self._decode, drawn_of(posterior, chain, draw))(z, self._given(x, len(z)))

    def reconstruct(
        self, posterior: Posterior, y: Any, x: Any = None, *, chain: int = 0, draw: int = 0
    ) -> Array:
        """Give the mean of p(y | z) at the mean of q(z | y), (rows, *shape)."""
        z, _ = moments(self.encode(posterior, y, x, chain=chain))
        return self.decode(posterior, z, x, chain=chain, draw=draw).mean

    def log_marginal(
        self,
        key: Key | int,
        posterior: Posterior,
        y: Any,
        x: Any = None,
        *,
        samples: int = 1000,
        temperatures: int = 1,
        chain: int = 0,
        draw: int = 0,
        at_once: int = 20_000,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Estimate log p(y | x) of each row, and the estimate's standard error.

        By importance sampling from q(z | y), Burda et al. (2016), equation 8,

            log p(y) >= E log 1/K sum_k p(y, z_k) / q(z_k | y),    z_k ~ q(z | y),

        or annealed from q to the exact posterior (Neal 2001; Wu et al. 2017, whose chains start at
        the prior): nearly from below, and tighter with more samples and temperatures.  With random
        weights it is log p(y) given one draw of them.

        Parameters
        ----------
        samples
            K, or a little more: whole blocks are drawn.  The error of a single one is unknown, 0.
        temperatures
            Steps from q to the exact posterior, each with a transition of Hamiltonian Monte Carlo;
            1 is importance sampling.
        chain, draw
            Which member of an ensemble, and which draw of random weights.
        at_once
            How many pairs of a row and a code are decoded at once; it bounds the memory.

        Returns
        -------
        Both of shape (rows,), in nats; the error is the delta method's.

        Raises
        ------
        InputError
            If y is of another shape.
        """
        require_whole(samples=samples, temperatures=temperatures, at_once=at_once)
        given, drawn = self._given(x, len(y), y), drawn_of(posterior, chain, draw)
        self._require_values(y, self._seen(given))
        rows = jnp.asarray(y), given
        return marginal(as_key(key), self, drawn, rows, samples, temperatures, at_once)

    def require(self, data: Data) -> None:
        """Refuse standardised data, which the verbs could not read: `fit` asks."""
        if data.scaling is not None:
            raise InputError(
                "data",
                expected="data in their own units, as the verbs of a model with codes take",
                got="standardised data",
                remedy="Pass the data as they are, scaled by hand where that is wanted.",
            )

    def examine(self, key: Key, posterior: Posterior, data: Data) -> Posterior:
        """Look a fit over, as `fit` asks of a model that can: see `examined`."""
        by_us = any(name.startswith("encoder") for name in posterior.params)
        return examined(key, self, posterior, data) if by_us else posterior

    def _guess_noise(self) -> None:
        """Declare a point for the noise that a `Normal` likelihood learns, if it does."""
        if getattr(self.likelihood, "noise", 1.0) is None:
            excess: Any = numpyro.param(
                "noise_start", jnp.ones(()), constraint=dist.constraints.positive
            )
            numpyro.sample("noise_excess", dist.Delta(excess))

    def _require_values(self, y: Any, seen: Any) -> None:
        """Refuse values of y, where they are seen, that the likelihood gives no probability."""
        with block(), seed(rng_seed=0):
            support: Any = self.likelihood.distribution(jnp.zeros((1, self.likelihood.outputs)))
        require_support("y", support.support, y, seen)

    def _seen(self, x: Any) -> Any:
        """Tell which entries of y were seen."""
        return True

    def _given(self, x: Any, rows: int, y: Any = None) -> Any:
        """Read the x of a verb."""
        x = np.zeros((rows, 0)) if x is None else np.asarray(x)
        if len(x) != rows:
            raise InputError(
                "x", expected=f"{rows} rows", got=f"{len(x)}", remedy="Pass a row of x for each."
            )
        return self._read(x, y)

    def _guessed(self, *rows: Any) -> Any:
        """Declare the encoder of y, or of y and what it is given, and give q(z | y) of them."""
        rows = tuple(jnp.asarray(part, jnp.result_type(float)) for part in rows)
        shown = [jax.ShapeDtypeStruct((1, *part.shape[1:]), part.dtype) for part in rows]
        network = self.networks.encoder(self.posterior.numbers(self.latent))
        return self.posterior.build(haiku_module("encoder", network, *shown)(*rows), self.latent)

    def _declared(self, z: Array, *more: Any) -> Any:
        """Declare the decoder of z, or of z and more, and give what its outputs say of y."""
        network = self.networks.decoder(self.shape, self.likelihood.outputs)
        inputs = jnp.concatenate([z, *more], axis=-1)
        shown = (1, inputs.shape[-1])
        if self.weights is None:
            decoder = haiku_module("decoder", network, input_shape=shown)
        else:
            decoder = random_haiku_module("decoder", network, self.weights, input_shape=shown)
        return self.likelihood.distribution(decoder(inputs))

    def _require_shape(self, y: Any) -> None:
        if y is not None and jnp.shape(y)[1:] != self.shape:
            raise InputError(
                "y",
                expected=f"rows of shape {self.shape}",
                got=f"shape {jnp.shape(y)[1:]}",
                remedy="Reshape y, images with channels last, or make the model for its shape.",
            )


def drawn_of(posterior: Posterior, chain: int = 0, draw: int = 0) -> tuple[Any, Any]:
    if posterior.scaling is not None:
        raise InputError(
            "posterior",
            expected="a fit of data in their own units, as the verbs of a model with codes take",
            got="one of standardised data",
            remedy="Fit the data as they are, scaled by hand where that is wanted.",
        )
    return one_draw(posterior, chain, draw)
