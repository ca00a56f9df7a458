"""Markov chains as compiled loops: the one run of every MCMC method.

A chain whose steps differ in length, as NUTS's trees do, is a program and a thread of its own:
side by side in one vectorised program every chain would wait for the longest tree.  XLA executes
the threads' programs at the same time.  Chains that all make the same number of steps, or that
adapt together, are one vectorised program.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.util import ParamInfo
from tqdm.auto import tqdm

from ..compiling import Program, remembered, strong
from ..data import Data
from ..errors import FitError
from ..latents import initial_latents
from ..posterior import Posterior, Provenance, seed_of
from ..potential import constrained, potential
from ..structure import Shapes, Structure, inspect_model, shapes_of
from ..types import Array, Key, Model
from .refusals import TRIES, no_start, refuse
from .svi import settings_of

BUFFER = 100  # draws in one call of the loop, at most
_SECONDS = 0.5  # a call aims at this, so that progress shows and Ctrl-C is heard


class Kernel(NamedTuple):
    """A Markov kernel on the unconstrained space, and its adaptation.

    Attributes
    ----------
    start
        ``(key, first, x, y) -> (state, gradients)``, with the gradient evaluations it took; `first`
        is the starting point, its energy and the energy's gradient.
    step
        ``(state, x, y) -> state``, one draw later.
    read
        ``state -> (flat, stats)``; among the statistics ``num_steps`` counts the gradients.
    """

    start: Callable[[Key, ParamInfo, Any, Any], tuple[Any, Any]]
    step: Callable[[Any, Any, Any], Any]
    read: Callable[[Any], tuple[Array, dict[str, Array]]]


class Sampler(Protocol):
    """Settings of an MCMC method: a frozen dataclass with a kernel."""

    name: str
    together: bool  # whether the kernel takes all chains at once, in front of every array

    @property
    def draws(self) -> int:
        """Draws kept of each chain."""
        ...

    @property
    def chains(self) -> int:
        """Number of chains."""
        ...

    @property
    def adapting(self) -> int:
        """Steps to be thrown away, in which the kernel adapts itself."""
        ...

    def kernel(self, energy: Callable[[Array, Any, Any], Array], size: int) -> Kernel:
        """Make the kernel for a potential energy ``(flat, x, y) -> U`` of so many coordinates."""
        ...


class State(NamedTuple):
    """A chain's state: the kernel's own, and where to put its draws."""

    kernel: Any
    flat: Array  # the last call's draws
    stats: dict[str, Array]


class Programs(NamedTuple):
    """The compiled parts of a fit; ``advance(state, x, y, n)`` draws n times."""

    structure: Structure
    first: Program
    init: Program
    advance: Program
    constrain: Program

    @property
    def seconds_compiling(self) -> float:
        """Seconds spent compiling so far, over all fits."""
        return sum(program.seconds for program in self[1:])

    @property
    def peak_bytes(self) -> int:
        """Bytes that the largest of the programs holds."""
        return max(program.peak_bytes for program in self[1:])


@dataclass
class Chain:
    """A running chain: it collects what the compiled loop hands over."""

    state: State
    done: int = 0
    gradients: int = 0
    blocks: list[tuple[np.ndarray, dict[str, np.ndarray]]] = field(default_factory=list)

    def run(self, advance: Program, x: Any, y: Any, total: int, stop: threading.Event) -> None:
        """Draw until there are `total` draws, or `stop` is set."""
        chunk = 5
        while self.done < total and not stop.is_set():
            began = time.perf_counter()
            n = min(chunk, total - self.done)
            self.state, flat, stats = advance(self.state, x, y, np.int32(n))
            stats = {name: np.asarray(a)[:n] for name, a in stats.items()}
            self.blocks.append((np.asarray(flat)[:n], stats))
            self.gradients += int(stats["num_steps"].sum())
            self.done += n
            spent = max(time.perf_counter() - began, 1e-3)
            chunk = int(np.clip(n * _SECONDS / spent, 1, BUFFER))

    def result(self, warmup: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Give the draws after warm-up, unconstrained, and their statistics."""
        flat = np.concatenate([flat for flat, _ in self.blocks])[warmup:]
        names = self.blocks[0][1]
        return flat, {
            name: np.concatenate([stats[name] for _, stats in self.blocks])[warmup:]
            for name in names
        }


def run_chains(
    name: str, advance: Program, chains: list[Chain], x: Any, y: Any, total: int, progress: bool
) -> str:
    """Run each chain to `total` draws, or until Ctrl-C; tell what is missing."""
    stop = threading.Event()
    with (
        ThreadPoolExecutor(len(chains)) as pool,
        tqdm(total=total * len(chains), desc=name, unit="draw", disable=not progress) as bar,
    ):
        running: set[Future] = {
            pool.submit(chain.run, advance, x, y, total, stop) for chain in chains
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


def sample(key: Key, model: Model, data: Data, method: Any, *, progress: bool = False) -> Posterior:
    """Run the chains of an MCMC method, a `Sampler`.

    Raises
    ------
    ModelError
        If the model has no continuous latents, subsamples, or learns parameters.
    FitError
        If the density is not finite at any of the starting points tried.
    """
    began = time.perf_counter()
    refuse(method.name, inspect_model(model, shapes_of(data)), allow=("discrete",))
    # The numbers of draws and chains are no part of the programs.
    programs = programs_of(model, replace(method, draws=1, chains=1), shapes_of(data))
    compiled = programs.seconds_compiling
    x, y = jax.device_put((data.x, data.y))
    firsts = [programs.first(key, np.int32(c), x, y) for c in range(method.chains)]
    for c, first in enumerate(firsts):
        if not (np.isfinite(first.potential_energy) and np.isfinite(first.z_grad).all()):
            raise no_start(method.name, model, programs.structure, first.z, x, y, c)
    if method.together:
        firsts = [jax.tree.map(lambda *a: np.stack(a), *firsts)]
    started = [programs.init(key, np.int32(c), first, x, y) for c, first in enumerate(firsts)]
    chains = [Chain(state, gradients=int(spent)) for state, spent in started]
    # Compile before the threads start, so that they do not compile the same thing twice.
    chains[0].state = programs.advance(chains[0].state, x, y, np.int32(0))[0]
    total = method.adapting + method.draws
    failure = run_chains(method.name, programs.advance, chains, x, y, total, progress)
    draws = min(chain.done for chain in chains) - method.adapting
    if draws <= 0:
        raise FitError(
            f"{method.name} was interrupted during warm-up: {failure}",
            step=0,
            site="",
            posterior=None,
        )
    flat, stats = _joined([chain.result(method.adapting) for chain in chains], draws, method)
    sites = jax.block_until_ready(programs.constrain(flat, x, y))
    compiling = programs.seconds_compiling - compiled
    return Posterior(
        draws=sites,
        params={},
        mutables={},
        stats={"n_steps" if name == "num_steps" else name: a for name, a in stats.items()},
        shape=(method.chains, draws),
        observed=programs.structure.observed,
        scaling=data.scaling,
        x_shape=jax.tree.map(lambda a: a.shape[1:], x),
        provenance=Provenance(
            method=method.name,
            settings=settings_of(method),
            kind="mcmc",
            seed=seed_of(key),
            seconds_compiling=compiling,
            seconds_running=time.perf_counter() - began - compiling,
            peak_bytes=programs.peak_bytes,
            gradients=sum(chain.gradients for chain in chains),
            failure=failure,
        ),
    )


def _joined(kept: list[Any], draws: int, method: Any) -> Any:
    """Bring (chain, draw) in front; an interrupted chain may be longer than another."""
    if method.together:
        return jax.tree.map(lambda a: a.swapaxes(0, 1), kept[0])
    return jax.tree.map(lambda *a: np.stack([chain[:draws] for chain in a]), *kept)


@remembered
def programs_of(model: Model, method: Any, shapes: Shapes) -> Programs:
    """Make the programs of a model's chains, or find those of an earlier fit."""
    structure = inspect_model(model, shapes)
    energy = potential(model, structure)
    kernel: Kernel = method.kernel(energy, structure.size)

    def first(key: Key, chain: Array, x: Any, y: Any) -> ParamInfo:
        key = jax.random.fold_in(key, chain)

        def at(tries: Array) -> ParamInfo:
            flat = initial_latents(jax.random.fold_in(key, tries), model, structure, x, y)
            return ParamInfo(flat, *jax.value_and_grad(energy)(flat, x, y))

        def bad(carry: Any) -> Array:
            tries, (_, value, grad) = carry
            finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(grad))
            return ~finite & (tries < TRIES)

        def again(carry: Any) -> Any:
            return carry[0] + 1, at(carry[0])

        nowhere = jax.tree.map(
            lambda a: jnp.full(a.shape, jnp.nan, a.dtype), jax.eval_shape(at, jnp.int32(0))
        )
        return jax.lax.while_loop(bad, again, (jnp.int32(0), nowhere))[1]

    def init(key: Key, chain: Array, point: ParamInfo, x: Any, y: Any) -> tuple[State, Array]:
        key = jax.random.fold_in(jax.random.fold_in(key, chain), TRIES + 1)
        state, gradients = kernel.start(key, point, x, y)
        buffers = jax.tree.map(
            lambda a: jnp.zeros((BUFFER, *jnp.shape(a)), jnp.asarray(a).dtype), kernel.read(state)
        )
        return State(strong(state), *buffers), jnp.asarray(gradients)

    def advance(state: State, x: Any, y: Any, n: Array) -> tuple[State, Array, dict[str, Array]]:
        def body(i: Array, state: State) -> State:
            after = strong(kernel.step(state.kernel, x, y))
            kept = state.flat, state.stats
            new = jax.tree.map(lambda a, b: a.at[i].set(b), kept, kernel.read(after))
            return State(after, *new)

        state = jax.lax.fori_loop(0, n, body, state)
        return state, state.flat, state.stats

    def constrain(flat: Array, x: Any, y: Any) -> dict[str, Array]:
        one = functools.partial(constrained, model, structure, x=x, y=y, key=jax.random.key(0))
        return jax.vmap(jax.vmap(one))(flat)

    return Programs(structure, *map(Program, (first, init, advance, constrain)))
