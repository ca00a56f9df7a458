"""What a fit costs beside the same fit written by hand in JAX: compiling it, and running it.

    python tests/benchmarks/svi_compile.py

A 10-50-50-1 network, 500 rows, 2,000 steps of mean-field variational inference with Adam and
closed-form divergences.  Each figure is the median over fresh processes (first fit, warm cache) or
over interleaved repetitions in one process (second fit, steady state); CPU seconds stand beside
wall seconds, since the machines are shared.

Bars: first fit at most 1.8 x the hand-written one's CPU seconds; second fit of the same shapes at
most 1.1 x the bare loop; steady state at most 1.1 x; backend compilation with a warm persistent
cache under 0.6 s.  Measured 2026-11-21 on two cores (jax 0.12, NumPyro 0.22), draws included:
first fit 1.64 x (stock NumPyro 6.51 x), second fit 0.99 x CPU and 1.05 x wall, warm cache 0.12 s.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

STEPS, ROWS, WIDTHS = 2000, 500, (10, 50, 50, 1)


def clock() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def spent(start: tuple[float, float]) -> tuple[float, float]:
    return time.process_time() - start[0], time.perf_counter() - start[1]


def arrays(seed: int) -> tuple[Any, Any]:
    import numpy as np

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, WIDTHS[0])).astype(np.float32)
    return x, np.sin(x[:, 0]).astype(np.float32)


def by_hand():
    """The yardstick: one jit for set-up and loop, a flat mean-field posterior, Adam."""
    import jax
    import jax.numpy as jnp
    import optax

    shapes = [s for i, o in itertools.pairwise(WIDTHS) for s in ((i, o), (o,))]
    scales = jnp.concatenate(
        [jnp.full(jnp.zeros(s).size, s[0] ** -0.5 if len(s) > 1 else 1.0) for s in shapes]
    )
    adam = optax.adam(1e-2)

    def network(flat, x):
        start, layers = 0, []
        for shape in shapes:
            size = shape[0] * (shape[1] if len(shape) > 1 else 1)
            layers.append(flat[start : start + size].reshape(shape))
            start += size
        for i in range(0, len(layers), 2):
            x = x @ layers[i] + layers[i + 1]
            x = jax.nn.relu(x) if i + 2 < len(layers) else x
        return x[:, 0]

    def loss(params, key, x, y):
        loc, scale = params["loc"], jax.nn.softplus(params["scale"])
        flat = loc + scale * jax.random.normal(key, loc.shape)
        residual = (y - network(flat, x)) / 0.1
        log_lik = jnp.sum(-0.5 * residual**2 - jnp.log(0.1) - 0.5 * jnp.log(2 * jnp.pi))
        ratio = (scale / scales) ** 2
        return 0.5 * jnp.sum(ratio + (loc / scales) ** 2 - 1 - jnp.log(ratio)) - log_lik

    def fit(key, x, y):
        loc = scales * jax.random.normal(key, scales.shape)
        params = {"loc": loc, "scale": jnp.full_like(loc, jnp.log(jnp.expm1(0.1)))}

        def step(carry, i):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params, jax.random.fold_in(key, i), x, y)
            updates, state = adam.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, adam.init(params)), jnp.arange(STEPS))

    return jax.jit(fit)


def ours():
    import haiku as hk

    import ppbdl
    from ppbdl.models import BNN, Normal

    model = BNN(lambda x: hk.nets.MLP(WIDTHS[1:])(x), likelihood=Normal(noise=0.1))
    method = ppbdl.SVI(steps=STEPS)
    return lambda seed, x, y: ppbdl.fit(seed, model, ppbdl.Data(x, y), method, progress=False)


def stock():
    """NumPyro's own SVI.run with AutoNormal and Trace_ELBO, for comparison."""
    import haiku as hk
    import jax
    import optax
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoNormal

    from ppbdl.models import BNN, Normal

    model = BNN(lambda x: hk.nets.MLP(WIDTHS[1:])(x), likelihood=Normal(noise=0.1))

    def fit(seed, x, y):
        svi = SVI(model, AutoNormal(model), optax.adam(1e-2), Trace_ELBO())
        result = svi.run(jax.random.key(seed), STEPS, x, y, progress_bar=False)
        return jax.block_until_ready(result.losses)

    return fit


def hand_fit():
    import jax

    fit = by_hand()
    return lambda seed, x, y: jax.block_until_ready(fit(jax.random.key(seed), x, y))


FITS = {"hand": hand_fit, "ours": ours, "stock": stock}


def first(which: str) -> dict[str, float]:
    """In this fresh process: one fit, and what of it was the compiler's."""
    import jax

    backend = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: (
            backend.append(seconds) if name.endswith("backend_compile_duration") else None
        )
    )
    if cache := os.environ.get("PPBDL_BENCH_CACHE"):
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.numpy.zeros(3).block_until_ready()
    import numpyro  # noqa: F401  imported by all three, so that importing is not counted

    import ppbdl  # noqa: F401

    fit, (x, y) = FITS[which](), arrays(0)
    backend.clear()
    start = clock()
    fit(0, x, y)
    cpu, wall = spent(start)
    return {"cpu": cpu, "wall": wall, "compiles": len(backend), "backend": sum(backend)}


def fresh(which: str, **env: str) -> dict[str, float]:
    out = subprocess.run(
        [sys.executable, __file__, "--first", which],
        env=os.environ | env,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(out.stdout.splitlines()[-1])


def second(repetitions: int) -> dict[str, list[tuple[float, float]]]:
    """In one process, interleaved: fits of new data and seeds, once everything is compiled."""
    fits = {name: FITS[name]() for name in ("hand", "ours")}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in fits}
    for repetition in range(repetitions + 1):
        x, y = arrays(repetition)
        for name, fit in fits.items():
            start = clock()
            fit(repetition, x, y)
            if repetition:
                seconds[name].append(spent(start))
    return seconds


def median(rows: list[dict[str, float]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", choices=FITS)
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    if args.first:
        print(json.dumps(first(args.first)))
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in FITS}
    for repetition in range(args.repetitions):
        for name in FITS if repetition < 2 else ("hand", "ours"):
            runs[name].append(fresh(name))
    hand = median(runs["hand"], "cpu")
    print("first fit        CPU s   wall s  compilations  CPU ratio to hand")
    for name, rows in runs.items():
        cpu = median(rows, "cpu")
        print(
            f"  {name:12s} {cpu:7.2f} {median(rows, 'wall'):8.2f} "
            f"{median(rows, 'compiles'):12.0f} {cpu / hand:12.2f}"
        )
    with tempfile.TemporaryDirectory() as cache:
        warm = [
            fresh("ours", PPBDL_BENCH_CACHE=cache, PYTHONHASHSEED=str(i))
            for i in range(args.repetitions + 1)
        ][1:]
    print(
        f"warm cache: backend compilation {median(warm, 'backend'):.2f} s, whole fit "
        f"{median(warm, 'cpu'):.2f} CPU s"
    )
    again = second(2 * args.repetitions)
    for kind, index in (("CPU", 0), ("wall", 1)):
        ratios = [o[index] / h[index] for o, h in zip(again["ours"], again["hand"], strict=True)]
        print(
            f"second fit, {kind}: hand {statistics.median(h[index] for h in again['hand']):.3f} s, "
            f"ours {statistics.median(o[index] for o in again['ours']):.3f} s, "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
