"""Start a fit where another one ended: a mean-field guide at a MAP fit, NUTS at a guide's mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.primitives import Messenger

from ..posterior import Posterior
from ..types import Array, Model


@dataclass(frozen=True, eq=False)
class start_at:
    """The same model, whose fits start at a posterior's mean.

    Latents start at the mean of the draws of the posterior's first chain, and learned parameters
    and state (BatchNorm's) where that chain ended.  What the posterior lacks starts as ever.  All
    chains or members start at the same place.

    Parameters
    ----------
    model
        A model with latents, or parameters, of the posterior's names and shapes.
    posterior
        What a fit of this model, or of one like it, gave.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> mode = ppbdl.fit(0, model, data, ppbdl.MAP(steps=300), progress=False)
    >>> started = start_at(model, mode)
    >>> ppbdl.fit(1, started, data, ppbdl.SVI(steps=100, draws=5), progress=False).shape
    (1, 5)
    """

    model: Model
    posterior: Posterior

    def __call__(self, x: Any, y: Any = None) -> Any:
        """Run the model, with the hints."""
        with _Starting(self.posterior):
            return self.model(x, y)


class _Starting(Messenger):
    def __init__(self, posterior: Posterior):
        self._draws = posterior.draws
        self._learned = {**posterior.params, **posterior.mutables}
        super().__init__()

    def process_message(self, msg: dict[str, Any]) -> None:
        name: Any = msg.get("name")
        if msg["type"] == "sample" and not msg["is_observed"] and name in self._draws:
            value = jnp.mean(self._draws[name][0], axis=0)
            msg["infer"] = msg["infer"] | {"init": _At(value)}
        elif msg["type"] in ("param", "mutable") and name in self._learned:
            value = jax.tree.map(lambda a: jnp.asarray(a[0]), self._learned[name])
            msg["fn"] = lambda *args, **kwargs: value


@dataclass(frozen=True, eq=False)
class _At:
    value: Array

    def __call__(self, site: dict[str, Any]) -> Array:
        return jnp.broadcast_to(self.value, site["fn"].shape())
