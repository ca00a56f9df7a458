"""A variational autoencoder: y is what is generated; ``x`` is (rows, 0), or tells what was seen.

z ~ p(z),    y ~ likelihood(decoder(z)),    q(z | y) = posterior(encoder(y))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppbdl.data import Data
from ppbdl.errors import InputError
from ppbdl.posterior import Posterior, at_draw
from ppbdl.types import Array, Key, as_key

from .codes import CodePrior, StandardNormal
from .latent_variable import LatentVariableModel, drawn_of


@dataclass(frozen=True, eq=False)
class VAE(LatentVariableModel):
    """A variational autoencoder: Kingma and Welling (2014), *Auto-Encoding Variational Bayes*.

    For the parameters see `LatentVariableModel`.  Where entries of y are missing, x tells which
    were seen, as 1 and 0 of y's shape: the likelihood is that of the seen ones, the encoder sees 0
    for the others, and `reconstruct` fills them in.  That entries are missing must not depend on
    their values, given the seen ones (missing at random); what y has in their place counts for
    nothing, but must be a number.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> from ppbdl.models import Dense, Normal
    >>> y = np.random.default_rng(0).normal(size=(64, 4))
    >>> vae = VAE(shape=(4,), likelihood=Normal(1.0), networks=Dense((16,)))
    >>> svi = ppbdl.SVI(vae.guide, steps=50, draws=4)
    >>> posterior = ppbdl.fit(0, vae, ppbdl.Data(None, y), svi, progress=False)
    >>> vae.encode(posterior, y).mean.shape, vae.reconstruct(posterior, y).shape
    ((64, 2), (64, 4))
    >>> vae.sample(1, posterior, rows=5).shape
    (5, 4)
    """

    prior: CodePrior = StandardNormal()

    def sample(
        self, key: Key | int, posterior: Posterior, rows: int, *, chain: int = 0, draw: int = 0
    ) -> Array:
        """Draw rows of y, (rows, *shape)."""
        keys, drawn = jax.random.split(as_key(key)), drawn_of(posterior, chain, draw)
        z = at_draw(self._prior, drawn)(None).sample(keys[0], (rows,))
        return at_draw(self._decode, drawn)(z, None).sample(keys[1])

    def require(self, data: Data) -> None:
        """Refuse standardised data, and seen values that have no probability."""
        super().require(data)
        seen = self._read(data.x, data.y)
        if seen is not None:  # else every value has been looked at
            self._require_values(data.y, seen)

    def _seen(self, x: Any) -> Any:
        return True if x is None else x

    def _read(self, x: Any, y: Any) -> Any:
        self._require_shape(y)
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

    def _prior(self, x: Any) -> Any:
        return self.prior.build(self.latent, self.shape, lambda y: self._encode(y, None))

    def _encode(self, y: Any, x: Any) -> Any:
        return self._guessed(y if x is None else jnp.where(x, y, 0))

    def _decode(self, z: Any, x: Any) -> Any:
        fn = self._declared(z)
        return (fn if x is None else fn.mask(x)).to_event(len(self.shape))
