"""The contract of every inference method that `ppbdl.inference` exports.

A new method is held to it as soon as it is exported; it needs one line in `METHODS`.  So are
NumPyro's guides, as settings of SVI.  The known
posterior is a conjugate regression's with orthogonal columns, which factorises, so that methods
that claim a spread, mean-field ones too, must give its exact standard deviations.
"""

from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import autoguide
from scipy.special import logsumexp

import ppbdl
import ppbdl.inference
import ppbdl.models


@dataclass(frozen=True)
class Method:
    """How a method is run here: long enough to be right, and cut short."""

    quick: Any
    brief: Any
    spread: bool  # whether the draws' standard deviation is meant to be the posterior's


def adam(steps):
    return optax.adam(optax.cosine_decay_schedule(0.1, steps))


MAP = ppbdl.MAP(adam(400), steps=400)
SVI = ppbdl.SVI(ppbdl.AutoNormal, adam(1500), steps=1500, draws=400)
ENSEMBLE = ppbdl.Ensemble(MAP, members=3)
SGLD = ppbdl.SGLD(2e-3, draws=300, thinning=40, warmup=500, chains=2)
SGHMC = ppbdl.SGHMC(5e-4, draws=300, thinning=40, warmup=500, chains=2)
SWAG = ppbdl.SWAG(replace(MAP, batch_size=8), steps=400, draws=400)
NUTS = ppbdl.NUTS(draws=300, warmup=200, chains=2)
LAPLACE = ppbdl.Laplace(optimizer=adam(200), steps=200)
HMC = ppbdl.HMC(draws=300, warmup=200, chains=2)
CHEES = ppbdl.ChEES(draws=40, warmup=150, chains=16)
MCLMC = ppbdl.MCLMC(draws=300, warmup=1000, chains=2)
GUIDES = (
    autoguide.AutoDiagonalNormal,
    autoguide.AutoLowRankMultivariateNormal,
    autoguide.AutoMultivariateNormal,
    autoguide.AutoLaplaceApproximation,
    autoguide.AutoIAFNormal,
    autoguide.AutoBNAFNormal,
)
METHODS = {
    "MAP": Method(MAP, replace(MAP, steps=3), spread=False),
    "SVI": Method(SVI, replace(SVI, steps=3), spread=True),
    "Ensemble": Method(ENSEMBLE, replace(ENSEMBLE, method=replace(MAP, steps=3)), spread=False),
    "SGLD": Method(SGLD, replace(SGLD, draws=20), spread=True),
    "SGHMC": Method(SGHMC, replace(SGHMC, draws=20), spread=True),
    "SWAG": Method(SWAG, replace(SWAG, method=replace(MAP, steps=3), draws=20), spread=False),
    "Laplace": Method(LAPLACE, replace(LAPLACE, steps=3), spread=True),
    "HMC": Method(HMC, replace(HMC, draws=10), spread=True),
    "ChEES": Method(CHEES, replace(CHEES, draws=5), spread=True),
    "MCLMC": Method(MCLMC, replace(MCLMC, draws=10), spread=True),
    "NUTS": Method(NUTS, replace(NUTS, draws=10), spread=True),
}
FLOW = replace(
    SVI,
    guide=ppbdl.AutoFlow(partial(ppbdl.models.RealNVP, layers=2, width=8)),
    optimizer=adam(1000),
)
METHODS["SVI AutoFlow"] = Method(FLOW, replace(FLOW, steps=3), spread=True)
for guide in GUIDES:
    method = replace(SVI, guide=guide)
    METHODS[f"SVI {guide.__name__}"] = Method(method, replace(method, steps=3), spread=True)

EXPORTED = {
    name
    for name, value in vars(ppbdl.inference).items()
    if is_dataclass(value) and hasattr(value, "run")
}


def test_every_exported_method_is_held_to_the_contract():
    held = {type(method.quick).__name__ for method in METHODS.values()}
    assert held == EXPORTED, f"add a line to METHODS in {__file__}"


GRID = np.linspace(-1, 1, 24)
COLUMNS = np.stack([GRID, GRID**2 - np.mean(GRID**2)], axis=1)
RAW = ppbdl.Data(
    7.0 + 3.0 * COLUMNS,
    50.0 + 20 * COLUMNS[:, 0] - 10 * COLUMNS[:, 1] + 4 * np.cos(40 * GRID),
)
DATA = RAW.standardized()
MODEL = ppbdl.models.LinearRegression(noise=0.5)
MEAN, COVARIANCE = MODEL.exact_posterior(DATA)
SD = np.sqrt(np.diag(COVARIANCE))


def test_the_known_posterior_factorises():
    assert abs(COVARIANCE - np.diag(np.diag(COVARIANCE))).max() < 1e-6 * COVARIANCE.max()


# Much like others in the list, or long to compile.
LONG = ("SVI AutoDiagonalNormal", "SVI AutoLowRankMultivariateNormal", "SVI AutoBNAFNormal")
PARAMS = [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in METHODS]


@pytest.fixture(scope="module", params=PARAMS)
def method(request):
    return METHODS[request.param]


@pytest.fixture(scope="module")
def posterior(method):
    return ppbdl.fit(0, MODEL, DATA, method.quick, progress=False)


@pytest.fixture(scope="module")
def tree(posterior):
    return ppbdl.to_datatree(1, MODEL, posterior, DATA, test=RAW, prior=5)


def latents(posterior):
    """The draws of (intercept, weights) as one array (chain, draw, 3)."""
    parts = [np.asarray(posterior.draws[name]) for name in ("intercept", "weights")]
    return np.concatenate([parts[0][..., None], parts[1]], axis=-1)


def test_the_known_mean_is_recovered(method, posterior):
    """Five Monte Carlo errors at an effective sample size of half the draws, and 5 % of a sd for
    the optimiser: of three normal means, false alarms in less than 2 of 1,000,000 runs."""
    draws = latents(posterior)
    size = draws.shape[0] * draws.shape[1] / 2
    error = SD / np.sqrt(size) if method.spread else 0
    assert (abs(draws.mean((0, 1)) - MEAN) < 5 * error + 0.05 * SD).all()


def test_the_known_spread_is_recovered(method, posterior):
    """The relative error of a sd over n draws is 1/sqrt(2n), at n of half the draws 0.05 or less;
    within 0.3, six such errors: fewer than one false alarm in 10^8 runs."""
    sd = latents(posterior).std((0, 1))
    if method.spread:
        assert (abs(sd / SD - 1) < 0.3).all()
    else:
        assert (sd < 0.05 * SD).all()  # a convex problem: every member ends in the one mode


def test_chain_and_draw_lead(posterior):
    chains, draws = posterior.shape
    assert set(posterior.draws) == {"intercept", "weights"}
    assert posterior.draws["intercept"].shape == (chains, draws)
    assert posterior.draws["weights"].shape == (chains, draws, 2)
    assert all(np.shape(stat) == (chains, draws) for stat in posterior.stats.values())
    learned = jax.tree.leaves((posterior.params, posterior.mutables))
    assert all(leaf.shape[0] == chains for leaf in learned)
    if posterior.losses is not None:
        assert posterior.losses.shape[0] == chains
        assert np.isfinite(posterior.losses).all()


def test_a_key_decides_the_draws(method):
    one, same, other = (
        ppbdl.fit(key, MODEL, DATA, method.brief, progress=False)
        for key in (3, jax.random.key(3), 4)
    )
    np.testing.assert_array_equal(latents(one), latents(same))
    assert not np.allclose(latents(one), latents(other))
    assert one.provenance.seed == same.provenance.seed != other.provenance.seed


def hopeless(x, y=None):
    """The density is NaN wherever the slopes are."""
    slopes = numpyro.sample("slopes", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ slopes, jnp.sqrt(-1.0 - slopes[0] ** 2)), obs=y)


def test_a_nan_stops_the_fit(method):
    with pytest.raises(ppbdl.FitError, match="'y'") as caught:
        ppbdl.fit(0, hopeless, DATA, method.brief, progress=False)
    assert caught.value.site == "y"
    assert caught.value.step == 0
    assert caught.value.posterior is None


def test_saved_and_loaded_it_is_the_same(posterior, tmp_path):
    loaded = ppbdl.load(ppbdl.save(posterior, tmp_path / "fit"))
    for trees in ("draws", "params", "mutables", "stats"):
        before, after = getattr(posterior, trees), getattr(loaded, trees)
        assert jax.tree.structure(dict(before)) == jax.tree.structure(after)
        jax.tree.map(np.testing.assert_array_equal, dict(before), after)
    before, after = (ppbdl.predict(2, MODEL, p, RAW).mean for p in (posterior, loaded))
    np.testing.assert_array_equal(before, after)
    assert loaded.provenance == posterior.provenance


GROUPS = {
    "posterior": {"chain", "draw", "weights_dim_0"},
    "sample_stats": None,
    "log_likelihood": {"chain", "draw", "row"},
    "posterior_predictive": {"chain", "draw", "row"},
    "prior": {"chain", "draw", "weights_dim_0"},
    "prior_predictive": {"chain", "draw", "row"},
    "observed_data": {"row"},
    "constant_data": None,
    "predictions": {"chain", "draw", "test_row"},
    "predictions_log_likelihood": {"chain", "draw", "test_row"},
    "uncertainty": {"test_row"},
}


def test_the_tree_is_complete(tree, posterior, tmp_path):
    for group, dims in GROUPS.items():
        if group == "sample_stats" and not posterior.stats:
            continue
        assert group in tree.children, group
        assert dims is None or set(tree[group].sizes) == dims
        assert all(np.isfinite(v).all() for v in tree[group].data_vars.values()), group
    assert tree.attrs["method"] == posterior.provenance.method
    tree.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")  # nothing in it that netCDF refuses


@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")
def test_the_elpd_is_finite(tree, posterior):
    scores = tree["predictions_log_likelihood"]["y"].stack(sample=["chain", "draw"])
    held_out = logsumexp(scores, axis=-1) - np.log(scores.sizes["sample"])
    assert np.isfinite(held_out).all()
    if posterior.provenance.kind == "mcmc":
        assert np.isfinite(az.loo(tree).elpd)
    if posterior.provenance.kind == "density":
        stats = tree["sample_stats"]
        log_p, log_q = (stats[name].values.ravel() for name in ("log_p", "log_q"))
        assert np.isfinite(az.loo_approximate_posterior(tree, log_p, log_q).elpd)


def test_predictions_are_in_the_users_units(posterior, method):
    """Of raw inputs, against the exact predictive distribution taken back to y's own units; the
    means are as far off as the posterior's own mean may be (above)."""
    predicted = ppbdl.predict(1, MODEL, posterior, RAW.x)
    mean, epistemic = MODEL.exact_predictive(DATA, DATA.x)
    y_mean, y_sd = DATA.scaling.y_mean, DATA.scaling.y_sd
    error = abs(predicted.mean - (y_mean + y_sd * mean)) / (y_sd * np.sqrt(epistemic))
    assert (error < 1).all()
    np.testing.assert_allclose(predicted.aleatoric, (0.5 * y_sd) ** 2, rtol=1e-5)
    if method.spread:
        np.testing.assert_allclose(predicted.epistemic, epistemic * y_sd**2, rtol=0.6)


def test_the_cost_is_on_record(posterior, method):
    source = posterior.provenance
    assert source.method == method.quick.name
    assert source.seconds_running > 0
    assert source.seconds_compiling >= 0
    assert source.peak_bytes > DATA.x.nbytes
    assert source.gradients > 0
    assert source.failure == ""
    assert source.device
    assert {"ppbdl", "jax", "numpyro"} <= source.versions.keys()
    assert source.settings
    assert all(isinstance(text, str) for text in source.settings.values())
    assert source.kind in ("mcmc", "density", "implicit")


def test_progress_is_shown_when_asked_for(method, capsys):
    ppbdl.fit(0, MODEL, DATA, method.brief, progress=False)
    assert capsys.readouterr().err == ""
    ppbdl.fit(0, MODEL, DATA, method.brief, progress=True)
    assert method.brief.name in capsys.readouterr().err


def test_double_precision_stays(method, x64):
    data = ppbdl.Data(RAW.x, RAW.y).standardized()
    posterior = ppbdl.fit(0, MODEL, data, method.brief, progress=False)
    floats = jax.tree.leaves((dict(posterior.draws), dict(posterior.params)))
    assert {leaf.dtype.name for leaf in floats if leaf.dtype.kind == "f"} == {"float64"}


def test_no_tracer_leaks(method):
    with jax.checking_leaks():
        ppbdl.fit(5, MODEL, DATA, method.brief, progress=False)


def test_settings_are_values(method):
    assert method.quick == replace(method.quick)
    assert hash(method.quick) == hash(replace(method.quick))
    assert isinstance(method.quick, ppbdl.types.Inference)
