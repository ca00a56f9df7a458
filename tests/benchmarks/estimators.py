"""What a step of variational inference costs, in steps of the same network trained as usual.

    python tests/benchmarks/estimators.py [--steps 200] [--repeats 7]

An MLP 784-400-400-10 on batches of 128 of 60,000 rows, with Adam, the data on the device and the
loop compiled.  The unit is a loop written by hand: the same Haiku network, its cross-entropy and
Optax's Adam, no ppbdl.  Methods take turns, so that a busy machine is busy for all of them; the
medians are of seconds and of CPU seconds.
"""

import argparse
import statistics
import time
from dataclasses import replace

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from numpyro.infer.autoguide import AutoNormal as NumPyrosAutoNormal

import ppbdl
import ppbdl.models
from ppbdl.handlers import flipout, local_reparameterization
from ppbdl.inference.optimisation import programs_of
from ppbdl.structure import shapes_of

ROWS, BATCH = 60_000, 128
ADAM = optax.adam(1e-3)


def net(x):
    return hk.nets.MLP([400, 400, 10])(x)


MODEL = ppbdl.models.BNN(net, dist.Normal(0.0, 0.1), ppbdl.models.Categorical(10))
SVI = ppbdl.SVI(ppbdl.AutoNormal(), ADAM, steps=1, batch_size=BATCH, draws=1)
METHODS = {
    "MAP": ppbdl.MAP(ADAM, steps=1, batch_size=BATCH).svi,
    "MC dropout": replace(SVI, guide=ppbdl.MCDropout(0.1)),
    "one draw a batch": SVI,
    "local reparameterisation": replace(SVI, estimator=local_reparameterization),
    "flipout": replace(SVI, estimator=flipout),
    "NumPyro's AutoNormal": replace(SVI, guide=NumPyrosAutoNormal),
}


def by_hand(optimizer=ADAM):
    """The usual training loop: ``(state, x, y, n) -> state``, and the state it starts from."""
    network = hk.without_apply_rng(hk.transform(net))

    def loss(params, x, y):
        logits = network.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def advance(state, x, y, n):
        def body(i, state):
            params, inner, order = state
            start = (i * BATCH) % (ROWS - BATCH)
            index = jax.lax.dynamic_slice(order, (start,), (BATCH,))
            grads = jax.grad(loss)(params, x[index], y[index])
            updates, inner = optimizer.update(grads, inner)
            return optax.apply_updates(params, updates), inner, order

        return jax.lax.fori_loop(0, n, body, state)

    params = network.init(jax.random.key(0), jnp.zeros((BATCH, 784)))
    order = jax.random.permutation(jax.random.key(1), ROWS)
    return jax.jit(advance), (params, optimizer.init(params), order)


def runners(data):
    x, y = jax.device_put((data.x, data.y))
    advance, state = by_hand()
    yield "the usual network", lambda n: advance(state, x, y, np.int32(n))
    for name, method in METHODS.items():
        programs = programs_of(MODEL, method, None, shapes_of(data))
        start = programs.init(jax.random.key(0), x, y)
        yield (
            name,
            lambda n, programs=programs, start=start: programs.advance(start, x, y, n),
        )


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=200)
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
    unit = statistics.median(wall["the usual network"]), statistics.median(cpu["the usual network"])
    print(f"{'':26}{'ms':>8}{'ratio':>7}{'CPU ms':>9}{'ratio':>7}")
    for name in methods:
        seconds, cpu_seconds = statistics.median(wall[name]), statistics.median(cpu[name])
        print(
            f"{name:26}{1e3 * seconds:8.2f}{seconds / unit[0]:7.2f}"
            f"{1e3 * cpu_seconds:9.2f}{cpu_seconds / unit[1]:7.2f}"
        )


if __name__ == "__main__":
    main()
