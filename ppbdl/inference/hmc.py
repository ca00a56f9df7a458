"""Hamiltonian Monte Carlo: trajectories of a fixed length, accepted or rejected as a whole.

    r ~ N(0, M),   (u, r) -> leapfrog over the time T,   accepted with min(1, exp(H(u, r) - H'))

with H(u, r) = U(u) + r' M^-1 r / 2 (Duane et al. 1987; Neal 2011).  The kernel and Stan's windowed
adaptation of the step size and of a diagonal mass matrix M are NumPyro's, the same as NUTS's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
from numpyro.infer.hmc import hmc

from ..data import Data
from ..errors import InputError, require_positive, require_whole
from ..posterior import Posterior
from ..types import Array, Key, Model
from .sampling import Kernel, sample

STEPS = 1000  # of a trajectory, at most


@dataclass(frozen=True)
class HMC:
    """Settings of Hamiltonian Monte Carlo.

    Once M has taken up the scales, a direction of a Gaussian posterior turns with the period 2 pi:
    after a quarter of it the next draw is independent, after all of it back where it was.  A
    correlated posterior has slower directions, and asks for a longer trajectory; one whose period
    divides the trajectory's length hardly moves.  NUTS and ChEES have no such length to choose.

    Parameters
    ----------
    draws, warmup
        Draws kept and draws spent on adaptation, in each chain.
    chains
        Number of chains, run in as many threads.
    target_accept
        Acceptance probability that the step size is adapted to.
    trajectory_length
        The time T, in units of the adapted scales; a trajectory has at most 1,000 steps.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> hmc = HMC(draws=50, warmup=50, chains=2)
    >>> ppbdl.fit(0, model, data, hmc, progress=False).draws["weights"].shape
    (2, 50, 1)
    """

    draws: int = 1000
    warmup: int = 1000
    chains: int = 4
    target_accept: float = 0.8
    trajectory_length: float = math.pi / 2

    name = "HMC"
    together = False

    def __post_init__(self) -> None:
        require_whole(draws=self.draws, warmup=self.warmup, chains=self.chains)
        require_acceptance(self.target_accept)
        require_positive(trajectory_length=self.trajectory_length)

    @property
    def adapting(self) -> int:
        """Steps to be thrown away."""
        return self.warmup

    def kernel(self, energy: Callable[..., Array], size: int) -> Kernel:
        """Make NumPyro's kernel for a potential energy ``(flat, x, y) -> U``."""
        return hamiltonian(
            energy,
            "HMC",
            num_warmup=self.warmup,
            target_accept_prob=self.target_accept,
            trajectory_length=self.trajectory_length,
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


def hamiltonian(energy: Callable[..., Array], algo: str, **settings: Any) -> Kernel:
    """Make NumPyro's kernel ("HMC" or "NUTS") with its adaptation."""

    def at(x: Any, y: Any) -> Callable[[Array], Array]:
        return lambda flat: energy(flat, x, y)

    init, advance = hmc(potential_fn_gen=at, algo=algo)

    def start(key: Key, first: Any, x: Any, y: Any) -> tuple[Any, int]:
        return init(first, model_args=(x, y), rng_key=key, **settings), 0

    def step(state: Any, x: Any, y: Any) -> Any:
        if algo == "HMC":
            # Before the mass matrix has adapted, the steps may be too small by orders of magnitude.
            most = (STEPS - 0.5) * state.adapt_state.step_size
            length = jnp.minimum(settings["trajectory_length"], most)
            state = state._replace(trajectory_length=length)
        return advance(state, (x, y))

    return Kernel(start, step, partial(_read, algo))


def _read(algo: str, state: Any) -> tuple[Array, dict[str, Array]]:
    stats = {
        "lp": -state.potential_energy,
        "energy": state.energy,
        "num_steps": state.num_steps,
        "acceptance_rate": state.accept_prob,
        "diverging": state.diverging,
        "step_size": state.adapt_state.step_size,
    }
    if algo == "NUTS":
        stats["tree_depth"] = jnp.frexp(state.num_steps)[1]  # 1 + floor(log2), exactly
    return state.z, stats


def require_acceptance(target_accept: float) -> None:
    """Raise `InputError` unless it is a probability strictly between 0 and 1."""
    if not 0 < target_accept < 1:
        raise InputError(
            "target_accept",
            expected="a probability strictly between 0 and 1",
            got=repr(target_accept),
            remedy="Use 0.8, or 0.95 against divergences.",
        )
