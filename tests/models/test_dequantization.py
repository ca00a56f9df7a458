"""Dequantisation bounds a probability that quadrature knows, and tightens to it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro.handlers import seed, substitute, trace
from scipy.special import logsumexp

import ppbdl
from ppbdl.models import Dequantized, Glow, RealNVP, bits_per_dimension

LEVELS = 4
FADING = optax.adam(optax.cosine_decay_schedule(5e-3, 1200))
TABLE = np.array([[8, 1, 0.5, 4], [1, 6, 2, 1], [0.5, 1, 9, 1], [4, 0.5, 1, 8]])
TABLE /= TABLE.sum()
RNG = np.random.default_rng(0)
Y = np.stack(np.unravel_index(RNG.choice(16, 1500, p=TABLE.ravel()), (4, 4)), 1)
EVERY = np.stack(np.unravel_index(np.arange(16), (4, 4)), 1)
DENSITY = RealNVP(features=2, layers=4, width=32)
MODELS = {
    "uniform": Dequantized(DENSITY, LEVELS),
    "variational": Dequantized(DENSITY, LEVELS, noise=RealNVP(features=2, layers=4, width=16)),
}


@functools.cache
def learned(name):
    model = MODELS[name]
    svi = ppbdl.SVI(model.guide, FADING, 1200, batch_size=500, draws=1000)
    return ppbdl.fit(0, model, ppbdl.Data(None, Y), svi, progress=False)


@functools.cache
def exact(name):
    """log P(y) of every y: the fitted flow's mass in its cell, from 64 x 64 points of each."""
    t = (np.arange(64) + 0.5) / 64
    within = np.stack(np.meshgrid(t, t, indexing="ij"), -1).reshape(-1, 1, 2)
    v = jnp.asarray((EVERY + within) / LEVELS)
    flow = MODELS[name].fitted(learned(name))
    return logsumexp(jax.jit(flow.log_prob)(v), 0) - np.log(64**2 * LEVELS**2)


@functools.cache
def weighed(name):
    model, posterior = MODELS[name], learned(name)
    data = ppbdl.Data(None, EVERY)
    return ppbdl.log_likelihood(1, model, posterior, data, guide=model.guide)["y"][0]


@pytest.mark.parametrize("name", MODELS)
def test_the_cells_masses_sum_to_one(name):
    assert abs(logsumexp(exact(name))) < 0.01


def test_importance_weights_approach_the_probability():
    """The mean of 1,000 weights lies within 5 of its errors (and 1 %, for the quadrature) of P(y)
    for each of 16: less than 1 false alarm in 10,000, were the keys not fixed.

    Weights from a fitted flow have heavy tails, whose mean 1,000 draws do not show; its own test is
    below.
    """
    weights = np.exp(np.float64(weighed("uniform")))
    error = weights.std(0) / np.sqrt(len(weights))
    probability = np.exp(exact("uniform"))
    assert (abs(weights.mean(0) - probability) < 5 * error + 0.01 * probability).all()


def test_a_flow_on_the_cell_is_a_density_there():
    """By quadrature q(v | y) has mass 1 in the cell, and E_q log p / q is what the draws give.

    Within 5 errors of 1,000 draws, and 0.02: less than 1 false alarm in 10,000 for 16 cells.
    """
    model, posterior = MODELS["variational"], learned("variational")
    t = (np.arange(200) + 0.5) / 200
    within = np.stack(np.meshgrid(t, t, indexing="ij"), -1).reshape(-1, 1, 2)
    v = jnp.asarray((EVERY + within) / LEVELS)
    params = {name: jax.tree.map(lambda a: a[0], p) for name, p in posterior.params.items()}

    @jax.jit
    def density(v):
        sites = trace(seed(substitute(model.guide, data=params), 0)).get_trace(
            jnp.zeros((16, 0)), EVERY
        )
        return sites["v"]["fn"].log_prob(v)

    log_q, log_p = np.asarray(density(v)), np.asarray(jax.jit(model.fitted(posterior).log_prob)(v))
    mass = np.exp(log_q) / (200**2 * LEVELS**2)
    np.testing.assert_allclose(mass.sum(0), 1, atol=0.02)
    scores = np.float64(weighed("variational"))
    error = scores.std(0) / np.sqrt(len(scores))
    expected = (mass * (log_p - log_q)).sum(0)
    assert (abs(scores.mean(0) - expected) < 5 * error + 0.02).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_bound_is_below_the_probability(name):
    """The mean log weight, by Jensen's inequality; 5 errors of 1,000 draws are let pass."""
    scores = np.float64(weighed(name))
    error = scores.std(0) / np.sqrt(len(scores))
    assert (scores.mean(0) < exact(name) + 5 * error + 0.01).all()


def test_a_flow_on_the_cell_tightens_the_bound():
    """On average over the table; the entropy of the table is above both."""
    found = {name: (TABLE.ravel() * weighed(name).mean(0)).sum() for name in MODELS}
    entropy = -(TABLE * np.log(TABLE)).sum()
    assert found["uniform"] + 0.03 < found["variational"] < -entropy + 0.01, found


def test_its_draws_follow_the_table():
    """Frequencies of 1,000 x 4 draws within 0.03 of the data's: 5 errors and the fit's own."""
    model = MODELS["variational"]
    draws = ppbdl.predict(3, model, learned("variational"), np.empty((4, 0)), draws=True).draws["y"]
    assert draws.min() >= 0
    assert draws.max() < LEVELS
    index = np.ravel_multi_index(draws.reshape(-1, 2).astype(int).T, (4, 4))
    found = np.bincount(index, minlength=16) / len(index)
    assert abs(found - TABLE.ravel()).max() < 0.04, found


@pytest.mark.slow
def test_images_of_256_levels():
    """At 256 levels single precision must not put a draw into the next cell."""
    y = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 1))
    model = Dequantized(
        Glow((4, 4, 1), levels=1, steps=1, width=4), noise=RealNVP(16, layers=2, width=4)
    )
    svi = ppbdl.SVI(model.guide, optax.adam(1e-3), steps=20, draws=50)
    posterior = ppbdl.fit(0, model, ppbdl.Data(None, y), svi, progress=False)
    data = ppbdl.Data(None, y)
    scores = ppbdl.log_likelihood(1, model, posterior, data, guide=model.guide)["y"]
    assert np.isfinite(scores).all()
    assert 7.9 < bits_per_dimension(scores, (4, 4, 1)).mean() < 9.5  # uniform noise has 8 bits
    samples = ppbdl.predict(2, model, posterior, np.empty((2, 0)), draws=True).draws["y"]
    assert samples.shape == (1, 50, 2, 4, 4, 1)
    flow = model.fitted(posterior, temperature=0.8)
    v = flow.sample(jax.random.key(0), (3,))
    np.testing.assert_allclose(flow.forward(flow.inverse(v)), v, atol=1e-4)


def test_a_pixel_that_is_always_black_starts_with_the_spread_of_its_cell():
    y = np.stack([np.zeros(20_000, int), np.arange(20_000) % 256], 1)
    with seed(rng_seed=0):
        started = trace(Dequantized(DENSITY)).get_trace(np.empty((20_000, 0)), y)
    norm = started["norm$params"]["value"]
    # The logit of u / 256 is log u - log 256 but for 1 in 256: its sd is 1, known to 0.014 here.
    assert abs(np.exp(norm["log_scale"][0]) - 1) < 0.07


def test_bits():
    assert bits_per_dimension(-784 * np.log(2.0), (28, 28)) == pytest.approx(1.0)
    # A uniform density on [0, 1] is 8 bits of each of 256 levels.
    assert bits_per_dimension(np.zeros(3), (4,), levels=256) == pytest.approx([8.0] * 3)
    with pytest.raises(ppbdl.InputError, match="shape"):
        bits_per_dimension(0.0, ())


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: Dequantized(DENSITY, levels=0), "levels"),
        (lambda: Dequantized(DENSITY, lam=0.5), "lam"),
        (lambda: Dequantized(DENSITY, lam=0.0), "lam"),
        (lambda: Dequantized(RealNVP(2, prior=lambda *_: None)), "density"),
    ],
)
def test_bad_settings_are_refused(make, argument):
    with pytest.raises(ppbdl.InputError) as error:
        make()
    assert error.value.argument == argument


@pytest.mark.parametrize("y", [Y.astype(float), Y[:, :1], Y + LEVELS])
def test_bad_levels_are_refused(y):
    svi = ppbdl.SVI(MODELS["uniform"].guide, optax.adam(1e-3), steps=2, draws=2)
    with pytest.raises((ppbdl.InputError, ppbdl.FitError)):
        ppbdl.fit(0, MODELS["uniform"], ppbdl.Data(None, y), svi, progress=False)
