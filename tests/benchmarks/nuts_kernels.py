"""Placeholder docstring."""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from arviz_stats.base import array_stats
from jax.flatten_util import ravel_pytree
from numpyro.infer.hmc import hmc
from numpyro.infer.util import initialize_model, potential_energy

try:
    import blackjax
    from blackjax.adaptation.window_adaptation import base, build_schedule
except ImportError:
    blackjax = None

YACHT = Path("/work/shared/data/uci/yacht.npz")
SCHOOLS = ([28.0, 8, -3, 7, -1, 1, 18, 12], [15.0, 10, 16, 11, 9, 11, 10, 18])


def logistic(x, y):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def schools(y, sigma):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    raw = numpyro.sample("raw", dist.Normal(0, 1).expand([8]).to_event(1))
    numpyro.sample("y", dist.Normal(mu + tau * raw, sigma), obs=y)


def network(sites, x, act=jnp.tanh):
    return (act(x @ sites["w1"] + sites["b1"]) @ sites["w2"] + sites["b2"])[..., 0]


def bnn(x, y, hidden=50, act=jnp.tanh, noise=None):
    sites = {}
    for i, (m, n) in enumerate([(x.shape[1], hidden), (hidden, 1)], start=1):
        weight, bias = dist.Normal(0, m**-0.5).expand([m, n]), dist.Normal(0, 1).expand([n])
        sites[f"w{i}"] = numpyro.sample(f"w{i}", weight.to_event(2))
        sites[f"b{i}"] = numpyro.sample(f"b{i}", bias.to_event(1))
    sd = numpyro.sample("sd", dist.HalfNormal(1.0) if noise is None else noise)
    numpyro.sample("y", dist.Normal(network(sites, x, act), sd), obs=y)


def yacht(split=0):
    """Standardised train and test rows, and the target's scale."""
    d = np.load(YACHT)
    tr, te = d["index_train"][split], d["index_test"][split]
    x, y = d["x"], d["y"]
    mx, sx, my, sy = x[tr].mean(0), x[tr].std(0), y[tr].mean(), y[tr].std()
    x, y = ((x - mx) / sx).astype(np.float32), ((y - my) / sy).astype(np.float32)
    return (x[tr], y[tr]), (x[te], y[te]), sy


def flat(model, data):
    """The potential of one flat vector, and the map from that vector to the sites."""
    info = initialize_model(jax.random.key(0), model, model_args=data, dynamic_args=True)
    z0, unravel = ravel_pytree(info.param_info.z)
    constrain = lambda z: info.postprocess_fn(*data)(unravel(z))  # noqa: E731
    return lambda z, data: potential_energy(model, data, {}, unravel(z)), z0, constrain, unravel


def numpyro_kernel(potential, warmup, depth, **settings):
    init, sample = hmc(potential_fn_gen=lambda data: lambda z: potential(z, data), algo="NUTS")

    def start(key, z, data):
        return init(z, warmup, max_tree_depth=depth, model_args=(data,), rng_key=key, **settings)

    def fields(s):
        return s.z, s.diverging, s.energy, s.accept_prob, s.num_steps

    return start, lambda state, data: sample(state, (data,)), fields


def blackjax_kernel(potential, warmup, depth):
    kernel = blackjax.nuts.build_kernel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        adapt_init, adapt_update, _ = base(True, 0.8)
    schedule = build_schedule(warmup)

    def start(key, z, data):
        state = blackjax.nuts.init(z, lambda z: -potential(z, data))
        adapt = adapt_init(z, jnp.ones((), jnp.float32))
        info = (jnp.array(False), jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))
        return jnp.zeros((), jnp.int32), key, state, adapt, info

    def step(carry, data):
        i, key, state, adapt, _ = carry
        key, sub = jax.random.split(key)
        warm = i < warmup
        size = jnp.where(warm, adapt.step_size, jnp.exp(adapt.ss_state.log_step_size_avg))
        state, info = kernel(
            sub, state, lambda z: -potential(z, data), size, adapt.inverse_mass_matrix, depth
        )
        update = lambda a: adapt_update(  # noqa: E731
            a, tuple(schedule[jnp.minimum(i, warmup - 1)]), state.position, info.acceptance_rate
        )
        adapt = jax.lax.cond(warm, update, lambda a: a, adapt)
        info = (info.is_divergent, info.energy, info.acceptance_rate, info.num_integration_steps)
        return i + 1, key, state, adapt, info

    return start, step, lambda carry: (carry[2].position, *carry[4])


def program(kernel, warmup, draws):
    """Warm-up and draws as one loop around one copy of the kernel; data are arguments."""
    start, step, fields = kernel

    def run(key, z, data):
        state = start(key, z, data)
        rows = jax.tree.map(lambda a: jnp.zeros((draws, *a.shape), a.dtype), fields(state))

        def body(i, carry):
            state, rows = carry
            state = step(state, data)
            j = jnp.maximum(i - warmup, 0)
            return state, jax.tree.map(lambda r, a: r.at[j].set(a), rows, fields(state))

        state, rows = jax.lax.fori_loop(0, warmup + draws, body, (state, rows))
        return rows, state

    return run
