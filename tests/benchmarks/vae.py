"""What a VAE's training step costs, in the same work written by hand, and its test likelihood.

    python tests/benchmarks/vae.py {steps,marginal} [--repeats 7] [--torch PYTHON]

The network of Burda et al. (2016) with one stochastic layer: 784-200-200-50 and back, tanh,
Bernoulli, Adam, batches of 100 of 10,000 images on the device.  "by hand" is the bound in plain
jax.numpy and Optax in a compiled loop; PyTorch takes part if PYTHON has it, in a process of its
own, written by hand as its users do.  They take turns; the medians are of CPU seconds, on one core:
`taskset -c 0`.  `marginal` gives the seconds and the peak memory of log p of images by 5,000
samples each.  On 2026-11-21, jax 0.12, ms a step: by hand 2.92, ppbdl 3.23, PyTorch 4.44, all near
what the core does in matrix products; `marginal` of 10,000 images, on a busy machine: 1,081 s and
0.83 GiB.
"""

import argparse
import functools
import json
import math
import resource
import statistics
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ppbdl
from ppbdl.inference.optimisation import programs_of
from ppbdl.models import VAE
from ppbdl.structure import shapes_of

ROWS, BATCH, SIZES, LATENT = 10_000, 100, (784, 200, 200), 50

TORCH = """
import json, sys, time, torch
from torch import nn
torch.set_num_threads(1)
encoder = nn.Sequential(nn.Linear(784, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(),
                        nn.Linear(200, 100))
decoder = nn.Sequential(nn.Linear(50, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(),
                        nn.Linear(200, 784))
adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
data = (torch.rand(10_000, 784) < 0.3).float()
for line in sys.stdin:
    before = time.process_time()
    for _ in range(json.loads(line)):
        y = data[torch.randint(0, len(data), (100,))]
        loc, log_scale = encoder(y).chunk(2, -1)
        logits = decoder(loc + log_scale.exp() * torch.randn_like(loc))
        fits = nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="sum")
        kl = 0.5 * (loc**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()
        adam.zero_grad()
        ((fits + kl) / len(y)).backward()
        adam.step()
    print(time.process_time() - before, flush=True)
"""


def dense(key, sizes):
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(k, (m, n)) / math.sqrt(m), jnp.zeros(n))
        for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def mlp(weights, h):
    for w, b in weights[:-1]:
        h = jnp.tanh(h @ w + b)
    return h @ weights[-1][0] + weights[-1][1]


def by_hand(data):
    keys, adam = jax.random.split(jax.random.key(0)), optax.adam(1e-3)
    sides = (*SIZES, 2 * LATENT), (LATENT, *SIZES[::-1])
    weights = [dense(key, sizes) for key, sizes in zip(keys, sides, strict=True)]

    @jax.jit
    def run(weights, state, y, n):
        def body(i, carry):
            weights, state = carry
            keys = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
            rows = y[jax.random.randint(keys[0], (BATCH,), 0, ROWS)]

            def loss(weights):
                loc, log_scale = jnp.split(mlp(weights[0], rows), 2, -1)
                z = loc + jnp.exp(log_scale) * jax.random.normal(keys[1], loc.shape)
                logits = mlp(weights[1], z)
                fits = rows * logits - jax.nn.softplus(logits)
                kl = 0.5 * (loc**2 + jnp.exp(2 * log_scale) - 1) - log_scale
                return (kl.sum() - fits.sum()) / BATCH

            updates, state = adam.update(jax.grad(loss)(weights), state)
            return optax.apply_updates(weights, updates), state

        return jax.lax.fori_loop(0, n, body, (weights, state))

    state, y = adam.init(weights), jax.device_put(np.float32(data.y.reshape(ROWS, -1)))
    return lambda n: run(weights, state, y, np.int32(n))


def ours(data):
    x, y = jax.device_put((data.x, data.y))
    model = VAE((28, 28, 1), LATENT)
    svi = ppbdl.SVI(model.guide, optax.adam(1e-3), steps=1, batch_size=BATCH, draws=1)
    programs = programs_of(model, svi, None, shapes_of(data))
    start = programs.init(jax.random.key(0), x, y)
    return lambda n: programs.advance(start, x, y, n)


def cpu_seconds(run):
    before = time.process_time()
    jax.block_until_ready(run())
    return time.process_time() - before


def images(rows):
    grey = np.random.default_rng(0).uniform(size=(rows, 28, 28, 1))
    return ppbdl.Data(None, (grey < 0.3).astype(np.int32))


def steps(asked):
    torch = asked.torch and subprocess.Popen(
        [asked.torch, "-c", TORCH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def torchs(n):
        torch.stdin.write(json.dumps(n) + "\n")
        torch.stdin.flush()
        return float(torch.stdout.readline())

    data = images(ROWS)
    timed = {
        name: functools.partial(lambda run, n: cpu_seconds(lambda: run(n)), run)
        for name, run in {"by hand": by_hand(data), "ppbdl": ours(data)}.items()
    }
    if torch:
        timed["PyTorch"] = torchs
    for run in timed.values():
        run(2)
    seconds = {name: [] for name in timed}
    for _ in range(asked.repeats):
        for name, run in timed.items():
            seconds[name].append(run(asked.steps) / asked.steps)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"\n{'one step':16}{'CPU ms':>10}{'ratio':>9}")
    for name, median in medians.items():
        print(f"{name:16}{1e3 * median:10.2f}{median / medians['by hand']:9.2f}")


def marginal(asked):
    data, model = images(asked.rows), VAE((28, 28, 1), LATENT)
    svi = ppbdl.SVI(model.guide, steps=20, batch_size=BATCH, draws=1)
    posterior = ppbdl.fit(0, model, data, svi, progress=False)
    before = time.perf_counter()
    log_p, error = model.log_marginal(1, posterior, data.y, samples=5000)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{asked.rows} images x 5,000 samples: {time.perf_counter() - before:.0f} s, "
        f"peak of the process {peak:.2f} GiB, mean {log_p.mean():.1f} +- {error.mean():.2f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["steps", "marginal"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that has PyTorch")
    asked = parser.parse_args()
    {"steps": steps, "marginal": marginal}[asked.what](asked)
