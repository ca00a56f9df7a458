"""Any NumPyro program is a model: a hierarchical one, and a Bayesian network of discrete nodes."""

import itertools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import TraceEnum_ELBO
from scipy.special import logsumexp

import ppbdl
import ppbdl.inference
from ppbdl.structure import inspect_model, shapes_of

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
SCHOOLS = ppbdl.Data(ERRORS[:, None], EFFECTS)


def eight_schools(x, y=None):
    """Gelman et al. (2013), section 5.5, non-centred: theta = mu + tau z."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("y", dist.Normal(theta, x[:, 0]), obs=y)


FADING = optax.adam(optax.cosine_decay_schedule(0.05, 800))
SCHOOL_METHODS = {
    "SVI": ppbdl.SVI(optimizer=FADING, steps=800, draws=500),
}
if hasattr(ppbdl.inference, "NUTS"):
    SCHOOL_METHODS["NUTS"] = ppbdl.inference.NUTS(draws=400, warmup=300, chains=2)


@pytest.mark.parametrize("name", SCHOOL_METHODS)
def test_eight_schools(name):
    """mu's posterior mean is 4.4 with sd 3.3 (Stan's reference); within 2 is six errors of NUTS
    at an effective sample of 100."""
    posterior = ppbdl.fit(0, eight_schools, SCHOOLS, SCHOOL_METHODS[name], progress=False)
    draws = {site: np.asarray(a) for site, a in posterior.draws.items()}
    assert draws["theta"].shape == (*posterior.shape, 8)
    expected = draws["mu"][..., None] + draws["tau"][..., None] * draws["z"]
    np.testing.assert_allclose(draws["theta"], expected, rtol=1e-4, atol=1e-4)
    assert (draws["tau"] > 0).all()
    assert abs(draws["mu"].mean() - 4.4) < 2
    assert 2 < draws["mu"].std() < 5
    # Schools are pulled together: the first, at 28, to about 6, the third, at -3, to about 4.
    theta = draws["theta"].mean((0, 1))
    assert 0 < theta[2] < theta[0] < 15
    scores = ppbdl.log_likelihood(0, eight_schools, posterior, SCHOOLS)["y"]
    by_hand = dist.Normal(draws["theta"], ERRORS).log_prob(EFFECTS)
    np.testing.assert_allclose(scores, by_hand, atol=2e-3)
    predicted = ppbdl.predict(0, eight_schools, posterior, ERRORS[:, None])
    np.testing.assert_allclose(predicted.mean, draws["theta"].mean((0, 1)), atol=1e-2)
    tree = ppbdl.to_datatree(0, eight_schools, posterior, SCHOOLS)
    assert tree["posterior"]["theta"].shape == (*posterior.shape, 8)


def sprinkler(x, y=None):
    """Rain and a sprinkler, neither recorded, make the grass wet; x says whether it was cloudy."""
    rain_if = numpyro.sample("rain_if", dist.Beta(jnp.array([1.0, 4.0]), 2.0).to_event(1))
    wet_if = numpyro.sample(
        "wet_if", dist.Beta(jnp.array([[1.0, 5.0], [5.0, 9.0]]), 2.0).to_event(2)
    )
    cloudy = x[:, 0].astype(int)
    with numpyro.plate("data", x.shape[0]):
        rain = numpyro.sample("rain", dist.Bernoulli(rain_if[cloudy]))
        on = numpyro.sample("sprinkler", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Bernoulli(wet_if[rain, on]), obs=y)


RNG = np.random.default_rng(0)
CLOUDY = RNG.integers(0, 2, 30)
WET = (RNG.random(30) < 0.3 + 0.5 * CLOUDY).astype(int)
LAWN = ppbdl.Data(CLOUDY[:, None].astype(float), WET)


def by_hand(rain_if, wet_if):
    """log p(y_i | the tables): both causes summed out, for each of 30 days."""
    terms = []
    for rain, on in itertools.product([0, 1], repeat=2):
        p_rain = np.where(rain, rain_if[CLOUDY], 1 - rain_if[CLOUDY])
        p_wet = np.where(WET, wet_if[rain, on], 1 - wet_if[rain, on])
        terms.append(np.log(p_rain) + np.log(0.4 if on else 0.6) + np.log(p_wet))
    return logsumexp(terms, axis=0)


SUMMING = {
    "SVI": ppbdl.SVI(optimizer=FADING, steps=400, draws=200, loss=TraceEnum_ELBO()),
    "SVI, minibatches": ppbdl.SVI(
        optimizer=FADING, steps=400, draws=200, loss=TraceEnum_ELBO(), batch_size=15
    ),
}
if "NUTS" in SCHOOL_METHODS:
    SUMMING["NUTS"] = ppbdl.inference.NUTS(draws=200, warmup=200, chains=1)


@pytest.fixture(scope="module", params=SUMMING)
def lawn(request):
    return ppbdl.fit(0, sprinkler, LAWN, SUMMING[request.param], progress=False)


def test_discrete_causes_are_summed_out(lawn):
    assert set(lawn.draws) == {"rain_if", "wet_if"}
    assert lawn.provenance.failure == ""
    scores = ppbdl.log_likelihood(0, sprinkler, lawn, LAWN)["y"]
    assert scores.shape == (*lawn.shape, 30)
    for draw in (0, 7, 199):
        tables = (np.asarray(lawn.draws[name][0, draw]) for name in ("rain_if", "wet_if"))
        np.testing.assert_allclose(scores[0, draw], by_hand(*tables), rtol=1e-4)


def test_the_network_predicts_wet_grass(lawn):
    """P(wet | cloudy) against the mean over draws of the tables' own; `predict` draws the causes
    for each draw and row, so the mean of 200 is within 4.5 of its binomial errors (6 rows)."""
    rows = np.array([[0.0], [1.0]])
    probs = ppbdl.predict(0, sprinkler, lawn, np.repeat(rows, 100, axis=0)).mean[:, 1]
    rain, wet = (np.asarray(lawn.draws[name][0]) for name in ("rain_if", "wet_if"))
    dry_on, rain_on = wet[:, 0] @ [0.6, 0.4], wet[:, 1] @ [0.6, 0.4]
    for cloudy in (0, 1):
        p = rain[:, cloudy]
        exact = ((1 - p) * dry_on + p * rain_on).mean()
        assert abs(probs[100 * cloudy :][:100].mean() - exact) < 0.03


def test_the_summed_objective_bounds_the_evidence(lawn):
    """log p(y) by importance sampling from the prior, 2,000 draws; the ELBO lies below it."""
    if lawn.losses is None:
        pytest.skip("no objective")
    rng = np.random.default_rng(1)
    rain = rng.beta([1, 4], 2, (2000, 2))
    wet = rng.beta([[1, 5], [5, 9]], 2, (2000, 2, 2))
    each = [by_hand(r, w).sum() for r, w in zip(rain, wet, strict=True)]
    evidence = logsumexp(each) - np.log(len(each))
    elbo = -lawn.losses[0, -100:].mean()
    assert evidence - 3 < elbo < evidence + 0.3


REFUSING = {
    "SVI": ppbdl.SVI(steps=5),
    "MAP": ppbdl.MAP(steps=5),
    "Ensemble": ppbdl.Ensemble(ppbdl.MAP(steps=5)),
}


@pytest.mark.parametrize("name", REFUSING)
def test_an_objective_that_cannot_sum_is_refused(name):
    with pytest.raises(ppbdl.ModelError, match=r"\['rain', 'sprinkler'\].*TraceEnum_ELBO\(\)"):
        ppbdl.fit(0, sprinkler, LAWN, REFUSING[name], progress=False)


def test_the_parts_that_the_sites_play():
    structure = inspect_model(sprinkler, shapes_of(LAWN))
    assert set(structure.latents) == {"rain_if", "wet_if"}
    assert structure.discrete == ("rain", "sprinkler")
    assert structure.observed == ("y",)


def test_a_shared_discrete_latent_is_not_scored_row_by_row():
    def mixture(x, y=None):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        flip = numpyro.sample("flip", dist.Bernoulli(0.5))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(mean * (2.0 * flip - 1), 1.0), obs=y)

    data = ppbdl.Data(np.zeros((4, 1)), np.arange(4.0))
    method = ppbdl.SVI(steps=5, draws=2, loss=TraceEnum_ELBO())
    posterior = ppbdl.fit(0, mixture, data, method, progress=False)
    with pytest.raises(ppbdl.ModelError, match="'flip', which all the rows share"):
        ppbdl.log_likelihood(0, mixture, posterior, data)
