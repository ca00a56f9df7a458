"""Microcanonical Langevin Monte Carlo: motion at constant energy, its direction slowly refreshed.

    du = v dt,   dv = P(v) (-dU/du / (d - 1) dt + eta dW),   P(v) = 1 - v v' and |v| = 1

Its u is distributed as exp(-U), for every start (Robnik, De Luca, Silverstein and Seljak 2023,
"Microcanonical Hamiltonian Monte Carlo"; Robnik and Seljak 2023, "Fluctuation without
dissipation").  The integrator's steps are not accepted or rejected: what error they make stays.
The kernel, and the tuning of the step size, of the length L over which the direction is forgotten,
and of a diagonal preconditioner, are BlackJAX's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ..data import Data
from ..errors import require_positive, require_whole
from ..posterior import Posterior
from ..types import Array, Key, Model
from .refusals import require_blackjax
from .sampling import Kernel, sample

_GRADIENTS = 2  # of a step of McLachlan's integrator
_TUNING = 0.3  # of the warm-up: step size; scales (a third more of it follows, for the step); L


@dataclass(frozen=True)
class MCLMC:
    """Settings of microcanonical Langevin Monte Carlo; it needs BlackJAX:
    ``pip install 'ppbdl[blackjax]'``.

    Unadjusted, so that a bias remains which no number of draws takes away; it shrinks with
    `energy_variance`.  Fast on networks, where it matched NUTS's predictions at four times its
    median effective sample size in a second, and no reference: on two of posteriordb's thirteen
    sets, raw data whose coordinates correlate 0.99 and more, it was sds off, with R-hat beyond 3
    and no divergence.  Standardise, and look at R-hat.  Warm-up is a single call: progress shows,
    and Ctrl-C is heard, after it.

    Parameters
    ----------
    draws
        Draws kept of each chain, one every `thinning` steps: two gradients each.
    warmup
        Steps spent on tuning, in each chain.
    chains
        Number of chains, tuned apart and run side by side.
    thinning
        Steps from one draw to the next, which lie close together.
    energy_variance
        Variance of the energy's error in a step, for each coordinate, that the step size is tuned
        to.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> mclmc = MCLMC(draws=50, warmup=200, chains=2)
    >>> ppbdl.fit(0, model, data, mclmc, progress=False).draws["weights"].shape
    (2, 50, 1)
    """

    draws: int = 1000
    warmup: int = 2000
    chains: int = 4
    thinning: int = 10
    energy_variance: float = 5e-4

    name = "MCLMC"
    together = True
    adapting = 0

    def __post_init__(self) -> None:
        require_whole(
            draws=self.draws, warmup=self.warmup, chains=self.chains, thinning=self.thinning
        )
        require_positive(energy_variance=self.energy_variance)

    def kernel(self, energy: Callable[..., Array], size: int) -> Kernel:
        """Make BlackJAX's kernel for a potential energy ``(flat, x, y) -> U``."""
        blackjax = require_blackjax(self.name)
        move = blackjax.mclmc.build_kernel()
        # The dynamics need two dimensions: a lone coordinate has a standard normal beside it.
        beside = max(2 - size, 0)

        def density(x: Any, y: Any) -> Callable[[Array], Array]:
            return lambda flat: -energy(flat[:size], x, y) - 0.5 * jnp.sum(flat[size:] ** 2)

        def start(key: Key, firsts: Any, x: Any, y: Any) -> tuple[Any, Array]:
            def one(key: Key, flat: Array) -> Any:
                velocity, tuning = jax.random.split(key)
                flat = jnp.pad(flat, (0, beside))
                state, tuned, spent = blackjax.mclmc_find_L_and_step_size(
                    mclmc_kernel=move,
                    num_steps=self.warmup,
                    state=blackjax.mclmc.init(flat, density(x, y), velocity),
                    rng_key=tuning,
                    logdensity_fn=density(x, y),
                    frac_tune1=_TUNING,
                    frac_tune2=_TUNING,
                    frac_tune3=_TUNING,
                    desired_energy_var=self.energy_variance,
                )
                return state, tuned, 1 + _GRADIENTS * spent

            chains = firsts.z.shape[0]
            key, *keys = jax.random.split(key, 1 + chains)
            states, tuned, gradients = jax.vmap(one)(jnp.stack(keys), firsts.z)
            nothing = jnp.zeros(chains, states.logdensity.dtype)
            return (key, states, tuned, nothing, nothing > 0), jnp.sum(gradients)

        def step(carry: Any, x: Any, y: Any) -> Any:
            key, states, tuned, *_ = carry
            key, *keys = jax.random.split(key, 1 + states.logdensity.shape[0])

            def one(key: Key, state: Any, tuned: Any) -> Any:
                def again(i: Array, carried: Any) -> Any:
                    state, change, failed = carried
                    state, info = move(
                        jax.random.fold_in(key, i),
                        state,
                        density(x, y),
                        tuned.inverse_mass_matrix,
                        tuned.L,
                        tuned.step_size,
                    )
                    return state, change + info.energy_change, failed | ~info.nonans

                nothing = jnp.zeros((), state.logdensity.dtype), jnp.array(False)
                return jax.lax.fori_loop(0, self.thinning, again, (state, *nothing))

            states, change, failed = jax.vmap(one)(jnp.stack(keys), states, tuned)
            return key, states, tuned, change, failed

        def read(carry: Any) -> tuple[Array, dict[str, Array]]:
            _, states, tuned, change, failed = carry
            stats = {
                "lp": states.logdensity + 0.5 * jnp.sum(states.position[:, size:] ** 2, axis=-1),
                "energy_error": change,
                "num_steps": jnp.full(failed.shape, _GRADIENTS * self.thinning),
                "diverging": failed,
                "step_size": tuned.step_size,
            }
            return states.position[:, :size], stats

        return Kernel(start, step, read)

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
