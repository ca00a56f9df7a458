"""What every MCMC method must do; the kernels' own promises; and the start at another fit."""

import os
import signal
import sys
import threading
import time
from dataclasses import replace

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from scipy.stats import chi2, norm

import ppbdl
import ppbdl.models
from ppbdl.inference import sampling
from ppbdl.inference.chees import ChEES
from ppbdl.inference.hmc import HMC
from ppbdl.inference.mclmc import MCLMC
from ppbdl.potential import potential
from ppbdl.structure import inspect_model, shapes_of

NUTS = ppbdl.NUTS(draws=1000, warmup=500, chains=2)
METHODS = {
    "NUTS": NUTS,
    "HMC": HMC(draws=1000, warmup=500, chains=2),
    "ChEES": ChEES(draws=100, warmup=200, chains=20),
    "MCLMC": MCLMC(draws=1000, warmup=1500, chains=2),
}
GRID = np.linspace(-1, 1, 20)
# Columns that correlate 0.97, so that the posterior's coordinates do, too.
DATA = ppbdl.Data(
    np.stack([GRID, GRID + 0.15 * np.cos(9 * GRID)], axis=1), GRID + 0.3 * np.sin(40 * GRID)
)
MODEL = ppbdl.models.LinearRegression(noise=0.5)


def lone(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0, 1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(slope * x[:, 0], 0.5), obs=y)


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def test_a_correlated_posterior_is_recovered(method):
    """The z scores of three means and three second moments, both along the posterior's principal
    axes, under a Bonferroni cut: 1 false alarm in 1,000 runs a method.  MCLMC's bias, 2 % of a sd
    in the means and 4 % in the second moments at most, comes on top."""
    mean, covariance = MODEL.exact_posterior(DATA)
    posterior = ppbdl.fit(0, MODEL, DATA, method, progress=False)
    sites = posterior.draws["intercept"][..., None], posterior.draws["weights"]
    scales, axes = np.linalg.eigh(covariance)
    draws = (np.concatenate(sites, axis=-1) - mean) @ axes / np.sqrt(scales)
    for power, truth, bias in ((1, 0, 0.02), (2, 1, 0.04)):
        for values in np.moveaxis(draws**power, -1, 0):
            allowed = bias if method.name == "MCLMC" else 0
            error = az.mcse(values, method="mean") * norm.isf(1e-3 / 12)
            assert abs(values.mean() - truth) < error + allowed


def test_lp_is_the_density_of_the_draw(method):
    posterior = ppbdl.fit(0, MODEL, DATA, replace(method, draws=20), progress=False)
    structure = inspect_model(MODEL, shapes_of(DATA))
    sites = {name: jax.vmap(jax.vmap(jnp.ravel))(draws) for name, draws in posterior.draws.items()}
    flat = jnp.concatenate([sites[name] for name in structure.latents], axis=-1)
    energy = jax.vmap(jax.vmap(lambda u: potential(MODEL, structure)(u, DATA.x, DATA.y)))
    np.testing.assert_allclose(posterior.stats["lp"], -energy(flat), rtol=1e-5)


def test_a_second_fit_compiles_nothing(method):
    compiled = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    method = replace(method, draws=20)
    ppbdl.fit(0, MODEL, DATA, method, progress=False)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        ppbdl.fit(1, MODEL, ppbdl.Data(DATA.x + 1, 2 * DATA.y), method, progress=False)
        assert compiled == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_control_c_keeps_the_draws_made(method, monkeypatch):
    run, reached = sampling.Chain.run, []

    def interrupt(chain, advance, x, y, total, stop):
        def watch():
            while chain.done < method.adapting + 20:
                time.sleep(0.005)
            reached.append(chain)
            if len(reached) == (1 if method.together else method.chains):  # the slowest one
                os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=watch, daemon=True).start()
        run(chain, advance, x, y, total, stop)

    monkeypatch.setattr(sampling.Chain, "run", interrupt)
    long = replace(method, draws=2_000_000)
    posterior = ppbdl.fit(0, MODEL, DATA, long, progress=False)
    assert 10 <= posterior.shape[1] < 2_000_000
    assert "Interrupted after" in posterior.provenance.failure
    assert np.isfinite(posterior.draws["weights"]).all()


def test_gradients_are_counted_in_warm_up_too(method):
    method = replace(method, draws=20)
    posterior = ppbdl.fit(0, MODEL, DATA, method, progress=False)
    spent = posterior.provenance.gradients
    if method.name == "MCLMC":
        assert spent == method.chains * (1 + 2 * (method.warmup + 20 * method.thinning))
    else:
        assert spent > posterior.stats["n_steps"].sum() + method.warmup * method.chains


@pytest.mark.parametrize("method", [ChEES(), MCLMC()])
def test_without_blackjax_the_extra_is_named(method, monkeypatch):
    monkeypatch.setitem(sys.modules, "blackjax", None)
    with pytest.raises(ppbdl.InputError, match=r"ppbdl\[blackjax\]"):
        ppbdl.fit(0, far, DATA, method, progress=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: HMC(trajectory_length=0.0),
        lambda: HMC(target_accept=1.0),
        lambda: ChEES(chains=0),
        lambda: ChEES(target_accept=0.0),
        lambda: MCLMC(thinning=0),
        lambda: MCLMC(energy_variance=-1.0),
    ],
)
def test_settings_are_refused(make):
    with pytest.raises(ppbdl.InputError):
        make()


def test_a_whole_period_brings_a_trajectory_back():
    """Of a lone Gaussian coordinate: draws a quarter of a period apart are independent, their
    correlation 0 to within 4.5 standard errors (7 false alarms in 1,000,000), and draws a whole one
    apart nearly the same."""

    def correlation(periods):
        hmc = HMC(2000, 500, 1, trajectory_length=2 * np.pi * periods, target_accept=0.99)
        slope = ppbdl.fit(0, lone, DATA, hmc, progress=False).draws["slope"][0]
        return np.corrcoef(slope[:-1], slope[1:])[0, 1]

    assert abs(correlation(0.25)) < 4.5 / np.sqrt(2000) + 0.1  # the adapted scale is off by 5 %
    assert correlation(1.0) > 0.7


def test_hmcs_trajectories_are_bounded():
    hmc = HMC(5, 60, 1, trajectory_length=1e6)
    posterior = ppbdl.fit(0, lone, DATA, hmc, progress=False)
    assert (posterior.stats["n_steps"] == 1000).all()


def test_chees_chains_share_step_and_length():
    stats = ppbdl.fit(0, MODEL, DATA, METHODS["ChEES"], progress=False).stats
    assert (stats["step_size"] == stats["step_size"][0, 0]).all()
    assert (stats["n_steps"] == stats["n_steps"][:1]).all()
    assert len(np.unique(stats["n_steps"])) > 1  # jittered


def test_mclmc_samples_a_lone_coordinate():
    """Mean and second moment within 4.5 Monte Carlo errors, and the bias allowed above: fewer than
    2 false alarms in 100,000 runs."""
    x, y = DATA.x[:, 0], DATA.y
    precision = 1 + (x**2).sum() / 0.25
    posterior = ppbdl.fit(0, lone, DATA, METHODS["MCLMC"], progress=False)
    z = (np.asarray(posterior.draws["slope"]) - (x * y).sum() / 0.25 / precision) * np.sqrt(
        precision
    )
    for values, truth, bias in ((z, 0, 0.02), (z**2, 1, 0.04)):
        assert abs(values.mean() - truth) < 4.5 * az.mcse(values, method="mean") + bias
    assert np.ptp(posterior.stats["lp"] + z**2 / 2) < 1e-3  # and nothing of the normal beside it


@pytest.mark.slow
def test_mclmcs_bias_shrinks_with_the_energys_variance():
    """A coarse step's second moments are off by more than 10 %; the default's are not."""
    mean, covariance = MODEL.exact_posterior(DATA)

    def second_moment(energy_variance):
        mclmc = replace(METHODS["MCLMC"], energy_variance=energy_variance, draws=2000)
        weights = ppbdl.fit(0, MODEL, DATA, mclmc, progress=False).draws["weights"]
        z = (np.asarray(weights) - mean[1:]) / np.sqrt(np.diag(covariance)[1:])
        return (z**2).mean()

    assert abs(second_moment(1.0) - 1) > 0.1 > abs(second_moment(5e-4) - 1)


def far(x, y=None):
    """A posterior a thousand standard deviations from where chains start by themselves."""
    slope = numpyro.sample("slope", dist.Normal(0, 1000))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(slope * x[:, 0], 0.5), obs=y)


@pytest.mark.parametrize("how", ["MAP", "SVI"])
def test_nuts_starts_at_another_fit(how):
    """All its draws, from the first step on, are in the posterior's bulk, where twice the density's
    deficit is chi-squared: beyond the cut in 1 of 1,000 runs.  From its own start they are not."""
    data = ppbdl.Data(GRID[:, None], 300 * GRID + 0.3 * np.sin(40 * GRID))
    methods = {
        "MAP": ppbdl.MAP(optax.adam(1.0), steps=1500),
        "SVI": ppbdl.SVI(optimizer=optax.adam(1.0), steps=1500, draws=500),
    }
    fitted = ppbdl.fit(0, far, data, methods[how], progress=False)
    started = ppbdl.start_at(far, fitted)
    structure = inspect_model(far, shapes_of(data))
    short = ppbdl.NUTS(draws=5, warmup=1, chains=2)
    mode = (data.x[:, 0] * data.y).sum() / 0.25 / (1e-6 + (data.x[:, 0] ** 2).sum() / 0.25)
    best = -potential(far, structure)(np.array([mode]), data.x, data.y)

    def deficit(model):
        return 2 * (best - ppbdl.fit(1, model, data, short, progress=False).stats["lp"])

    assert (deficit(started) < chi2.isf(1e-3 / 10, 1)).all()
    assert (deficit(far) > chi2.isf(1e-3 / 10, 1)).any()
