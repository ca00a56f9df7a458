"""NUTS: our repeated fits against NumPyro's, and NumPyro's kernel against BlackJAX's, a tie.

    taskset -c 0 python tests/benchmarks/nuts_kernels.py    # one core: a second would spin
    taskset -c 0 python tests/benchmarks/nuts_kernels.py fits

A fit: `numpyro.infer.MCMC` as it comes, the same with jit_model_args=True, and `ppbdl.fit`, one
chain, each fitted once before and then again to the same rows in another order: new data of the
same shapes.  CPU seconds count all that the call does, and bulk effective draws are divided by
them; medians, and ours over NumPyro's.  On 2026-11-21, a busy machine: median rates of the
logistic regression 732, 754 and 5,840 (8.0 and 7.7 times), least rates of the network's predictions
14.1, 14.4 and 15.4 (1.09 and 1.07 times).

A kernel: warm-up and draws are one loop around one copy of its step, on the same flat potential;
float32, diagonal mass matrix, acceptance 0.8, tree depth 10.  Medians over interleaved repetitions:
seconds to trace and to compile, CPU seconds of a run, bulk effective draws a CPU second (weights;
mu and tau; test predictions), divergences, acceptance, gradients a draw.  On 2026-11-21, jax 0.12,
NumPyro 0.22, BlackJAX 1.7.1, a busy machine, NumPyro's first: CPU seconds 0.007 and 0.006
(schools), 0.14 and 0.13 (logistic), 10.7 and 10.6 (noise near 0.1); median rates 1.3e5 and 1.1e5,
5.6e3 and 5.8e3, 28 and 26.  Learned, the noise is 0.007: trees are full and neither kernel mixes.
"""

from __future__ import annotations

import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from arviz_stats.base import array_stats
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC, NUTS
from numpyro.infer.hmc import hmc
from numpyro.infer.util import initialize_model, potential_energy

import ppbdl
from ppbdl.datasets import load

try:
    import blackjax
    from blackjax.adaptation.window_adaptation import base, build_schedule
except ImportError:
    raise SystemExit("BlackJAX is not installed: pip install blackjax") from None

KEY = jax.random.key(0)


def logistic(x, y):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def schools(sd, y):
    mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
    raw = numpyro.sample("raw", dist.Normal(0, 1).expand([8]).to_event(1))
    numpyro.sample("y", dist.Normal(mu + tau * raw, sd), obs=y)


network = lambda s, x: (jnp.tanh(x @ s["w1"] + s["b1"]) @ s["w2"] + s["b2"])[..., 0]  # noqa: E731


def bnn(x, y, noise, hidden=50):
    d, s = x.shape[1], {}
    for k, n in {"w1": (d, hidden), "b1": (1, hidden), "w2": (hidden, 1), "b2": (1, 1)}.items():
        s[k] = numpyro.sample(k, dist.Normal(0, n[0] ** -0.5).expand(n).to_event(2))
    numpyro.sample("y", dist.Normal(network(s, x), numpyro.sample("sd", noise)), obs=y)


def problems():  # name: model, data, what is measured of its sites
    rng = np.random.default_rng(0)
    x, p = rng.normal(size=(1000, 25)), rng.random(1000)
    y = p < 1 / (1 + np.exp(-x @ rng.normal(size=25)))
    eight = [15, 10, 16, 11, 9, 11, 10, 18], [28, 8, -3, 7, -1, 1, 18, 12]
    train, test = load("yacht")
    yacht = [(a - np.mean(a, 0)) / np.std(a, 0) for a in (train.x, train.y)]
    rows = jnp.float32((test.x - np.mean(train.x, 0)) / np.std(train.x, 0))
    table = {"schools": (schools, eight, lambda s: jnp.stack([s["mu"], s["tau"]]))}
    table["logistic"] = logistic, (x, y), lambda s: s["w"]
    for name, noise in [("near 0.1", dist.LogNormal(-2.3, 0.02)), ("learned", dist.HalfNormal(1))]:
        table[f"bnn, noise {name}"] = partial(bnn, noise=noise), yacht, lambda s: network(s, rows)
    return {k: (m, tuple(map(jnp.float32, data)), f) for k, (m, data, f) in table.items()}


def flat(model, data):
    """The potential of one flat vector, a start, and the map from the vector to the sites."""
    info = initialize_model(KEY, model, model_args=data, dynamic_args=True)
    z, unravel = ravel_pytree(info.param_info.z)
    potential = lambda z, data: potential_energy(model, data, {}, unravel(z))  # noqa: E731
    return potential, z, lambda z: info.postprocess_fn(*data)(unravel(z))


def numpyro_kernel(potential, warmup):
    init, sample = hmc(potential_fn_gen=lambda data: lambda z: potential(z, data), algo="NUTS")
    start = lambda key, z, data: init(z, warmup, model_args=(data,), rng_key=key)  # noqa: E731
    fields = lambda s: (s.z, s.diverging, s.accept_prob, s.num_steps)  # noqa: E731
    return start, lambda state, data: sample(state, (data,)), fields


def blackjax_kernel(potential, warmup):
    kernel, schedule = blackjax.nuts.build_kernel(), build_schedule(warmup)
    adapt_init, adapt_update, _ = base(True, 0.8)  # deprecated, with no public successor in chunks

    def start(key, z, data):
        state = blackjax.nuts.init(z, lambda z: -potential(z, data))
        return jnp.int32(0), key, state, adapt_init(z, jnp.ones(())), (False, 0.0, jnp.int32(0))

    def step(carry, data):
        i, key, state, adapt, _ = carry
        key, sub = jax.random.split(key)
        size = jnp.where(i < warmup, adapt.step_size, jnp.exp(adapt.ss_state.log_step_size_avg))
        density = lambda z: -potential(z, data)  # noqa: E731
        state, info = kernel(sub, state, density, size, adapt.inverse_mass_matrix)
        stage = tuple(schedule[jnp.minimum(i, warmup - 1)])
        update = lambda a: adapt_update(a, stage, state.position, info.acceptance_rate)  # noqa: E731
        adapt = jax.lax.cond(i < warmup, update, lambda a: a, adapt)
        kept = info.is_divergent, info.acceptance_rate, info.num_integration_steps
        return i + 1, key, state, adapt, kept

    return start, step, lambda carry: (carry[2].position, *carry[4])


def program(kernel, steps):
    start, step, fields = kernel
    body = lambda data, state, _: (state := step(state, data), fields(state))  # noqa: E731
    return lambda key, z, data: jax.lax.scan(partial(body, data), start(key, z, data), length=steps)


def compare(name, warmup, draws, repeats):
    model, data, measured = problems()[name]
    potential, z, constrain = flat(model, data)
    look, programs = jax.jit(jax.vmap(lambda z: measured(constrain(z)))), {}
    for kernel in (numpyro_kernel, blackjax_kernel):
        clock = [time.perf_counter()]
        lowered = jax.jit(program(kernel(potential, warmup), warmup + draws)).lower(KEY, z, data)
        clock.append(time.perf_counter())
        programs[kernel] = lowered.compile(), [*clock, time.perf_counter()], []
    for key in jax.random.split(KEY, repeats):
        for run, _, results in programs.values():
            start, rows = time.process_time(), jax.block_until_ready(run(key, z, data))[1]
            cpu = time.process_time() - start
            zs, bad, accept, steps = (np.asarray(a)[warmup:] for a in rows)
            ess = array_stats.ess(np.asarray(look(zs))[None], chain_axis=0, draw_axis=1) / cpu
            results.append((cpu, ess.min(), np.median(ess), bad.sum(), accept.mean(), steps.mean()))
    for kernel, (_, clock, results) in programs.items():
        cells = "".join(f"{c:>10.3g}" for c in (*np.diff(clock), *np.median(results, 0)))
        print(f"{name:<20}{kernel.__name__[:-7]:<10}{cells}", flush=True)


def stock(model, warmup, draws, **settings):
    mcmc = MCMC(NUTS(model), num_warmup=warmup, num_samples=draws, progress_bar=False, **settings)

    def fit(key, x, y):
        mcmc.run(key, x, y)
        return mcmc.get_samples()

    return fit


def ours(model, warmup, draws):
    nuts = ppbdl.NUTS(draws, warmup, chains=1)

    def fit(key, x, y):
        draws = ppbdl.fit(key, model, ppbdl.Data(x, y), nuts, progress=False).draws
        return {name: value[0] for name, value in draws.items()}

    return fit


def fits(name, warmup, draws, repeats):
    model, (x, y), measured = problems()[name]
    look, rates = jax.jit(jax.vmap(measured)), {}
    methods = {
        "NumPyro": stock(model, warmup, draws),
        "NumPyro, jitted": stock(model, warmup, draws, jit_model_args=True),
        "ppbdl": ours(model, warmup, draws),
    }
    for i, key in enumerate(jax.random.split(KEY, repeats + 1)):
        order = np.random.default_rng(i).permutation(len(x))
        for label, fit in methods.items():
            start, sites = time.process_time(), jax.block_until_ready(fit(key, x[order], y[order]))
            cpu = time.process_time() - start
            ess = array_stats.ess(np.asarray(look(sites))[None], chain_axis=0, draw_axis=1) / cpu
            rates.setdefault(label, []).append((cpu, ess.min(), np.median(ess)))
    medians = {label: np.median(rows[1:], 0) for label, rows in rates.items()}  # the first compiles
    for label, (cpu, least, middle) in medians.items():
        ratios = (medians["ppbdl"][1:] / medians[label][1:]).round(2)
        print(
            f"{name:<20}{label:<17}{cpu:>9.3g}{least:>10.3g}{middle:>10.3g}   {ratios}", flush=True
        )


def main():
    if sys.argv[1:] == ["fits"]:
        print(f"{'':<37}{'CPU':>9}{'min/s':>10}{'median/s':>10}   ours / this (min, median)")
        for name in ("logistic", "bnn, noise near 0.1"):
            fits(name, *((300, 300, 3) if name.startswith("bnn") else (500, 1000, 5)))
        return
    columns = "trace", "compile", "CPU", "min/s", "median/s", "diverging", "accept", "gradients"
    print(" " * 30 + "".join(f"{c:>10}" for c in columns))
    for name in problems():
        compare(name, *((300, 300, 3) if name.startswith("bnn") else (500, 1000, 9)))


if __name__ == "__main__":
    main()
