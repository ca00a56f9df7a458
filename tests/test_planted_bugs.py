"""Ten bugs of the kind that inference code has, switched on one by one: each must raise an alarm.

An exam fits a model whose answer is known in closed form and raises an alarm where the fit is off
by more than Monte Carlo error allows.  Without a bug, twenty seeds raise none: each exam's false
alarms are rarer than 1 in 10,000 runs.
"""

import haiku as hk
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.handlers import seed, substitute
from numpyro.infer.util import log_density

import ppbdl
import ppbdl.models
import ppbdl.module
import ppbdl.potential
from ppbdl.inference import elbo, langevin, loop, optimisation, sampling
from ppbdl.structure import inspect_model

RNG = np.random.default_rng(0)
GRID = np.linspace(-1, 1, 40)
X = np.stack([GRID, GRID**2 - np.mean(GRID**2)], axis=1)
DATA = ppbdl.Data(X, 1 + X @ [2.0, -1.0] + RNG.normal(size=40))
MODEL = ppbdl.models.LinearRegression(noise=1.0)


def adam(steps):
    return optax.adam(optax.cosine_decay_schedule(0.05, steps))


def off(draws, mean, sd, mean_within, sd_within):
    """Tell whether draws (draw, latent) miss the known moments, in units of sd."""
    wrong_mean = abs(draws.mean(0) - mean) > mean_within * sd
    wrong_sd = abs(np.log(draws.std(0) / sd)) > sd_within
    return bool((wrong_mean | wrong_sd).any())


def pooled(posterior, *sites):
    draws = [np.asarray(posterior.draws[site]) for site in sites]
    return np.concatenate([a.reshape(a.shape[0] * a.shape[1], -1) for a in draws], axis=1)


def fit(key, model, data, method):
    return ppbdl.fit(key, model, data, method, progress=False)


MINIBATCHES = ppbdl.SVI(optimizer=adam(3000), steps=3000, batch_size=10, draws=4000)


def exam_of_minibatches(key):
    """SVI by a quarter of the rows; the posterior factorises, so mean field is exact."""
    mean, covariance = MODEL.exact_posterior(DATA)
    draws = pooled(fit(key, MODEL, DATA, MINIBATCHES), "intercept", "weights")
    return off(draws, mean, np.sqrt(np.diag(covariance)), 0.3, 0.15)


FEW = ppbdl.Data(RNG.normal(size=(3, 2)), RNG.normal(size=3))
CHAINS = ppbdl.NUTS(draws=3000, warmup=500, chains=2)


def layer(x, y=None):
    net = ppbdl.random_haiku_module("net", lambda x: hk.Linear(1)(x), dist.Normal(0, 1), x)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(net(x)[:, 0], 1.0), obs=y)


def exam_of_chains(key):
    """NUTS on a layer of which three rows know little."""
    design = np.column_stack([np.ones(3), FEW.x])
    covariance = np.linalg.inv(np.eye(3) + design.T @ design)
    mean = covariance @ design.T @ np.float64(FEW.y)
    draws = pooled(fit(key, layer, FEW, CHAINS), "net.linear.b", "net.linear.w")
    return off(draws, mean, np.sqrt(np.diag(covariance)), 0.1, 0.07)


def precision(x, y=None):
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(0.0, tau**-0.5), obs=y)


NOISE = ppbdl.Data(np.zeros((10, 0)), RNG.normal(size=10))


def exam_of_supports(key):
    """NUTS on a precision, whose posterior is a gamma distribution."""
    shape, rate = 2 + 10 / 2, 1 + (np.float64(NOISE.y) ** 2).sum() / 2
    draws = pooled(fit(key, precision, NOISE, CHAINS), "tau")
    return off(draws, shape / rate, np.sqrt(shape) / rate, 0.15, 0.12)


LANGEVIN = ppbdl.SGLD(4e-3, draws=1500, thinning=20, warmup=500, chains=2)


def exam_of_langevin(key):
    mean, covariance = MODEL.exact_posterior(DATA)
    draws = pooled(fit(key, MODEL, DATA, LANGEVIN), "intercept", "weights")
    return off(draws, mean, np.sqrt(np.diag(covariance)), 0.25, 0.17)


RATE = 0.3
DROPOUT = ppbdl.SVI(ppbdl.MCDropout(RATE), adam(300), steps=300, draws=4000)


def exam_of_dropout(key):
    """A prediction's variance is that of the masks: the sum of (x m)^2 p (1 - p)."""
    posterior = fit(key, layer, FEW, DROPOUT)
    weights = np.asarray(posterior.params["auto_loc"]["net.linear.w"])[0, :, 0]
    expected = (FEW.x**2) @ weights**2 * RATE * (1 - RATE)
    found = ppbdl.predict(1, layer, posterior, FEW.x).epistemic
    return bool((abs(found / expected - 1) > 0.3).any())


MEMBERS = 100
ENSEMBLE = ppbdl.Ensemble(ppbdl.MAP(adam(800), steps=800), members=MEMBERS)


def exam_of_ensembles(key):
    """Anchored members have the covariance H^-1 P H^-1."""
    _, covariance = MODEL.exact_posterior(DATA)
    draws = pooled(fit(key, ppbdl.anchored(MODEL), DATA, ENSEMBLE), "intercept", "weights")
    sd = np.sqrt(np.diag(covariance @ covariance))
    return off(draws, draws.mean(0), sd, 1.0, 0.5)


EXAMS = (
    exam_of_minibatches,
    exam_of_chains,
    exam_of_supports,
    exam_of_langevin,
    exam_of_dropout,
    exam_of_ensembles,
)


def forget():
    """Compiled programs know the code as it was."""
    for remembered in (
        optimisation.programs_of,
        sampling.programs_of,
        langevin.programs_of,
        inspect_model,
    ):
        remembered.cache_clear()


@pytest.fixture
def plant(monkeypatch):
    forget()
    yield monkeypatch.setattr
    monkeypatch.undo()
    forget()


def test_no_n_over_m(plant):
    plant(optimisation, "scale_rows", lambda fn, structure, weight: fn)
    assert exam_of_minibatches(0)


def test_doubled_n_over_m(plant):
    whole = optimisation.scale_rows
    plant(optimisation, "scale_rows", lambda fn, s, weight: whole(fn, s, 2 * weight))
    assert exam_of_minibatches(0)


def test_halved_divergence(plant):
    whole = elbo.kl_divergence
    plant(elbo, "kl_divergence", lambda q, p: whole(q, p) / 2)
    assert exam_of_minibatches(0)


def test_weak_likelihood(plant):
    whole = ppbdl.potential.potential

    def weak(model, structure):
        return whole(optimisation.scale_rows(model, structure, 0.8), structure)

    plant(sampling, "potential", weak)
    assert exam_of_chains(0)


def test_reused_key(plant):
    plant(optimisation, "_step_key", lambda state: state.keys[0])
    assert exam_of_minibatches(0)


def test_missing_jacobian(plant):
    def energy(model, structure):
        def of(flat, x, y):
            values = ppbdl.potential.constrained(model, structure, flat, x, y, jax.random.key(0))
            return -log_density(seed(model, 0), (x, y), {}, values)[0]

        return of

    plant(sampling, "potential", energy)
    assert exam_of_supports(0)


def test_wrong_noise_scale(plant):
    whole = langevin.normal
    plant(langevin, "normal", lambda *args: np.sqrt(2) * whole(*args))
    assert exam_of_langevin(0)


def test_dropout_off_at_prediction(plant):
    plant(optimisation, "once_fitted", lambda guide: substitute(guide, {"net.linear.w.kept": 1.0}))
    assert exam_of_dropout(0)


def test_no_prior_on_biases(plant):
    whole = ppbdl.module._prior_of

    def careless(prior, name, leaf, shape):
        found = whole(prior, name, leaf, shape)
        return dist.Normal(0, 1e3).expand(shape).to_event(1) if leaf.endswith(".b") else found

    plant(ppbdl.module, "_prior_of", careless)
    assert exam_of_chains(0)


def test_members_share_a_seed(plant):
    whole = loop.Turns

    def careless(run, members, split=None):
        return whole(run, members, split and (lambda key, m: key))

    plant(optimisation, "Turns", careless)
    assert exam_of_ensembles(0)


@pytest.mark.parametrize("exam", EXAMS)
def test_two_clean_seeds_raise_no_alarm(exam):
    assert not any(exam(key) for key in range(2))


@pytest.mark.slow
@pytest.mark.parametrize("exam", EXAMS)
def test_twenty_clean_seeds_raise_no_alarm(exam):
    assert not any(exam(key) for key in range(100, 120))
