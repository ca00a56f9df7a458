"""Fits in closed form, each sound or with one fault, for the pages of the checks.

The regression is conjugate: ``y = x w + noise`` with known noise and ``w ~ N(0, I)``, so that its
posterior is a normal that can be drawn from exactly (Bishop 2006, section 3.3).
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.special import ndtr

PAIR, ROWS, TEST = ("chain", "draw"), ("chain", "draw", "row"), ("chain", "draw", "test_row")


def tree(kind="mcmc", task="regression", train=120, target="y", **groups):
    """Put groups into one fit's tree, with the attributes that the checks read."""
    fit = xr.DataTree.from_dict({f"/{name}": xr.Dataset(one) for name, one in groups.items()})
    fit.attrs = {"kind": kind, "task": task, "observed": "y", "n_train": train, "target": target}
    return fit


def regression(
    *, chains=4, draws=250, spread=1.0, noise=0.5, shift=0.0, rho=0.0, kind="mcmc", seed=1
):
    """Draw from the posterior of a linear regression of four features, or from near it.

    The draws' sd is `spread` times the posterior's, `noise` is what the fit takes the noise to be
    (it is 0.5), `shift` moves each chain, and each draw correlates by `rho` with the one before.
    """
    data, rng = np.random.default_rng(0), np.random.default_rng(seed)
    x = data.normal(size=(180, 4))
    y = x @ data.normal(size=4) + 0.5 * data.normal(size=180)
    covariance = np.linalg.inv(np.eye(4) + x[:120].T @ x[:120] / 0.25)
    middle = covariance @ x[:120].T @ y[:120] / 0.25
    z = rng.normal(size=(chains, draws, 4))
    for step in range(1, draws):
        z[:, step] = rho * z[:, step - 1] + np.sqrt(1 - rho**2) * z[:, step]
    factor = spread * np.linalg.cholesky(covariance)
    w = middle + z @ factor.T + np.broadcast_to(shift, chains)[:, None, None]
    mean = w @ x.T
    drawn = mean + noise * rng.normal(size=mean.shape)
    density = _log_normal(y, mean, noise)
    log_p = density[..., :120].sum(axis=-1) - 0.5 * (w**2).sum(axis=-1)
    log_q = -0.5 * (z**2).sum(axis=-1) - 4 * np.log(spread)
    stats = {
        "mcmc": {
            "diverging": (PAIR, np.zeros((chains, draws), bool)),
            "energy": (PAIR, rng.normal(size=(chains, draws))),
            "tree_depth": (PAIR, rng.integers(2, 5, size=(chains, draws))),
        },
        "density": {"log_p": (PAIR, log_p), "log_q": (PAIR, log_q)},
        "implicit": {},
    }
    return tree(
        kind,
        posterior={"w": ((*PAIR, "feature"), w)},
        sample_stats=stats[kind],
        log_likelihood={"y": (ROWS, density[..., :120])},
        posterior_predictive={"y": (ROWS, drawn[..., :120])},
        observed_data={"y": ("row", y[:120])},
        predictions={
            "y": (TEST, drawn[..., 120:]),
            "y_mean": (TEST, mean[..., 120:]),
            "y_variance": (TEST, np.full_like(mean[..., 120:], noise**2)),
        },
        predictions_observed_data={"y": ("test_row", y[120:])},
        predictions_log_likelihood={"y": (TEST, density[..., 120:])},
    )


def classes(*, sharpen=1.0, chains=4, draws=250, seed=1):
    """Draw softmax regressions around the truth; `sharpen` above 1 makes them too sure."""
    data, rng = np.random.default_rng(7), np.random.default_rng(seed)
    x, truth = data.normal(size=(400, 3)), 1.2 * data.normal(size=(3, 3))
    y = (_softmax(x @ truth).cumsum(axis=1) < data.uniform(size=(400, 1))).sum(axis=1)
    w = truth + 0.15 * rng.normal(size=(chains, draws, 3, 3))
    probs = _softmax(sharpen * np.einsum("nf,tsfc->tsnc", x, w))
    return tree(
        task="classification",
        predictions={"y_probs": ((*TEST, "class"), probs)},
        predictions_observed_data={"y": ("test_row", y)},
    )


def counts(y, replicates, task="count"):
    """A fit that is known by the data sets `replicates` that it generates beside `y`."""
    return tree(
        task=task,
        train=len(y),
        target="count",
        observed_data={"y": ("row", y)},
        posterior_predictive={"y": (ROWS, replicates[None])},
    )


def of_a_mean(prior_mean, prior_sd, rows=20):
    """The mean of standard normal data under a normal prior: exact draws of its posterior."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=rows)
    precision = prior_sd**-2 + rows
    mu = (prior_mean / prior_sd**2 + y.sum()) / precision
    mu = mu + rng.normal(size=(4, 500)) / np.sqrt(precision)
    prior = prior_mean + prior_sd * rng.normal(size=(1, 1000, 1))
    return tree(
        posterior={"mu": (PAIR, mu)},
        log_prior={"mu": (PAIR, -0.5 * ((mu - prior_mean) / prior_sd) ** 2)},
        log_likelihood={"y": (ROWS, -0.5 * (y - mu[..., None]) ** 2)},
        observed_data={"y": ("row", y)},
        prior_predictive={"y": (ROWS, prior + rng.normal(size=(1, 1000, rows)))},
    )


def optimised(rate=150.0, steps=2000):
    """A fit whose loss decays to 120 nats with the time constant `rate`, under noise of 5."""
    fit = regression(chains=1, draws=1000, kind="density")
    noise = 5 * np.random.default_rng(0).normal(size=steps)
    loss = 120 + 800 * np.exp(-np.arange(steps) / rate) + noise
    fit["optimization"] = xr.DataTree(xr.Dataset({"loss": (("chain", "step"), loss[None])}))
    return fit


def iterated(rate, kept=500):
    """A fit whose three parameters near their ends with the time constant `rate`, under noise."""
    fit = regression(chains=1, draws=1000, kind="density")
    noise = 0.2 * np.random.default_rng(0).normal(size=(1, kept, 3))
    path = np.array([12.0, -9.0, 6.0]) * np.exp(-np.arange(kept) / rate)[:, None] + noise
    iterates = {
        "iterate": (("chain", "kept_step", "parameter"), path),
        "iterate_scale": (("chain", "parameter"), np.ones((1, 3))),
    }
    fit["optimization"] = xr.DataTree(xr.Dataset(iterates))
    return fit


def simulated(spread, simulations=500):
    """The places of true parameters in posteriors whose sd is taken to be `spread` times itself."""
    truths = np.random.default_rng(0).normal(size=(1, simulations))
    return tree(prior_sbc={"mu": (PAIR, ndtr(truths / spread))})


def changed(fit, group, name, change):
    """The fit with one array changed in place by `change`."""
    fit = fit.copy(deep=True)
    change(fit[group][name].values)
    return fit


def _log_normal(y, mean, sd):
    return -0.5 * np.log(2 * np.pi * sd**2) - 0.5 * ((y - mean) / sd) ** 2


def _softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
