"""Stochastic-gradient MCMC: the one run of SGLD, its preconditioned and cyclical forms, and SGHMC.

The unconstrained latents u follow a Langevin diffusion in steps of size h:

    g = grad log p(u) + (N/M) sum_{n in batch} grad log p(y_n | u)
    v <- (1 - a) v + (h/2) G g + sqrt(a h G) xi,    xi ~ N(0, 1)
    u <- u + v

The convention is Welling and Teh's (2011, equation 4): half of h times an unbiased estimate of the
gradient of the *whole* data's log joint, by a batch of M of the N rows, and noise of variance h.
With a = 1 it is SGLD; with less, SGHMC in the form of Chen et al. (2014, equation 15), whose
learning rate is h/2 and whose momentum is 1 - a.  G is diagonal, and 1 unless preconditioned.

No step is accepted or rejected: the draws' law is near the posterior, not the posterior.  On a
Gaussian of variance s^2 theirs is s^2 / (1 - h / (4 (2 - a) s^2)) with full batches, exactly; with
minibatches the noise of the gradients adds to it.  Each run ends with a look at the stiffest
direction, where that matters most, and warns if it does (`discretisation`).

A chain is a compiled loop and a thread of its own.  On a CPU, four vectorised chains took 1 to 3.5
times as long as four taking turns: under `vmap` each step would shuffle the rows.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

from ..data import Data
from ..errors import FitError, InputError, require_positive, require_whole
from ..posterior import Posterior, Provenance, seed_of
from ..structure import inspect_model, shapes_of
from ..types import Key, Model
from .batches import require_batch
from .discretisation import warn
from .langevin import Plan, Programs, Rule, State, programs_of
from .loop import BUFFER
from .refusals import refuse
from .svi import last_good, settings_of

_SECONDS = 0.5  # a call aims at this, so that progress shows and Ctrl-C is heard


def require_settings(method: Any) -> None:
    """Raise `InputError` for a setting that cannot be used; SGLD's and SGHMC's are alike."""
    require_whole(
        draws=method.draws,
        thinning=method.thinning,
        warmup=method.warmup,
        chains=method.chains,
        batch_size=method.batch_size,
        cycles=method.cycles,
    )
    if not callable(method.step_size):
        require_positive(step_size=method.step_size)
    if method.draws % (method.cycles or 1):
        raise InputError(
            "draws",
            expected=f"a multiple of the {method.cycles} cycles",
            got=str(method.draws),
            remedy=f"Use {method.cycles * -(-method.draws // method.cycles)}.",
        )


@dataclass
class Chain:
    """A running chain: what it has drawn, each draw with its energy, and where it stands."""

    state: State
    done: int = 0
    gradients: int = 0
    draws: list[np.ndarray] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    failed: bool = False

    def run(self, programs: Any, x: Any, y: Any, ends: np.ndarray, stop: threading.Event) -> None:
        """Draw after each of these numbers of steps, unless `stop` is set or a NaN stops it."""
        chunk = 10
        for end in ends:
            while self.done < end:
                began, n = time.perf_counter(), min(chunk, int(end) - self.done)
                if stop.is_set() or not self._advance(programs, x, y, n):
                    return
                spent = max(time.perf_counter() - began, 1e-3)
                chunk = int(np.clip(n * _SECONDS / spent, 1, BUFFER))
            self.draws.append(np.asarray(self.state.params))
        # The energy of the last draw is found by the step that leaves it.
        drawn = self.state
        self._advance(programs, x, y, 1)
        self.state = drawn

    def _advance(self, programs: Any, x: Any, y: Any, n: int) -> bool:
        before: Any = self.state
        after, energies, good = programs.advance(before, x, y, n)
        if not good:
            after, energies, n = last_good(programs, before, x, y, n)
            self.failed = True
        if n and len(self.energies) < len(self.draws):
            self.energies.append(float(np.asarray(energies)[0]))
        self.state = after
        self.done += n
        self.gradients += n
        return not self.failed


def sample(
    key: Key,
    model: Model,
    data: Data,
    method: Any,
    *,
    friction: float = 1.0,
    preconditioned: bool = False,
    progress: bool = False,
) -> Posterior:
    """Run the chains of SGLD or SGHMC, whose settings `method` has."""
    require_batch(method.batch_size, data)
    began = time.perf_counter()
    structure = inspect_model(model, shapes_of(data), method.batch_size)
    refuse(method.name, structure, allow=("discrete",))
    has_schedule = callable(method.step_size)
    schedule = method.step_size if has_schedule else None
    rule = Rule(friction, preconditioned, bool(method.cycles), schedule, method.batch_size)
    programs = programs_of(model, rule, shapes_of(data))
    compiled = programs.seconds_compiling
    x, y = jax.device_put((data.x, data.y))

    cycles = method.cycles or 1
    in_cycle = method.warmup + method.thinning * np.arange(1, method.draws // cycles + 1)
    ends = (in_cycle[-1] * np.arange(cycles)[:, None] + in_cycle).ravel()
    size = np.asarray(
        1.0 if has_schedule else method.step_size, jax.dtypes.canonicalize_dtype(float)
    )
    plan = Plan(size, np.int32(in_cycle[-1]), np.int32(method.warmup))
    chains = [Chain(programs.init(key, np.int32(c), plan, x, y)) for c in range(method.chains)]
    # Compile before the threads start, so that they do not compile the same thing twice.
    programs.advance(chains[0].state, x, y, 1)
    programs.look(chains[0].state, chains[0].state.params, key, x, y)
    interrupted = _run(method.name, programs, chains, x, y, ends, progress)

    draws = min(len(chain.energies) for chain in chains)  # those whose energy is known to be finite
    if interrupted and not draws:
        raise KeyboardInterrupt
    steps = chains[0].done, int(ends[-1])
    failed = [chain for chain in chains if chain.failed]
    failure = ""
    if failed:
        steps = failed[0].done, steps[1]
        failure = f"Not finite at step {steps[0]}; these are the draws before."
    elif interrupted:
        failure = f"Interrupted after {draws} of {len(ends)} draws of a chain."

    sizes = np.asarray(programs.sizes(plan, np.asarray(ends[:draws], np.int32) - 1))

    def posterior() -> Posterior:
        flat = np.stack([np.stack(chain.draws[:draws]) for chain in chains])
        stats = {"step_size": np.tile(sizes, (len(chains), 1))}
        if method.batch_size is None:
            stats["lp"] = -np.array([chain.energies[:draws] for chain in chains])
        sites = jax.block_until_ready(programs.constrain(flat, x, y))
        if not failure:
            states = [chain.state for chain in chains]
            warn(method.name, programs, states, flat, float(sizes.mean()), friction, x, y)
        compiling = programs.seconds_compiling - compiled
        return Posterior(
            draws=sites,
            params={},
            mutables={},
            stats=stats,
            shape=(len(chains), draws),
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

    if not failed:
        return posterior()
    site = programs.blame(failed[0].state, x, y)
    raise FitError(
        f"{method.name}: the energy or its gradient is not finite at step {failed[0].done}, in "
        f"site {site!r}. Try a smaller step_size, or look at that site's prior; the draws so far "
        "are this error's `posterior`.",
        step=failed[0].done,
        site=site,
        posterior=posterior() if draws else None,
    )


def _run(
    name: str,
    programs: Programs,
    chains: list[Chain],
    x: Any,
    y: Any,
    ends: np.ndarray,
    progress: bool,
) -> bool:
    """Run the chains, each in a thread, until all are done or one has failed; tell of Ctrl-C."""
    stop, total = threading.Event(), int(ends[-1]) * len(chains)
    with (
        ThreadPoolExecutor(len(chains)) as pool,
        tqdm(total=total, desc=name, unit="step", disable=not progress) as bar,
    ):
        running = {pool.submit(chain.run, programs, x, y, ends, stop) for chain in chains}
        try:
            while running:
                ended, running = wait(running, timeout=0.2)
                for future in ended:
                    future.result()
                if any(chain.failed for chain in chains):
                    stop.set()
                bar.update(min(sum(chain.done for chain in chains), total) - bar.n)
        except KeyboardInterrupt:
            stop.set()
            wait(running)
            return True
        finally:
            stop.set()
    return False
