"""What a flow's step, fit, compilation and samples cost, in the same work written by hand.

    python tests/benchmarks/flows.py {steps,fit,compile,sample} [--repeats 7] [--zuko PYTHON]

Five layers, conditioners of 64 x 2 units, batches of 512 of 10,000 rows on the device: RealNVP of
2 features and NSF (8 bins) of 43.  "by hand" is the density in plain jax.numpy, without ppbdl,
NumPyro or Haiku, and Optax's Adam in a compiled loop.  FlowJAX takes part if it can be imported,
zuko (PyTorch) if PYTHON has it: it is a process of its own that takes its turn.  Methods take
turns, so that a busy machine is busy for all of them; the medians are of CPU seconds.  On
2026-11-21, jax 0.12, on one core (`taskset -c 0`), ms a step: RealNVP by hand 1.09, ppbdl 1.12,
FlowJAX 1.70, zuko 4.03; NSF 23.2, 23.7, 32.8 and 102.  With PyTorch's own number of threads zuko
took 76 and 384 on a busy machine, most of it waiting.
"""

import argparse
import functools
import json
import math
import statistics
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ppbdl
from ppbdl.inference.optimisation import programs_of
from ppbdl.models import NSF, RealNVP
from ppbdl.structure import shapes_of

ROWS, BATCH, LAYERS, WIDTH, BINS, BOUND = 10_000, 512, 5, 64, 8, 3.0
CASES = {"RealNVP 2-D": (RealNVP, 2, 2), "NSF 43-D": (NSF, 43, 3 * BINS - 1)}

ZUKO = """
import json, sys, time, torch, zuko
torch.set_num_threads(1)  # its least CPU seconds: with more, waiting threads spin
flows = {"RealNVP 2-D": (zuko.flows.RealNVP, 2, {}), "NSF 43-D": (zuko.flows.NSF, 43, {"bins": 8})}
ready = {}
for line in sys.stdin:
    name, steps = json.loads(line)
    if name not in ready:
        make, features, more = flows[name]
        if name.startswith("NSF"):
            more = more | {"passes": 2}
        flow = make(features, transforms=5, hidden_features=(64, 64), **more)
        data = torch.randn(10_000, features)
        ready[name] = flow, torch.optim.Adam(flow.parameters(), 1e-3), data
    flow, adam, data = ready[name]
    before = time.process_time()
    for _ in range(steps):
        rows = data[torch.randint(0, len(data), (512,))]
        loss = -flow().log_prob(rows).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    print(time.process_time() - before, flush=True)
"""


def dense(key, sizes):
    keys = jax.random.split(key, len(sizes) - 1)
    scale = [1 / math.sqrt(n) for n in sizes[:-2]] + [0.0]
    return [
        (s * jax.random.normal(k, (m, n)), jnp.zeros(n))
        for k, m, n, s in zip(keys, sizes[:-1], sizes[1:], scale, strict=True)
    ]


def mlp(weights, h):
    for w, b in weights[:-1]:
        h = jax.nn.relu(h @ w + b)
    return h @ weights[-1][0] + weights[-1][1]


def affine_inverse(raw, y):
    shift, scale = raw[..., 0], 3 * jnp.tanh(raw[..., 1] / 3)
    return (y - shift) * jnp.exp(-scale), -scale


def spline_inverse(raw, y):
    """Durkan et al. (2019), equations 6 to 8, with unit slopes at both ends."""
    widths, heights = (
        2 * BOUND * (1e-3 + (1 - BINS * 1e-3) * jax.nn.softmax(part))
        for part in (raw[..., :BINS], raw[..., BINS : 2 * BINS])
    )
    slopes = 1e-3 + jax.nn.softplus(raw[..., 2 * BINS :] + math.log(math.expm1(1 - 1e-3)))
    slopes = jnp.pad(slopes, [(0, 0)] * (slopes.ndim - 1) + [(1, 1)], constant_values=1.0)
    xs, ys = (
        jnp.pad(jnp.cumsum(part, -1), [(0, 0)] * (part.ndim - 1) + [(1, 0)]) - BOUND
        for part in (widths, heights)
    )
    inside = jnp.abs(y) < BOUND
    at = jnp.where(inside, y, 0.0)
    k = jnp.clip(jnp.sum(at[..., None] >= ys, -1) - 1, 0, BINS - 1)
    chosen = jax.nn.one_hot(k, BINS)
    x0, y0, w, h, d0, d1 = (
        (chosen * part).sum(-1)
        for part in (xs[..., :-1], ys[..., :-1], widths, heights, slopes[..., :-1], slopes[..., 1:])
    )
    s = h / w
    curve = d1 + d0 - 2 * s
    a, b, c = (at - y0) * curve + h * (s - d0), h * d0 - (at - y0) * curve, -s * (at - y0)
    t = 2 * c / (-b - jnp.sqrt(b**2 - 4 * a * c))
    slope = s**2 * (d1 * t**2 + 2 * s * t * (1 - t) + d0 * (1 - t) ** 2)
    log_slope = jnp.log(slope) - 2 * jnp.log(s + curve * t * (1 - t))
    return jnp.where(inside, x0 + t * w, y), jnp.where(inside, -log_slope, 0.0)


def log_prob_by_hand(features, numbers, weights, y):
    kept, log_det = features // 2, 0.0
    inverse = affine_inverse if numbers == 2 else spline_inverse
    for layer in reversed(weights):
        y = jnp.flip(y, -1)
        raw = mlp(layer, y[:, :kept]).reshape(len(y), features - kept, numbers)
        moved, change = inverse(raw, y[:, kept:])
        y, log_det = jnp.concatenate([y[:, :kept], moved], -1), log_det + change.sum(-1)
    return log_det - 0.5 * (y**2).sum(-1) - features / 2 * math.log(2 * math.pi)


def by_hand(data, features, numbers):
    kept = features // 2
    sizes = [kept, WIDTH, WIDTH, (features - kept) * numbers]
    weights = [dense(key, sizes) for key in jax.random.split(jax.random.key(0), LAYERS)]
    adam = optax.adam(1e-3)

    @jax.jit
    def run(weights, state, y, n):
        def body(i, carry):
            weights, state = carry
            index = jax.random.randint(jax.random.fold_in(jax.random.key(1), i), (BATCH,), 0, ROWS)

            def loss(weights):
                return -log_prob_by_hand(features, numbers, weights, y[index]).mean()

            updates, state = adam.update(jax.grad(loss)(weights), state)
            return optax.apply_updates(weights, updates), state

        return jax.lax.fori_loop(0, n, body, (weights, state))

    state, y = adam.init(weights), jax.device_put(data.y)
    return lambda n: run(weights, state, y, np.int32(n))


def ours(data, make, features):
    x, y = jax.device_put((data.x, data.y))
    model = make(features, layers=LAYERS, width=WIDTH)
    svi = ppbdl.MAP(optax.adam(1e-3), steps=1, batch_size=BATCH).svi
    programs = programs_of(model, svi, None, shapes_of(data))
    start = programs.init(jax.random.key(0), x, y)
    return lambda n: programs.advance(start, x, y, n)


def flowjaxs(features, spline):
    """FlowJAX's coupling flow, as its documentation makes one."""
    import equinox as eqx
    from flowjax.bijections import Affine, RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow

    transformer = RationalQuadraticSpline(knots=BINS, interval=BOUND) if spline else Affine()
    flow = coupling_flow(
        jax.random.key(0),
        base_dist=Normal(jnp.zeros(features)),
        transformer=transformer,
        flow_layers=LAYERS,
        nn_width=WIDTH,
        nn_depth=2,
    )
    return eqx, flow


def flowjax_steps(data, features, spline):
    eqx, flow = flowjaxs(features, spline)
    from paramax import NonTrainable, unwrap

    params, static = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, NonTrainable)
    )
    adam = optax.adam(1e-3)

    @jax.jit
    def run(params, state, y, n):
        def body(i, carry):
            params, state = carry
            index = jax.random.randint(jax.random.fold_in(jax.random.key(1), i), (BATCH,), 0, ROWS)

            def loss(params):
                return -unwrap(eqx.combine(params, static)).log_prob(y[index]).mean()

            updates, state = adam.update(jax.grad(loss)(params), state)
            return eqx.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, n, body, (params, state))

    state, y = adam.init(params), jax.device_put(data.y)
    return lambda n: run(params, state, y, np.int32(n))


def cpu_seconds(run):
    before = time.process_time()
    jax.block_until_ready(run())
    return time.process_time() - before


def data_of(features):
    y = np.random.default_rng(0).normal(size=(ROWS, features)).astype(np.float32)
    return ppbdl.Data(None, y)


def print_ratios(title, seconds, unit, scale=1e3, what="CPU ms"):
    print(f"\n{title:28}{what:>10}{'ratio':>9}")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:28}{scale * median:10.2f}{median / medians[unit]:9.2f}")


def steps(asked):
    zuko = asked.zuko and subprocess.Popen(
        [asked.zuko, "-c", ZUKO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def zukos(case, n):
        zuko.stdin.write(json.dumps([case, n]) + "\n")
        zuko.stdin.flush()
        return float(zuko.stdout.readline())

    for case, (make, features, numbers) in CASES.items():
        data = data_of(features)
        runs = {
            "by hand": by_hand(data, features, numbers),
            "ppbdl": ours(data, make, features),
        }
        if asked.flowjax:
            runs["FlowJAX, bare"] = flowjax_steps(data, features, numbers > 2)
        timed = {
            name: functools.partial(lambda run, n: cpu_seconds(lambda: run(n)), run)
            for name, run in runs.items()
        }
        if zuko:
            timed["zuko"] = functools.partial(zukos, case)
        for run in timed.values():
            run(2)
        seconds = {name: [] for name in timed}
        for _ in range(asked.repeats):
            for name, run in timed.items():
                seconds[name].append(run(asked.steps) / asked.steps)
        print_ratios(f"{case}, one step", seconds, "by hand")


def fit(asked):
    """A whole fit, compiling included."""
    from flowjax.train import fit_to_data

    seconds = {"ppbdl": [], "FlowJAX, fit_to_data": []}
    epochs = asked.epochs
    data = data_of(2)
    n = epochs * (ROWS // BATCH)
    for repeat in range(asked.repeats):
        jax.clear_caches()
        programs_of.cache_clear()
        model = RealNVP(2, layers=LAYERS, width=WIDTH)
        method = ppbdl.MAP(optax.adam(1e-3), n, BATCH)
        run = functools.partial(ppbdl.fit, repeat, model, data, method, progress=False)
        seconds["ppbdl"].append(cpu_seconds(lambda run=run: run().params))
        _, flow = flowjaxs(2, False)
        run = functools.partial(
            fit_to_data,
            jax.random.key(repeat),
            flow,
            data.y,
            max_epochs=epochs,
            max_patience=epochs,
            batch_size=BATCH,
            val_prop=0.01,
            show_progress=False,
            optimizer=optax.adam(1e-3),
        )
        seconds["FlowJAX, fit_to_data"].append(cpu_seconds(lambda run=run: run()[1]))
    print_ratios(f"RealNVP 2-D, {n} steps", seconds, "ppbdl", 1.0, "CPU s")


def compiling(asked):
    for case, (make, features, _) in CASES.items():
        data = data_of(features)
        x, y = jax.device_put((data.x, data.y))
        seconds = {"4 layers": [], "16 layers": []}
        for _ in range(asked.repeats):
            for layers in (4, 16):
                jax.clear_caches()
                programs_of.cache_clear()
                svi = ppbdl.MAP(optax.adam(1e-3), steps=1, batch_size=BATCH).svi
                programs = programs_of(make(features, layers=layers), svi, None, shapes_of(data))
                state = programs.init(jax.random.key(0), x, y)
                programs.advance(state, x, y, 1)
                seconds[f"{layers} layers"].append(programs.seconds_compiling)
        print_ratios(f"{case}, compiling a fit", seconds, "4 layers", 1.0, "wall s")


def sample(asked):
    """100,000 points of a RealNVP, and the matrix products of its conditioners alone."""
    draws = 100_000
    model, data = RealNVP(2, layers=LAYERS, width=WIDTH), data_of(2)
    method = ppbdl.MAP(optax.adam(1e-3), 100, BATCH)
    flow = model.fitted(ppbdl.fit(0, model, data, method, progress=False))
    ours = jax.jit(lambda key: flow.sample(key, (draws,)))
    sizes = [1, WIDTH, WIDTH, 2]
    weights = [dense(key, sizes) for key in jax.random.split(jax.random.key(0), LAYERS)]

    @jax.jit
    def products(h):
        return [
            functools.reduce(lambda h, layer: h @ layer[0], layers, h[:, :1]) for layers in weights
        ]

    @jax.jit
    def networks(h):
        return [mlp(layers, h[:, :1]) for layers in weights]

    z = jax.random.normal(jax.random.key(0), (draws, 2))
    runs = {
        "matrix products": lambda: products(z),
        "conditioners": lambda: networks(z),
        "ppbdl, samples": lambda: ours(jax.random.key(1)),
    }
    for run in runs.values():
        cpu_seconds(run)
    seconds = {name: [] for name in runs}
    for _ in range(asked.repeats):
        for name, run in runs.items():
            seconds[name].append(cpu_seconds(run))
    print_ratios("100,000 samples", seconds, "matrix products")


def main():
    parts = {"steps": steps, "fit": fit, "compile": compiling, "sample": sample}
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("part", choices=parts)
    arguments.add_argument("--steps", type=int, default=200)
    arguments.add_argument("--epochs", type=int, default=200, help="of a whole fit")
    arguments.add_argument("--repeats", type=int, default=7)
    arguments.add_argument("--zuko", metavar="PYTHON", help="a Python that has zuko")
    arguments.add_argument("--flowjax", action="store_true", help="with FlowJAX, if it is there")
    asked = arguments.parse_args()
    parts[asked.part](asked)


if __name__ == "__main__":
    main()
