"""ChEES-HMC: many chains side by side, which learn one trajectory length together.

    maximise over the length T the   E[(|u' - m'|^2 - |u - m|^2)^2] / 4

the change in the estimator of the expected square between a draw u and the proposal u' at the end
of a jittered trajectory (Hoffman, Radul and Sountsov 2021).  Its gradient with respect to T is
averaged over the chains, Adam climbs it, and dual averaging fits the step size to the chains' mean
acceptance.  All chains make the same number of steps, so that one vectorised program serves them,
and an accelerator is kept busy.  Kernel and adaptation are BlackJAX's; the adaptation estimates a
diagonal mass matrix from all the chains, and makes trajectories long enough for the slowest
direction that it leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..data import Data
from ..errors import require_whole
from ..posterior import Posterior
from ..types import Array, Key, Model
from .hmc import STEPS, require_acceptance
from .refusals import require_blackjax
from .sampling import Kernel, sample

_BITS = 20  # of the jitter's Halton sequence: a million draws before it comes again
_LEARNING_RATE = 0.025  # the paper's


@dataclass(frozen=True)
class ChEES:
    """Settings of ChEES-HMC; it needs BlackJAX: ``pip install 'ppbdl[blackjax]'``.

    It makes several times as many effective draws in a second as NUTS on a posterior that is close
    to a Gaussian, and is no reference for others: the criterion looks at the bulk of the spread.
    On a network of 50 units it did not converge, with no sign but R-hat and the error of the
    predictions; look at both.

    The adaptation leaves out chains whose trajectories all diverge, so that they stay where they
    start.  On raw data far from scale 1, six of posteriordb's thirteen sets, R-hat was 1.5 to 23,
    mostly with divergences: standardise, or start at a MAP fit with `ppbdl.start_at`.  Warm-up
    is a single call: progress shows, and Ctrl-C is heard, after it.

    Parameters
    ----------
    draws, warmup
        Draws kept and draws spent on adaptation, in each chain.
    chains
        Number of chains, run side by side.  The criterion is an average over them: 16 at least.
    target_accept
        Acceptance probability (a harmonic mean over the chains) that the step size is adapted to.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> chees = ChEES(draws=20, warmup=50, chains=8)
    >>> ppbdl.fit(0, model, data, chees, progress=False).draws["weights"].shape
    (8, 20, 1)
    """

    draws: int = 250
    warmup: int = 500
    chains: int = 32
    target_accept: float = 0.651  # optimal for HMC of a fixed length: Beskos et al. (2013)

    name = "ChEES"
    together = True
    adapting = 0

    def __post_init__(self) -> None:
        require_whole(draws=self.draws, warmup=self.warmup, chains=self.chains)
        require_acceptance(self.target_accept)

    def kernel(self, energy: Callable[..., Array], size: int) -> Kernel:
        """Make BlackJAX's kernel for a potential energy ``(flat, x, y) -> U``."""
        blackjax = require_blackjax(self.name)
        from blackjax.adaptation.base import get_filter_adapt_info_fn
        from blackjax.mcmc.dynamic_hmc import halton_sequence

        def steps(i: Array, length: Array) -> Array:
            return jnp.ceil(halton_sequence(i, _BITS) * length).astype(int)

        transition = blackjax.dhmc.build_kernel(
            next_random_arg_fn=lambda i: i + 1, integration_steps_fn=steps
        )

        def start(key: Key, firsts: Any, x: Any, y: Any) -> tuple[Any, Array]:
            chains = firsts.z.shape[0]
            adaptation = blackjax.chees_adaptation(
                lambda flat: -energy(flat, x, y),
                chains,
                target_acceptance_rate=self.target_accept,
                max_leapfrog_steps=STEPS,
                mass_matrix_estimation="diagonal",
                adaptation_info_fn=get_filter_adapt_info_fn(info_keys={"num_integration_steps"}),
            )
            warm, key = jax.random.split(key)
            optimizer = optax.adam(_LEARNING_RATE)
            (states, tuned), info = adaptation.run(warm, firsts.z, 0.1, optimizer, self.warmup)
            settings = {
                "step_size": tuned["step_size"],
                "inverse_mass_matrix": tuned["inverse_mass_matrix"],
                "integration_steps_params": tuned["integration_steps_params"],
            }
            nothing = jnp.zeros(chains)
            stats = _stats_of(states, nothing, nothing, nothing > 0, nothing.astype(int), settings)
            gradients = jnp.sum(info.info.num_integration_steps)
            return (key, states, settings, stats), gradients

        def step(carry: Any, x: Any, y: Any) -> Any:
            key, states, settings, _ = carry
            key, *keys = jax.random.split(key, 1 + states.logdensity.shape[0])

            def density(flat: Array) -> Array:
                return -energy(flat, x, y)

            after, info = jax.vmap(lambda k, s: transition(k, s, density, **settings))(
                jnp.stack(keys), states
            )
            before = 0.5 * jnp.sum(info.momentum**2 * settings["inverse_mass_matrix"], axis=-1)
            # BlackJAX tells the proposal's energy; a chain that stayed has its own.
            total = jnp.where(info.is_accepted, info.energy, before - states.logdensity)
            stats = _stats_of(
                after,
                total,
                info.acceptance_rate,
                info.is_divergent,
                info.num_integration_steps,
                settings,
            )
            return key, after, settings, stats

        return Kernel(start, step, lambda carry: (carry[1].position, carry[3]))

    def run(self, key: Key, model: Model, data: Data, *, progress: bool = False) -> Posterior:
        """Draw from the posterior.

        Raises
        ------
        InputError
            If BlackJAX is not installed.
        ModelError
            If the model has no continuous latents, subsamples, or learns parameters.
        FitError
            If the density is not finite at any of the starting points tried.
        """
        return sample(key, model, data, self, progress=progress)


def _stats_of(
    states: Any, energy: Array, accepted: Array, diverging: Array, steps: Array, settings: Any
) -> dict[str, Array]:
    return {
        "lp": states.logdensity,
        "energy": energy,
        "num_steps": steps,
        "acceptance_rate": accepted,
        "diverging": diverging,
        "step_size": jnp.full(states.logdensity.shape, settings["step_size"]),
    }
