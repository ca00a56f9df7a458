"""The No-U-Turn sampler: Hamiltonian trajectories that stop where they would turn back.

Hoffman and Gelman (2014), with multinomial sampling of the trajectory and Stan's windowed
adaptation of the step size and of a diagonal mass matrix (Betancourt 2017).  The kernel is
NumPyro's; `tests/benchmarks/nuts_kernels.py` measures it against BlackJAX's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..data import Data
from ..errors import require_whole
from ..posterior import Posterior
from ..types import Array, Key, Model
from .hmc import hamiltonian, require_acceptance
from .sampling import Kernel, sample


@dataclass(frozen=True)
class NUTS:
    """Settings of the No-U-Turn sampler.

    Parameters
    ----------
    draws, warmup
        Draws kept and draws spent on adaptation, in each chain.
    chains
        Number of chains, run in as many threads.
    target_accept
        Acceptance probability that the step size is adapted to.
    max_tree_depth
        A trajectory has at most 2^max_tree_depth - 1 steps.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> nuts = NUTS(draws=50, warmup=50, chains=2)
    >>> ppbdl.fit(0, model, data, nuts, progress=False).draws["weights"].shape
    (2, 50, 1)
    """

    draws: int = 1000
    warmup: int = 1000
    chains: int = 4
    target_accept: float = 0.8
    max_tree_depth: int = 10

    name = "NUTS"
    together = False

    def __post_init__(self) -> None:
        require_whole(
            draws=self.draws,
            warmup=self.warmup,
            chains=self.chains,
            max_tree_depth=self.max_tree_depth,
        )
        require_acceptance(self.target_accept)

    @property
    def adapting(self) -> int:
        """Steps to be thrown away."""
        return self.warmup

    def kernel(self, energy: Callable[..., Array], size: int) -> Kernel:
        """Make NumPyro's kernel for a potential energy ``(flat, x, y) -> U``."""
        return hamiltonian(
            energy,
            "NUTS",
            num_warmup=self.warmup,
            target_accept_prob=self.target_accept,
            max_tree_depth=self.max_tree_depth,
        )

    def run(self, key: Key, model: Model, data: Data, *, progress: bool = False) -> Posterior:
        """Draw from the posterior.

        Raises
        ------
        ModelError
            If the model has no continuous latents, subsamples, or learns parameters.
        FitError
            If the density is not finite at any of the starting points tried.
        """
        return sample(key, model, data, self, progress=progress)
