"""The No-U-Turn sampler: Hamiltonian trajectories that stop where they would turn back.

Hoffman and Gelman (2014), with multinomial sampling of the trajectory and Stan's windowed
adaptation of the step size and of a diagonal mass matrix (Betancourt 2017).  The kernel is
NumPyro's; `tests/benchmarks/nuts_kernels.py` measures it against BlackJAX's.

A chain is a program of its own: side by side in one vectorised program every chain would wait
for the longest tree.  Chains run in threads, which XLA executes at the same time.
"""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.hmc import hmc
from tqdm.auto import tqdm

from ..compiling import Program, strong
from ..data import Data
from ..errors import FitError, InputError, ModelError, require_whole
from ..posterior import Posterior, Provenance, seed_of
from ..potential import constrained, potential
from ..structure import Shapes, Structure, initial_latents, inspect_model, shapes_of
from ..types import Array, Key, Model
from .elbo import log_density
from .svi import settings_of

_BUFFER = 100  # draws in one call of the loop, at most
_SECONDS = 0.5  # a call aims at this, so that progress shows and Ctrl-C is heard
_TRIES = 100  # starting points to try until the density and its gradient are finite


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
        programs = _programs(
            model, self.warmup, self.target_accept, self.max_tree_depth, shapes_of(data)
        )
        compiled = programs.seconds_compiling
        chains = [
            _Chain(programs.init(key, np.int32(c), data.x, data.y)) for c in range(self.chains)
        ]
        for c, chain in enumerate(chains):
            if not np.isfinite(chain.state.kernel.potential_energy):
                raise _no_start(model, programs.structure, chain.state, data, c)
        # Compile before the threads start, so that they do not compile the same thing twice.
        chains[0].state = programs.advance(chains[0].state, data.x, data.y, np.int32(0))[0]
        failure = self._sample(programs.advance, chains, data, progress)
        kept = [chain.result(self.warmup) for chain in chains]
        draws = min(len(flat) for flat, _ in kept)
        if draws == 0:
            raise FitError(
                f"NUTS was interrupted during warm-up: {failure}", step=0, site="", posterior=None
            )
        flat = np.stack([flat[:draws] for flat, _ in kept])
        stats = jax.tree.map(lambda *s: np.stack([a[:draws] for a in s]), *(s for _, s in kept))
        sites = jax.block_until_ready(programs.constrain(flat, data.x, data.y))
        compiling = programs.seconds_compiling - compiled
        return Posterior(
            draws=sites,
            params={},
            mutables={},
            stats=_arviz_stats(stats),
            shape=(self.chains, draws),
            observed=programs.structure.observed,
            scaling=data.scaling,
            x_shape=jax.tree.map(lambda a: a.shape[1:], data.x),
            provenance=Provenance(
                method=self.name,
                settings=settings_of(self),
                kind="mcmc",
                seed=seed_of(key),
                seconds_compiling=compiling,
                seconds_running=time.perf_counter() - start - compiling,
                gradients=sum(chain.gradients for chain in chains),
                failure=failure,
            ),
        )

    def _sample(self, advance: Program, chains: list[_Chain], data: Data, progress: bool) -> str:
        """Run the chains to their end, or until Ctrl-C; tell what is missing."""
        total, stop = self.warmup + self.draws, threading.Event()
        with (
            ThreadPoolExecutor(len(chains)) as pool,
            tqdm(
                total=total * len(chains), desc=self.name, unit="draw", disable=not progress
            ) as bar,
        ):
            running: set[Future] = {
                pool.submit(chain.run, advance, data, total, stop) for chain in chains
            }
            try:
                while running:
                    ended, running = wait(running, timeout=0.2)
                    for future in ended:
                        future.result()
                    bar.update(sum(chain.done for chain in chains) - bar.n)
            except KeyboardInterrupt:
                stop.set()
                wait(running)
        done = min(chain.done for chain in chains)
        return "" if done == total else f"Interrupted after {done} of {total} draws of a chain."


class State(NamedTuple):
    """A chain's state: the kernel's own, and where to put its draws."""

    kernel: Any
    flat: Array  # the last call's draws
    stats: dict[str, Array]


class Programs(NamedTuple):
    """The compiled parts of a fit; ``advance(state, x, y, n)`` draws n times."""

    structure: Structure
    init: Program
    advance: Program
    constrain: Program

    @property
    def seconds_compiling(self) -> float:
        """Seconds spent compiling so far, over all fits."""
        return self.init.seconds + self.advance.seconds + self.constrain.seconds


@dataclass
class _Chain:
    """A running chain: it collects what the compiled loop hands over."""

    state: State
    done: int = 0
    gradients: int = 0
    blocks: list[tuple[np.ndarray, dict[str, np.ndarray]]] = field(default_factory=list)

    def run(self, advance: Program, data: Data, total: int, stop: threading.Event) -> None:
        chunk = 5
        while self.done < total and not stop.is_set():
            began = time.perf_counter()
            n = min(chunk, total - self.done)
            self.state, flat, stats = advance(self.state, data.x, data.y, np.int32(n))
            stats = {name: np.asarray(a)[:n] for name, a in stats.items()}
            self.blocks.append((np.asarray(flat)[:n], stats))
            self.gradients += int(stats["num_steps"].sum())
            self.done += n
            spent = max(time.perf_counter() - began, 1e-3)
            chunk = int(np.clip(n * _SECONDS / spent, 1, _BUFFER))

    def result(self, warmup: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        flat = np.concatenate([flat for flat, _ in self.blocks])[warmup:]
        names = self.blocks[0][1]
        return flat, {
            name: np.concatenate([stats[name] for _, stats in self.blocks])[warmup:]
            for name in names
        }


@functools.lru_cache(maxsize=64)
def _programs(
    model: Model, warmup: int, target_accept: float, max_tree_depth: int, shapes: Shapes
) -> Programs:
    structure = inspect_model(model, shapes)
    _refuse(structure)
    energy = potential(model, structure)
    start, sample = hmc(
        potential_fn_gen=lambda x, y: functools.partial(_swapped, energy, x, y), algo="NUTS"
    )

    def init(key: Key, chain: Array, x: Any, y: Any) -> State:
        key = jax.random.fold_in(key, chain)

        def bad(carry: Any) -> Array:
            tries, flat = carry
            value, grad = jax.value_and_grad(energy)(flat, x, y)
            finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(grad))
            return ~finite & (tries < _TRIES)

        def again(carry: Any) -> Any:
            tries, _ = carry
            return tries + 1, propose(tries + 1)

        def propose(tries: Array) -> Array:
            return initial_latents(jax.random.fold_in(key, tries), model, structure, x, y)

        first = jnp.zeros((), jnp.int32)
        _, flat = jax.lax.while_loop(bad, again, (first, propose(first)))
        kernel = start(
            flat,
            warmup,
            target_accept_prob=target_accept,
            max_tree_depth=max_tree_depth,
            model_args=(x, y),
            rng_key=jax.random.fold_in(key, _TRIES + 1),
        )
        kernel = strong(kernel)
        stats = {name: jnp.zeros(_BUFFER, a.dtype) for name, a in _stats_of(kernel).items()}
        return State(kernel, jnp.zeros((_BUFFER, structure.size), flat.dtype), stats)

    def advance(state: State, x: Any, y: Any, n: Array) -> tuple[State, Array, dict[str, Array]]:
        def body(i: Array, state: State) -> State:
            kernel = strong(sample(state.kernel, (x, y)))
            new = _stats_of(kernel)
            stats = {name: a.at[i].set(new[name]) for name, a in state.stats.items()}
            return State(kernel, state.flat.at[i].set(kernel.z), stats)

        state = jax.lax.fori_loop(0, n, body, state)
        return state, state.flat, state.stats

    def constrain(flat: Array, x: Any, y: Any) -> dict[str, Array]:
        one = functools.partial(constrained, model, structure, x=x, y=y, key=jax.random.key(0))
        return jax.vmap(jax.vmap(one))(flat)

    return Programs(structure, Program(init), Program(advance), Program(constrain))


def _swapped(energy: Any, x: Any, y: Any, flat: Array) -> Array:
    return energy(flat, x, y)


def _stats_of(kernel: Any) -> dict[str, Array]:
    return {
        "potential_energy": kernel.potential_energy,
        "energy": kernel.energy,
        "num_steps": kernel.num_steps,
        "accept_prob": kernel.accept_prob,
        "diverging": kernel.diverging,
        "step_size": kernel.adapt_state.step_size,
    }


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


def _no_start(model: Model, structure: Structure, state: State, data: Data, chain: int) -> FitError:
    names: list[str] = []

    # Traced, because NumPyro refuses a distribution's bad parameters where it sees values.
    @jax.jit
    def finite(flat: Array, x: Any, y: Any) -> list[Array]:
        values = constrained(model, structure, flat, x, y, jax.random.key(0))
        sites = trace(substitute(seed(model, jax.random.key(0)), data=values)).get_trace(x, y)
        samples = [site for site in sites.values() if site["type"] == "sample"]
        names.extend(site["name"] for site in samples)
        return [jnp.all(jnp.isfinite(log_density(site))) for site in samples]

    goods = finite(state.kernel.z, data.x, data.y)
    bad = [name for name, good in zip(names, goods, strict=True) if not good]
    site = bad[0] if bad else structure.observed[0]
    return FitError(
        f"NUTS: no finite density in {_TRIES} starting points of chain {chain}; the last one fails "
        f"in site {site!r}. Look at that site's prior and at the data's scale.",
        step=0,
        site=site,
    )
