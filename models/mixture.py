"""A mixture of Gaussians, the baseline that flows are held against.

    y ~ sum_k w_k N(m_k, L_k L_k'),    L_k = diag(s_k) (I + T_k),  T_k strictly lower triangular

Bishop (2006), *Pattern Recognition and Machine Learning*, section 9.2.  The component is summed
out, so that any gradient method fits it.  The likelihood alone is unbounded: a component that
shrinks onto one row has infinite density.  The priors, wide for standardised data, forbid it:

    w ~ Dirichlet(1, ..., 1),  m ~ N(0, 3^2),  log s ~ N(-1, 1),  T ~ N(0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from ppbdl.errors import InputError, require_whole
from ppbdl.types import Array, Key


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A density over vectors: Gaussian components with full covariances.

    `MAP` gives the regularised maximum likelihood; it starts from rows that lie apart, as k-means++
    does (Arthur and Vassilvitskii 2007).  The components may change places: with several chains or
    an ensemble compare densities, not parameters.

    Parameters
    ----------
    features
        Width of y, (rows, features); standardise it (`Data.standardized`).
    components
        Number of components.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> rng = np.random.default_rng(0)
    >>> y = np.where(rng.uniform(size=(300, 1)) < 0.5, -3, 3) + rng.normal(size=(300, 2))
    >>> data = ppbdl.Data(None, y).standardized()
    >>> model = GaussianMixture(features=2, components=2)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.MAP(steps=300), progress=False)
    >>> np.sort(posterior.draws["locs"][0, 0, :, 0]).round().tolist()
    [-1.0, 1.0]
    """

    features: int
    components: int

    def __post_init__(self) -> None:
        require_whole(features=self.features, components=self.components)

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare ``weights``, ``locs``, ``scales``, ``tilts`` (T), ``scale_tril`` (L), ``y``."""
        self._require(x, y)
        k, n = self.components, self.features

        def normal(loc: float, scale: float, *shape: int) -> Any:
            return dist.Normal(loc, scale).expand([*shape]).to_event(len(shape))

        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(k)), infer=_at(1 / k))
        locs: Any = numpyro.sample("locs", normal(0.0, 3.0, k, n), infer=_spread(y, 0))
        scale_prior = dist.LogNormal(-1.0, 1.0).expand([k, n]).to_event(2)
        scales: Any = numpyro.sample("scales", scale_prior, infer=_spread(y, 1))
        tilts = jnp.zeros((k, 0))
        if n > 1:
            tilts = numpyro.sample("tilts", normal(0.0, 1.0, k, n * (n - 1) // 2), infer=_at(0.0))
        rows, columns = jnp.tril_indices(n, -1)
        shear = jnp.broadcast_to(jnp.eye(n), (k, n, n)).at[:, rows, columns].set(tilts)
        scale_tril = numpyro.deterministic("scale_tril", scales[..., None] * shear)
        mixture = dist.MixtureSameFamily(
            dist.Categorical(probs=weights), dist.MultivariateNormal(locs, scale_tril=scale_tril)
        )
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", mixture, obs=y)

    def _require(self, x: Any, y: Any) -> None:
        if jnp.shape(x)[1:] != (0,):
            raise InputError(
                "x",
                expected="no inputs: shape (rows, 0)",
                got=f"shape {jnp.shape(x)}",
                remedy="Pass Data(None, y); a density given x is NSF or a BNN with SplineNoise.",
            )
        if y is not None and jnp.shape(y)[1:] != (self.features,):
            raise InputError(
                "y",
                expected=f"shape (rows, {self.features}), the mixture's features",
                got=f"shape {jnp.shape(y)}",
                remedy="Make the model for the width of y; a single feature needs y[:, None].",
            )


def _at(value: float) -> dict[str, Any]:
    return {"init": lambda site: jnp.full(site["fn"].shape(), value)}


def _spread(y: Any, which: int) -> dict[str, Any]:
    """Start at centres among the rows of y, or at the rows' spread about such centres."""
    if y is None:
        return {}

    def start(site: dict[str, Any]) -> Array:
        shape = site["fn"].shape()
        return jnp.broadcast_to(_centres(site["kwargs"]["rng_key"], y, shape[0])[which], shape)

    return {"init": start}


def _centres(key: Key, y: Array, number: int) -> tuple[Array, Array]:
    """Draw rows that lie apart; and give the standard deviation about the nearest."""
    y = jnp.asarray(y)

    def nearest(centre: Array, before: Any) -> Array:
        return jnp.minimum(before, ((y - centre) ** 2).sum(-1))

    keys = jax.random.split(key, number)
    centres = [y[jax.random.randint(keys[0], (), 0, len(y))]]
    squared = nearest(centres[0], jnp.inf)
    for key in keys[1:]:
        # The logarithm of 0 where the row is a centre already: it is never drawn again.
        centres.append(y[jax.random.categorical(key, jnp.log(squared))])
        squared = nearest(centres[-1], squared)
    spread = jnp.sqrt(squared.mean() / y.shape[-1])
    return jnp.stack(centres), jnp.maximum(spread, 1e-2)
