"""Predictions and scores against closed forms, streamed or not, and what they refuse."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from scipy import stats
from scipy.special import logsumexp

import ppbdl
import ppbdl.models
from ppbdl import prediction
from ppbdl.posterior import Posterior, Provenance
from ppbdl.streaming import BUDGET, noisy

TINY = 256  # bytes: a draw and a few rows at a time
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 2))
LINEAR = ppbdl.models.LinearRegression(noise=0.5)
RAW = ppbdl.Data(3.0 + X, 40.0 + 8 * X[:, 0] + 3 * RNG.normal(size=20))
DATA = RAW.standardized()


def posterior_of(draws, data, params=None, observed=("y",)):
    """A posterior of given draws, each (chain, draw, ...)."""
    shape = next(iter(draws.values())).shape[:2]
    return Posterior(
        draws={name: jnp.asarray(a) for name, a in draws.items()},
        params=params or {},
        mutables={},
        stats={},
        shape=shape,
        observed=observed,
        provenance=Provenance("given", {}, "mcmc", (0,)),
        scaling=data.scaling,
        x_shape=data.x.shape[1:],
    )


@pytest.fixture(scope="module")
def exact():
    """2,000 independent draws, in two chains, from the exact posterior of the standardised data."""
    mean, covariance = LINEAR.exact_posterior(DATA)
    draws = np.random.default_rng(1).multivariate_normal(mean, covariance, size=(2, 1000))
    return posterior_of(
        {"intercept": np.float32(draws[..., 0]), "weights": np.float32(draws[..., 1:])}, DATA
    )


@pytest.fixture(scope="module")
def new_rows():
    return 3.0 + np.random.default_rng(2).normal(size=(7, 2))


def test_moments_are_the_exact_ones_in_the_users_units(exact, new_rows):
    """Of each of 7 means |z| < 4.5, and each variance, whose relative sd is sqrt(2/2000) = 0.03,
    within 0.15: together fewer than 1 false alarm in 5,000 data sets."""
    y_mean, y_sd = DATA.scaling.y_mean, DATA.scaling.y_sd
    mean, epistemic = LINEAR.exact_predictive(DATA, DATA.scaling.x(new_rows))
    predicted = ppbdl.predict(0, LINEAR, exact, new_rows)
    z = (predicted.mean - (y_mean + y_sd * mean)) / (y_sd * np.sqrt(epistemic / 2000))
    assert (abs(z) < 4.5).all()
    np.testing.assert_allclose(predicted.epistemic, y_sd**2 * epistemic, rtol=0.15)
    np.testing.assert_allclose(predicted.aleatoric, (0.5 * y_sd) ** 2, rtol=1e-5)
    np.testing.assert_allclose(predicted.total, predicted.aleatoric + predicted.epistemic)
    np.testing.assert_allclose(predicted.sd, np.sqrt(predicted.total))
    assert predicted.draws == {}
    assert predicted.kwon is None


def test_draws_of_y_have_the_predictive_distribution(exact, new_rows):
    """A Kolmogorov-Smirnov test for each of 7 rows at 1e-5: 7 in 100,000 false alarms."""
    y_mean, y_sd = DATA.scaling.y_mean, DATA.scaling.y_sd
    mean, epistemic = LINEAR.exact_predictive(DATA, DATA.scaling.x(new_rows))
    y = ppbdl.predict(0, LINEAR, exact, new_rows, draws=True).draws["y"]
    assert y.shape == (2, 1000, 7)
    for row in range(7):
        law = stats.norm(y_mean + y_sd * mean[row], y_sd * np.sqrt(epistemic[row] + 0.25))
        assert stats.kstest(y[..., row].ravel(), law.cdf).pvalue > 1e-5


def test_scores_are_the_normal_densities_of_raw_y(exact):
    scores = ppbdl.log_likelihood(0, LINEAR, exact, RAW)["y"]
    assert scores.shape == (2, 1000, 20)
    mean = exact.draws["intercept"][..., None] + exact.draws["weights"] @ DATA.x.T
    back = DATA.scaling
    expected = stats.norm(back.mean(np.float64(mean)), 0.5 * back.y_sd).logpdf(RAW.y)
    np.testing.assert_allclose(scores, expected, atol=2e-3)
    again = ppbdl.log_likelihood(0, LINEAR, exact, DATA)["y"]
    np.testing.assert_allclose(again, scores, atol=2e-3)


def shared_probability(x, y=None):
    p = numpyro.sample("p", dist.Uniform())
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(p), obs=y)


def shared_simplex(x, y=None):
    p = numpyro.sample("p", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Categorical(p), obs=y)


CLASSES = {
    "Bernoulli": (shared_probability, np.array([[0.1, 0.5]])),
    "Categorical": (shared_simplex, np.array([[[0.9, 0.1], [0.5, 0.5]]])),
}


@pytest.mark.parametrize("likelihood", CLASSES)
@pytest.mark.parametrize("budget", [TINY, BUDGET])
def test_two_draws_of_class_probabilities(likelihood, budget):
    """The vectors of Kwon et al. and of the mutual information: p_1 = (.9, .1), p_2 = (.5, .5)."""
    model, draws = CLASSES[likelihood]
    data = ppbdl.Data(np.zeros((3, 1)), np.array([0, 1, 0]))
    posterior = posterior_of({"p": np.float32(draws)}, data)
    predicted = ppbdl.predict(0, model, posterior, data, draws=True, budget=budget)
    for row in range(3):
        np.testing.assert_allclose(predicted.mean[row], [0.7, 0.3], rtol=1e-6)
        assert predicted.total[row] == pytest.approx(0.610864, abs=1e-5)
        assert predicted.aleatoric[row] == pytest.approx(0.509115, abs=1e-5)
        assert predicted.epistemic[row] == pytest.approx(0.101749, abs=1e-5)
        np.testing.assert_allclose(predicted.kwon[0][row], 0.17, rtol=1e-5)
        np.testing.assert_allclose(predicted.kwon[1][row], 0.04, rtol=1e-5)
    assert predicted.draws["y"].shape == (1, 2, 3)
    assert set(np.unique(predicted.draws["y"])) <= {0, 1}
    np.testing.assert_allclose(predicted.draws["probs"][0, 0], [[0.9, 0.1]] * 3, rtol=1e-6)


def binary_logits(x, y=None):
    w = numpyro.sample("w", dist.Normal())
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=w * x[:, 0]), obs=y)


def class_logits(x, y=None):
    w = numpyro.sample("w", dist.Normal())
    logits = jnp.stack([w * x[:, 0], 2.0 + x[:, 0], 0 * x[:, 0]], axis=-1)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Categorical(logits=logits + 7.0), obs=y)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("budget", [TINY, BUDGET])
def test_the_energy_is_that_of_the_logits_before_they_are_normalised(binary, budget):
    """-log(e^(-l/2) + e^(l/2)), and -7 less the others': normalised ones would all give 0."""
    x, w = np.float32([[-3.0], [0.5], [40.0]]), np.float32([[0.5, -2.0]])
    data = ppbdl.Data(x, np.array([0, 1, 0]))
    model, posterior = binary_logits if binary else class_logits, posterior_of({"w": w}, data)
    each = ppbdl.predict(0, model, posterior, data, draws=True, budget=budget).draws
    logits = w[..., None] * x[:, 0]
    rest = (2.0 + x[:, 0] + 0 * logits, 0 * logits)
    terms = [-logits / 2, logits / 2] if binary else [logits, *rest]
    expected = -logsumexp(terms, axis=0) - 7.0 * (not binary)
    np.testing.assert_allclose(each["energy"], expected, rtol=1e-5)
    tree = ppbdl.to_datatree(0, model, posterior, data, test=data)
    assert tree["predictions"]["y_energy"].dims == ("chain", "draw", "test_row")
    np.testing.assert_allclose(tree["predictions"]["y_energy"], expected, rtol=1e-5)


def test_the_energy_does_not_tell_the_labels_apart():
    """Which class is called 1 turns the logits' sign, and says nothing of how novel a row is."""
    data = ppbdl.Data(np.float32([[-3.0], [0.5], [40.0]]), np.array([0, 1, 0]))
    each = [
        ppbdl.predict(
            0, binary_logits, posterior_of({"w": np.float32([[w]])}, data), data, draws=True
        ).draws["energy"]
        for w in (0.5, -0.5)
    ]
    np.testing.assert_allclose(*each, rtol=1e-6)


@pytest.mark.parametrize("likelihood", CLASSES)
def test_probabilities_have_no_energy(likelihood):
    model, draws = CLASSES[likelihood]
    data = ppbdl.Data(np.zeros((3, 1)), np.array([0, 1, 0]))
    posterior = posterior_of({"p": np.float32(draws)}, data)
    assert "energy" not in ppbdl.predict(0, model, posterior, data, draws=True).draws


@pytest.mark.parametrize("likelihood", CLASSES)
def test_sure_classes_have_no_entropy(likelihood):
    """0 log 0 is 0: a draw that is sure makes no NaN."""
    model, draws = CLASSES[likelihood]
    data = ppbdl.Data(np.zeros((2, 1)), np.array([0, 1]))
    sure = np.float32([[0.0, 1.0]] if draws.ndim == 2 else [[[1.0, 0.0], [0.0, 1.0]]])
    predicted = ppbdl.predict(0, model, posterior_of({"p": sure}, data), data)
    np.testing.assert_allclose(predicted.aleatoric, 0.0, atol=1e-6)
    np.testing.assert_allclose(predicted.epistemic, np.log(2), rtol=1e-6)


def net(outputs):
    return lambda x: hk.nets.MLP([4, outputs], activation=jax.nn.tanh)(x)


COUNTS = np.random.default_rng(4).integers(0, 6, 20)
LIKELIHOODS = {
    "normal": (net(1), ppbdl.models.Normal(0.3), RAW.y, "moments"),
    "normal, noise learned": (net(1), ppbdl.models.Normal(), RAW.y, "moments"),
    "heteroscedastic": (net(2), ppbdl.models.HeteroscedasticNormal(), RAW.y, "moments"),
    "Bernoulli": (net(1), ppbdl.models.Bernoulli(), COUNTS % 2, "classes"),
    "categorical": (net(3), ppbdl.models.Categorical(3), COUNTS % 3, "classes"),
    "Poisson": (net(1), ppbdl.models.Poisson(), COUNTS, "moments"),
}
SVI = ppbdl.SVI(optimizer=optax.adam(0.02), steps=150, draws=30)


@pytest.fixture(scope="module", params=LIKELIHOODS)
def fitted(request):
    network, likelihood, y, kind = LIKELIHOODS[request.param]
    model = ppbdl.models.BNN(network, likelihood=likelihood)
    data = ppbdl.Data(RAW.x, y).standardized()
    return model, data, ppbdl.fit(0, model, data, SVI, progress=False), kind


def test_every_likelihood_fits_predicts_and_scores(fitted):
    model, data, posterior, kind = fitted
    predicted = ppbdl.predict(0, model, posterior, RAW.x, draws=True)
    assert predicted.draws["y"].shape == (1, 30, 20)
    parts = (predicted.aleatoric, predicted.epistemic, predicted.total)
    assert all(part.shape == (20,) and np.isfinite(part).all() for part in parts)
    assert (predicted.aleatoric > 0).all()
    assert (predicted.epistemic >= 0).all()
    np.testing.assert_allclose(predicted.total, predicted.aleatoric + predicted.epistemic)
    if kind == "classes":
        p = predicted.mean
        np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(predicted.total, -(p * np.log(p)).sum(-1), rtol=1e-5)
        np.testing.assert_allclose(sum(predicted.kwon), p - p**2, atol=1e-6)
        assert (predicted.draws["y"] < p.shape[-1]).all()
    else:
        each = predicted.draws
        np.testing.assert_allclose(predicted.mean, each["mean"].mean((0, 1)), rtol=1e-4)
        np.testing.assert_allclose(predicted.epistemic, each["mean"].var((0, 1)), rtol=2e-3)
        np.testing.assert_allclose(predicted.aleatoric, each["variance"].mean((0, 1)), rtol=1e-4)
    scores = ppbdl.log_likelihood(0, model, posterior, data)["y"]
    assert scores.shape == (1, 30, 20)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("fitted", ["heteroscedastic", "categorical"], indirect=True)
def test_streaming_changes_no_moment_and_no_score(fitted):
    model, data, posterior, _ = fitted
    whole, streamed = (
        ppbdl.predict(0, model, posterior, RAW.x[:9], draws=True, budget=budget)
        for budget in (BUDGET, TINY)
    )
    for field in ("mean", "aleatoric", "epistemic", "total"):
        one, other = getattr(whole, field), getattr(streamed, field)
        np.testing.assert_allclose(other, one, rtol=2e-3, atol=1e-5)
    for name, a in whole.draws.items():
        assert streamed.draws[name].shape == a.shape
        assert streamed.draws[name].dtype == a.dtype
        if name != "y":  # each block draws its own noise
            np.testing.assert_allclose(streamed.draws[name], a, rtol=1e-4, atol=1e-5)
    whole, streamed = (
        ppbdl.log_likelihood(0, model, posterior, data, budget=budget)["y"]
        for budget in (BUDGET, TINY)
    )
    np.testing.assert_allclose(streamed, whole, rtol=1e-4, atol=1e-4)


def test_streamed_draws_of_y_repeat_nowhere():
    """Two blocks must not share their noise: continuous draws are all different."""
    posterior = posterior_of(
        {"intercept": np.zeros((1, 40), "f"), "weights": np.zeros((1, 40, 2), "f")}, DATA
    )
    drawn = ppbdl.predict(0, LINEAR, posterior, RAW.x, draws=True, budget=TINY).draws["y"]
    assert len(np.unique(drawn)) > 0.99 * drawn.size


def test_poisson_moments():
    """Mean and variance of a count given the draw are both its rate."""
    model = ppbdl.models.Poisson()

    def program(x, y=None):
        log_rate = numpyro.sample("log_rate", dist.Normal(0.0, 1.0))
        model(jnp.full((x.shape[0], 1), log_rate), y)

    data = ppbdl.Data(np.zeros((4, 1)), np.arange(4))
    rates = np.array([1.0, 3.0])
    posterior = posterior_of({"log_rate": np.float32(np.log(rates))[None]}, data)
    predicted = ppbdl.predict(0, program, posterior, data)
    np.testing.assert_allclose(predicted.mean, 2.0, rtol=1e-5)
    np.testing.assert_allclose(predicted.aleatoric, 2.0, rtol=1e-5)
    np.testing.assert_allclose(predicted.epistemic, 1.0, rtol=1e-5)
    scores = ppbdl.log_likelihood(0, program, posterior, data)["y"][0]
    np.testing.assert_allclose(scores, stats.poisson(rates[:, None]).logpmf(data.y), rtol=1e-5)


def test_a_vector_target_keeps_its_axes_and_units():
    """Each output has its own unit; a row's density is joint, so it takes the units' product."""
    y = np.random.default_rng(5).normal(size=(20, 2)) * [1.0, 100.0] + [0.0, 7.0]
    raw = ppbdl.Data(RAW.x, y)
    data = raw.standardized()

    def model(x, y=None):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y)

    posterior = posterior_of({"mean": np.zeros((1, 3, 2), "f")}, data)
    predicted = ppbdl.predict(0, model, posterior, raw, draws=True)
    assert predicted.draws["y"].shape == (1, 3, 20, 2)
    np.testing.assert_allclose(predicted.mean, np.tile(y.mean(0), (20, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(predicted.total, np.tile(y.var(0), (20, 1)), rtol=1e-4)
    scores = ppbdl.log_likelihood(0, model, posterior, raw)["y"]
    expected = stats.norm(y.mean(0), y.std(0)).logpdf(y).sum(-1)
    np.testing.assert_allclose(scores[0, 0], expected, atol=1e-3)


def test_a_likelihood_without_moments_gives_draws():
    def model(x, y=None):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.TransformedDistribution(dist.Normal(0, scale), SINH), obs=y)

    data = ppbdl.Data(np.zeros((3, 1)), np.arange(3.0))
    posterior = posterior_of({"scale": np.ones((1, 500), "f")}, data)
    predicted = ppbdl.predict(0, model, posterior, data, draws=True)
    assert np.isnan(predicted.aleatoric).all()
    assert np.isnan(predicted.epistemic).all()
    np.testing.assert_allclose(predicted.total, predicted.draws["y"].var((0, 1)), rtol=1e-3)


class Sinh(dist.transforms.ExpTransform):
    domain = dist.constraints.real
    codomain = dist.constraints.real

    def __call__(self, x):
        return jnp.sinh(x)

    def _inverse(self, y):
        return jnp.arcsinh(y)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return jnp.log(jnp.cosh(x))


SINH = Sinh()


def two_targets(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    y = {"a": None, "b": None} if y is None else y
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("a", dist.Normal(slope, 1.0), obs=y["a"])
        numpyro.sample("b", dist.Normal(-slope, 1.0), obs=y["b"])


def test_of_several_observed_sites_one_is_named():
    data = ppbdl.Data(np.zeros((3, 1)), {"a": np.ones(3), "b": np.zeros(3)})
    posterior = posterior_of({"slope": np.full((1, 4), 2.0, "f")}, data, observed=("a", "b"))
    assert ppbdl.predict(0, two_targets, posterior, data, site="b").mean[0] == -2.0
    with pytest.raises(ppbdl.InputError, match="site: expected one of"):
        ppbdl.predict(0, two_targets, posterior, data)
    scores = ppbdl.log_likelihood(0, two_targets, posterior, data)
    assert scores["a"][0, 0, 0] == pytest.approx(stats.norm(2).logpdf(1.0), rel=1e-5)
    assert scores["b"][0, 0, 0] == pytest.approx(stats.norm(-2).logpdf(0.0), rel=1e-5)


def closes_over_y(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(slope, 1.0), obs=jnp.zeros(x.shape[0]))


def effect_of_row(x, y=None):
    with numpyro.plate("data", x.shape[0]):
        effect = numpyro.sample("effect", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(effect, 1.0), obs=y)


SLOPE = posterior_of({"slope": np.zeros((1, 2), "f")}, RAW)
EFFECT = posterior_of({"effect": np.zeros((1, 2, 20), "f")}, RAW)
LINE = posterior_of({"intercept": np.zeros((1, 2), "f"), "weights": np.zeros((1, 2, 2), "f")}, RAW)
REFUSED = {
    "an observed y": (ppbdl.ModelError, closes_over_y, SLOPE, X, "'y' to be generated"),
    "another width": (ppbdl.InputError, LINEAR, LINE, X[:, :1], r"x: .*rows of shape \(1,\)"),
    "a NaN": (ppbdl.DataError, LINEAR, LINE, X * np.nan, "x: .*not finite"),
    "other rows than the latents'": (ppbdl.ModelError, effect_of_row, EFFECT, X[:5], "'effect'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    error, model, posterior, x, message = REFUSED[case]
    with pytest.raises(error, match=message):
        ppbdl.predict(0, model, posterior, x)


@pytest.mark.parametrize("budget", [0, -1, 1.5])
def test_a_budget_is_a_whole_number_of_bytes(budget):
    with pytest.raises(ppbdl.InputError, match="budget"):
        ppbdl.predict(0, LINEAR, LINE, X, budget=budget)


def test_latents_of_the_fitted_rows_predict_those_rows():
    """Also streamed, since the rows then stay together."""
    effects = np.random.default_rng(6).normal(size=(1, 50, 20)).astype("f")
    posterior = posterior_of({"effect": effects}, RAW)
    for budget in (BUDGET, TINY):
        predicted = ppbdl.predict(0, effect_of_row, posterior, RAW, budget=budget)
        np.testing.assert_allclose(predicted.mean, effects.mean((0, 1)), atol=1e-5)
        np.testing.assert_allclose(predicted.epistemic, effects.var((0, 1)), rtol=1e-4)


def noise_of_row(x, y=None):
    """y = w + h + 0.3 e, with an h for each row."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        h = numpyro.sample("h", dist.Normal(0.0, 0.5), infer={"local": True})
        numpyro.sample("y", dist.Normal(w + h, 0.3), obs=y)


@pytest.mark.parametrize("budget", [20_000, BUDGET])
@pytest.mark.parametrize("s_w", [0.0, 0.7])
def test_latents_of_rows_without_draws_are_noise(s_w, budget):
    """Variances 0.49 or 0 of w, 0.25 of h and 0.09 of the noise, in units of y 10 times as large.
    Over T draws of 20 rows each part is within 4.5 of its errors, 5 times in 1,000 falsely at
    most: of the covariance, sqrt(2 s_w^2 s_h^2 + s_h^4) / sqrt(T); of h's variance, less than
    sqrt(2) of that; of w's, none, as the draws' own variance is known."""
    draws = s_w * np.random.default_rng(7).normal(size=(2, 2000)).astype("f")
    data = dataclasses.replace(DATA, scaling=ppbdl.data.Scaling(y_mean=40.0, y_sd=10.0))
    posterior = posterior_of({"w": draws}, data)
    predicted = ppbdl.predict(0, noise_of_row, posterior, DATA, draws=True, budget=budget)
    error = np.sqrt((2 * s_w**2 * 0.25 + 0.25**2) / 4000)
    assert abs(predicted.epistemic / 100 - draws.var()).max() < 4.5 * error
    assert abs(predicted.aleatoric / 100 - 0.34).max() < 4.5 * np.sqrt(2) * error
    assert (predicted.epistemic >= 0).all()
    np.testing.assert_allclose(predicted.total, predicted.aleatoric + predicted.epistemic)
    assert abs(predicted.mean / 10 - 4 - draws.mean()).max() < 4.5 * 0.5 / np.sqrt(8000)
    each = predicted.draws  # of one run: y about the mean that it was drawn from
    assert set(each) == {"y", "mean", "variance"}
    np.testing.assert_allclose((each["y"] - each["mean"]).std() / 10, 0.3, rtol=0.02)
    np.testing.assert_allclose(each["mean"].var() / 100, draws.var() + 0.25, rtol=0.05)
    if budget == BUDGET:
        y = prediction.replicate(0, noise_of_row, posterior, DATA, "y")
        np.testing.assert_allclose(y, each["y"], rtol=1e-5)


def classes_of_row(observe):
    def model(x, y=None):
        p = numpyro.sample("p", dist.Uniform())
        with numpyro.plate("data", x.shape[0]):
            up = numpyro.sample("up", dist.Bernoulli(0.5))
            observe(p + 0.4 * up - 0.2, y)

    return model


NOISY_CLASSES = {
    "Bernoulli": lambda p, y: numpyro.sample("y", dist.Bernoulli(p), obs=y),
    "Categorical": lambda p, y: numpyro.sample(
        "y", dist.Categorical(jnp.stack([1 - p, p], axis=-1)), obs=y
    ),
}


@pytest.mark.parametrize("likelihood", NOISY_CLASSES)
def test_noise_of_rows_in_class_probabilities(likelihood):
    """p is 0.7 or 0.3, and 0.2 more or less by a coin for each row: the parts are those of
    p alone.  The jackknife is exact for a fair coin: 2 (H(.7)/2 + H(.9)/4 + H(.5)/4) -
    (H(.9) + H(.5))/2 = H(.7).  A draw's sd is 0.16 for the entropy, 0.07 for the covariance: the
    bounds are 5 errors of 4,000 draws."""
    model = classes_of_row(NOISY_CLASSES[likelihood])
    data = ppbdl.Data(np.zeros((3, 1)), np.array([0, 1, 0]))
    draws = np.tile(np.float32([0.7, 0.3]), (2, 1000))
    predicted = ppbdl.predict(0, model, posterior_of({"p": draws}, data), data, draws=True)
    entropy = stats.bernoulli(0.7).entropy()
    np.testing.assert_allclose(predicted.total, np.log(2), atol=1e-3)
    np.testing.assert_allclose(predicted.aleatoric, entropy, atol=0.013)
    np.testing.assert_allclose(predicted.epistemic, np.log(2) - entropy, atol=0.013)
    np.testing.assert_allclose(predicted.kwon[0], 0.21, atol=0.006)
    np.testing.assert_allclose(predicted.kwon[1], 0.04, atol=0.006)
    assert set(np.unique(predicted.draws["probs"].round(4))) == {np.float32(p) for p in TENTHS}


TENTHS = (0.1, 0.5, 0.9)


def chained(x, y=None):
    """The second target is drawn about the first one's value, which is noise then."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    y = {"a": None, "b": None} if y is None else y
    with numpyro.plate("data", x.shape[0]):
        a = numpyro.sample("a", dist.Normal(slope, 1.0), obs=y["a"])
        numpyro.sample("b", dist.Normal(a, 1.0), obs=y["b"])


@pytest.mark.parametrize(
    ("model", "latent", "site", "expected"),
    [
        (noise_of_row, "w", "y", True),
        (chained, "slope", "b", True),
        (chained, "slope", "a", False),
        (effect_of_row, "effect", "y", False),  # drawn by the fit
        (shared_probability, "p", "y", False),
    ],
)
def test_only_a_row_with_noise_of_its_own_is_run_twice(model, latent, site, expected):
    shape = (1, 2, 20) if latent == "effect" else (1, 2)
    observed = ("a", "b") if model is chained else ("y",)
    posterior = posterior_of({latent: np.full(shape, 0.5, "f")}, RAW, observed=observed)
    sites = prediction.look(model, posterior, X, None)
    assert noisy(sites, posterior, site) is expected


def test_rows_without_y_cannot_be_scored():
    with pytest.raises(ppbdl.DataError, match="no y"):
        ppbdl.log_likelihood(0, LINEAR, LINE, ppbdl.Data(X))


def test_latents_of_rows_are_scored_by_their_guide():
    """z ~ N(0, 1), y | z ~ N(z, 1), q(z | y) = p(z | y) = N(y/2, 1/2): every weight is p(y)."""

    def model(x, y=None):
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0), infer={"local": True})
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def guide(x, y=None):
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", dist.Normal(y / 2, jnp.sqrt(0.5)))

    data = ppbdl.Data(None, np.linspace(-2, 2, 6))
    posterior = dataclasses.replace(posterior_of({"unused": np.zeros((1, 3), "f")}, data), draws={})
    scores = ppbdl.log_likelihood(0, model, posterior, data, guide=guide)["y"]
    expected = stats.norm(0, np.sqrt(2)).logpdf(data.y)
    np.testing.assert_allclose(scores, np.broadcast_to(expected, (1, 3, 6)), rtol=1e-4)
    with pytest.raises(ppbdl.ModelError, match=r"guide: .*\['z'\]"):
        ppbdl.log_likelihood(0, model, posterior, data)


def test_replicates_are_the_draws_of_predict(exact, new_rows):
    y = prediction.replicate(3, LINEAR, exact, new_rows, "y")
    np.testing.assert_array_equal(
        y, ppbdl.predict(3, LINEAR, exact, new_rows, draws=True).draws["y"]
    )
