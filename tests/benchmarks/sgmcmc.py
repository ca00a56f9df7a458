"""What a step of stochastic-gradient MCMC costs, in steps of the same network trained as usual.

    python tests/benchmarks/sgmcmc.py [--steps 100] [--repeats 7]

An MLP 784-400-400-10 on batches of 128 of 60,000 rows, the data on the device and the loop
compiled, one chain.  The unit is a loop written by hand: the same Haiku network, its cross-entropy
and Optax's Adam, no ppbdl.  "MAP, Adam" is ppbdl's own deterministic step, of the same model with
its prior; "descent" is SGLD without its noise; BlackJAX's SGLD has the same batches and density,
and its own noise.  Methods take turns, so that a busy machine is busy for all of them; the medians
are of seconds and of CPU seconds.  On 2026-11-21, jax 0.12, in CPU units: MAP 1.24, SGLD 1.22,
preconditioned 1.31, cyclical 1.22, SGHMC 1.24, descent 0.95, BlackJAX's 1.75.
"""

import argparse
import statistics
import time

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from estimators import BATCH, MODEL, ROWS, by_hand

import ppbdl
import ppbdl.models
from ppbdl.inference.batches import Batches, scale_rows
from ppbdl.inference.langevin import Plan, Rule
from ppbdl.inference.langevin import programs_of as chains_of
from ppbdl.inference.optimisation import programs_of
from ppbdl.potential import potential
from ppbdl.structure import inspect_model, shapes_of

UNIT = "by hand, Adam"
RULES = {
    "SGLD": Rule(1.0, False, False, None, BATCH),
    "pSGLD": Rule(1.0, True, False, None, BATCH),
    "cyclical SGLD": Rule(1.0, False, True, None, BATCH),
    "SGHMC": Rule(0.1, False, False, None, BATCH),
}
PLAN = Plan(np.float32(1e-8), np.int32(10**6), np.int32(500))


def at_our_density(data, x, y, step):
    """A loop of ``step(key, u, gradient of the log joint, batch) -> u`` on ppbdl's density."""
    structure = inspect_model(MODEL, shapes_of(data), BATCH)
    batches = Batches(ROWS, BATCH)
    energy = potential(scale_rows(MODEL, structure, ROWS / BATCH), structure)
    order = batches.order(batches.no_order, jax.random.key(1), jnp.int32(0))

    def advance(flat, x, y, n):
        def body(i, flat):
            batch = batches.take(order, i, x, y)
            key = jax.random.fold_in(jax.random.key(0), i)
            return step(key, flat, lambda u, batch: -jax.grad(energy)(u, *batch), batch)

        return jax.lax.fori_loop(0, n, body, flat)

    flat, run = jnp.zeros(structure.size), jax.jit(advance)
    return lambda n: run(flat, x, y, np.int32(n))


def descent(key, flat, gradient, batch):
    return flat + 5e-9 * gradient(flat, batch)


def blackjaxs(key, flat, gradient, batch):
    return blackjax.sgld(gradient).step(key, flat, batch, 5e-9)


def runners(data):
    x, y = jax.device_put((data.x, data.y))
    by_adam, state = by_hand(optax.adam(1e-3))
    yield UNIT, lambda n: by_adam(state, x, y, np.int32(n))
    svi = ppbdl.MAP(optax.adam(1e-3), steps=1, batch_size=BATCH).svi
    programs = programs_of(MODEL, svi, None, shapes_of(data))
    start = programs.init(jax.random.key(0), x, y)
    yield "MAP, Adam", lambda n: programs.advance(start, x, y, n)
    for name, rule in RULES.items():
        programs = chains_of(MODEL, rule, shapes_of(data))
        start = programs.init(jax.random.key(0), np.int32(0), PLAN, x, y)
        yield name, lambda n, run=programs.advance, start=start: run(start, x, y, n)
    yield "descent", at_our_density(data, x, y, descent)
    yield "BlackJAX's SGLD", at_our_density(data, x, y, blackjaxs)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=100)
    arguments.add_argument("--repeats", type=int, default=7)
    asked = arguments.parse_args()
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(ROWS, 784)).astype(np.float32)
    data = ppbdl.Data(x, rng.integers(0, 10, ROWS))
    methods = dict(runners(data))
    wall = {name: [] for name in methods}
    cpu = {name: [] for name in methods}
    for run in methods.values():
        jax.block_until_ready(run(2))
    for _ in range(asked.repeats):
        for name, run in methods.items():
            before, cpu_before = time.perf_counter(), time.process_time()
            jax.block_until_ready(run(asked.steps))
            wall[name].append((time.perf_counter() - before) / asked.steps)
            cpu[name].append((time.process_time() - cpu_before) / asked.steps)
    unit = statistics.median(wall[UNIT]), statistics.median(cpu[UNIT])
    print(f"{'':18}{'ms':>8}{'ratio':>7}{'CPU ms':>9}{'ratio':>7}")
    for name in methods:
        seconds, cpu_seconds = statistics.median(wall[name]), statistics.median(cpu[name])
        print(
            f"{name:18}{1e3 * seconds:8.2f}{seconds / unit[0]:7.2f}"
            f"{1e3 * cpu_seconds:9.2f}{cpu_seconds / unit[1]:7.2f}"
        )


if __name__ == "__main__":
    main()
