"""SVI, MAP and ensembles: known optima, any guide, objective and optimiser, and how fits fail."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO, autoguide
from scipy.special import logsumexp

import ppbdl
import ppbdl.models
from ppbdl.inference import svi as svi_module

STEPS = 1500
FADING = optax.adam(optax.cosine_decay_schedule(0.1, STEPS))
MODEL = ppbdl.models.LinearRegression(noise=0.5)
GRID = np.linspace(0.0, 2.0, 20)  # not centred, so intercept and slope are correlated
DATA = ppbdl.Data(GRID[:, None], 1.0 - 2 * GRID + 0.4 * np.cos(30 * GRID))
MEAN, COVARIANCE = MODEL.exact_posterior(DATA)
PRECISION = np.linalg.inv(COVARIANCE)
MEAN_FIELD_SD = 1 / np.sqrt(np.diag(PRECISION))


def fit(method, key=0, model=MODEL, data=DATA):
    return ppbdl.fit(key, model, data, method, progress=False)


def latents(posterior):
    parts = posterior.draws["intercept"][..., None], posterior.draws["weights"]
    return np.float64(np.concatenate(parts, axis=-1))


@pytest.fixture(scope="module")
def mean_field():
    return fit(ppbdl.SVI(ppbdl.AutoNormal, FADING, STEPS, draws=2000))


def test_the_mean_field_optimum(mean_field):
    """Bishop (2006), section 10.1.2: the exact means, and sds of 1/sqrt(diag precision).

    Of two means |z| < 5 with 2 % of a sd for the optimiser, and two sds, whose relative Monte
    Carlo error is 1/sqrt(4000) = 0.016, within 0.1: below 2 false alarms in 1,000,000 runs.
    """
    draws = latents(mean_field)[0]
    error = MEAN_FIELD_SD / np.sqrt(len(draws))
    assert (abs(draws.mean(0) - MEAN) < 5 * error + 0.02 * MEAN_FIELD_SD).all()
    assert (abs(draws.std(0) / MEAN_FIELD_SD - 1) < 0.1).all()
    assert (0.7 * np.sqrt(np.diag(COVARIANCE)) > MEAN_FIELD_SD).all()  # the difference is seen


def test_the_bound_is_the_evidence_less_the_known_gap(mean_field):
    """The gap is KL(mean field || exact) = (sum log diag precision - log |precision|) / 2.

    Over the last 400 steps one draw's ELBO varies by about 1.5 nats: the mean's standard error
    is below 0.1, and |z| < 5 fails in 6 of 10^7 runs.
    """
    gap = (np.log(np.diag(PRECISION)).sum() - np.linalg.slogdet(PRECISION)[1]) / 2
    last = -mean_field.losses[0, -400:]
    error = last.std() / np.sqrt(len(last))
    assert error < 0.1
    assert abs(last.mean() - (MODEL.log_evidence(DATA) - gap)) < 5 * error + 0.02
    assert gap > 0.5
    assert last.mean() < MODEL.log_evidence(DATA)


def test_densities_of_the_draws(mean_field):
    """log_q is the guide's normal density at each draw, log_prior the prior's."""
    draws, stats = latents(mean_field)[0], mean_field.stats
    loc = np.asarray(mean_field.params["auto_loc"][0])
    scale = np.asarray(mean_field.params["auto_scale"][0])
    log_q = dist.Normal(loc, scale).log_prob(draws).sum(-1)
    np.testing.assert_allclose(stats["log_q"][0], log_q, atol=2e-3)
    np.testing.assert_allclose(
        stats["log_prior"][0], dist.Normal().log_prob(draws).sum(-1), atol=1e-3
    )


def handwritten(x, y=None):
    loc = numpyro.param("loc", jnp.zeros(2))
    scale = numpyro.param("scale", 0.1 * jnp.ones(2), constraint=dist.constraints.positive)
    numpyro.sample("weights", dist.Normal(loc[1:], scale[1:]).to_event(1))
    numpyro.sample("intercept", dist.Normal(loc[0], scale[0]))


FLOW = functools.partial(autoguide.AutoIAFNormal, num_flows=1, hidden_dims=[4])
FULL = np.sqrt(np.diag(COVARIANCE))
GUIDES = {
    "AutoNormal of NumPyro's": (autoguide.AutoNormal, MEAN_FIELD_SD),
    "AutoDiagonalNormal": (autoguide.AutoDiagonalNormal, MEAN_FIELD_SD),
    "an instance": (autoguide.AutoDiagonalNormal(MODEL), MEAN_FIELD_SD),
    "a partial": (functools.partial(autoguide.AutoNormal, init_scale=0.05), MEAN_FIELD_SD),
    "AutoMultivariateNormal": (autoguide.AutoMultivariateNormal, FULL),
    "AutoIAFNormal": (FLOW, FULL),
    "a value of ours": (ppbdl.AutoNormal(init_scale=0.05), MEAN_FIELD_SD),
    "handwritten": (handwritten, MEAN_FIELD_SD),
}


@pytest.mark.parametrize("name", GUIDES)
def test_any_guide(name):
    """Means within 0.25 sd of the exact ones and sds within 20 %: five errors or more of 1,000
    draws, with room for an optimiser of 600 steps."""
    guide, sd = GUIDES[name]
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 600))
    posterior = fit(ppbdl.SVI(guide, optimizer, 600))
    draws = latents(posterior)[0]
    assert (abs(draws.mean(0) - MEAN) < 0.25 * FULL).all()
    assert (abs(draws.std(0) / sd - 1) < 0.2).all()
    assert posterior.provenance.kind == "density"
    assert np.isfinite(posterior.stats["log_q"]).all()


LOSSES = {
    "Trace_ELBO": Trace_ELBO(num_particles=2),
    "RenyiELBO": RenyiELBO(alpha=0.5, num_particles=2),
    "TraceMeanField_ELBO": TraceMeanField_ELBO(),
    "AnalyticELBO": ppbdl.AnalyticELBO(num_particles=3),
}
OPTIMIZERS = {
    "sgd": optax.sgd(1e-3, momentum=0.9),
    "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.02)),
    "adamw": optax.adamw(0.02),
    "schedule": optax.rmsprop(optax.exponential_decay(0.02, 100, 0.9)),
}
ANY = {name: dict(loss=loss, optimizer=optax.adam(0.02)) for name, loss in LOSSES.items()}
ANY |= {name: dict(optimizer=optimizer) for name, optimizer in OPTIMIZERS.items()}


@pytest.mark.parametrize("name", ANY)
def test_any_objective_and_optimiser(name):
    posterior = fit(ppbdl.SVI(steps=300, draws=300, **ANY[name]))
    assert (abs(latents(posterior)[0].mean(0) - MEAN) < FULL).all()
    assert posterior.losses.shape == (1, 300)
    assert posterior.losses[0, -50:].mean() < posterior.losses[0, :50].mean()


def test_map_is_the_ridge_solution():
    """The mode of a normal posterior is its mean: (X'X + noise^2 I)^-1 X'y at unit prior sd."""
    design = np.column_stack([np.ones(20), GRID])
    ridge = np.linalg.solve(design.T @ design + 0.25 * np.eye(2), design.T @ DATA.y)
    posterior = fit(ppbdl.MAP(FADING, STEPS))
    np.testing.assert_allclose(latents(posterior)[0, 0], ridge, atol=1e-3)
    assert posterior.shape == (1, 1)
    assert posterior.provenance.kind == "implicit"


def bends_to_nan(x, y=None):
    """Ascent pushes the height below zero, where its square root is NaN."""
    height = numpyro.param("height", jnp.full((), 0.5))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        mean = slope * x[:, 0] + height - 5.0
        numpyro.sample("y", dist.Normal(mean, 1 + 0 * jnp.sqrt(height)), obs=y - 100.0)


def gradient_breaks(x, y=None):
    """Beyond 0.2 the density stays finite while its gradient becomes 0 * infinity."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0), infer={"init": start_at_zero})
    with numpyro.plate("data", x.shape[0]):
        below = jnp.maximum(0.2 - slope, 0.0)
        numpyro.sample("y", dist.Normal(slope + 0 * jnp.sqrt(below), 0.1), obs=0 * y + 1.0)


def start_at_zero(site):
    return jnp.zeros(())


BROKEN = {
    "a density": (bends_to_nan, "y"),
    "a gradient": (gradient_breaks, "slope"),
}


@pytest.mark.parametrize("wrapped", ["MAP", "Ensemble"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_nan_stops_at_its_step_and_keeps_the_last_good_state(name, wrapped, monkeypatch):
    model, site = BROKEN[name]
    method = ppbdl.MAP(optax.sgd(SLOW), steps=200)
    if wrapped == "Ensemble":
        method = ppbdl.Ensemble(method, members=2)
    with pytest.raises(ppbdl.FitError, match=f"not finite at step .*'{site}'") as caught:
        fit(method, model=model)
    error = caught.value
    assert 0 < error.step < 200
    assert error.site == site
    kept = error.posterior
    assert kept.losses.shape[1] == error.step
    assert np.isfinite(kept.losses).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((kept.draws, kept.params)))
    assert f"step {error.step}" in kept.provenance.failure
    assert kept.provenance.gradients > 0
    # The step that fails is the same, however the loop is cut into calls.
    monkeypatch.setattr(svi_module, "_SECONDS", 0.0)
    with pytest.raises(ppbdl.FitError) as again:
        fit(method, model=model)
    assert again.value.step == error.step
    np.testing.assert_array_equal(again.value.posterior.draws["slope"], kept.draws["slope"])


SLOW = 1e-4


def start_apart(site):
    return -2.0 * dist.Uniform().sample(site["kwargs"]["rng_key"])


def breaks_for_one(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0), infer={"init": start_apart})
    with numpyro.plate("data", x.shape[0]):
        below = jnp.maximum(0.2 - slope, 0.0)
        numpyro.sample("y", dist.Normal(slope + 0 * jnp.sqrt(below), 0.1), obs=0 * y + 1.0)


@pytest.mark.parametrize("key", range(4))
def test_the_site_is_that_of_the_member_that_failed(key):
    """Which of the three starts nearest to the trouble depends on the key."""
    method = ppbdl.Ensemble(ppbdl.MAP(optax.sgd(SLOW), steps=200), members=3)
    with pytest.raises(ppbdl.FitError) as caught:
        fit(method, key, breaks_for_one)
    assert caught.value.site == "slope"


def test_an_update_that_overflows_is_an_error_too():
    method = ppbdl.MAP(optax.sgd(3e38), steps=20)
    with pytest.raises(ppbdl.FitError, match="step 0") as caught:
        fit(method)
    assert caught.value.posterior is None


def interrupting(after, monkeypatch):
    """Let Ctrl-C come with the bar's update number `after`."""
    updates = []

    class Bar(svi_module.tqdm):
        def update(self, n=1):
            updates.append(n)
            if len(updates) == after:
                raise KeyboardInterrupt
            return super().update(n)

    monkeypatch.setattr(svi_module, "tqdm", Bar)
    return updates


def test_an_interrupted_fit_keeps_what_was_done(monkeypatch):
    monkeypatch.setattr(svi_module, "_SECONDS", 0.0)  # a step in each call after the first fifty
    updates = interrupting(4, monkeypatch)
    posterior = fit(ppbdl.SVI(optimizer=FADING, steps=STEPS, draws=7))
    done = sum(updates)
    assert done < STEPS
    assert f"after {done} of {STEPS} steps" in posterior.provenance.failure
    assert posterior.losses.shape == (1, done)
    assert posterior.provenance.gradients == done
    assert posterior.shape == (1, 7)


def test_interrupted_before_a_step_there_is_nothing_to_keep(monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(svi_module.np, "int32", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(ppbdl.SVI(optimizer=FADING, steps=STEPS, draws=7))


@pytest.mark.parametrize("batch_size", [None, 6])
def test_the_length_of_a_chunk_changes_nothing(batch_size, monkeypatch):
    method = ppbdl.SVI(optimizer=FADING, steps=137, batch_size=batch_size, draws=5)
    one = fit(method)
    monkeypatch.setattr(svi_module, "_SECONDS", 0.0)
    other = fit(method)
    np.testing.assert_array_equal(one.losses, other.losses)
    np.testing.assert_array_equal(latents(one), latents(other))


def test_minibatches_reach_the_optimum_too():
    posterior = fit(ppbdl.SVI(optimizer=FADING, steps=STEPS, batch_size=6))
    draws = latents(posterior)[0]
    assert (abs(draws.mean(0) - MEAN) < 0.25 * FULL).all()
    assert (abs(draws.std(0) / MEAN_FIELD_SD - 1) < 0.25).all()


@pytest.mark.parametrize("batch_size", [None, 6])
def test_members_of_an_ensemble_differ(batch_size):
    method = ppbdl.MAP(optax.sgd(SLOW), steps=20, batch_size=batch_size)
    posterior = fit(ppbdl.Ensemble(method, members=3))
    assert posterior.shape == (3, 1)
    assert posterior.losses.shape == (3, 20)
    assert all(len(leaf) == 3 for leaf in jax.tree.leaves(posterior.params))
    assert len(np.unique(latents(posterior)[:, 0, 0])) == 3
    assert posterior.provenance.gradients == 60


def test_each_member_is_the_fit_of_its_own_key():
    """The vectorised members are the single fits, to rounding."""
    key, method = jax.random.key(5), ppbdl.MAP(optax.sgd(1e-3), steps=30)
    members = latents(fit(ppbdl.Ensemble(method, members=2), key))
    single = [latents(fit(method, one))[0] for one in jax.random.split(key, 2)]
    np.testing.assert_allclose(members, single, rtol=1e-4, atol=1e-5)


def test_an_ensemble_of_approximate_posteriors():
    posterior = fit(ppbdl.Ensemble(ppbdl.SVI(optimizer=FADING, steps=300, draws=40), members=2))
    assert latents(posterior).shape == (2, 40, 2)
    # The draws are of a mixture, of which no density is known: each member's is its own.
    assert posterior.provenance.kind == "implicit"
    scale = np.asarray(latents(posterior)).std(1)
    spread = -np.asarray(posterior.stats["log_q"]).mean(1)  # the entropy of a normal
    expected = np.log(scale * np.sqrt(2 * np.pi * np.e)).sum(1)
    np.testing.assert_allclose(spread, expected, atol=0.5)
    assert posterior.stats["log_prior"].shape == (2, 40)
    assert posterior.provenance.settings["members"] == "2"


# The families beyond networks of weights: flows and autoencoders.


def clusters(seed, rows):
    rng = np.random.default_rng(seed)
    return rng.choice([-2.0, 2.0], (rows, 1)) + 0.4 * rng.normal(size=(rows, 2))


def test_a_flow_fits_two_clusters_better_than_a_gaussian():
    """The best Gaussian's score is known from the moments: -log |2 pi e S| / 2 a row."""
    train, test = ppbdl.Data(None, clusters(0, 2000)), ppbdl.Data(None, clusters(1, 1000))
    model = ppbdl.models.RealNVP(features=2, layers=4, width=16)
    posterior = fit(ppbdl.MAP(optax.adam(5e-3), steps=600, batch_size=200), model=model, data=train)
    assert posterior.draws == {}
    score = ppbdl.log_likelihood(0, model, posterior, test)["y"]
    assert score.shape == (1, 1, 1000)
    covariance = np.cov(np.float64(train.y).T)
    gaussian = -np.linalg.slogdet(2 * np.pi * np.e * covariance)[1] / 2
    assert score.mean() > gaussian + 0.3
    drawn = ppbdl.predict(0, model, posterior, test.x, draws=True).draws["y"][0, 0]
    assert drawn.shape == (1000, 2)
    assert (np.sign(drawn[:, 0]) == np.sign(drawn[:, 1])).mean() > 0.9  # the two clusters


def test_an_autoencoder_fits_scores_and_generates():
    y = (
        np.random.default_rng(0).normal(size=(60, 1)) * [1.0, -1.0, 0.5]
        + 0.1 * clusters(2, 60)[:, :1]
    )
    data = ppbdl.Data(None, y)
    vae = ppbdl.models.VAE((3,), 1, ppbdl.models.Normal(0.2), ppbdl.models.Dense((8,)))
    method = ppbdl.SVI(vae.guide, optax.adam(1e-2), steps=400, batch_size=16, draws=64)
    posterior = fit(method, model=vae, data=data)
    assert posterior.draws == {}
    assert posterior.shape == (1, 64)
    assert posterior.provenance.kind == "implicit"
    assert posterior.losses[0, -50:].mean() < posterior.losses[0, :50].mean() - 10
    predicted = ppbdl.predict(1, vae, posterior, np.zeros((5, 0)), draws=True)
    assert predicted.draws["y"].shape == (1, 64, 5, 3)
    weights = ppbdl.log_likelihood(1, vae, posterior, data, guide=vae.guide)["y"][0]
    iwae = logsumexp(weights, axis=0) - np.log(64)
    elbo = weights.mean(0)
    assert (iwae >= elbo - 1e-5).all()  # Jensen, row by row
    # The fit's own ELBO, for all 60 rows, is the same bound up to a few of its standard errors.
    last = -posterior.losses[0, -50:]
    assert abs(elbo.sum() - last.mean()) < 6 * last.std() + 0.05 * abs(last.mean())
