"""To ArviZ: groups, names, attributes, and a leave-one-out estimate that is right."""

import functools
import json
import warnings

import arviz as az
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
import xarray as xr
from scipy import stats

import ppbdl
import ppbdl.models
from ppbdl.diagnostics import checks

RNG = np.random.default_rng(0)
X = RNG.normal(size=(25, 2))
Y = 3 * X[:, 0] - 2 * X[:, 1] + 1.5 * RNG.normal(size=25)
LINEAR = ppbdl.models.LinearRegression(noise=0.5)
FADING = optax.adam(optax.cosine_decay_schedule(0.1, 800))
RAW = ppbdl.Data(X, 40 + 5 * Y, feature_names=("age", "height"), target_name="price", name="toy")
DATA = RAW.standardized()
CLASSES = ppbdl.Data(X, np.digitize(Y, [-2, 2]), classes=("low", "mid", "high"))


def net(outputs):
    return lambda x: hk.nets.MLP([4, outputs], activation=jax.nn.tanh)(x)


SOFTMAX = ppbdl.models.BNN(net(3), likelihood=ppbdl.models.Categorical(3))
COUNT = ppbdl.models.BNN(net(1), likelihood=ppbdl.models.Poisson())
DENSITY = ppbdl.models.RealNVP(features=2, layers=2, width=4)
SVI = ppbdl.SVI(optimizer=FADING, steps=800, draws=300)
BRIEF = ppbdl.SVI(ppbdl.MCDropout(0.2), FADING, steps=30, draws=20)


@pytest.fixture(scope="module")
def fitted():
    return ppbdl.fit(0, LINEAR, DATA, SVI, progress=False)


@pytest.fixture(scope="module")
def tree(fitted):
    return ppbdl.to_datatree(1, LINEAR, fitted, DATA, test=RAW.take(range(6)), prior=11)


@pytest.fixture(scope="module")
def classes():
    posterior = ppbdl.fit(0, SOFTMAX, CLASSES, BRIEF, progress=False)
    return ppbdl.to_datatree(1, SOFTMAX, posterior, CLASSES, test=CLASSES.take(range(6)))


DIMS = {
    ("posterior", "weights"): ("chain", "draw", "weights_dim_0"),
    ("sample_stats", "log_q"): ("chain", "draw"),
    ("log_prior", "weights"): ("chain", "draw"),
    ("log_likelihood", "y"): ("chain", "draw", "row"),
    ("posterior_predictive", "y"): ("chain", "draw", "row"),
    ("observed_data", "y"): ("row",),
    ("constant_data", "x"): ("row", "feature"),
    ("optimization", "loss"): ("chain", "step"),
    ("prior", "intercept"): ("chain", "draw"),
    ("prior_predictive", "y"): ("chain", "draw", "row"),
    ("predictions", "y"): ("chain", "draw", "test_row"),
    ("predictions", "y_mean"): ("chain", "draw", "test_row"),
    ("predictions", "y_variance"): ("chain", "draw", "test_row"),
    ("predictions_log_likelihood", "y"): ("chain", "draw", "test_row"),
    ("predictions_observed_data", "y"): ("test_row",),
    ("predictions_constant_data", "x"): ("test_row", "feature"),
    ("uncertainty", "epistemic"): ("test_row",),
}
SIZES = {"chain": 1, "row": 25, "test_row": 6, "feature": 2, "step": 800, "weights_dim_0": 2}


@pytest.mark.parametrize(("group", "name"), DIMS)
def test_every_axis_has_its_name(tree, group, name):
    variable = tree[group][name]
    assert variable.dims == DIMS[group, name]
    draws = 11 if group.startswith("prior") else 300
    assert variable.shape == tuple((SIZES | {"draw": draws})[dim] for dim in variable.dims)
    assert all(dim in tree[group].coords for dim in variable.dims if not dim.startswith("weights"))


def test_no_group_is_made_unasked(fitted):
    plain = ppbdl.to_datatree(1, LINEAR, fitted, DATA)
    assert set(plain.children) == {
        "posterior",
        "sample_stats",
        "log_prior",
        "log_likelihood",
        "posterior_predictive",
        "observed_data",
        "constant_data",
        "optimization",
    }


def test_coordinates_are_the_datas_names(tree, classes):
    assert tree["constant_data"].feature.values.tolist() == ["age", "height"]
    assert classes["predictions"]["class"].values.tolist() == ["low", "mid", "high"]
    assert classes["predictions"]["y_probs"].dims == ("chain", "draw", "test_row", "class")
    assert classes["uncertainty"]["probs"].dims == ("test_row", "class")
    assert classes["uncertainty"]["kwon_epistemic"].dims == ("test_row", "class")


def test_everything_is_in_the_users_units(tree):
    np.testing.assert_allclose(tree["observed_data"]["y"], RAW.y, rtol=1e-4)
    np.testing.assert_allclose(tree["constant_data"]["x"], RAW.x, atol=1e-4)
    np.testing.assert_allclose(tree["predictions_observed_data"]["y"], RAW.y[:6])
    for group in ("posterior_predictive", "prior_predictive"):
        assert abs(tree[group]["y"].mean() - 40) < 25
    np.testing.assert_allclose(
        tree["predictions_log_likelihood"]["y"], tree["log_likelihood"]["y"][..., :6], atol=2e-3
    )


def test_attributes_tell_what_was_done(tree, fitted):
    said = tree.attrs
    source = fitted.provenance
    expected = {
        "method": "SVI AutoNormal",
        "kind": "density",
        "failure": "",
        "seed": "0 0",
        "task": "regression",
        "likelihood": "Normal",
        "observed": "y",
        "target": "price",
        "data_name": "toy",
        "n_train": 25,
        "n_parameters": 3,
        "gradients": 800,
        "seconds_compiling": source.seconds_compiling,
        "seconds_running": source.seconds_running,
        "peak_bytes": source.peak_bytes,
        "device": source.device,
    }
    assert {name: said[name] for name in expected} == expected
    assert json.loads(said["settings"])["steps"] == "800"
    assert json.loads(said["versions"])["ppbdl"] == source.versions["ppbdl"]


TASKS = {
    "classification": (SOFTMAX, CLASSES, BRIEF),
    "count": (COUNT, ppbdl.Data(X, np.arange(25) % 4), BRIEF),
    "density": (DENSITY, ppbdl.Data(None, X), ppbdl.MAP(steps=3)),
}


@pytest.mark.parametrize("task", TASKS)
def test_the_task_is_read_from_the_model(task):
    model, data, method = TASKS[task]
    posterior = ppbdl.fit(0, model, data, method, progress=False)
    assert ppbdl.to_datatree(0, model, posterior, data).attrs["task"] == task


@pytest.mark.parametrize("name", ["tree", "classes"])
def test_netcdf_and_back(name, request, tmp_path):
    written = request.getfixturevalue(name)
    written.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf") as read:
        read.load()
        assert read.attrs.keys() == written.attrs.keys()
        assert read.attrs["settings"] == written.attrs["settings"]
        for group in written.children:
            xr.testing.assert_equal(read[group].to_dataset(), written[group].to_dataset())


IMPLICIT = {
    "MCDropout": BRIEF,
    "Ensemble": ppbdl.Ensemble(ppbdl.MAP(FADING, steps=30), members=3),
}


@pytest.mark.parametrize("name", IMPLICIT)
def test_without_a_density_there_is_none_to_weigh_by(name):
    model = ppbdl.models.BNN(net(1))
    posterior = ppbdl.fit(0, model, DATA, IMPLICIT[name], progress=False)
    tree = ppbdl.to_datatree(0, model, posterior, DATA)
    assert posterior.provenance.kind == tree.attrs["kind"] == "implicit"
    stats_of = tree["sample_stats"].data_vars if "sample_stats" in tree.children else ()
    assert not {"log_p", "log_q"} & set(stats_of)
    assert "log_likelihood" in tree.children


def test_log_p_is_the_log_joint_up_to_the_units(tree, fitted):
    """log p(theta) + log p(y | theta) in y's own unit, from SciPy's densities."""
    draws = {name: np.float64(a[0]) for name, a in fitted.draws.items()}
    mean = draws["intercept"][:, None] + draws["weights"] @ DATA.x.T
    prior = sum(stats.norm.logpdf(a).reshape(300, -1).sum(-1) for a in draws.values())
    units = 25 * np.log(DATA.scaling.y_sd)
    expected = prior + stats.norm(mean, 0.5).logpdf(DATA.y).sum(-1) - units
    np.testing.assert_allclose(tree["sample_stats"]["log_p"][0], expected, atol=0.02)


@functools.cache
def wide(width):
    return ppbdl.models.BNN(lambda x: hk.nets.MLP([width, 1])(x))


@pytest.mark.parametrize(
    ("width", "asked", "kept"), [(200, None, True), (300, None, False), (300, True, True)]
)
def test_weights_beyond_a_thousand_are_left_out(width, asked, kept):
    """A network 2-200-1 has 801 and one 2-300-1 has 1,201 weights."""
    model = wide(width)
    posterior = ppbdl.fit(0, model, DATA, ppbdl.MAP(steps=2), progress=False)
    tree = ppbdl.to_datatree(0, model, posterior, DATA, prior=2, weights=asked)
    for group in ("posterior", "prior"):
        assert (group in tree.children and "net.linear_0.w" in tree[group]) == kept
    assert {"posterior_predictive", "prior_predictive"} <= set(tree.children)


def test_arviz_reads_the_tree(tree):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # R-hat of a single chain is NaN, as it says
        summary = az.summary(tree)
    assert len(summary) == 3
    ess = az.ess(tree)
    assert float(ess["intercept"]) > 50


@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")
def test_leave_one_out_is_the_exact_one():
    """Each row's exact predictive density, refitted without it in closed form.

    The approximate posterior's draws are weighed by p/q, and then each row out: with 4,000 draws
    of a mean-field optimum close to the posterior, the sum over 25 rows is within 0.5 nats.
    """
    data = ppbdl.Data(X - X.mean(0), Y)
    model = ppbdl.models.LinearRegression(noise=1.5)
    exact = 0.0
    for row in range(25):
        others = np.delete(np.arange(25), row)
        mean, variance = model.exact_predictive(data.take(others), data.x[[row]])
        exact += stats.norm(mean, np.sqrt(variance + 1.5**2)).logpdf(data.y[row])[0]
    method = ppbdl.SVI(optimizer=FADING, steps=800, draws=4000)
    posterior = ppbdl.fit(0, model, data, method, progress=False)
    tree = ppbdl.to_datatree(0, model, posterior, data)
    given = (tree["sample_stats"][name].values.ravel() for name in ("log_p", "log_q"))
    loo = az.loo_approximate_posterior(tree, *given)
    assert float(loo.elpd) == pytest.approx(float(exact), abs=0.5)


def test_held_out_scores_are_per_unit_of_y(tree):
    mean = tree["predictions"]["y_mean"].values
    expected = stats.norm(mean, 0.5 * DATA.scaling.y_sd).logpdf(RAW.y[:6])
    np.testing.assert_allclose(tree["predictions_log_likelihood"]["y"], expected, atol=0.01)


NUTS = ppbdl.NUTS(draws=300, warmup=200, chains=4)


@pytest.mark.parametrize("method", [SVI, NUTS, ppbdl.Laplace(steps=50, draws=40)])
def test_the_log_prior_is_that_of_each_latent(method):
    """From SciPy's densities; their sum is the method's own log prior, where it tells one."""
    posterior = ppbdl.fit(0, LINEAR, DATA, method, progress=False)
    tree = ppbdl.to_datatree(0, LINEAR, posterior, DATA)
    for name, draws in posterior.draws.items():
        chains, number = posterior.shape
        expected = stats.norm.logpdf(np.float64(draws)).reshape(chains, number, -1).sum(-1)
        np.testing.assert_allclose(tree["log_prior"][name], expected, atol=1e-4)
    if "log_prior" in posterior.stats:
        total = sum(tree["log_prior"][name].values for name in posterior.draws)
        np.testing.assert_allclose(total, posterior.stats["log_prior"], atol=1e-4)


def schools(x, y=None):
    """Has a population, a latent on a bounded support, one for each row, and a factor."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    numpyro.factor("preference", -0.1 * tau)
    with numpyro.plate("schools", x.shape[0]):
        effect = numpyro.sample("effect", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(effect, 1.0), obs=y)


def grouped(x, y=None):
    """As the schools, but with three rows of each group, whose plate is not that of the rows."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("groups", 3):
        effect = numpyro.sample("effect", dist.Normal(numpyro.deterministic("m", 2 * mu), tau))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(effect[jnp.arange(x.shape[0]) % 3], 1.0), obs=y)


def vectorised(x, y=None):
    """As the schools, without any plate."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    effect = numpyro.sample("effect", dist.Normal(mu, tau).expand((x.shape[0],)).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(effect, 1.0), obs=y)


@pytest.mark.parametrize("model", [schools, grouped, vectorised])
def test_priors_are_those_of_the_population_on_its_own_support(model):
    data = ppbdl.Data(X[:8], Y[:8])
    method = ppbdl.SVI(optimizer=FADING, steps=100, draws=50)
    posterior = ppbdl.fit(0, model, data, method, progress=False)
    tree = ppbdl.to_datatree(0, model, posterior, data)
    assert "effect" in posterior.draws
    assert set(tree["log_prior"].data_vars) == {"mu", "tau"}
    tau = np.float64(posterior.draws["tau"])
    np.testing.assert_allclose(
        tree["log_prior"]["tau"], stats.halfcauchy.logpdf(tau, 0, 5), atol=1e-4
    )


def test_a_tuned_prior_is_not_the_declared_one():
    method = ppbdl.Laplace(steps=50, draws=40, tune_prior=True)
    posterior = ppbdl.fit(0, LINEAR, DATA, method, progress=False)
    assert "log_prior" not in ppbdl.to_datatree(0, LINEAR, posterior, DATA).children


@pytest.mark.parametrize("method", [SVI, NUTS])
def test_a_prior_that_the_data_contradict_is_found(method):
    """Thirty rows about 6, where the prior says 0 +- 1 and the noise is 2: torn between the two.

    A prior of sd 20 holds 1 / 3,000 of the precision.
    """
    y = 6 + 2 * RNG.normal(size=30)
    data = ppbdl.Data(RNG.normal(size=(30, 1)), y)
    found = {}
    for scale in (1.0, 20.0):
        model = ppbdl.models.LinearRegression(noise=2.0, scale=scale)
        posterior = ppbdl.fit(0, model, data, method, progress=False)
        found[scale] = checks.prior_sensitivity(ppbdl.to_datatree(0, model, posterior, data))
    assert (found[1.0].verdict, found[20.0].verdict) == ("warn", "pass")
    assert "intercept moves with the prior" in found[1.0].sentence
    assert "conflict" in found[1.0].sentence


def test_a_point_has_no_sensitivity():
    posterior = ppbdl.fit(0, LINEAR, DATA, ppbdl.MAP(FADING, steps=50), progress=False)
    outcome = checks.prior_sensitivity(ppbdl.to_datatree(0, LINEAR, posterior, DATA))
    assert (outcome.verdict, outcome.value) == ("does not apply", None)


def test_each_seed_of_an_approximation_has_its_khat():
    """Mean-field is the posterior itself where the features are orthogonal."""
    x = np.linspace(-1, 1, 25)[:, None]
    data, model = ppbdl.Data(x, 2 * x[:, 0]), ppbdl.models.LinearRegression(noise=1.0)
    posterior = ppbdl.fit(0, model, data, ppbdl.Ensemble(SVI, members=3), progress=False)
    tree = ppbdl.to_datatree(0, model, posterior, data)
    assert tree["sample_stats"]["log_p"].dims == ("chain", "draw")
    outcome = checks.importance_khat(tree)
    assert outcome.verdict == "pass"
    assert "over 3 seeds" in outcome.sentence
