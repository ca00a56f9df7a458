"""Stochastic gradient Langevin dynamics: half a gradient step, and as much noise.

    u <- u + (h/2) G g + sqrt(h G) xi,    xi ~ N(0, 1)

with g the gradient of the log joint that a minibatch estimates (Welling and Teh 2011; the
convention is told in `stochastic`) and

    G = 1 / (sqrt(V) + 0.01 sqrt(mean V)),    V <- 0.99 V + 0.01 g^2

or 1 if not preconditioned (Li et al. 2016, *Preconditioned Stochastic Gradient Langevin Dynamics*,
with a damping that follows the gradient's size in place of a constant).  V is adapted during
warm-up and frozen from then on: a preconditioner that depends on u would need a term of its
derivatives, which is dear and which Li et al. leave out at a bias; a constant one needs none.

In cycles (Zhang et al. 2020, *Cyclical Stochastic Gradient MCMC*), h falls along a cosine from its
full size to 0 and starts anew, so that a chain sees several modes:

    h_k = (h/2) (cos(pi (k mod K) / K) + 1)

BlackJAX's `sgld` is the same map with h/2 as its step size: from the same noise it takes u to the
same place.  It is not used because its noise, JAX's own, costs nearly as much as an MLP's gradient,
three times what ours does (`tests/benchmarks/sgmcmc.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..data import Data
from ..posterior import Posterior
from ..types import Key, Model
from .stochastic import require_settings, sample


@dataclass(frozen=True)
class SGLD:
    """Settings of stochastic gradient Langevin dynamics.

    Parameters
    ----------
    step_size
        The h of the update, or a function from the step to it.  Stable below 4 over the log
        joint's largest curvature, which grows with the number of rows; with a preconditioner h/2
        is about what the gradient moves a coordinate by in a step.  The run warns if the draws'
        variance is more than a tenth too large, and names a step size that would do.
    draws, thinning
        Draws kept of each chain, and the steps from one to the next.
    warmup
        Steps at the start of each chain, or of each cycle, that are not kept.
    chains
        Number of chains, run in as many threads.
    batch_size
        Rows in a minibatch; None uses all the rows at every step.
    preconditioned
        Whether a diagonal preconditioner is adapted in warm-up.
    cycles
        Number of cycles, which share the draws; each begins with `warmup` steps without noise.
        None keeps to the step size.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> sgld = SGLD(1e-4, draws=50, chains=2, batch_size=10)
    >>> ppbdl.fit(0, model, data, sgld, progress=False).draws["weights"].shape
    (2, 50, 1)
    """

    step_size: float | Callable[[Any], Any]
    draws: int = 1000
    thinning: int = 10
    warmup: int = 1000
    chains: int = 4
    batch_size: int | None = None
    preconditioned: bool = False
    cycles: int | None = None

    def __post_init__(self) -> None:
        require_settings(self)

    @property
    def name(self) -> str:
        """The method's name in tables."""
        return f"{'cyclical ' * bool(self.cycles)}{'p' * self.preconditioned}SGLD"

    def run(self, key: Key, model: Model, data: Data, *, progress: bool = False) -> Posterior:
        """Draw from near the posterior.

        Raises
        ------
        ModelError, InputError
            If the model has no continuous latents, subsamples, learns parameters or has state, or
            the batch is larger than the data.
        FitError
            If a NaN or an infinity arises; it names the step and the site, and keeps the draws.

        Warns
        -----
        RuntimeWarning
            If the step size makes the draws too wide, or leaves them where they start.
        """
        return sample(key, model, data, self, preconditioned=self.preconditioned, progress=progress)
