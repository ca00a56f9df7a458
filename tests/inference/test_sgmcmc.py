"""SGLD and SGHMC against laws that are known exactly: on a Gaussian each chain is a linear map.

A test of a law compares whitened moments with the identity, in Monte Carlo standard errors.  At
5.5 of them a single moment raises a false alarm once in 26 million runs, and there are fewer than
a hundred in this file.  Steps are so many between draws that their correlation is below 0.3,
which the standard errors allow for.
"""

import functools
import os
import signal
import threading
import time
import warnings
from dataclasses import replace

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import ppbdl
import ppbdl.models
from ppbdl.inference import langevin, stochastic
from ppbdl.inference.discretisation import excess
from ppbdl.inference.langevin import Plan, Rule, programs_of
from ppbdl.inference.sghmc import SGHMC
from ppbdl.inference.sgld import SGLD
from ppbdl.potential import potential
from ppbdl.structure import inspect_model, shapes_of

RNG = np.random.default_rng(0)
COLUMN = RNG.normal(size=60)
X = np.stack([COLUMN, 0.8 * COLUMN + 0.6 * RNG.normal(size=60)], axis=1)
DATA = ppbdl.Data(X, 1 + X @ [1, -2] + 0.5 * RNG.normal(size=60))
MODEL = ppbdl.models.LinearRegression(noise=0.5)
MEAN, COVARIANCE = MODEL.exact_posterior(DATA)
PRECISION = np.linalg.inv(COVARIANCE)
STIFFEST = np.linalg.eigvalsh(PRECISION)[-1]  # 345; the slackest direction has 52
LIMIT = 5.5


def fit(method, model=MODEL, data=DATA, key=0):
    return ppbdl.fit(key, model, data, method, progress=False)


def latents(posterior):
    """The draws of (intercept, weights) as one array (chain, draw, 3)."""
    parts = [np.asarray(posterior.draws[name], float) for name in ("intercept", "weights")]
    return np.concatenate([parts[0][..., None], parts[1]], axis=-1)


def surprise(draws, mean, covariance, correlation=0.3):
    """The largest distance of the draws' means and covariances from the law, in standard errors."""
    draws = draws.reshape(-1, draws.shape[-1])
    white = np.linalg.solve(np.linalg.cholesky(covariance), (draws - mean).T)
    count, size = white.shape[1], len(white)
    of_means = np.sqrt((1 + correlation) / (1 - correlation) / count)
    of_moments = np.sqrt((1 + correlation**2) / (1 - correlation**2) / count)
    moments = abs(white @ white.T / count - np.eye(size)) / np.sqrt(1 + np.eye(size))
    return max(abs(white.mean(1)).max() / of_means, moments.max() / of_moments)


def stationary(precision, step_size, friction=1.0):
    """The covariance of the chain, by the formula in the opening of `stochastic`."""
    size = len(precision)
    return np.linalg.inv(precision @ (np.eye(size) - step_size * precision / (4 * (2 - friction))))


# The slackest direction forgets by 1 - h 52 / 2 a step under SGLD, and by more under SGHMC.
SMALL = SGLD(0.2 / STIFFEST, draws=1000, thinning=80, warmup=400)
LARGE = replace(SMALL, step_size=1.6 / STIFFEST, thinning=10)
WITH_VELOCITY = SGHMC(1.6 / STIFFEST, friction=0.5, draws=1000, thinning=10, warmup=200)


def test_small_steps_draw_from_the_posterior_but_for_five_per_cent():
    draws = latents(fit(SMALL))
    law = stationary(PRECISION, SMALL.step_size)
    assert surprise(draws, MEAN, law) < LIMIT
    assert surprise(draws, MEAN, COVARIANCE) < LIMIT + 0.06 * np.sqrt(draws.size / 3)


@pytest.mark.parametrize(("method", "friction"), [(LARGE, 1.0), (WITH_VELOCITY, 0.5)])
def test_large_steps_are_biased_as_the_formula_says(method, friction):
    """By 67 % in the stiffest direction, and by 36 % with a velocity: far from the posterior."""
    with pytest.warns(RuntimeWarning, match="too large"):
        draws = latents(fit(method))
    assert surprise(draws, MEAN, stationary(PRECISION, method.step_size, friction)) < LIMIT
    assert surprise(draws, MEAN, COVARIANCE) > 2 * LIMIT


def test_a_preconditioned_chain_has_the_law_of_its_frozen_preconditioner():
    """In coordinates G^-1/2 u it is SGLD; each entry of G is the gradient's, one over its size."""
    programs = programs_of(MODEL, Rule(1.0, True, False, None, None), shapes_of(DATA))
    step_size, warmup, thinning = 0.08, 3000, 40
    ends = warmup + thinning * np.arange(1, 3001)
    plan = Plan(np.float32(step_size), np.int32(ends[-1]), np.int32(warmup))
    x, y = jax.device_put((DATA.x, DATA.y))
    chain = stochastic.Chain(programs.init(jax.random.key(0), np.int32(0), plan, x, y))
    chain.run(programs, x, y, ends[:1], threading.Event())
    frozen = np.asarray(chain.state.squares)
    chain.run(programs, x, y, ends[1:], threading.Event())
    np.testing.assert_array_equal(chain.state.squares, frozen)

    scale = np.asarray(programs.scale(chain.state), float)
    sizes = np.sqrt(frozen) + 0.01 * np.sqrt(frozen.mean())
    np.testing.assert_allclose(scale**-2, sizes, rtol=1e-5)
    # In its law E[g^2] is the precision's diagonal, but for the steps' bias and an average of 200.
    assert (abs(frozen / np.diag(PRECISION) - 1) < 0.6).all()
    law = stationary(scale[:, None] * PRECISION * scale, step_size)
    draws = np.stack(chain.draws).astype(float)
    assert surprise(draws, MEAN, scale[:, None] * law * scale) < LIMIT
    assert excess(step_size, 1.0, np.linalg.eigvalsh(scale[:, None] * PRECISION * scale)[-1]) > 0.2


def test_preconditioned_draws_are_near_the_posterior():
    """Those of the public face; 5 % of bias at most in the stiffest direction."""
    draws = latents(fit(SGLD(5e-3, 1000, 200, 3000, preconditioned=True)))
    bias = 0.06 * np.sqrt(draws.size / 3)
    assert surprise(draws, MEAN, COVARIANCE, 0.5) < LIMIT + bias


def location(x, y=None):
    """The gradient's noise does not depend on mu: the chain is linear with minibatches, too."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(mu, 2.0), obs=y)


BATCH, BATCHES = 3, 20
CURVATURE = 1 + 60 / 4
CENTRE = 60 / 4 * np.mean(DATA.y) / CURVATURE
# Of a batch drawn without replacement, scaled by N / M.
NOISE = (BATCHES / 4) ** 2 * BATCH * np.var(DATA.y, ddof=1) * (1 - 1 / BATCHES)


def location_surprise(method, friction=1.0, correlation=0.3):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the step sizes are large, so that their bias shows
        draws = np.asarray(fit(method, location).draws["mu"], float)[..., None]
    wide = 1 + excess(method.step_size, friction, CURVATURE, NOISE, BATCHES)
    return surprise(draws, CENTRE, np.array([[wide / CURVATURE]]), correlation)


# Every phase of the epochs of 20 is drawn from, since 13 and 20 have no common divisor.
IN_BATCHES = SGLD(0.02, draws=2000, thinning=13, warmup=100, batch_size=BATCH)


def test_the_batches_noise_adds_what_theory_says():
    """Shuffled batches add 42 %, where independent ones would add 68 %; it goes with the step."""
    steps = excess(0.02, 1.0, CURVATURE)
    both = excess(0.02, 1.0, CURVATURE, NOISE, BATCHES)
    assert (1 + both) / (1 + steps) - 1 == pytest.approx(0.42, abs=0.01)
    independent = 0.02 * NOISE / 4
    assert independent == pytest.approx(0.68, abs=0.01)
    assert location_surprise(IN_BATCHES) < LIMIT
    assert excess(0.005, 1.0, CURVATURE, NOISE, BATCHES) == pytest.approx(0.06, abs=0.01)
    assert location_surprise(replace(IN_BATCHES, step_size=0.005, draws=1000, thinning=33)) < LIMIT


def test_the_batches_noise_under_a_velocity_is_nearly_the_limits():
    method = SGHMC(0.002, 0.3, 2000, 25, 300, batch_size=BATCH)
    assert location_surprise(method, 0.3, 0.5) < LIMIT


def louder(key, shape, dtype):
    return np.sqrt(2) * REAL_NOISE(key, shape, dtype)


def scaled(factor):
    return lambda fn, structure, scale: REAL_SCALE(fn, structure, factor(scale))


REAL_NOISE, REAL_SCALE = langevin.normal, langevin.scale_rows
BUGS = {
    "the noise of a whole gradient step": ("normal", louder),
    "no N / M": ("scale_rows", scaled(lambda scale: 1.0)),
    "N / M twice": ("scale_rows", scaled(lambda scale: 2 * scale)),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug, monkeypatch):
    monkeypatch.setattr(langevin, *BUGS[bug])
    programs_of.cache_clear()
    try:
        assert location_surprise(replace(IN_BATCHES, draws=1000)) > 1.5 * LIMIT
    finally:
        programs_of.cache_clear()


def test_a_preconditioner_that_is_never_frozen_is_caught(monkeypatch):
    """Its law lacks the term of its derivatives: what freezing is for.  Here sqrt(V) follows u."""
    monkeypatch.setattr(langevin, "_DECAY", 0.0)
    programs_of.cache_clear()
    try:
        warming = SGLD(1e-3, 400, 20, 40_000, 1, preconditioned=True)
        kept = fit(warming)
        programs = programs_of(MODEL, Rule(1.0, True, False, None, None), shapes_of(DATA))
        x, y = jax.device_put((DATA.x, DATA.y))
        plan = Plan(np.float32(1e-3), np.int32(10**6), np.int32(10**6))
        chain = stochastic.Chain(programs.init(jax.random.key(0), np.int32(0), plan, x, y))
        chain.run(programs, x, y, 2000 + 40 * np.arange(1, 2001), threading.Event())
    finally:
        programs_of.cache_clear()
    assert np.isfinite(latents(kept)).all()
    assert surprise(np.stack(chain.draws).astype(float), MEAN, COVARIANCE, 0.5) > 2 * LIMIT


def bimodal(x, y=None):
    modes = dist.Normal(jnp.array([-2.5, 2.5]), 0.5)
    numpyro.sample("u", dist.MixtureSameFamily(dist.Categorical(jnp.full(2, 0.5)), modes))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


def test_cycles_find_both_modes_where_a_steady_chain_stays_in_one():
    """The barrier is 11.8: a steady chain of 200 time units crosses with probability 0.005."""
    steady = np.asarray(fit(SGLD(0.02, chains=2), bimodal).draws["u"])
    assert (np.sign(steady) == np.sign(steady[:, :1])).all()
    cyclical = SGLD(0.9, draws=3000, thinning=5, warmup=20, chains=2, cycles=100)
    with pytest.warns(RuntimeWarning, match="too large"):  # where a cycle begins
        found = np.asarray(fit(cyclical, bimodal).draws["u"]).reshape(2, 100, 30)
    last = found[:, :, -1]  # where the step is smallest
    assert (abs(abs(last) - 2.5) < 2.5).all()
    share = np.mean(last > 0, axis=1)
    assert ((share > 0.1) & (share < 0.9)).all()


def test_a_cycle_falls_along_the_cosine_and_begins_without_noise():
    method = SGLD(1e-4, draws=8, thinning=3, warmup=4, chains=2, cycles=2)
    posterior = fit(method)
    steps = np.array([6, 9, 12, 15])  # the last of the 4 + 3, 4 + 6, ... steps of a cycle of 16
    sizes = 0.5e-4 * (1 + np.cos(np.pi * steps / 16))
    np.testing.assert_allclose(posterior.stats["step_size"], [[*sizes, *sizes]] * 2, rtol=1e-5)
    # One start, as warm starts have: without noise the chains do not part.
    programs = programs_of(MODEL, Rule(1.0, False, True, None, None), shapes_of(DATA))
    x, y = jax.device_put((DATA.x, DATA.y))
    plan = Plan(np.float32(1e-4), np.int32(16), np.int32(4))
    states = [programs.init(jax.random.key(k), np.int32(0), plan, x, y) for k in range(2)]
    states[1] = states[1]._replace(params=states[0].params)
    for n, apart in ((4, False), (1, True)):
        states = [programs.advance(state, x, y, n)[0] for state in states]
        assert np.array_equal(*(state.params for state in states)) is not apart


def test_a_schedule_is_followed():
    method = SGLD(optax.exponential_decay(1e-3, 100, 0.5), 10, 10, 100, 1)
    sizes = fit(method).stats["step_size"]
    steps = 100 + 10 * np.arange(1, 11) - 1
    np.testing.assert_allclose(sizes[0], 1e-3 * 0.5 ** (steps / 100), rtol=1e-5)


def test_with_all_the_friction_sghmc_is_sgld():
    one = fit(SGLD(1e-3, 50, 2, 10, 2))
    other = fit(SGHMC(1e-3, 1.0, 50, 2, 10, 2))
    np.testing.assert_array_equal(latents(one), latents(other))


def test_a_step_is_blackjaxs_from_the_same_noise(x64):
    blackjax = pytest.importorskip("blackjax")
    programs = programs_of(MODEL, Rule(1.0, False, False, None, None), shapes_of(DATA))
    x, y = jax.device_put((DATA.x, DATA.y))
    plan = Plan(np.float64(1e-3), np.int32(1), np.int32(1))
    state = programs.init(jax.random.key(0), np.int32(0), plan, x, y)
    energy = potential(MODEL, programs.structure)
    kernel = blackjax.sgld(lambda u, batch: -jax.grad(energy)(u, *batch))
    key = jax.random.fold_in(state.keys[0], 0)
    theirs = kernel.step(key, state.params, (x, y), 0.5e-3)
    np.testing.assert_allclose(programs.advance(state, x, y, 1)[0].params, theirs, rtol=1e-12)


METHODS = [
    SGLD(5e-4, 20, 5, 50, 2),
    SGHMC(1e-4, 0.1, 20, 5, 50, 2, batch_size=20),
    SGLD(5e-3, 20, 5, 50, 2, preconditioned=True, cycles=2),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_key_decides_the_draws(method):
    one, same, other = (latents(fit(method, key=key)) for key in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert not np.isin(other, one).any()
    assert not np.isin(one[0], one[1]).any()


def test_double_precision(x64):
    posterior = fit(METHODS[0])
    assert posterior.draws["weights"].dtype == np.float64


def test_other_numbers_compile_nothing():
    compiled = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    method = SGLD(5e-4, 20, 5, 50, 2, batch_size=30)
    fit(method)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        other = ppbdl.Data(-DATA.x, 2 * DATA.y)
        fit(replace(method, step_size=4e-4, thinning=7, warmup=60), data=other, key=1)
        assert compiled == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_lp_is_the_density_at_the_draws_and_every_gradient_counts():
    posterior = fit(METHODS[0])
    energy = potential(MODEL, inspect_model(MODEL, shapes_of(DATA)))
    exact = [-energy(jnp.asarray(u), DATA.x, DATA.y) for u in latents(posterior).reshape(-1, 3)]
    np.testing.assert_allclose(posterior.stats["lp"].ravel(), exact, rtol=1e-4)
    assert posterior.provenance.gradients == 2 * (50 + 5 * 20 + 1)  # one more for the last lp
    assert "lp" not in fit(METHODS[1]).stats  # a batch does not tell it


def test_deterministic_sites_come_along():
    def model(x, y=None):
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        numpyro.deterministic("variance", noise**2)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(0.0, noise), obs=y)

    draws = fit(SGLD(1e-3, 50, 5, 100, 2), model).draws
    assert (draws["noise"] > 0).all()
    np.testing.assert_allclose(draws["variance"], draws["noise"] ** 2, rtol=1e-5)


@pytest.mark.parametrize("kind", [SGLD, functools.partial(SGHMC, batch_size=20)])
def test_chains_that_do_not_move_raise_the_alarm(kind):
    with pytest.warns(RuntimeWarning, match="hardly moved"):
        fit(kind(1e-12, draws=100))


@pytest.mark.parametrize("seed", range(10))
def test_healthy_chains_raise_none(seed):
    """Warnings are errors here.  The steps' bias is 5 %, and the look at it has no noise."""
    for method in (
        SGLD(0.2 / STIFFEST, draws=100, chains=2),
        SGHMC(0.1 / STIFFEST, draws=100, chains=2),
        SGLD(0.03 / STIFFEST, draws=100, thinning=20, chains=2, batch_size=10),
        SGLD(5e-3, draws=100, chains=2, preconditioned=True),
    ):
        fit(method, key=seed)


def test_the_alarm_tells_the_batches_noise_from_the_steps():
    with pytest.warns(RuntimeWarning, match=r"too large, \d+% by .*Lower step_size") as caught:
        fit(IN_BATCHES, location)
    words = str(caught[0].message).split()
    shares = [float(word.rstrip("%,")) / 100 for word in words if "%" in word]
    whole = excess(0.02, 1.0, CURVATURE, NOISE, BATCHES)
    # Ten batches of four chains: a variance's relative error is a quarter, of a part of the whole.
    assert shares[0] == pytest.approx(whole, rel=0.6)
    assert shares[1] == pytest.approx(excess(0.02, 1.0, CURVATURE), abs=0.01)


def test_an_unstable_step_stops_and_keeps_what_was_good():
    """The stiffest direction grows by 1.02 a step: finite for many draws, then not."""
    method = SGLD(4.04 / STIFFEST, draws=1000, thinning=10, warmup=10, chains=2)
    with pytest.raises(ppbdl.FitError, match="smaller step_size") as caught:
        fit(method)
    kept = caught.value.posterior
    assert 50 < kept.shape[1] < 1000
    assert np.isfinite(latents(kept)).all()
    assert np.isfinite(kept.stats["lp"]).all()
    assert caught.value.step >= 10 + 10 * kept.shape[1]
    assert "Not finite at step" in kept.provenance.failure


def test_a_nan_names_its_site():
    def model(x, y=None):
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(slope * x[:, 0], jnp.sqrt(-1 - slope**2)), obs=y)

    with pytest.raises(ppbdl.FitError, match="'y'") as caught:
        fit(METHODS[1], model)
    assert (caught.value.step, caught.value.site, caught.value.posterior) == (0, "y", None)


def test_a_warm_start_begins_at_the_mode():
    mode = fit(ppbdl.MAP(optax.adam(0.05), steps=500))
    with pytest.warns(RuntimeWarning, match="hardly moved"):
        cold = fit(SGLD(1e-12, 2, 1, 1, 2))
    with pytest.warns(RuntimeWarning, match="hardly moved"):
        warm = fit(SGLD(1e-12, 2, 1, 1, 2), ppbdl.start_at(MODEL, mode))
    assert abs(latents(warm) - latents(mode)).max() < 1e-4
    assert abs(latents(cold) - latents(mode)).max() > 0.1


def subsampling(x, y=None):
    w = numpyro.sample("w", dist.Normal(0, 1))
    with numpyro.plate("data", x.shape[0], subsample_size=4) as rows:
        numpyro.sample("y", dist.Normal(w * x[rows, 0], 1.0), obs=None if y is None else y[rows])


def learning(x, y=None):
    slope = numpyro.param("slope", jnp.ones(()))
    noise = numpyro.sample("noise", dist.HalfNormal(1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(slope * x[:, 0], noise), obs=y)


def per_row(x, y=None):
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


def batch_norm(x, is_training):
    return hk.Linear(1)(hk.BatchNorm(True, True, 0.9)(x, is_training))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (subsampling, "subsampl"),
        (learning, "slope"),
        (per_row, "local"),
        (ppbdl.models.BNN(batch_norm), "mutable state"),
    ],
)
def test_what_a_chain_cannot_sample_is_refused(model, message):
    with pytest.raises(ppbdl.InputError, match=message):
        fit(METHODS[1], model)


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"step_size": 0.0}, "step_size"),
        ({"thinning": 0}, "thinning"),
        ({"cycles": 7}, "draws"),
        ({"batch_size": 61}, "batch_size"),
        ({"friction": 1.5}, "friction"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, argument):
    with pytest.raises(ppbdl.InputError, match=argument):
        fit(SGHMC(**{"step_size": 1e-3} | settings))


def test_control_c_keeps_the_draws_made(monkeypatch):
    run = stochastic.Chain.run

    def interrupt(chain, *arguments):
        def watch():
            while len(chain.energies) < 20:
                time.sleep(0.005)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=watch, daemon=True).start()
        run(chain, *arguments)

    monkeypatch.setattr(stochastic.Chain, "run", interrupt)
    posterior = fit(SGLD(1e-3, draws=2_000_000, chains=1))
    assert 20 <= posterior.shape[1] < 2_000_000
    assert "Interrupted after" in posterior.provenance.failure
    assert np.isfinite(posterior.draws["weights"]).all()
