"""Honest synthetic fits: conjugate linear regressions, whose posterior is known exactly.

``y = x w + noise`` with known noise and ``w ~ N(0, I)``. Independent draws of the exact posterior
must pass every check; each known-bad fit departs from them in one stated way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import xarray as xr

NOISE = 0.5
ATTRIBUTES = {
    "seed": 0,
    "settings": json.dumps({"draws": 1000, "hidden": [50, 50]}),
    "versions": json.dumps({"jax": "0.12.0", "numpyro": "0.22.0"}),
    "device": "cpu",
    "seconds_compiling": 2.5,
    "seconds_running": 4.0,
    "n_parameters": 5,
    "observed": "y",
    "target": "resistance",
    "data_name": "synthetic",
    "failure": "",
}


@dataclass(frozen=True)
class Linear:
    """A data set, and the exact posterior of its weights."""

    rows: int = 120
    test_rows: int = 60
    features: int = 4
    seed: int = 0
    noise: float = NOISE

    @cached_property
    def data(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        x = rng.normal(size=(self.rows + self.test_rows, self.features))
        y = x @ rng.normal(size=self.features) + NOISE * rng.normal(size=len(x))
        return x[: self.rows], y[: self.rows], x[self.rows :], y[self.rows :]

    @cached_property
    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        x, y, _, _ = self.data
        covariance = np.linalg.inv(np.eye(self.features) + x.T @ x / NOISE**2)
        return covariance @ x.T @ y / NOISE**2, covariance

    @cached_property
    def exact_loo(self) -> float:
        """The sum over rows of log p(y_i | all other rows), in closed form."""
        x, y, _, _ = self.data
        total = 0.0
        for i in range(len(y)):
            others = np.arange(len(y)) != i
            covariance = np.linalg.inv(np.eye(self.features) + x[others].T @ x[others] / NOISE**2)
            mean = covariance @ x[others].T @ y[others] / NOISE**2
            variance = NOISE**2 + x[i] @ covariance @ x[i]
            total += normal_log_density(y[i], x[i] @ mean, variance)
        return total


def normal_log_density(y: Any, mean: Any, variance: Any) -> Any:
    return -0.5 * (np.log(2 * np.pi * variance) + (y - mean) ** 2 / variance)


def regression_fit(
    linear: Linear,
    *,
    chains: int = 4,
    draws: int = 250,
    kind: str = "mcmc",
    spread: float = 1.0,
    noise: float = NOISE,
    shift: np.ndarray | None = None,
    seed: int = 1,
    method: str = "NUTS",
) -> xr.DataTree:
    """Draw weights from the exact posterior, its sd times `spread`, each chain moved by `shift`."""
    rng = np.random.default_rng(seed)
    x, y, x_test, y_test = linear.data
    mean, covariance = linear.posterior
    factor = spread * np.linalg.cholesky(covariance)
    standard = rng.normal(size=(chains, draws, linear.features))
    w = mean + standard @ factor.T
    if shift is not None:
        w = w + shift[:, None, None]
    mu, mu_test = w @ x.T, w @ x_test.T
    three, test = ("chain", "draw", "row"), ("chain", "draw", "test_row")
    log_p = normal_log_density(y, mu, noise**2)
    groups: dict[str, xr.Dataset] = {
        "/posterior": xr.Dataset({"net.linear_0.w": (("chain", "draw", "feature"), w)}),
        "/log_likelihood": xr.Dataset({"y": (three, log_p)}),
        "/posterior_predictive": xr.Dataset({"y": (three, mu + noise * rng.normal(size=mu.shape))}),
        "/observed_data": xr.Dataset({"y": ("row", y)}),
        "/constant_data": xr.Dataset({"x": (("row", "feature"), x)}),
        "/predictions": xr.Dataset(
            {
                "y": (test, mu_test + noise * rng.normal(size=mu_test.shape)),
                "y_mean": (test, mu_test),
                "y_variance": (test, np.full_like(mu_test, noise**2)),
            }
        ),
        "/predictions_observed_data": xr.Dataset({"y": ("test_row", y_test)}),
        "/predictions_constant_data": xr.Dataset({"x": (("test_row", "feature"), x_test)}),
        "/predictions_log_likelihood": xr.Dataset(
            {"y": (test, normal_log_density(y_test, mu_test, noise**2))}
        ),
        "/uncertainty": xr.Dataset(
            {
                "mean": ("test_row", mu_test.mean(axis=(0, 1))),
                "aleatoric": ("test_row", np.full(len(y_test), noise**2)),
                "epistemic": ("test_row", mu_test.var(axis=(0, 1))),
            }
        ),
    }
    pair = ("chain", "draw")
    if kind == "mcmc":
        groups["/sample_stats"] = xr.Dataset(
            {
                "diverging": (pair, np.zeros((chains, draws), bool)),
                "energy": (pair, rng.normal(size=(chains, draws))),
                "tree_depth": (pair, np.full((chains, draws), 3)),
            }
        )
    if kind == "density":
        prior = -0.5 * (w**2).sum(axis=-1)
        log_q = -0.5 * (standard**2).sum(axis=-1) - np.log(np.diag(factor)).sum()
        groups["/sample_stats"] = xr.Dataset(
            {"log_p": (pair, log_p.sum(axis=-1) + prior), "log_q": (pair, log_q)}
        )
    if kind != "mcmc":
        groups["/optimization"] = xr.Dataset({"loss": (("chain", "step"), loss(chains, seed))})
    fit = xr.DataTree.from_dict(groups)
    fit.attrs = ATTRIBUTES | {
        "method": method,
        "kind": kind,
        "task": "regression",
        "likelihood": "Normal",
        "n_train": linear.rows,
    }
    return fit


def loss(chains: int, seed: int, steps: int = 2000, rate: float = 150.0) -> np.ndarray:
    """Return losses that decay over `rate` steps to 120 nats, with noise of 5."""
    noise = np.random.default_rng(seed).normal(size=(chains, steps))
    return 120 + 800 * np.exp(-np.arange(steps) / rate) + 5 * noise


def classification_fit(
    *,
    chains: int = 4,
    draws: int = 250,
    kind: str = "mcmc",
    spread: float = 0.15,
    sharpen: float = 1.0,
    rows: int = 150,
    test_rows: int = 200,
    seed: int = 1,
    method: str = "NUTS",
) -> xr.DataTree:
    """Draw softmax regressions around the truth; `sharpen` above 1 makes them overconfident."""
    data = np.random.default_rng(7)
    x = data.normal(size=(rows + test_rows, 3))
    truth = data.normal(size=(3, 3)) * 1.2
    y = (softmax(x @ truth).cumsum(axis=1) < data.uniform(size=(len(x), 1))).sum(axis=1)
    rng = np.random.default_rng(seed)
    w = truth + spread * rng.normal(size=(chains, draws, 3, 3))
    probs = softmax(sharpen * np.einsum("nf,tsfc->tsnc", x, w))
    log_p = np.log(np.take_along_axis(probs, y[None, None, :, None], axis=-1)[..., 0])
    three, test = ("chain", "draw", "row"), ("chain", "draw", "test_row")
    uniform = rng.uniform(size=(*probs.shape[:3], 1))
    y_draws = (probs.cumsum(axis=-1) < uniform).sum(axis=-1)
    fit = xr.DataTree.from_dict(
        {
            "/log_likelihood": xr.Dataset({"y": (three, log_p[..., :rows])}),
            "/posterior_predictive": xr.Dataset({"y": (three, y_draws[..., :rows])}),
            "/observed_data": xr.Dataset({"y": ("row", y[:rows])}),
            "/constant_data": xr.Dataset({"x": (("row", "feature"), x[:rows])}),
            "/predictions": xr.Dataset(
                {
                    "y": (test, y_draws[..., rows:]),
                    "y_probs": ((*test, "class"), probs[:, :, rows:]),
                },
                coords={"class": ["red", "green", "blue"]},
            ),
            "/predictions_observed_data": xr.Dataset({"y": ("test_row", y[rows:])}),
            "/predictions_log_likelihood": xr.Dataset({"y": (test, log_p[..., rows:])}),
        }
    )
    if kind != "mcmc":
        fit["optimization"] = xr.DataTree(
            xr.Dataset({"loss": (("chain", "step"), loss(chains, seed))})
        )
    fit.attrs = ATTRIBUTES | {
        "method": method,
        "kind": kind,
        "task": "classification",
        "likelihood": "Categorical",
        "target": "colour",
        "n_train": rows,
    }
    return fit


def count_fit(seed: int = 3) -> xr.DataTree:
    """Draw Poisson rates from their exact gamma posterior, one rate a group of ten rows."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(4.0, 1.0, size=8)
    y, y_test = rng.poisson(np.repeat(rates, 10)), rng.poisson(np.repeat(rates, 10))
    shape, exposure = 4.0 + y.reshape(8, 10).sum(axis=1), 1.0 + 10
    mu = np.repeat(rng.gamma(shape, 1 / exposure, size=(4, 250, 8)), 10, axis=-1)
    factorials = np.array([np.log(np.arange(1, n + 1)).sum() for n in range(80)])
    three, test = ("chain", "draw", "row"), ("chain", "draw", "test_row")

    def density(counts: np.ndarray) -> np.ndarray:
        return counts * np.log(mu) - mu - factorials[counts]

    fit = xr.DataTree.from_dict(
        {
            "/log_likelihood": xr.Dataset({"y": (three, density(y))}),
            "/posterior_predictive": xr.Dataset({"y": (three, rng.poisson(mu))}),
            "/observed_data": xr.Dataset({"y": ("row", y)}),
            "/predictions": xr.Dataset(
                {"y": (test, rng.poisson(mu)), "y_mean": (test, mu), "y_variance": (test, mu)}
            ),
            "/predictions_observed_data": xr.Dataset({"y": ("test_row", y_test)}),
            "/predictions_log_likelihood": xr.Dataset({"y": (test, density(y_test))}),
        }
    )
    fit.attrs = ATTRIBUTES | {
        "method": "NUTS", "kind": "mcmc", "task": "count", "likelihood": "Poisson",
        "target": "calls", "n_train": len(y),
    }  # fmt: skip
    return fit


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def comparison(fits: dict[str, xr.DataTree], **attributes: str) -> xr.DataTree:
    """Put fits side by side in one tree."""
    tree = xr.DataTree.from_dict({f"/{name}": fit for name, fit in fits.items()})
    tree.attrs = attributes
    return tree


@pytest.fixture(scope="session")
def linear() -> Linear:
    return Linear()


@pytest.fixture(scope="session")
def make_fit(linear: Linear) -> Callable[..., xr.DataTree]:
    return lambda **changes: regression_fit(linear, **changes)


@pytest.fixture(scope="session")
def make_classes() -> Callable[..., xr.DataTree]:
    return classification_fit


@pytest.fixture(scope="session")
def make_loss() -> Callable[..., np.ndarray]:
    return loss


@pytest.fixture(scope="session")
def side_by_side() -> Callable[..., xr.DataTree]:
    return comparison


@pytest.fixture(scope="session")
def counts() -> xr.DataTree:
    return count_fit()


@pytest.fixture(scope="session")
def regressions(linear: Linear) -> xr.DataTree:
    """The comparison that the report is made for, no method wrong but for its kind."""
    thousand = {"chains": 1, "draws": 1000}
    cases: dict[str, dict[str, Any]] = {
        "NUTS": {},
        "AutoNormal": {**thousand, "kind": "density", "spread": 0.7},
        "AutoIAFNormal": {**thousand, "kind": "density"},
        "MCDropout": {**thousand, "kind": "implicit", "spread": 2.5},
        "Ensemble": {"chains": 5, "draws": 1, "kind": "implicit"},
    }
    fits = {
        name: regression_fit(linear, method=name, seed=seed, **case)
        for seed, (name, case) in enumerate(cases.items())
    }
    return comparison(fits, title="Yacht-like", reference="NUTS")


@pytest.fixture(scope="session")
def classifications() -> xr.DataTree:
    members = classification_fit(method="Ensemble", chains=5, draws=1, kind="implicit", sharpen=4.0)
    return comparison({"NUTS": classification_fit(), "Ensemble": members}, title="Colours")
