"""A variational autoencoder: a code for each row, a network that decodes it, one that guesses it.

    z ~ p(z),    y ~ likelihood(decoder(z)),    q(z | y) = posterior(encoder(y))

Kingma and Welling (2014), *Auto-Encoding Variational Bayes*; Rezende et al. (2014).  y is what is
generated; ``x`` is (rows, 0), or tells which entries of y were seen.  The networks' weights are
parameters, so that ``SVI(vae.guide)`` maximises the evidence lower bound.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from ppbdl.errors import InputError, require_whole
from ppbdl.module import haiku_module
from ppbdl.posterior import Posterior, at_draw, one_draw
from ppbdl.types import Array, Key, as_key

from .codes import CodePosterior, CodePrior, DiagonalNormal, StandardNormal
from .likelihoods import Bernoulli, Likelihood
from .networks import Dense


@dataclass(frozen=True, eq=False)
class VAE:
    """A variational autoencoder.

    Its bound's two parts are weighed by ``SVI(temperature=beta)``, which is beta-VAE (Higgins et
    al. 2017); a schedule of it is the annealing of the divergence.

    Parameters
    ----------
    shape
        Of a row of y: (features,), or (height, width, channels).
    latent
        Dimension of the code, the site ``z`` (rows, latent).
    likelihood
        What the decoder's outputs say of each entry of y: `Bernoulli` (y of 0 and 1; of grey values
        its score is no density), `ContinuousBernoulli`, `DiscretizedLogistic`, `Normal(noise)`,
        `HeteroscedasticNormal`, `Categorical`, ...
    networks
        `Dense` or `Convolutional`: the encoder and the decoder.
    posterior
        The family of q(z | y): `DiagonalNormal`, `FullNormal` or `FlowPosterior`.
    prior
        p(z): `StandardNormal`, `MixturePrior`, `VampPrior` or `FlowPrior`.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> from ppbdl.models import Normal
    >>> y = np.random.default_rng(0).normal(size=(64, 4))
    >>> vae = VAE(shape=(4,), likelihood=Normal(1.0), networks=Dense((16,)))
    >>> svi = ppbdl.SVI(vae.guide, steps=50, draws=4)
    >>> posterior = ppbdl.fit(0, vae, ppbdl.Data(None, y), svi, progress=False)
    >>> vae.encode(posterior, y).mean.shape, vae.reconstruct(posterior, y).shape
    ((64, 2), (64, 4))
    >>> vae.sample(1, posterior, rows=5).shape
    (5, 4)
    """

    shape: tuple[int, ...]
    latent: int = 2
    likelihood: Likelihood = Bernoulli()
    networks: Any = Dense()
    posterior: CodePosterior = DiagonalNormal()
    prior: CodePrior = StandardNormal()

    def __post_init__(self) -> None:
        require_whole(latent=self.latent, **{f"shape[{i}]": n for i, n in enumerate(self.shape)})

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare the generative model."""
        seen = self._seen(x, y)
        prior = self._prior()
        rows = numpyro.plate("data", x.shape[0])
        with rows:
            # A code says nothing of other rows: it is drawn anew for each, never kept.
            z: Any = numpyro.sample("z", prior, infer={"local": True})
        fn = self._decode(z, seen)
        with rows:
            numpyro.sample("y", fn, obs=y)

    def guide(self, x: Any, y: Any = None) -> None:
        """Declare the amortised posterior q(z | y)."""
        if self._learns_noise:
            excess: Any = numpyro.param(
                "noise_start", jnp.ones(()), constraint=dist.constraints.positive
            )
            numpyro.sample("noise_excess", dist.Delta(excess))
        seen = self._seen(x, y)
        q = self._encode(y if seen is None else jnp.where(seen, y, 0))
        with numpyro.plate("data", x.shape[0]):
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
            Where y was seen, (rows, *shape); None if everywhere.
        chain
            Which member of an ensemble.
        """
        seen = self._seen(np.zeros((len(y), 0)) if x is None else x, y)
        y = jnp.asarray(y, float) if seen is None else jnp.where(seen, y, 0.0)
        return at_draw(self._encode, _drawn(posterior, chain))(y)

    def decode(self, posterior: Posterior, z: Any, *, chain: int = 0, draw: int = 0) -> Any:
        """Give p(y | z), a distribution of (rows, *shape), for codes of (rows, latent)."""
        return at_draw(self._decode, _drawn(posterior, chain, draw))(jnp.asarray(z))

    def reconstruct(self, posterior: Posterior, y: Any, x: Any = None, *, chain: int = 0) -> Array:
        """Give the mean of p(y | z) at the mean of q(z | y), (rows, *shape)."""
        return self.decode(
            posterior, self.encode(posterior, y, x, chain=chain).mean, chain=chain
        ).mean

    def sample(
        self, key: Key | int, posterior: Posterior, rows: int, *, chain: int = 0, draw: int = 0
    ) -> Array:
        """Draw rows of y, (rows, *shape)."""
        keys = jax.random.split(as_key(key))
        z = at_draw(self._prior, _drawn(posterior, chain, draw))().sample(keys[0], (rows,))
        return self.decode(posterior, z, chain=chain, draw=draw).sample(keys[1])

    def log_marginal(
        self,
        key: Key | int,
        posterior: Posterior,
        y: Any,
        x: Any = None,
        *,
        samples: int = 1000,
        chain: int = 0,
        at_once: int = 20_000,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Estimate log p(y) of each row by importance sampling, and the estimate's standard error.

            log p(y) >= E log 1/K sum_k p(y, z_k) / q(z_k | y),    z_k ~ q(z | y)

        Burda et al. (2016), equation 8: from below, and tighter with more samples.

        Parameters
        ----------
        samples
            K.
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
        require_whole(samples=samples, at_once=at_once)
        seen = self._seen(np.zeros((len(y), 0)) if x is None else x, y)
        codes = max(1, min(samples, at_once // 100))
        times, rows = -(-samples // codes), max(1, at_once // codes)
        drawn, found = _drawn(posterior, chain), []
        for first in range(0, len(y), rows):
            here = jax.random.fold_in(as_key(key), first)
            part = None if seen is None else seen[first : first + rows]
            inputs = jnp.asarray(y[first : first + rows]), part
            found.append(_sums(self, codes, here, drawn, times, *inputs))
        log_sum, log_squares = np.concatenate(found, axis=1)
        count = codes * times
        error = np.sqrt(np.maximum(np.exp(log_squares - 2 * log_sum) - 1 / count, 0.0))
        return log_sum - np.log(count), error

    @property
    def _learns_noise(self) -> bool:
        return getattr(self.likelihood, "noise", 1.0) is None

    def _prior(self) -> Any:
        return self.prior.build(self.latent, self.shape, self._encode)

    def _encode(self, y: Any) -> Any:
        numbers = self.posterior.numbers(self.latent)
        shown = jax.ShapeDtypeStruct((1, *self.shape), jnp.result_type(float))
        encoder = haiku_module("encoder", self.networks.encoder(numbers), shown)
        return self.posterior.build(encoder(jnp.asarray(y, shown.dtype)), self.latent)

    def _decode(self, z: Any, seen: Any = None) -> Any:
        network = self.networks.decoder(self.shape, self.likelihood.outputs)
        decoder = haiku_module("decoder", network, input_shape=(1, self.latent))
        fn = self.likelihood.distribution(decoder(z))
        return (fn if seen is None else fn.mask(seen)).to_event(len(self.shape))

    def _seen(self, x: Any, y: Any) -> Any:
        """Tell which entries of y were seen; None for all."""
        if y is not None and jnp.shape(y)[1:] != self.shape:
            raise InputError(
                "y",
                expected=f"rows of shape {self.shape}",
                got=f"shape {jnp.shape(y)[1:]}",
                remedy="Reshape y, images with channels last, or make the model for its shape.",
            )
        if jnp.shape(x)[1:] == (0,):
            return None
        if jnp.shape(x)[1:] != self.shape:
            raise InputError(
                "x",
                expected=f"None, or which entries of y were seen: rows of shape {self.shape}",
                got=f"shape {jnp.shape(x)[1:]}",
                remedy="Pass 1 where y was seen and 0 where not.",
            )
        return jnp.asarray(x) != 0


def _drawn(posterior: Posterior, chain: int = 0, draw: int = 0) -> tuple[Any, Any]:
    if posterior.scaling is not None and posterior.scaling.y_mean is not None:
        raise InputError(
            "posterior",
            expected="a fit of y in its own units, in which a likelihood of pixels is defined",
            got="one of standardised y",
            remedy="Fit Data(None, y), scaled by hand where that is wanted.",
        )
    return one_draw(posterior, chain, draw)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sums(
    vae: VAE, codes: int, key: Key, drawn: Any, times: int, y: Array, seen: Array | None
) -> Array:
    """Sum each row's importance weights and their squares, as logarithms: (2, rows)."""
    q = at_draw(vae._encode, drawn)(y if seen is None else jnp.where(seen, y, 0))
    prior = at_draw(vae._prior, drawn)()

    def add(i: Any, sums: Array) -> Array:
        z = q.sample(jax.random.fold_in(key, i), (codes,))
        shown = None if seen is None else jnp.tile(seen, (codes, *[1] * len(vae.shape)))
        fn = at_draw(vae._decode, drawn)(z.reshape(-1, vae.latent), shown)
        fits = fn.log_prob(jnp.tile(y, (codes, *[1] * len(vae.shape)))).reshape(codes, -1)
        weights = fits + prior.log_prob(z) - q.log_prob(z)
        both = jnp.stack([weights, 2 * weights])
        return jnp.logaddexp(sums, jax.nn.logsumexp(both, axis=1))

    start = jnp.full((2, len(y)), -jnp.inf)
    return jax.lax.fori_loop(0, times, add, start)
