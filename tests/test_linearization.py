"""The linearised predictive: closed forms where the model is linear, its Jacobian elsewhere."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.handlers import seed, substitute, trace

import ppbdl
import ppbdl.models
from ppbdl.gaussian import Gaussian, first_chain
from ppbdl.inference import laplace
from ppbdl.inference.laplace import Laplace
from ppbdl.linearization import delta_method, linearized

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)) @ np.array([[1.0, 0.9, 0.0], [0.0, 0.4, 0.5], [0.0, 0.0, 1.0]])
RAW = ppbdl.Data(X, 30 + 7 * (X @ [1.0, -2.0, 0.5] + RNG.normal(size=40)))
QUICK = Laplace(optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 200)), steps=200, draws=50)
REGRESSION = ppbdl.models.LinearRegression(noise=0.5)


def fit(method, model, data):
    return ppbdl.fit(0, model, data, method, progress=False)


def test_the_delta_method_of_a_conjugate_regression_is_exact(tmp_path):
    data = RAW.standardized()
    posterior = fit(QUICK, REGRESSION, data)
    posterior = ppbdl.load(ppbdl.save(posterior, tmp_path / "fit"))  # the Gaussian is kept
    mean, epistemic = REGRESSION.exact_predictive(data, data.x)
    y_mean, y_sd = data.scaling.y_mean, data.scaling.y_sd
    predicted = delta_method(REGRESSION, posterior, RAW.x)
    np.testing.assert_allclose(predicted.mean, y_mean + y_sd * mean, rtol=1e-5)
    np.testing.assert_allclose(predicted.epistemic, epistemic * y_sd**2, rtol=2e-5)
    np.testing.assert_allclose(predicted.aleatoric, 0.25 * y_sd**2, rtol=1e-5)
    np.testing.assert_allclose(predicted.total, predicted.epistemic + predicted.aleatoric)


def test_a_linear_model_is_its_own_linearisation():
    posterior = fit(QUICK, REGRESSION, RAW.standardized())
    straight = ppbdl.predict(1, linearized(REGRESSION, posterior), posterior, RAW.x)
    usual = ppbdl.predict(1, REGRESSION, posterior, RAW.x)
    np.testing.assert_allclose(straight.mean, usual.mean, rtol=1e-5)
    np.testing.assert_allclose(straight.total, usual.total, rtol=1e-4)


def mlp(outputs):
    return lambda x: hk.nets.MLP([5, outputs], activation=jnp.tanh)(x)


def run(model, values, x):
    """The distribution of y at these latents."""
    return trace(seed(substitute(model, data=values), 0)).get_trace(x)["y"]["fn"]


CASES = {
    "normal": (
        ppbdl.models.BNN(mlp(1), likelihood=ppbdl.models.Normal()),
        lambda fn: [fn.loc, jnp.log(fn.scale)],
    ),
    "heteroscedastic": (
        ppbdl.models.BNN(mlp(2), likelihood=ppbdl.models.HeteroscedasticNormal()),
        lambda fn: [fn.loc, jnp.log(fn.scale)],
    ),
    "categorical": (
        ppbdl.models.BNN(mlp(3), likelihood=ppbdl.models.Categorical(3)),
        lambda fn: [fn.logits],
    ),
    "poisson": (
        ppbdl.models.BNN(mlp(1), likelihood=ppbdl.models.Poisson()),
        lambda fn: [jnp.log(fn.rate)],
    ),
}


@pytest.fixture(scope="module")
def posteriors():
    """Short fits, without Newton's steps: where the mode is does not matter here."""
    method = Laplace("diagonal", steps=20, draws=6)
    targets = {"normal": RAW.y / 20, "heteroscedastic": RAW.y / 20}
    labels = RNG.integers(0, 2, 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laplace, "_NEWTON", 0)
        return {
            name: fit(method, model, ppbdl.Data(X, targets.get(name, labels)))
            for name, (model, _) in CASES.items()
        }


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_linear_in_the_latents(case, posteriors):
    """eta(m + d) - eta(m) = J d at a draw, and half of it half way: on the line, both exact."""
    (model, eta_of), posterior, x = CASES[case], posteriors[case], X[:7]
    gaussian = Gaussian.of(first_chain(posterior.params["laplace"]))
    one = {name: draws[0, 2] for name, draws in posterior.draws.items() if name in gaussian.mode}

    def on_the_line(values):
        return values | {n: jnp.log(v) for n, v in values.items() if n == "noise_excess"}

    def on_the_support(values):
        return values | {n: jnp.exp(v) for n, v in values.items() if n == "noise_excess"}

    def eta(values):
        return eta_of(run(model, on_the_support(values), x))

    change = {name: v - gaussian.mode[name] for name, v in on_the_line(one).items()}
    here, slope = jax.jvp(eta, (dict(gaussian.mode),), (change,))
    got = eta_of(run(linearized(model, posterior), one, x))
    for a, b, c in zip(got, here, slope, strict=True):
        np.testing.assert_allclose(a, jnp.broadcast_to(b + c, a.shape), rtol=2e-4, atol=2e-4)
    assert any(abs(c).max() > 0.01 for c in slope)


@pytest.mark.parametrize("case", CASES)
def test_the_linearised_model_predicts_and_scores(case, posteriors):
    model, posterior = CASES[case][0], posteriors[case]
    straight = linearized(model, posterior)
    predicted = ppbdl.predict(1, straight, posterior, X[:7])
    assert predicted.mean.shape[0] == 7
    assert np.isfinite(predicted.mean).all()
    assert hash(straight) != hash(linearized(model, posterior))  # a model, by identity
    data = ppbdl.Data(X, RNG.integers(0, 2, 40))
    assert np.isfinite(ppbdl.log_likelihood(1, straight, posterior, data)["y"]).all()


def test_the_delta_method_is_the_mean_linearised(posteriors):
    """J H^(-1) J' by hand, for a mean that is a function of all latents."""
    model, posterior = CASES["poisson"][0], posteriors["poisson"]
    gaussian = Gaussian.of(first_chain(posterior.params["laplace"]))
    predicted = delta_method(model, posterior, X[:7])
    slopes = jax.jacobian(lambda values: run(model, values, X[:7]).rate)(dict(gaussian.mode))
    (block,) = gaussian.blocks.values()
    (sites,) = gaussian.blocks
    flat = jnp.concatenate([slopes[site].reshape(7, -1) for site in sites], axis=1)
    np.testing.assert_allclose(predicted.epistemic, (flat**2 / block.precision).sum(1), rtol=1e-4)
    np.testing.assert_allclose(predicted.aleatoric, predicted.mean, rtol=1e-5)


def test_classes_have_no_delta_method(posteriors):
    with pytest.raises(ppbdl.ModelError, match="linearized"):
        delta_method(CASES["categorical"][0], posteriors["categorical"], X)


def test_a_posterior_without_a_mode_is_refused():
    posterior = fit(ppbdl.MAP(steps=3), REGRESSION, RAW.standardized())
    for verb in (linearized, lambda *args: delta_method(*args, RAW.x)):
        with pytest.raises(ppbdl.InputError, match="Laplace"):
            verb(REGRESSION, posterior)


def test_plates_and_several_sites_stay():
    """Two observed sites, one of them in two plates, under one linear predictor."""

    def model(x, y=None):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        counts, values = (None, None) if y is None else (y["counts"], y["values"])
        with numpyro.plate("data", x.shape[0], dim=-1):
            numpyro.sample("counts", dist.Poisson(jnp.exp(x @ w)), obs=counts)
            with numpyro.plate("repeats", 2, dim=-2):
                numpyro.sample(
                    "values", dist.Normal(x @ w, 1.0), obs=None if y is None else values.T
                )

    y = {"counts": RNG.integers(0, 4, 40), "values": RNG.normal(size=(40, 2))}
    posterior = fit(QUICK, model, ppbdl.Data(X / 3, y))
    one = {"w": posterior.draws["w"][0, 0]}
    sites = trace(seed(substitute(linearized(model, posterior), data=one), 0)).get_trace(X / 3)
    assert [f.name for f in sites["values"]["cond_indep_stack"]] == ["repeats", "data"]
    assert sites["values"]["fn"].batch_shape == (2, 40)
    np.testing.assert_allclose(
        sites["values"]["fn"].mean[1], X / 3 @ one["w"], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        jnp.log(sites["counts"]["fn"].rate), X / 3 @ one["w"], rtol=1e-4, atol=1e-5
    )
