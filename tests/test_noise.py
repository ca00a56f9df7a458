"""A battery of tests for the weights' noise: what must pass, and the planted faults it must catch.

Each test of the table gives p-values; a generator passes if the least of a test's, times their
number, is at least ALPHA.  A perfect generator fails one of the 21 tests of a run with
probability of about 21 ALPHA = 2e-7 at most, whatever the tests' dependence (Bonferroni; some
p-values are large-sample ones).  The keys are fixed: what passes once on a machine passes always.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppbdl import noise
from ppbdl.errors import InputError

ALPHA = 1e-8
STRIDES = (*range(1, 65), 10, 100, 128, 256, 400, 512, 784, 1024, 4096, 2**14, 2**16)


class Generator(NamedTuple):
    """Words of 32 bits from a key, or from counters under two words, and normals from a key."""

    words: Callable
    normal: Callable
    hashed: Callable | None = None


def from_hash(hashed, scheduled=jax.random.bits):
    """The generator of a hash; `scheduled` makes two words of a key."""

    def words(key, shape):
        a, b = scheduled(key, (2,), jnp.uint32)
        return hashed(jnp.arange(np.prod(shape, dtype=int), dtype=jnp.uint32).reshape(shape), a, b)

    return Generator(words, lambda key, shape: noise.gaussian(words(key, shape)), hashed)


def once(i, a, b):  # a single multiplication
    x = (i + a) * jnp.uint32(0x7FEB352D) ^ b
    return x ^ (x >> 16)


def bytewise(key, shape):  # a sum of four bytes: right in two moments, not Gaussian
    word = noise.words(key, shape)
    total = sum(((word >> shift) & 255).astype(jnp.float32) for shift in (0, 8, 16, 24))
    return (total - 510) / np.sqrt(4 * (256**2 - 1) / 12)


OURS = Generator(noise.words, noise.normal, noise.hashed)
THREEFRY = Generator(jax.random.bits, jax.random.normal)
FAULTY = {  # a generator with a fault, and the test that is there to see it
    "linear congruential": (from_hash(lambda i, a, b: (i + a) * jnp.uint32(1664525) ^ b), "octets"),
    "one multiplication": (from_hash(once), "avalanche"),
    "one to one": (from_hash(lambda i, a, b: noise._mix(noise._mix(i + a) + b)), "collisions"),
    "second word unused": (from_hash(lambda i, a, b: noise._mix(noise._mix(i + a))), "avalanche"),
    "key added last": (from_hash(lambda i, a, b: noise._mix(noise._mix(i)) + a + b), "steps"),
    "key as it comes": (
        from_hash(lambda i, a, b: noise._mix(i + b) + a, lambda key, *_: jax.random.key_data(key)),
        "small keys",
    ),
    "sum of bytes": (Generator(noise.words, bytewise), "tails"),
    "scaled by 1.01": (
        Generator(noise.words, lambda key, shape: 1.01 * noise.normal(key, shape)),
        "moments",
    ),
}


# What the tests are made of: p-values of a z-score, of counts, of a matrix of normals.


def two_sided(z):
    return 2 * stats.norm.sf(np.abs(z))


def of_counts(counts, probabilities):
    counts, expected = np.asarray(counts), np.sum(counts) * np.asarray(probabilities)
    return of_chi2(np.sum((counts - expected) ** 2 / expected), len(counts) - 1)


def of_chi2(chi2, freedom):  # a fit too good is as suspect
    return 2 * min(stats.chi2.sf(chi2, freedom), stats.chi2.cdf(chi2, freedom))


def of_total(count, mean):
    return min(1.0, 2 * min(stats.poisson.cdf(count, mean), stats.poisson.sf(count - 1, mean)))


def of_rows(z):
    """Whether the rows of a matrix are independent standard normal vectors: their Gram matrix."""
    rows, columns = z.shape
    gram = np.asarray(z @ z.T, np.float64) / np.sqrt(columns)
    pairs = gram[np.triu_indices(rows, 1)]
    total = np.sum(pairs**2) - len(pairs)  # their squares are uncorrelated, of variance 2 + 6 / n
    return np.r_[
        two_sided(total / np.sqrt(len(pairs) * (2 + 6 / columns))),
        two_sided(np.sum(pairs) / np.sqrt(len(pairs))),
        two_sided(np.trace(gram, 1) / np.sqrt(rows - 1)),  # consecutive ones
        # The squared cosine of the angle between two has a beta distribution, however extreme.
        min(1, len(pairs) * stats.beta.sf(largest_cosine(z) ** 2, 0.5, (columns - 1) / 2)),
    ]


def largest_cosine(z):
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    return min(1, np.max(np.abs(np.triu(unit @ unit.T, 1))))


def uniforms(word):
    return (np.asarray(word, np.float64) + 0.5) / 2**32


def ones(word):
    return np.unpackbits(np.asarray(word).view(np.uint8), bitorder="little").reshape(-1, 32)


# The table: each test takes a generator, a key and a number of draws.


def moments(g, key, n):
    z = np.asarray(g.normal(key, (n,)), np.float64)
    squares = z * z
    means = [np.mean(a) for a in (z, squares - 1, squares * z, squares * squares - 3)]
    return two_sided(np.sqrt(n) * np.array(means) / np.sqrt([1, 2, 15, 96]))


def distribution(g, key, n):  # Kolmogorov and Smirnov's
    return stats.kstest(np.asarray(g.normal(key, (n // 8,))), stats.norm.cdf).pvalue


def tails(g, key, n):
    z = np.asarray(g.normal(key, (n,)))
    sides = [(np.sum(s * z > t), n * stats.norm.sf(t)) for t in (3, 4, 5) for s in (-1, 1)]
    return [of_total(*side) for side in sides]


def bits(g, key, n):
    counts = np.sum(ones(g.words(key, (n // 8,))), 0, dtype=int)
    return two_sided((counts - n / 16) / np.sqrt(n / 32))


def octets(g, key, n):  # bytes, and halves of words
    word = np.asarray(g.words(key, (n,)))
    parts = [(word >> s & 255, 2**8) for s in (0, 8, 16, 24)] + [
        (word >> s & 65535, 2**16) for s in (0, 16)
    ]
    return [of_counts(np.bincount(part, minlength=m), np.full(m, 1 / m)) for part, m in parts]


def lags(g, key, n):  # neighbours in a row or a column of a matrix: the values and their squares
    z = np.asarray(g.normal(key, (n // 4,)))
    series = z, (z**2 - 1) / np.sqrt(2)
    return [two_sided(a[k:] @ a[:-k] / np.sqrt(len(a) - k)) for a in series for k in STRIDES]


def pairs(g, key, n):  # the highest and lowest five bits of neighbours
    word = np.asarray(g.words(key, (n // 2, 2)))
    cells = [(word[:, 0] >> a & 31) << 5 | (word[:, 1] >> b & 31) for a in (0, 27) for b in (0, 27)]
    return [of_counts(np.bincount(c, minlength=1024), np.full(1024, 2**-10)) for c in cells]


def hamming(g, key, n):
    weight = np.bitwise_count(np.asarray(g.words(key, (n // 2,)))).astype(np.float32) - 16
    inner = np.clip(weight + 16, 8, 24).astype(int) - 8
    law = stats.binom.pmf(np.arange(33), 32, 0.5)
    law = np.r_[law[:9].sum(), law[9:24], law[24:].sum()]
    products = [weight[k:] @ weight[:-k] / 8 / np.sqrt(len(weight) - k) for k in STRIDES]
    return [*two_sided(np.array(products)), of_counts(np.bincount(inner, minlength=17), law)]


def runs(g, key, n):  # of each bit along the counter: a change is a fair coin's toss
    changes = np.diff(ones(g.words(key, (n // 8,))).view(np.int8), axis=0) != 0
    return two_sided((np.sum(changes, 0) - len(changes) / 2) / np.sqrt(len(changes) / 4))


def gaps(g, key, n):  # between visits of the lowest and of the highest sixteenth
    word = np.asarray(g.words(key, (n,)))
    law = stats.geom.pmf(np.arange(1, 100), 1 / 16)
    found = []
    for visits in (word >> 28 == 0, word & 15 == 0):
        lengths = np.minimum(np.diff(np.flatnonzero(visits)), 100)
        found.append(of_counts(np.bincount(lengths, minlength=101)[1:], [*law, 1 - law.sum()]))
    return found


def maxima(g, key, n):  # of eight uniforms, to the eighth power: uniform
    u = uniforms(g.words(key, (n // 16, 8)))
    return [stats.kstest(a, "uniform").pvalue for a in (u.max(1) ** 8, (1 - u.min(1)) ** 8)]


def collisions(g, key, n):  # pairs of equal words among 2^19 of 2^32
    m, keys = 2**19, jax.random.split(key, max(1, n // 2**21))
    seen = [m - len(np.unique(np.asarray(g.words(k, (m,))))) for k in keys]
    return of_total(sum(seen), len(keys) * m * (m - 1) / 2**33)


def birthdays(g, key, n):  # Marsaglia's: equal spacings of 2^12 birthdays in a year of 2^32 days
    days = np.sort(np.asarray(g.words(key, (n // 2**13, 2**12))).astype(np.int64), axis=1)
    equal = np.sum(np.diff(np.sort(np.diff(days, axis=1), axis=1), axis=1) == 0)
    return of_total(equal, len(days) * 2 ** (3 * 12 - 34))


def ranks(g, key, n):  # of 32 by 32 matrices of bits
    rows = np.asarray(g.words(key, (n // 256, 32))).copy()
    rank = np.zeros(len(rows), int)
    for bit in range(32):
        has = (rows >> bit & 1).astype(bool)
        found, pivot = has.any(1), has.argmax(1)
        row = np.where(found, rows[np.arange(len(rows)), pivot], 0)
        rows ^= np.where(has, row[:, None], 0)  # the pivot's row becomes zero
        rank += found
    q = 1 - 0.5 ** np.arange(1, 33)
    full, less = np.prod(q), np.prod(q[1:]) * (1 - 0.5**32)  # of rank 32, and of rank 31
    law = [1 - full - less, less, full]
    return of_counts(np.bincount(np.clip(rank, 30, 32) - 30, minlength=3), law)


def avalanche(g, key, n):  # each bit of the counter and of both words, on each bit of the hash
    if g.hashed is None:
        return 1.0
    m, found = n // 64, []
    given = jax.random.bits(key, (3, m), jnp.uint32)
    given = given.at[0].set(jnp.arange(m, dtype=jnp.uint32))
    before = g.hashed(*given)
    for argument in range(3):
        for bit in range(32):
            after = g.hashed(*given.at[argument].set(given[argument] ^ jnp.uint32(1 << bit)))
            flips = np.sum(ones(before ^ after), 0, dtype=int)
            found.append(two_sided((flips - m / 2) / np.sqrt(m / 4)))
    return found


def over(keys):
    """A test of a family of keys: the rows and the columns of their noise, and its sum."""

    def test(g, key, n):
        many = int(np.sqrt(n)) // 2
        each = many // 2
        z = np.asarray(jax.vmap(lambda k: g.normal(k, (each,)))(keys(key, many)))
        by_column = np.sum(z, 0, dtype=float) / np.sqrt(many)
        fit = of_chi2(np.sum(by_column**2), each)
        return np.r_[of_rows(z), of_rows(z.T), two_sided(by_column), fit]

    return test


def one_bit_apart(key, n):  # in either word
    words = jax.random.bits(key, (n // 64, 1, 2), jnp.uint32)
    flip = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    flips = jnp.concatenate([jnp.stack([flip, 0 * flip], 1), jnp.stack([0 * flip, flip], 1)])
    return jax.random.wrap_key_data((words ^ flips).reshape(-1, 2))


BATTERY = {
    "moments": moments,
    "distribution": distribution,
    "tails": tails,
    "bits": bits,
    "octets": octets,
    "lags": lags,
    "pairs": pairs,
    "hamming": hamming,
    "runs": runs,
    "gaps": gaps,
    "maxima": maxima,
    "collisions": collisions,
    "birthdays": birthdays,
    "ranks": ranks,
    "avalanche": avalanche,
    "steps": over(lambda key, n: jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(n))),
    "chain": over(
        lambda key, n: jax.lax.scan(lambda k, _: tuple(jax.random.split(k)), key, None, n)[1]
    ),
    "leaves": over(
        lambda key, n: jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), 8))(
            jnp.arange(n // 8)
        ).reshape(-1)
    ),
    "small keys": over(lambda key, n: jax.vmap(jax.random.key)(jnp.arange(n))),
    "small first words": over(
        lambda key, n: jax.random.wrap_key_data(
            jnp.stack([jnp.arange(n), jnp.zeros(n)], 1).astype(jnp.uint32)
        )
    ),
    "one bit apart": over(one_bit_apart),
}


def least(name, generator, n):
    """Give the least p-value of a test, times their number."""
    p = np.ravel(BATTERY[name](generator, jax.random.key(2026), n))
    return p.min() * p.size


@pytest.mark.parametrize("name", BATTERY)
def test_noise_passes_the_battery(name):
    assert least(name, OURS, 2**24) >= ALPHA


@pytest.mark.parametrize("name", BATTERY)
def test_threefry_passes_the_battery(name):
    assert least(name, THREEFRY, 2**20) >= ALPHA


@pytest.mark.slow
@pytest.mark.parametrize("generator", [OURS, THREEFRY], ids=["ours", "threefry"])
@pytest.mark.parametrize("name", BATTERY)
def test_long_battery(name, generator):
    assert least(name, generator, 2**26) >= ALPHA


@pytest.mark.parametrize("fault", FAULTY)
def test_battery_catches_a_fault(fault):
    generator, name = FAULTY[fault]
    assert least(name, generator, 2**20) < ALPHA


def test_normal_is_the_quantile_to_rounding():
    edge = np.arange(2**12, dtype=np.uint32)
    word = np.r_[edge, ~edge, np.asarray(jax.random.bits(jax.random.key(0), (2**20,)))]
    p = ((word >> 1) + 0.5) / 2.0**32
    exact = stats.norm.isf(p) * np.where(word & 1, -1, 1)
    np.testing.assert_allclose(noise.gaussian(jnp.asarray(word)), exact, rtol=6e-7, atol=1e-7)
    np.testing.assert_array_equal(  # symmetric: the other sign is the other lowest bit
        noise.gaussian(jnp.asarray(word)), -noise.gaussian(jnp.asarray(word ^ 1))
    )


@pytest.mark.parametrize("draw", [noise.normal, noise.rademacher])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (4, 3, 2)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, float])
def test_shapes_types_and_transformations(draw, shape, dtype):
    keys = jax.random.split(jax.random.key(0), 3)
    values = draw(keys[0], shape, dtype)
    assert values.shape == shape
    assert values.dtype == jax.dtypes.canonicalize_dtype(dtype)
    jitted = jax.jit(lambda key: draw(key, shape, dtype))(keys[0])
    mapped = jax.vmap(lambda key: draw(key, shape, dtype))(keys)
    alone = jnp.stack([draw(key, shape, dtype) for key in keys])
    gradient = jax.grad(lambda s: jnp.sum(s * draw(keys[0], shape, dtype).astype(float)))(2.0)
    same = partial(np.testing.assert_allclose, rtol=1e-6)  # a fused multiply-add rounds once
    same(*jnp.float32([values, jitted]))
    same(*jnp.float32([mapped, alone]))
    same(gradient, values.astype(float).sum(), atol=1e-5)


def test_the_same_element_whatever_the_shape():
    key = jax.random.key(3)
    flat = noise.normal(key, (12,))
    np.testing.assert_allclose(noise.normal(key, (3, 4)).ravel(), flat, rtol=1e-6)


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_keys_of_other_implementations(implementation):
    z = noise.normal(jax.random.key(0, impl=implementation), (2**16,))
    assert stats.kstest(np.asarray(z), stats.norm.cdf).pvalue > ALPHA


def test_signs_are_fair_and_independent():
    """Two tests at ALPHA each."""
    signs = np.asarray(noise.rademacher(jax.random.key(0), (1000, 1000), jnp.int8), np.int64)
    assert set(signs.ravel()) == {-1, 1}
    assert two_sided(signs.sum() / 1000) > ALPHA
    assert of_rows(np.float32(signs)).min() * 4 > ALPHA


def test_double_precision_is_threefrys(x64):
    key = jax.random.key(0)
    np.testing.assert_array_equal(
        noise.normal(key, (5,), jnp.float64), jax.random.normal(key, (5,), jnp.float64)
    )
    assert noise.normal(key, (5,)).dtype == jnp.float32


def test_the_platform_that_will_run_it_chooses():
    traced = jax.jit(lambda key: noise.normal(key, (9,))).trace(jax.random.key(0))
    text = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda", "tpu")}
    constant = str(0x7FEB352D)  # a multiplier of the hash
    assert {p for p, program in text.items() if constant in program} == {"cpu"}
    assert "conditional" not in traced.lower(lowering_platforms=("cpu",)).compile().as_text()


def test_noise_is_made_once_for_all_its_uses():
    def loops(draw):
        def loss(loc, scale, key, x):
            w = loc + scale * draw(key, loc.shape)
            hidden = jnp.tanh(x @ w[:64].reshape(8, 8) + w[64:72])
            return jnp.sum(hidden @ w[72:]) + jnp.sum(w**2)

        args = jnp.zeros(80), jnp.ones(80), jax.random.key(0), jnp.ones((16, 8))
        program = jax.jit(jax.grad(loss, (0, 1))).lower(*args).compile().as_text()
        return sum(str(0x7FEB352D) in part for part in program.split("\n\n"))

    assert loops(noise.normal) == loops(noise.rademacher) == 1
    assert loops(lambda key, shape: noise.gaussian(noise.words(key, shape))) > 1


def test_more_elements_than_the_counter_has_values_are_refused():
    for draw in (noise.normal, noise.rademacher):
        with pytest.raises(InputError, match=r"shape: expected at most 2\^32 elements"):
            jax.eval_shape(lambda key, draw=draw: draw(key, (2**16, 2**17)), jax.random.key(0))
