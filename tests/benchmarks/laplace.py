"""What a Laplace curvature costs, in gradient passes over the same rows.

    python tests/benchmarks/laplace.py [--rows 2000] [--repeats 7]

An MLP 784-400-400-10 with class labels.  The unit is a gradient of the log joint over all the rows,
by a program of this package's own.  The curvatures are taken at the start of a fit, from compiled
programs, to the Gaussian that can be drawn from: with the prior's curvature, KFAC's
eigendecompositions, the last layer's Cholesky factor.  Methods take turns, so that a busy machine
is busy for all of them; the medians are of seconds and of CPU seconds.

The bars of issue 4: diagonal 3 gradient passes of CPU time, Kronecker 8; last layer 2.3 s, a
quarter of laplace-torch's best on 2 cores.
"""

import argparse
import statistics
import time

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import ppbdl
import ppbdl.models
from ppbdl.inference.curvature.layout import Point, layout_of
from ppbdl.inference.curvature.matrix import curvature_of
from ppbdl.inference.curvature.precision import Prior, dense, diagonal, kronecker, potential
from ppbdl.inference.curvature.sums import Rows
from ppbdl.latents import initial_latents
from ppbdl.structure import inspect_model, shapes_of

MODEL = ppbdl.models.BNN(
    lambda x: hk.nets.MLP([400, 400, 10])(x),
    dist.Normal(0.0, 0.1),
    ppbdl.models.Categorical(10),
)


def runners(rows):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(rows, 784)).astype(np.float32)
    data = ppbdl.Data(x, rng.integers(0, 10, rows))
    structure = inspect_model(MODEL, shapes_of(data))
    start = jax.jit(lambda x, y: initial_latents(jax.random.key(0), MODEL, structure, x, y))
    whole = Rows(jnp.asarray(data.x), jnp.asarray(data.y), whole=False)
    point = Point(structure.unflatten(start(whole.x, whole.y)), ({}, {}))

    def of(sites):
        layout = layout_of(MODEL, structure, sites, point, whole.x, whole.y)
        return curvature_of(MODEL, layout)

    every, last = of(None), of("last")

    def run(rule, parts):
        return rule(parts, point, whole, Prior(parts, point, whole))

    return {
        "a gradient pass": lambda: potential(every, point, whole),
        "diagonal": lambda: run(diagonal, every),
        "Kronecker": lambda: run(kronecker, every),
        "last layer": lambda: run(dense, last),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=2000)
    arguments.add_argument("--repeats", type=int, default=7)
    asked = arguments.parse_args()
    methods = runners(asked.rows)
    wall = {name: [] for name in methods}
    cpu = {name: [] for name in methods}
    for run in methods.values():
        jax.block_until_ready(run())
    for _ in range(asked.repeats):
        for name, run in methods.items():
            before, cpu_before = time.perf_counter(), time.process_time()
            jax.block_until_ready(run())
            wall[name].append(time.perf_counter() - before)
            cpu[name].append(time.process_time() - cpu_before)
    unit = statistics.median(wall["a gradient pass"]), statistics.median(cpu["a gradient pass"])
    print(f"{'':18}{'s':>8}{'ratio':>8}{'CPU s':>8}{'ratio':>8}")
    for name in methods:
        seconds, cpu_seconds = statistics.median(wall[name]), statistics.median(cpu[name])
        print(
            f"{name:18}{seconds:8.3f}{seconds / unit[0]:8.2f}"
            f"{cpu_seconds:8.3f}{cpu_seconds / unit[1]:8.2f}"
        )


if __name__ == "__main__":
    main()
