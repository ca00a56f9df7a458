"""Six Gaussian posteriors that are known exactly, and what each method must make of them.

Full-rank methods give the posterior itself: means within 0.1 of its standard deviations, standard
deviations within 5 %.  Mean-field methods have a known bias: the variance of q is the inverse of
the precision's diagonal entry, the conditional variance (Bishop 2006, equation 10.13).
"""

from dataclasses import dataclass

import haiku as hk
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import autoguide

import ppbdl
import ppbdl.models

NOISE, RNG = 0.5, np.random.default_rng(0)


@dataclass(frozen=True, eq=False)
class Case:
    """A model that is linear in its latents, whose priors are standard normal."""

    model: object
    data: ppbdl.Data
    design: np.ndarray  # (rows, latents): the mean of y by latents, in the order of `latents`
    sites: tuple[str, ...]

    @property
    def exact(self):
        """The posterior's mean and covariance."""
        precision = np.eye(self.design.shape[1]) + self.design.T @ self.design / NOISE**2
        covariance = np.linalg.inv(precision)
        return covariance @ self.design.T @ np.float64(self.data.y) / NOISE**2, covariance

    def latents(self, posterior):
        """The draws, (draws, latents)."""
        draws = [np.asarray(posterior.draws[site]) for site in self.sites]
        pooled = [a.reshape(a.shape[0] * a.shape[1], -1) for a in draws]
        return np.concatenate(pooled, axis=1)


def regression(x):
    design = np.column_stack([np.ones(len(x)), x])
    y = design @ RNG.normal(size=design.shape[1]) + NOISE * RNG.normal(size=len(x))
    model = ppbdl.models.LinearRegression(noise=NOISE)
    return Case(model, ppbdl.Data(x, y), design, ("intercept", "weights"))


def correlated(rho, rows):
    a, b = RNG.normal(size=(2, rows))
    return np.column_stack([a, rho * a + np.sqrt(1 - rho**2) * b])


HIDDEN = RNG.normal(size=(2, 8)), RNG.normal(size=8)


def last_layer(x, y=None):
    """A network all of whose weights are fixed but the last layer's."""
    features = jnp.tanh(x @ HIDDEN[0] + HIDDEN[1])
    net = ppbdl.random_haiku_module("net", lambda f: hk.Linear(1)(f), dist.Normal(0, 1), features)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(net(features)[:, 0], NOISE), obs=y)


def network():
    x = RNG.normal(size=(80, 2))
    features = np.tanh(x @ HIDDEN[0] + HIDDEN[1])
    y = np.sin(3 * x[:, 0]) + NOISE * RNG.normal(size=80)
    design = np.column_stack([np.ones(80), features])
    return Case(last_layer, ppbdl.Data(x, y), design, ("net.linear.b", "net.linear.w"))


CASES = {
    "uncorrelated": regression(
        5 * np.linalg.qr(np.column_stack([np.ones(24), RNG.normal(size=(24, 2))]))[0][:, 1:]
    ),
    "correlation 0.9": regression(correlated(0.9, 30)),
    "correlation 0.99": regression(correlated(0.99, 30)),
    "10 columns": regression(RNG.normal(size=(40, 10))),
    "as many columns as rows": regression(RNG.normal(size=(30, 30)) / 2),
    "last layer": network(),
}


def adam(steps):
    return optax.adam(optax.cosine_decay_schedule(0.03, steps))


def svi(guide, steps=10_000):
    return ppbdl.SVI(guide, adam(steps), steps, draws=20_000, loss=ppbdl.AnalyticELBO(8))


FULL_RANK = {
    "NUTS": ppbdl.NUTS(draws=2500, warmup=500, chains=4),
    "Laplace": ppbdl.Laplace(optimizer=adam(500), steps=500, draws=20_000),
    "HMC": ppbdl.HMC(draws=2500, warmup=500, chains=4),
    "AutoMultivariateNormal": svi(autoguide.AutoMultivariateNormal),
    "AutoLaplaceApproximation": svi(autoguide.AutoLaplaceApproximation),
}
MEAN_FIELD = {
    "AutoNormal": svi(ppbdl.AutoNormal),
    "AutoDiagonalNormal": svi(autoguide.AutoDiagonalNormal),
}
QUICK = ("correlation 0.9", "last layer")


def pairs(methods):
    return [
        pytest.param(case, method, marks=[] if case in QUICK else pytest.mark.slow)
        for case in CASES
        for method in methods
    ]


def test_the_cases_differ_in_what_they_should():
    found = {}
    for name, case in CASES.items():
        _, covariance = case.exact
        sd = np.sqrt(np.diag(covariance))
        found[name] = abs(covariance / np.outer(sd, sd) - np.eye(len(sd))).max()
    assert found["uncorrelated"] < 1e-6 < 0.3 < found["10 columns"] < 0.9
    assert found["correlation 0.9"] > 0.8
    assert found["correlation 0.99"] > 0.95


@pytest.mark.parametrize(("case", "method"), pairs(FULL_RANK))
def test_full_rank_methods_give_the_posterior(case, method):
    """Of 20,000 draws (NUTS: 10,000, of an effective size of 3,000 or more) the mean errs by 0.02
    sd and the sd by 1.3 % at most: with at most 31 latents a false alarm is beyond 4 errors."""
    case, method = CASES[case], FULL_RANK[method]
    mean, covariance = case.exact
    sd = np.sqrt(np.diag(covariance))
    draws = case.latents(ppbdl.fit(0, case.model, case.data, method, progress=False))
    assert abs((draws.mean(0) - mean) / sd).max() < 0.1
    assert abs(draws.std(0) / sd - 1).max() < 0.05


@pytest.mark.parametrize(("case", "method"), pairs(MEAN_FIELD))
def test_mean_field_methods_have_their_known_bias(case, method):
    case, method = CASES[case], MEAN_FIELD[method]
    mean, covariance = case.exact
    conditional = 1 / np.sqrt(np.diag(np.linalg.inv(covariance)))
    draws = case.latents(ppbdl.fit(0, case.model, case.data, method, progress=False))
    assert abs((draws.mean(0) - mean) / np.sqrt(np.diag(covariance))).max() < 0.1
    assert abs(draws.std(0) / conditional - 1).max() < 0.05
