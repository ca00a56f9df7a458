"""The ten bad fits and ten good ones again, fitted in earnest: minutes, so only by ``-m slow``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
import xarray as xr
from numpyro import distributions as dist

import ppbdl
from ppbdl import diagnostics as d
from ppbdl.models import BNN, Categorical, LinearRegression, Normal

RNG = np.random.default_rng(0)


def net(x: Any) -> Any:
    return hk.nets.MLP([20, 1], activation=jax.nn.tanh)(x)


def small_classifier(x: Any) -> Any:
    return hk.nets.MLP([10, 2], activation=jax.nn.tanh)(x)


def large_classifier(x: Any) -> Any:
    return hk.nets.MLP([100, 2], activation=jax.nn.tanh)(x)


def schools(x: Any, y: Any = None, centred: bool = False) -> None:
    mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", x.shape[0]):
        if centred:
            effect = numpyro.sample("theta", dist.Normal(mu, tau))
        else:
            effect = mu + tau * numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("effect", dist.Normal(effect, x[:, 0]), obs=y)


def funnel(x: Any, y: Any = None) -> None:
    schools(x, y, centred=True)


def counting(likelihood: Callable[[Any], Any]) -> Callable[..., None]:
    def model(x: Any, y: Any = None) -> None:
        w = numpyro.sample("w", dist.Normal(0, 2).expand([2]).to_event(1))
        b = numpyro.sample("b", dist.Normal(0, 2))
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("y", likelihood(b + x @ w), obs=y)

    return model


POISSON = counting(lambda eta: dist.Poisson(jnp.exp(eta)))
AS_NORMAL = counting(lambda eta: dist.Normal(eta, 2.0))

ONE = RNG.normal(size=(250, 1))
ALIKE = ONE + 0.1 * RNG.normal(size=(250, 10))
APART = RNG.normal(size=(250, 3))
WAVE = RNG.uniform(-3, 3, (200, 1))
TWO = RNG.normal(size=(250, 2))
LABELS = RNG.integers(0, 2, 500)
POINTS = RNG.normal(size=(500, 2)) + 3 * (2 * LABELS[:, None] - 1) * np.array([1, 0.3])
NEAR = RNG.normal(size=(500, 2)) + 0.7 * (2 * LABELS[:, None] - 1) * np.array([1, 0.3])
NOISE = 0.5 * RNG.normal(size=250)
Rows = tuple[np.ndarray, np.ndarray]
CORRELATED = (ALIKE, ALIKE.sum(axis=1) + NOISE)
LINE = (APART, APART @ [1.0, -1.0, 0.5] + NOISE)
SINE = (WAVE, np.sin(1.5 * WAVE[:, 0]) + 0.3 * RNG.normal(size=200))
COUNTS = (TWO, RNG.poisson(np.exp(0.2 + TWO @ [0.8, -0.4])))
WRONG = (POINTS, np.where((np.arange(500) >= 200) & (RNG.random(500) < 0.1), 1 - LABELS, LABELS))
SCHOOLS = (np.array([15.0, 10, 16, 11, 9, 11, 10, 18])[:, None],
           np.array([28.0, 8, -3, 7, -1, 1, 18, 12]))  # fmt: skip

LINEAR = LinearRegression(noise=0.5)
NUTS = ppbdl.NUTS(draws=1000, warmup=500, chains=4)
DECAYING = optax.adam(optax.exponential_decay(1e-2, 20_000, 0.01))


def fitted(model: Any, rows: Rows, method: Any, fit: int = 150, seed: int = 0) -> xr.DataTree:
    """Fit the first rows, and predict the others."""
    x, y = rows
    data = ppbdl.Data(x[:fit], y[:fit])
    test = ppbdl.Data(x[fit:], y[fit:]) if len(y) > fit else None
    posterior = ppbdl.fit(seed, model, data, method, progress=False)
    return ppbdl.to_datatree(seed + 1, model, posterior, data, test=test)


def frozen() -> xr.DataTree:
    """One chain of four stands still from its first draw on."""
    tree = fitted(LINEAR, LINE, NUTS)
    for name in ("posterior", "log_likelihood", "predictions", "predictions_log_likelihood"):
        group = tree[name].to_dataset().copy(deep=True)
        for array in group.data_vars.values():
            array[{"chain": 2}] = array.isel(chain=2, draw=0).values
        tree[name] = xr.DataTree(group)
    return tree


def ensemble(net: Any, prior: Any, rows: Rows, fit: int, steps: int) -> xr.DataTree:
    model = BNN(net, prior, likelihood=Categorical(2))
    return fitted(model, rows, ppbdl.Ensemble(ppbdl.MAP(optax.adam(1e-2), steps), 5), fit)


BAD: dict[str, tuple[Callable[[], xr.DataTree], str]] = {
    "mean-field on a correlated posterior": (
        lambda: fitted(LINEAR, CORRELATED, ppbdl.SVI(optimizer=DECAYING, steps=20_000)),
        "PSIS k-hat"),
    "a funnel": (lambda: fitted(funnel, SCHOOLS, NUTS, 8), "divergences"),
    "unconverged SVI": (
        lambda: fitted(BNN(net, likelihood=Normal()), SINE, ppbdl.SVI(steps=150)),
        "convergence of the loss"),
    "a stuck chain": (frozen, "stuck chains"),
    "collapsed SGLD": (
        lambda: fitted(LINEAR, LINE, ppbdl.SGLD(1e-9, draws=500)), "spread of draws"),
    "divergent NUTS": (
        lambda: fitted(funnel, SCHOOLS, ppbdl.NUTS(draws=500, target_accept=0.3), 8),
        "divergences"),
    "a wrong noise scale": (
        lambda: fitted(BNN(net, likelihood=Normal(0.06)), SINE,
                       ppbdl.SVI(ppbdl.AutoNormal(0.01), steps=10_000)),
        "coverage of intervals"),
    "an overconfident network": (
        lambda: ensemble(large_classifier, dist.Normal(0, 30), (NEAR, LABELS), 40, 4000),
        "calibration of classes"),
    "counts fitted as normal": (
        lambda: fitted(AS_NORMAL, (COUNTS[0], COUNTS[1].astype(float)), NUTS),
        "possible replicates"),
    "label noise": (
        lambda: fitted(BNN(small_classifier, likelihood=Categorical(2)), WRONG,
                       ppbdl.NUTS(draws=300, warmup=300, chains=4), 200),
        "calibration of classes"),
}  # fmt: skip

GOOD: dict[str, Callable[[], xr.DataTree]] = {
    "NUTS": lambda: fitted(LINEAR, LINE, NUTS, seed=5),
    "NUTS on a correlated posterior": lambda: fitted(LINEAR, CORRELATED, NUTS),
    "SVI": lambda: fitted(LINEAR, LINE, ppbdl.SVI(optimizer=DECAYING, steps=20_000)),
    "HMC": lambda: fitted(LINEAR, LINE, ppbdl.HMC(draws=1000, warmup=500, chains=4)),
    "Laplace": lambda: fitted(LINEAR, LINE, ppbdl.Laplace("full", optax.adam(1e-2), 3000)),
    "SGLD": lambda: fitted(LINEAR, LINE, ppbdl.SGLD(2e-4, draws=500, thinning=10)),
    "schools, non-centred": lambda: fitted(
        schools, SCHOOLS, ppbdl.NUTS(draws=1000, target_accept=0.95, chains=4), 8),
    "a network": lambda: fitted(
        BNN(net, likelihood=Normal(0.3)), SINE, ppbdl.NUTS(draws=500, warmup=500, chains=4)),
    "counts": lambda: fitted(POISSON, COUNTS, NUTS),
    "clean labels": lambda: fitted(
        BNN(small_classifier, likelihood=Categorical(2)), (POINTS, LABELS),
        ppbdl.NUTS(draws=500, warmup=500, chains=4), 200),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:SGLD. the chains have hardly moved")  # the fit says so, too
@pytest.mark.parametrize("name", BAD)
def test_a_bad_fit_is_flagged(name: str) -> None:
    make, which = BAD[name]
    tree = make()
    found = {outcome.name: outcome.verdict for outcome in d.check(tree)}
    assert found[which] in ("warn", "fail"), found
    assert not d.report(tree).content["recommendation"].startswith(f"Use {name}. ")


@pytest.mark.slow
def test_of_ten_good_fits_at_most_one_is_flagged() -> None:
    flagged = {}
    for name, make in GOOD.items():
        bad = [o for o in d.check(make()) if o.verdict in ("warn", "fail")]
        if bad:
            flagged[name] = [(outcome.name, outcome.sentence) for outcome in bad]
    assert len(flagged) <= 1, flagged
