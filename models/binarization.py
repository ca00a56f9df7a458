"""Dynamic binarisation: grey pixels are probabilities, of which every step sees a fresh draw.

    maximise E[bound on log p(b)],    b ~ Bernoulli(y),    y in [0, 1]

Salakhutdinov and Murray (2008), *On the quantitative analysis of deep belief networks*; Burda et
al. (2016), section 5.  The published log-likelihoods of binary digits are of models fitted so, of
test images that were drawn once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import constraints
from numpyro.primitives import mutable

from ppbdl.data import Data
from ppbdl.posterior import Posterior
from ppbdl.structure import require_support
from ppbdl.types import Array, Examining, Key, Requiring


@dataclass(frozen=True, eq=False)
class Binarized:
    """An autoencoder of binary images, fitted to grey ones: to a new draw of them at every step.

    It serves the fit alone.  The verbs, such as ``vae.log_marginal``, are those of `model`, take
    the fit's posterior, and are given binary images.

    Parameters
    ----------
    model
        A `VAE`, or another model with a guide, of y in {0, 1}.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> from ppbdl.models import VAE, Binarized, Dense
    >>> grey = np.random.default_rng(0).uniform(size=(50, 4, 4, 1))
    >>> vae = VAE((4, 4, 1), networks=Dense((8,)))
    >>> model = Binarized(vae)
    >>> svi = ppbdl.SVI(model.guide, steps=50, batch_size=10, draws=1)
    >>> posterior = ppbdl.fit(0, model, ppbdl.Data(None, grey), svi, progress=False)
    >>> vae.reconstruct(posterior, grey > 0.5).shape
    (50, 4, 4, 1)
    """

    model: Any

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare the model of a draw of y."""
        self.model(x, None if y is None else _drawn(y))

    def guide(self, x: Any, y: Any = None) -> None:
        """Declare the model's guide, given the same draw of y."""
        self.model.guide(x, _drawn(y))

    def require(self, data: Data) -> None:
        """Refuse what is no probability, and what the model refuses."""
        require_support("y", constraints.unit_interval, data.y)
        if isinstance(self.model, Requiring):
            self.model.require(replace(data, y=np.rint(data.y).astype(int)))

    def examine(self, key: Key, posterior: Posterior, data: Data) -> Posterior:
        """Look a fit over, if the model looks over its own."""
        if isinstance(self.model, Examining):
            return self.model.examine(key, posterior, data)
        return posterior


def _drawn(y: Any) -> Array:
    # The key is kept as state, which a step gives alike to the model, to the guide, and to each
    # particle of a bound of several: it is the step's draw, not theirs.
    start: Any = {"key": _start()}
    state: Any = mutable("binarization$state", start)
    key, now = jax.random.split(jax.random.wrap_key_data(state["key"]))
    state["key"] = jax.random.key_data(key)
    drawn = jnp.where(jax.random.uniform(now, jnp.shape(y)) < y, 1.0, 0.0)
    return jnp.where((y >= 0) & (y <= 1), drawn, jnp.nan)  # no probability: the fit stops


def _start() -> Array:
    key = numpyro.prng_key()
    return jax.random.key_data(jax.random.key(0) if key is None else key)
