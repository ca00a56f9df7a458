"""SWAG's moments against those of the iterates, and of descent's known stationary law.

A statistical test's bound is 5.5 Monte Carlo standard errors of a moment: a false alarm once in 26
million runs, of which each test here makes fewer than ten.
"""

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
from ppbdl.inference.averaging import parts_of
from ppbdl.inference.discretisation import excess
from ppbdl.inference.swag import SWAG, average
from ppbdl.structure import shapes_of

RNG = np.random.default_rng(0)
COLUMN = RNG.normal(size=60)
X = np.stack([COLUMN, 0.8 * COLUMN + 0.6 * RNG.normal(size=60)], axis=1)
DATA = ppbdl.Data(X, 1 + X @ [1, -2] + 0.5 * RNG.normal(size=60))
MODEL = ppbdl.models.LinearRegression(noise=0.5)
MEAN, COVARIANCE = MODEL.exact_posterior(DATA)
ADAM = optax.adam(0.05)
LIMIT = 5.5
QUICK = SWAG(ppbdl.MAP(ADAM, 300, 10), optax.sgd(0.05), steps=200, every=7, rank=5, draws=2000)


def fit(swag, model=MODEL, data=DATA, key=0):
    return ppbdl.fit(key, model, data, swag, progress=False)


def several(swag, members, key=0, model=MODEL, data=DATA):
    """What an ensemble of SWAGs comes down to."""
    return average(jax.random.key(key), model, data, swag, method=swag, members=members)


def latents(posterior):
    """The draws of (intercept, weights) as one array (chain, draw, 3)."""
    parts = [np.asarray(posterior.draws[name], float) for name in ("intercept", "weights")]
    return np.concatenate([parts[0][..., None], parts[1]], axis=-1)


def iterates(swag, members=None, key=0):
    """The iterates once more, and their batches' order, by the optimisation's own steps."""
    parts = parts_of(MODEL, replace(swag.method, steps=1), swag.optimizer, members, shapes_of(DATA))
    x, y = jax.device_put((DATA.x, DATA.y))
    state = parts.first.init(jax.random.key(key), x, y)
    state, *_ = parts.first.advance(state, x, y, swag.method.steps)
    state = state._replace(optimizer=parts.restart(state.params))
    found = []
    for _ in range(swag.steps // swag.every):
        state, *_ = parts.second.advance(state, x, y, swag.every)
        sites = state.params["auto_loc"]
        found.append(np.concatenate([sites["intercept"][..., None], sites["weights"]], axis=-1))
    return np.array(found, float)


def gaussian_of(found, rank):
    """The paper's moments, from all of the iterates at once."""
    means = np.cumsum(found, 0) / np.arange(1, len(found) + 1)[:, None]
    deviations = (found - means)[-rank:]
    covariance = np.diag(found.var(0)) / 2 + deviations.T @ deviations / (2 * (rank - 1))
    return means[-1], covariance


def test_the_draws_have_the_moments_of_the_iterates():
    posterior = fit(QUICK)
    mean, covariance = gaussian_of(iterates(QUICK), QUICK.rank)
    draws = latents(posterior)[0]
    white = np.linalg.solve(np.linalg.cholesky(covariance), (draws - mean).T)
    moments = (white @ white.T / len(draws) - np.eye(3)) / np.sqrt(1 + np.eye(3))
    assert abs(white.mean(1)).max() * np.sqrt(len(draws)) < LIMIT
    assert abs(moments).max() * np.sqrt(len(draws)) < LIMIT
    # Their density, by the covariance as a whole.
    _, log_det = np.linalg.slogdet(2 * np.pi * covariance)
    exact = -0.5 * (white**2).sum(0) - 0.5 * log_det
    np.testing.assert_allclose(posterior.stats["log_q"][0], exact, atol=0.05)
    prior = -0.5 * (draws**2).sum(1) - 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(posterior.stats["log_prior"][0], prior, rtol=1e-4)
    assert posterior.provenance.kind == "density"


def location(x, y=None):
    """The gradient's noise does not depend on mu: descent is a linear map of it and of noise."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(mu, 2.0), obs=y)


def test_on_a_quadratic_the_law_is_descents_own():
    """The mode, and the stationary variance with shuffled batches, exactly; of 6,000 iterates 13
    steps apart at a correlation of exp(-1.7), the sd is known to 1.3 %."""
    curvature, batch, rate = 16.0, 3, 0.6
    swag = SWAG(ppbdl.MAP(ADAM, 300, batch), optax.sgd(rate), 78_000, 13, rank=1000, draws=4000)
    draws = np.asarray(fit(swag, location).draws["mu"])
    noise = (20 / 4) ** 2 * batch * np.var(DATA.y, ddof=1) * (1 - 1 / 20)
    step_size = 2 * rate / 60  # as `stochastic` counts: half of it times the whole gradient
    injected = step_size / (1 - (1 - step_size * curvature / 2) ** 2)
    both, steps = (excess(step_size, 1.0, curvature, v, 20) for v in (noise, 0.0))
    law = injected * ((1 + both) / (1 + steps) - 1)
    mandt = rate / 60 * noise / (2 * curvature)  # with independent batches, and small steps
    assert 0.5 < law / mandt < 0.8
    assert draws.std() == pytest.approx(np.sqrt(law), rel=LIMIT * 0.02)
    mode = 60 / 4 * np.mean(DATA.y) / curvature
    assert draws.mean() == pytest.approx(mode, abs=LIMIT * np.sqrt(law) * (1 / 60 + 1 / 63))


def test_full_batches_leave_the_mode_alone():
    swag = replace(QUICK, method=ppbdl.MAP(optax.adam(optax.cosine_decay_schedule(0.1, 500)), 500))
    draws = latents(fit(swag))[0]
    assert (abs(draws - MEAN) < 0.05 * np.sqrt(np.diag(COVARIANCE))).all()


def test_constrained_latents_have_the_density_of_their_support():
    def model(x, y=None):
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        numpyro.deterministic("variance", noise**2)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(0.0, noise), obs=y)

    # With full batches the iterates are spread by their way to the mode.
    posterior = fit(replace(QUICK, method=ppbdl.MAP(ADAM, 1)), model)
    noise = np.asarray(posterior.draws["noise"][0], float)
    np.testing.assert_allclose(posterior.draws["variance"][0], noise**2, rtol=1e-5)
    prior = np.log(2) + np.asarray(dist.Normal(0, 1).log_prob(noise))
    np.testing.assert_allclose(posterior.stats["log_prior"][0], prior, atol=1e-4)
    u = np.log(noise)  # log q of noise is that of log(noise), a normal's, less log(noise)
    log_normal = dist.Normal(u.mean(), u.std()).log_prob(u) - u
    # The sample's own moments stand for the normal's: within 5.5 errors of 1/sqrt(2 * 2000).
    gap = np.asarray(posterior.stats["log_q"][0]) - np.asarray(log_normal)
    assert abs(np.median(gap)) < 0.1


def batch_norm(x, is_training):
    x = hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training)
    return hk.Linear(1)(x)


@pytest.mark.parametrize("batch_size", [None, 20])
def test_running_statistics_are_those_of_an_epoch(batch_size):
    """Of the inputs, which no weight changes: the means of the batches' means and variances."""
    shifted = ppbdl.Data(3 + 2 * DATA.x, DATA.y)
    model = ppbdl.models.BNN(batch_norm, likelihood=ppbdl.models.Normal(0.5))
    posterior = fit(replace(QUICK, method=ppbdl.MAP(ADAM, 50, batch_size)), model, shifted)
    order = np.arange(60)
    if batch_size:
        order = jax.random.permutation(jax.random.fold_in(jax.random.key(0), 0), 60)
    batches = np.asarray(shifted.x, float)[order].reshape(60 // (batch_size or 60), -1, 2)
    state = posterior.mutables["net$state"]["state"]
    for name, exact in (("mean", batches.mean(1)), ("var", batches.var(1))):
        average = state[f"norm/~/{name}_ema"]["average"]
        np.testing.assert_allclose(average.reshape(-1), exact.mean(0), rtol=1e-4)


def learning(x, y=None):
    slope = numpyro.param("slope", jnp.ones(()))
    scale = numpyro.param("scale", jnp.ones(()), constraint=dist.constraints.positive)
    level = numpyro.sample("level", dist.Normal(0, 1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(level + slope * x[:, 0], scale), obs=y)


def test_learned_parameters_are_averaged():
    posterior = fit(QUICK, learning)
    exact = np.polyfit(COLUMN, DATA.y, 1)
    residual = np.std(DATA.y - np.polyval(exact, COLUMN))
    assert set(posterior.params) == {"slope", "scale"}
    assert posterior.params["slope"].shape == (1,)
    # The average of an epoch and a half's iterates, each some 0.1 of a posterior sd off.
    assert posterior.params["slope"][0] == pytest.approx(exact[0], abs=0.2)
    assert posterior.params["scale"][0] == pytest.approx(residual, rel=0.1)


def test_members_are_chains_each_with_moments_of_its_own():
    posterior = several(QUICK, 3)
    assert posterior.shape == (3, 2000)
    assert posterior.provenance.kind == "implicit"
    assert {name: a.shape for name, a in posterior.stats.items()} == {
        "log_prior": (3, 2000),
        "log_q": (3, 2000),
    }
    assert posterior.losses.shape == (3, 500)
    found = iterates(QUICK, 3)
    for member, draws in enumerate(latents(posterior)):
        mean, covariance = gaussian_of(found[:, member], QUICK.rank)
        error = np.sqrt(np.diag(covariance) / len(draws))
        assert (abs(draws.mean(0) - mean) < LIMIT * error).all()
        assert (abs(draws.std(0) / np.sqrt(np.diag(covariance)) - 1) < LIMIT / 63).all()
    assert not np.isin(found[:, 0], found[:, 1]).any()
    one, other, _ = latents(posterior)
    shared = [np.corrcoef(one[:, i], other[:, i])[0, 1] for i in range(3)]  # noise, were it shared
    assert (np.abs(shared) < LIMIT / np.sqrt(len(one))).all()


def test_a_key_decides_the_draws():
    brief = replace(QUICK, draws=20)
    one, same, other = (latents(fit(brief, key=key)) for key in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert not np.isin(other, one).any()


def test_a_second_fit_compiles_nothing():
    compiled = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    fit(QUICK)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        fit(replace(QUICK, steps=250), data=ppbdl.Data(DATA.x + 1, 2 * DATA.y), key=1)
        assert compiled == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_saved_and_loaded_it_predicts_the_same(tmp_path):
    model = ppbdl.models.BNN(batch_norm, likelihood=ppbdl.models.Normal(0.5))
    posterior = fit(replace(QUICK, draws=20), model)
    loaded = ppbdl.load(ppbdl.save(posterior, tmp_path / "fit"))
    before, after = (ppbdl.predict(2, model, p, DATA).mean for p in (posterior, loaded))
    np.testing.assert_array_equal(before, after)
    assert loaded.provenance == posterior.provenance


def test_double_precision(x64):
    model = ppbdl.models.LinearRegression(noise=0.6)  # of no program in single precision
    assert fit(replace(QUICK, draws=20), model).draws["weights"].dtype == np.float64


def hopeless(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(slope * x[:, 0], jnp.sqrt(-1.0 - slope**2)), obs=y)


@pytest.mark.parametrize("members", [None, 2])
def test_a_nan_stops_the_fit(members):
    with pytest.raises(ppbdl.FitError, match="'y'") as caught:
        several(QUICK, members, model=hopeless)
    assert (caught.value.step, caught.value.site, caught.value.posterior) == (0, "y", None)


def test_a_rate_too_large_keeps_the_iterates_before():
    """It grows by 6 at each step: single precision lasts for twenty or so."""
    swag = replace(QUICK, optimizer=optax.sgd(1.2), every=2)
    with pytest.raises(ppbdl.FitError, match="smaller learning rate") as caught:
        fit(swag)
    assert 304 < caught.value.step < 400
    kept = caught.value.posterior
    assert np.isfinite(latents(kept)).all()
    assert "Not finite at step" in kept.provenance.failure


def test_interrupted_it_draws_from_the_iterates_so_far(monkeypatch):
    from ppbdl.inference import averaging

    add = averaging.Moments.add

    def add_twelve(moments, params):
        if moments.count == 12:
            raise KeyboardInterrupt
        add(moments, params)

    monkeypatch.setattr(averaging.Moments, "add", add_twelve)
    posterior = fit(replace(QUICK, draws=20))
    assert "after 12 iterates" in posterior.provenance.failure
    assert posterior.losses.shape == (1, 300 + 13 * 7)


@pytest.mark.parametrize(
    ("swag", "argument"),
    [
        (lambda: replace(QUICK, rank=1), "rank"),
        (lambda: replace(QUICK, rank=29), "rank"),
        (lambda: replace(QUICK, every=0), "every"),
        (lambda: fit(replace(QUICK, method=ppbdl.MAP(batch_size=61))), "batch_size"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(swag, argument):
    with pytest.raises(ppbdl.InputError, match=argument):
        swag()


def test_an_ensemble_of_it_is_multiswag():
    multi = ppbdl.Ensemble(SWAG(ppbdl.MAP(steps=20), steps=20, every=2, rank=5, draws=7), members=3)
    posterior = fit(multi)
    assert multi.name == posterior.provenance.method == "Ensemble SWAG"
    assert posterior.shape == (3, 7)
    assert posterior.provenance.gradients == 3 * 40
