"""What a normal costs where it is used: ppbdl's noise, JAX's generators, and none at all.

    python tests/benchmarks/noise.py [--repeats 15]

The noise goes into a sum of weights, into a product with a batch, and into that product's
gradient, each compiled whole.  Methods take turns, so that a busy machine is busy for all of them;
the medians are of nanoseconds and of CPU nanoseconds a weight, all of the use included.

On 2026-11-21, jax 0.12, one core of an AMD EPYC with AVX-512, in CPU nanoseconds above no noise, in
the order sum, product, gradient: ppbdl 1.5, 1.4, 1.8 (without its barrier 1.6, 1.4, 2.1); its words
through XLA's erf_inv 2.9, 3.0, 3.6; threefry 7.1, 7.5, 7.8; rbg 54, 56, 28; signs 0.5, 0.2, 0.7.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from ppbdl import noise


def none(key, shape):
    return jnp.full(shape, jax.random.key_data(key)[-1].astype(jnp.float32))


def fused(key, shape):  # without the barrier
    return noise.gaussian(noise.words(key, shape))


def with_erf_inv(key, shape):  # the same words through XLA's inverse error function
    x = ((noise.words(key, shape) >> 9).astype(jnp.float32) + 0.5) * 2.0**-22 - 1
    return jax.lax.optimization_barrier(2**0.5 * jax.lax.erf_inv(x))


def words_only(key, shape):
    return jax.lax.optimization_barrier(noise.words(key, shape).astype(jnp.float32))


GENERATORS = {  # name: implementation of the key, normals
    "none": (None, none),
    "ppbdl": (None, noise.normal),
    "ppbdl, no barrier": (None, fused),
    "ppbdl's words alone": (None, words_only),
    "ppbdl's words, erf_inv": (None, with_erf_inv),
    "ppbdl's signs": (None, noise.rademacher),
    "threefry": (None, jax.random.normal),
    "rbg": ("rbg", jax.random.normal),
}


def total(weights, batch):
    return jnp.sum(weights)


def product(weights, batch):
    return jnp.sum(jnp.square(jax.nn.relu(batch @ weights)))


def consumers():
    """Name, shape, function of ``(generator) -> (key, loc, scale, batch) -> arrays``."""

    def forwards(use, shape):
        return lambda draw: lambda key, loc, scale, x: use(loc + scale * draw(key, shape), x)

    def backwards(use, shape):
        return lambda draw: jax.grad(
            lambda key, loc, scale, x: use(loc + scale * draw(key, shape), x), argnums=(1, 2)
        )

    yield "a sum of weights", (478_410,), forwards(total, (478_410,))
    yield "a product with 128 rows", (784, 400), forwards(product, (784, 400))
    yield "its gradient", (784, 400), backwards(product, (784, 400))


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeats", type=int, default=15)
    repeats, calls = arguments.parse_args().repeats, 10
    x = jax.random.normal(jax.random.key(0), (128, 784))
    for title, shape, make in consumers():
        loc, scale = jnp.zeros(shape), jnp.full(shape, 0.1)
        programs = {}
        for name, (implementation, draw) in GENERATORS.items():
            program, key = jax.jit(make(draw)), jax.random.key(1, impl=implementation)
            jax.block_until_ready(program(key, loc, scale, x))
            programs[name] = (program, key)
        wall = {name: [] for name in programs}
        cpu = {name: [] for name in programs}
        for _ in range(repeats):
            for name, (program, key) in programs.items():
                before, cpu_before = time.perf_counter(), time.process_time()
                for _ in range(calls):
                    jax.block_until_ready(program(key, loc, scale, x))
                each = 1e9 / calls / loc.size
                wall[name].append((time.perf_counter() - before) * each)
                cpu[name].append((time.process_time() - cpu_before) * each)
        print(f"{title}, {shape}".ljust(36), "   ns  CPU ns")
        for name in programs:
            medians = statistics.median(wall[name]), statistics.median(cpu[name])
            print(f"  {name:34} {medians[0]:6.2f} {medians[1]:6.2f}")


if __name__ == "__main__":
    main()
