"""The No-U-Turn sampler: Hamiltonian trajectories that stop where they would turn back.

Hoffman and Gelman (2014), with multinomial sampling of the trajectory and Stan's windowed
adaptation of the step size and of a diagonal mass matrix (Betancourt 2017).  The kernel is
NumPyro's; `tests/benchmarks/nuts_kernels.py` measures it against BlackJAX's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.handlers import seed, substitute, trace

from ..data import Data
from ..errors import FitError, InputError, ModelError, require_whole
from ..posterior import Posterior, Provenance, seed_of
from ..potential import constrained
from ..structure import Structure, inspect_model, shapes_of
from ..types import Array, Key, Model
from .elbo import log_density
from .sampling import TRIES, Chain, State, programs_of, run_chains
from .svi import settings_of


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

    def __post_init__(self) -> None:
        require_whole(
            draws=self.draws,
            warmup=self.warmup,
            chains=self.chains,
            max_tree_depth=self.max_tree_depth,
        )
        if not 0 < self.target_accept < 1:
            raise InputError(
                "target_accept",
                expected="a probability strictly between 0 and 1",
                got=repr(self.target_accept),
                remedy="Use 0.8, or 0.95 against divergences.",
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
        start = time.perf_counter()
        _refuse(inspect_model(model, shapes_of(data)))
        programs = programs_of(
            model, self.warmup, self.target_accept, self.max_tree_depth, shapes_of(data)
        )
        compiled = programs.seconds_compiling
        x, y = jax.device_put((data.x, data.y))
        chains = [Chain(programs.init(key, np.int32(c), x, y)) for c in range(self.chains)]
        for c, chain in enumerate(chains):
            if not np.isfinite(chain.state.kernel.potential_energy):
                raise _no_start(model, programs.structure, chain.state, x, y, c)
        # Compile before the threads start, so that they do not compile the same thing twice.
        chains[0].state = programs.advance(chains[0].state, x, y, np.int32(0))[0]
        total = self.warmup + self.draws
        failure = run_chains(self.name, programs.advance, chains, x, y, total, progress)
        kept = [chain.result(self.warmup) for chain in chains]
        draws = min(len(flat) for flat, _ in kept)
        if draws == 0:
            raise FitError(
                f"NUTS was interrupted during warm-up: {failure}", step=0, site="", posterior=None
            )
        flat = np.stack([flat[:draws] for flat, _ in kept])
        stats = jax.tree.map(lambda *s: np.stack([a[:draws] for a in s]), *(s for _, s in kept))
        sites = jax.block_until_ready(programs.constrain(flat, x, y))
        compiling = programs.seconds_compiling - compiled
        return Posterior(
            draws=sites,
            params={},
            mutables={},
            stats=_arviz_stats(stats),
            shape=(self.chains, draws),
            observed=programs.structure.observed,
            scaling=data.scaling,
            x_shape=jax.tree.map(lambda a: a.shape[1:], x),
            provenance=Provenance(
                method=self.name,
                settings=settings_of(self),
                kind="mcmc",
                seed=seed_of(key),
                seconds_compiling=compiling,
                seconds_running=time.perf_counter() - start - compiling,
                peak_bytes=programs.peak_bytes,
                gradients=sum(chain.gradients for chain in chains),
                failure=failure,
            ),
        )


def _arviz_stats(stats: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "lp": -stats["potential_energy"],
        "energy": stats["energy"],
        "n_steps": stats["num_steps"],
        "tree_depth": np.log2(stats["num_steps"]).astype(int) + 1,
        "acceptance_rate": stats["accept_prob"],
        "diverging": stats["diverging"],
        "step_size": stats["step_size"],
    }


def _refuse(structure: Structure) -> None:
    problems = (
        (
            structure.subsampled,
            "no subsampling plate: the chain would see one batch for ever",
            "Drop subsample_size, or fit with SVI and batch_size.",
        ),
        (
            structure.params,
            "no learnable parameters, which a sampler would leave where they start",
            "Give them priors: random_haiku_module, or numpyro.sample.",
        ),
        (
            structure.mutables,
            "no mutable state",
            "Use a network without running statistics, or fit with SVI.",
        ),
        (
            structure.local,
            "no latents marked as local, which an amortised guide must draw",
            "Drop infer={'local': True}, or fit with SVI and the guide.",
        ),
    )
    for sites, expected, remedy in problems:
        if sites:
            raise ModelError(
                "model", expected=f"for NUTS, {expected}", got=str(list(sites)), remedy=remedy
            )
    if not structure.latents:
        raise ModelError(
            "model",
            expected="for NUTS, at least one continuous latent site",
            got="none",
            remedy="Give the unknowns priors with numpyro.sample.",
        )


def _no_start(
    model: Model, structure: Structure, state: State, x: Any, y: Any, chain: int
) -> FitError:
    names: list[str] = []

    # Traced, because NumPyro refuses a distribution's bad parameters where it sees values.
    @jax.jit
    def finite(flat: Array, x: Any, y: Any) -> list[Array]:
        values = constrained(model, structure, flat, x, y, jax.random.key(0))
        sites = trace(substitute(seed(model, jax.random.key(0)), data=values)).get_trace(x, y)
        samples = [site for site in sites.values() if site["type"] == "sample"]
        names.extend(site["name"] for site in samples)
        return [jnp.all(jnp.isfinite(log_density(site))) for site in samples]

    goods = finite(state.kernel.z, x, y)
    bad = [name for name, good in zip(names, goods, strict=True) if not good]
    site = bad[0] if bad else structure.observed[0]
    return FitError(
        f"NUTS: no finite density in {TRIES} starting points of chain {chain}; the last one fails "
        f"in site {site!r}. Look at that site's prior and at the data's scale.",
        step=0,
        site=site,
    )
