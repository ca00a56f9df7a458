"""Markov chains as compiled loops, one thread each.

A chain is a program of its own: side by side in one vectorised program every chain would wait
for the longest tree.  XLA executes the threads' programs at the same time.
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
from numpyro.infer.hmc import hmc
from tqdm.auto import tqdm

from ..compiling import Program, strong
from ..latents import initial_latents
from ..potential import constrained, potential
from ..structure import Shapes, Structure, inspect_model
from ..types import Array, Key, Model

BUFFER = 100  # draws in one call of the loop, at most
TRIES = 100  # starting points to try until the density and its gradient are finite
_SECONDS = 0.5  # a call aims at this, so that progress shows and Ctrl-C is heard


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

    @property
    def peak_bytes(self) -> int:
        """Bytes that the largest of the programs holds."""
        return max(p.peak_bytes for p in (self.init, self.advance, self.constrain))


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


@functools.lru_cache(maxsize=64)
def programs_of(
    model: Model, warmup: int, target_accept: float, max_tree_depth: int, shapes: Shapes
) -> Programs:
    """Make the programs of a model's chains, or find those of an earlier fit."""
    structure = inspect_model(model, shapes)
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
            return ~finite & (tries < TRIES)

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
            rng_key=jax.random.fold_in(key, TRIES + 1),
        )
        kernel = strong(kernel)
        stats = {name: jnp.zeros(BUFFER, a.dtype) for name, a in _stats_of(kernel).items()}
        return State(kernel, jnp.zeros((BUFFER, structure.size), flat.dtype), stats)

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
