"""Autoencoders of y given x: an image given a part of it, a field given a few measurements.

    z ~ p(z | x),    y ~ likelihood(decoder(z, x)),    q(z | y, x) = posterior(encoder(y, x))

Sohn et al. (2015), *Learning Structured Output Representation using Deep Conditional Generative
Models*, equation 4; in the semi-conditional autoencoder of Gundersen et al. (2021) the encoder
sees y alone, which holds the measurements, and p(z) may be free of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppbdl.errors import InputError, require_whole
from ppbdl.module import haiku_module
from ppbdl.posterior import Posterior, at_draw
from ppbdl.types import Array, Key, as_key

from .codes import CodePrior, DiagonalNormal, StandardNormal, VampPrior
from .latent_variable import LatentVariableModel, drawn_of
from .networks import Convolutional, Dense

_SUMMARY = 64  # numbers by which the decoder knows an x that is an image


def _sample(
    self: CVAE | SCVAE,
    key: Key | int,
    posterior: Posterior,
    x: Any,
    draws: int = 1,
    *,
    chain: int = 0,
    draw: int = 0,
) -> Array:
    """Draw from p(y | x), (draws, rows, *shape)."""
    require_whole(draws=draws)
    keys, drawn = jax.random.split(as_key(key)), drawn_of(posterior, chain, draw)
    x = self._read(np.asarray(x), None)
    prior = at_draw(self._prior, drawn)(x)
    z = prior.sample(keys[0], (draws, *((len(x),) if not prior.batch_shape else ())))
    every = jnp.tile(x, (draws, *[1] * (x.ndim - 1)))
    y = at_draw(self._decode, drawn)(z.reshape(-1, self.latent), every).sample(keys[1])
    return y.reshape(draws, len(x), *self.shape)


@dataclass(frozen=True, eq=False)
class CVAE(LatentVariableModel):
    """A conditional variational autoencoder: Sohn et al. (2015).

    `predict` gives the moments of y given x, the code drawn anew from p(z | x) for each of the
    fit's draws: ask for some, ``SVI(..., draws=200)``.

    Parameters
    ----------
    shape, latent, likelihood, networks, posterior, weights
        As for `LatentVariableModel`.
    given
        Shape of a row of x: (features,), or (height, width, channels).
    prior
        p(z): None makes it p(z | x), a normal whose moments a network of x gives.  Warm its
        divergence up, ``temperature=optax.linear_schedule(0.0, 1.0, 500)``, or dimensions of the
        code may stay unused.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> from ppbdl.models import Dense, Normal
    >>> rows = np.random.default_rng(0).normal(size=(64, 4))
    >>> cvae = CVAE(shape=(3,), given=(1,), likelihood=Normal(1.0), networks=Dense((16,)))
    >>> data = ppbdl.Data(rows[:, :1], rows[:, 1:])
    >>> svi = ppbdl.SVI(cvae.guide, steps=50, draws=4)
    >>> posterior = ppbdl.fit(0, cvae, data, svi, progress=False)
    >>> cvae.sample(1, posterior, rows[:5, :1], draws=10).shape
    (10, 5, 3)
    """

    prior: CodePrior | None = None
    given: tuple[int, ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(**{f"given[{i}]": n for i, n in enumerate(self.given)})
        if isinstance(self.prior, VampPrior):
            raise InputError(
                "prior",
                expected="one without pseudo-inputs: the encoder wants an x for each",
                got="VampPrior",
                remedy="Take MixturePrior, or None for p(z | x).",
            )

    sample = _sample

    def _read(self, x: Any, y: Any) -> Any:
        self._require_shape(y)
        if jnp.shape(x)[1:] != self.given:
            raise InputError(
                "x",
                expected=f"rows of shape {self.given}, what y is given",
                got=f"shape {jnp.shape(x)[1:]}",
                remedy="Reshape x, or make the model for its shape.",
            )
        return jnp.asarray(x, jnp.result_type(float))

    def _prior(self, x: Any) -> Any:
        return _prior_given(self, x)

    def _encode(self, y: Any, x: Any) -> Any:
        return self._guessed(y, x)

    def _decode(self, z: Any, x: Any) -> Any:
        if len(self.given) > 1:
            x = haiku_module("summary", self.networks.encoder(_SUMMARY), x[:1])(x)
        return self._declared(z, x).to_event(len(self.shape))


@dataclass(frozen=True, eq=False)
class SCVAE(LatentVariableModel):
    """A semi-conditional variational autoencoder: Gundersen et al. (2021), *Semi-Conditional VAE*.

    It reconstructs a field y from its values at a few sensors, x = ``measure(y)``, as a posterior
    over fields: `sample`, or the moments of `predict`, by as many codes as the fit has draws.

    Parameters
    ----------
    shape, latent, likelihood, networks, posterior, weights
        As for `LatentVariableModel`.
    sensors
        Where y is measured: indices into (features,), or pairs (i, j) into (height, width,
        channels), of which all channels are measured.
    prior
        p(z), which the measurements do not move; None makes it p(z | x), a normal whose moments
        a network of x gives, and which wants its divergence warmed up as `CVAE`'s does.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> from ppbdl.models import Dense, Normal
    >>> waves = np.sin(np.linspace(0, 6, 20) + np.random.default_rng(0).uniform(0, 6, (64, 1)))
    >>> model = SCVAE((20,), sensors=(3, 12), likelihood=Normal(0.1), networks=Dense((16,)))
    >>> data = ppbdl.Data(model.measure(waves), waves)
    >>> svi = ppbdl.SVI(model.guide, steps=50, draws=4)
    >>> posterior = ppbdl.fit(0, model, data, svi, progress=False)
    >>> ppbdl.predict(1, model, posterior, model.measure(waves[:5])).mean.shape
    (5, 20)
    """

    prior: CodePrior | None = StandardNormal()
    sensors: tuple[Any, ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = self.shape[:2]
        given = [(each,) if np.ndim(each) == 0 else tuple(each) for each in self.sensors]
        known = set(np.ndindex(*sides))
        if not given or len(set(given) & known) < len(given):
            example = "(3, 12)" if len(sides) == 1 else "((3, 4), (10, 2))"
            raise InputError(
                "sensors",
                expected=f"at least one place, all different and within {sides}, such as {example}",
                got=repr(self.sensors),
                remedy="Name each place by its indices, once.",
            )

    def measure(self, y: Any) -> Array:
        """Give the values of fields (rows, *shape) at the sensors, (rows, numbers)."""
        self._require_shape(y)
        places = np.asarray(self.sensors, int).reshape(len(self.sensors), -1)
        return jnp.asarray(y)[:, *places.T].reshape(len(y), -1)

    sample = _sample

    def _read(self, x: Any, y: Any) -> Any:
        self._require_shape(y)
        numbers = len(self.sensors) * (1 if len(self.shape) == 1 else self.shape[2])
        if jnp.shape(x)[1:] != (numbers,):
            raise InputError(
                "x",
                expected=f"the {numbers} measurements of each row",
                got=f"shape {jnp.shape(x)[1:]}",
                remedy="Pass measure(y): Data(model.measure(y), y).",
            )
        return jnp.asarray(x, jnp.result_type(float))

    def _prior(self, x: Any) -> Any:
        return _prior_given(self, x)

    def _encode(self, y: Any, x: Any) -> Any:
        return self._guessed(y)

    def _decode(self, z: Any, x: Any) -> Any:
        return self._declared(z, x).to_event(len(self.shape))


def _prior_given(model: CVAE | SCVAE, x: Array) -> Any:
    if model.prior is not None:
        return model.prior.build(model.latent, model.shape, lambda y: model._encode(y, x))
    images = isinstance(model.networks, Convolutional) and x.ndim == 2  # which x is not
    networks = Dense() if images else model.networks
    normal = DiagonalNormal()
    network = haiku_module("prior", networks.encoder(normal.numbers(model.latent)), x[:1])
    return normal.build(network(x), model.latent)
