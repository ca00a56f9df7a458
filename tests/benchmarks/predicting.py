"""What predictions and ensembles cost at image scale, in units of their parts.

    python tests/benchmarks/predicting.py [--repeats 5]

An MLP 784-400-400-10.  A prediction by T draws of 10,000 rows is held against T times (one pass of
the same Haiku network by hand, and one draw of its weights); an ensemble of 10 against ten fits of
one member, in seconds running and in seconds compiling.
"""

import argparse
import resource
import statistics
import time

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from estimators import ADAM, BATCH, MODEL, SVI, net

import ppbdl

DRAWS, ROWS = 50, 10_000


def seconds(repeats, *runs):
    """Medians of wall and CPU seconds of runs that take turns, after one of each to compile."""
    spent = [[] for _ in runs]
    for repeat in range(repeats + 1):
        for run, times in zip(runs, spent, strict=True):
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(run())
            if repeat:
                times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return [tuple(map(statistics.median, zip(*times, strict=True))) for times in spent]


def predicting(data, repeats):
    posterior = ppbdl.fit(0, MODEL, data, SVI, progress=False)
    posterior = posterior.__class__(
        **vars(posterior)
        | {"draws": {k: jnp.repeat(v, DRAWS, axis=1) for k, v in posterior.draws.items()}}
        | {"shape": (1, DRAWS), "stats": {}}
    )
    x = jnp.asarray(data.x[:ROWS])
    network = hk.without_apply_rng(hk.transform(net))
    weights = network.init(jax.random.key(0), x[:1])
    apply = jax.jit(lambda w: jax.nn.softmax(network.apply(w, x)))
    size = sum(leaf.size for leaf in jax.tree.leaves(weights))
    draw = jax.jit(lambda key: jax.random.normal(key, (size,)))
    ours, one_pass, one_draw = seconds(
        repeats,
        lambda: ppbdl.predict(1, MODEL, posterior, data.x[:ROWS]).mean,
        lambda: apply(weights),
        lambda: draw(jax.random.key(1)),
    )
    for name, i in (("wall", 0), ("CPU", 1)):
        ratio = ours[i] / (DRAWS * (one_pass[i] + one_draw[i]))
        print(f"prediction, {DRAWS} draws, {name}: {ours[i]:.2f} s, {ratio:.2f} of its parts")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory so far: {peak:.2f} GiB")


def ensembles(data, repeats):
    one = ppbdl.MAP(ADAM, steps=100, batch_size=BATCH)
    ten = ppbdl.Ensemble(one, members=10)
    first = [ppbdl.fit(0, MODEL, data, method, progress=False) for method in (one, ten)]
    compiling = [posterior.provenance.seconds_compiling for posterior in first]
    single, together = seconds(
        repeats,
        *(lambda m=m: ppbdl.fit(0, MODEL, data, m, progress=False).draws for m in (one, ten)),
    )
    for name, i in (("wall", 0), ("CPU", 1)):
        print(f"ensemble of 10, {name}: {together[i] / (10 * single[i]):.2f} of ten fits")
    print(f"ensemble of 10, compiling: {compiling[1] / compiling[0]:.2f} of one fit's")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeats", type=int, default=5)
    repeats = arguments.parse_args().repeats
    rng = np.random.default_rng(0)
    data = ppbdl.Data(rng.uniform(size=(20_000, 784)), rng.integers(0, 10, 20_000))
    predicting(data, repeats)
    ensembles(data, repeats)


if __name__ == "__main__":
    main()
