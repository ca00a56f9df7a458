"""Anchored ensembles: each member's prior has its mean at a draw of the member's own.

    member = argmax_theta  log p(y | theta) + log N(theta; anchor, scale^2),   anchor ~ prior

(Pearce et al. 2020, *Uncertainty in Neural Networks: Approximately Bayesian Ensembling*, equation
9).  Where the data say nothing, members then differ as the prior does.  On a linear model with
noise precision and prior precision P the members' covariance is H^-1 P H^-1, H the posterior's
precision: below the posterior's H^-1, and equal to it in the directions that the data leave open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.primitives import Messenger, mutable

from ..errors import ModelError
from ..noise import normal
from ..types import Model


@dataclass(frozen=True, eq=False)
class anchored:
    """The same model, with normal priors moved to a draw from themselves, anew for each fit.

    The anchors are the fit's state, ``{site}$anchor`` in `Posterior.mutables`; predict with the
    model itself.

    Parameters
    ----------
    model
        A model with normal priors; other priors stay as they are.

    Raises
    ------
    ModelError
        When fitted, if no latent has a normal prior.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> ensemble = ppbdl.Ensemble(ppbdl.MAP(steps=300), members=3)
    >>> ppbdl.fit(0, anchored(model), data, ensemble, progress=False).shape
    (3, 1)
    """

    model: Model

    def __call__(self, x: Any, y: Any = None) -> Any:
        """Run the model, with its priors moved."""
        with _Anchoring():
            return self.model(x, y)


class _Anchoring(Messenger):
    def __enter__(self) -> Any:
        self._found: list[str] = []
        self._anchors = 0
        return super().__enter__()

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        super().__exit__(kind, value, traceback)
        if kind is None and not self._anchors:
            raise ModelError(
                "model",
                expected="a latent with a normal prior, to be anchored",
                got=f"latents {self._found}",
                remedy="Use a plain Ensemble, or normal priors.",
            )

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or msg["is_observed"]:
            return
        self._found.append(msg["name"])
        prior: Any = msg["fn"]
        while isinstance(prior, dist.Independent | dist.ExpandedDistribution):
            prior = prior.base_dist
        if type(prior) is not dist.Normal:
            return
        key: Any = numpyro.prng_key()
        noise = normal(key, msg["fn"].shape(), jnp.result_type(float))
        # Dicts, since NumPyro's mutable sites are changed in place.
        loc, scale = jnp.asarray(prior.loc), jnp.asarray(prior.scale)
        drawn: Any = {"at": loc + scale * noise}
        anchor: Any = mutable(f"{msg['name']}$anchor", drawn)
        msg["fn"] = dist.Normal(anchor["at"], scale).to_event(msg["fn"].event_dim)
        self._anchors += 1
