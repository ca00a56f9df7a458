"""Ten known-bad fits, each flagged by the right check with the right words; ten good ones, not.

Draws come from closed forms, so that each fit has the one fault that it is named for. The funnel
is PyMC's centred fit of the eight schools.
"""

from __future__ import annotations

from collections.abc import Callable

import arviz as az
import numpy as np
import pytest
import xarray as xr

from ppbdl import diagnostics as d

Make = Callable[..., xr.DataTree]
THREE, TEST = ("chain", "draw", "row"), ("chain", "draw", "test_row")


def log_normal(y: np.ndarray, mean: np.ndarray, variance: float) -> np.ndarray:
    return -0.5 * (np.log(2 * np.pi * variance) + (y - mean) ** 2 / variance)


def tree_of(
    mean: np.ndarray, y: np.ndarray, noise: float, train: int, seed: int = 0, **attributes: str
) -> xr.DataTree:
    """Return a normal fit of these means (chain, draw, row), to the first `train` rows."""
    sampled = mean + noise * np.random.default_rng(seed).normal(size=mean.shape)
    density, variance = log_normal(y, mean, noise**2), np.full_like(mean, noise**2)
    fit = xr.DataTree.from_dict(
        {
            "/log_likelihood": xr.Dataset({"y": (THREE, density[..., :train])}),
            "/posterior_predictive": xr.Dataset({"y": (THREE, sampled[..., :train])}),
            "/observed_data": xr.Dataset({"y": ("row", y[:train])}),
            "/predictions": xr.Dataset(
                {
                    "y": (TEST, sampled[..., train:]),
                    "y_mean": (TEST, mean[..., train:]),
                    "y_variance": (TEST, variance[..., train:]),
                }
            ),
            "/predictions_observed_data": xr.Dataset({"y": ("test_row", y[train:])}),
            "/predictions_log_likelihood": xr.Dataset({"y": (TEST, density[..., train:])}),
        }
    )
    fit.attrs = {"observed": "y", "task": "regression", "kind": "mcmc", **attributes}
    return fit


def collinear(mean_field: bool, seed: int = 0) -> xr.DataTree:
    """Ten features that correlate by 0.99, and the exact posterior or its best mean-field fit.

    The mean-field normal that minimises KL(q, p) has the precisions' diagonal (Bishop 2006,
    section 10.1.2).
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(160, 1)) + 0.1 * rng.normal(size=(160, 10))
    y = x.sum(axis=1) + 0.5 * rng.normal(size=160)
    precision = np.eye(10) + x[:100].T @ x[:100] / 0.25
    middle = np.linalg.solve(precision, x[:100].T @ y[:100] / 0.25)
    theirs = np.diag(np.diag(precision)) if mean_field else precision
    factor = np.linalg.cholesky(np.linalg.inv(theirs))
    standard = rng.normal(size=(1, 1000, 10))
    w = middle + standard @ factor.T
    fit = tree_of(w @ x.T, y, 0.5, 100, seed, kind="density")
    log_p = fit["log_likelihood"]["y"].sum("row").values - 0.5 * (w**2).sum(axis=-1)
    log_q = -0.5 * (standard**2).sum(axis=-1) - np.log(np.diag(factor)).sum()
    pair = ("chain", "draw")
    fit["sample_stats"] = xr.DataTree(xr.Dataset({"log_p": (pair, log_p), "log_q": (pair, log_q)}))
    return fit


def counts_as_normal(seed: int = 0) -> xr.DataTree:
    """Counts of mean 1.5 fitted as a normal of their own mean and variance."""
    rng = np.random.default_rng(seed)
    y = rng.poisson(1.5, size=300).astype(float)
    sd = y[:200].std()
    mean = y[:200].mean() + sd / np.sqrt(200) * rng.normal(size=(4, 250, 1)) + np.zeros(300)
    return tree_of(mean, y, sd, 200, seed)


def labelled(wrong: float, seed: int = 0, kind: str = "mcmc") -> xr.DataTree:
    """A logistic regression of the truth, and labels of which a share is flipped."""
    rng = np.random.default_rng(seed)
    x = 8 * rng.normal(size=(300, 2))
    logits = x @ np.array([1.0, -1.0]) + 0.1 * rng.normal(size=(4, 250, 1)) * x[:, 0]
    p = 1 / (1 + np.exp(-logits))
    y = (rng.uniform(size=300) < 1 / (1 + np.exp(-x @ np.array([1.0, -1.0])))).astype(int)
    y = np.where(rng.uniform(size=300) < wrong, 1 - y, y)
    probs = np.stack([1 - p, p], axis=-1)
    log_p = -np.logaddexp(0.0, np.where(y == 1, -logits, logits))
    fit = xr.DataTree.from_dict(
        {
            "/log_likelihood": xr.Dataset({"y": (THREE, log_p[..., :150])}),
            "/observed_data": xr.Dataset({"y": ("row", y[:150])}),
            "/predictions": xr.Dataset({"y_probs": ((*TEST, "class"), probs[:, :, 150:])}),
            "/predictions_observed_data": xr.Dataset({"y": ("test_row", y[150:])}),
        }
    )
    fit.attrs = {"observed": "y", "task": "classification", "kind": kind}
    return fit


def diverging(fit: xr.DataTree) -> xr.DataTree:
    fit["sample_stats"]["diverging"][:, ::12] = True
    return fit


def stuck(fit: xr.DataTree) -> xr.DataTree:
    for group in fit.children.values():
        for array in group.data_vars.values():
            if "draw" in array.dims:
                array[{"chain": 1}] = array.isel(chain=1, draw=0).values
    return fit


def falling(fit: xr.DataTree) -> xr.DataTree:
    loss = 100 + 900 * np.exp(-np.arange(2000) / 900)
    noise = 3 * np.random.default_rng(0).normal(size=2000)
    fit["optimization"] = xr.DataTree(
        xr.Dataset({"loss": (("chain", "step"), (loss + noise)[None])})
    )
    return fit


ONE = {"chains": 1, "draws": 1000}
BAD: dict[str, tuple[Callable[[Make, Make], xr.DataTree], str, str, str]] = {
    "mean-field on a correlated posterior": (
        lambda fit, classes: collinear(mean_field=True),
        "PSIS k-hat", "warn", "not the posterior"),
    "a funnel": (
        lambda fit, classes: az.load_arviz_data("centered_eight"),
        "E-BFMI", "warn", "a funnel"),
    "unconverged SVI": (
        lambda fit, classes: falling(fit(**ONE, kind="density", spread=1.5)),
        "convergence of the loss", "fail", "Take more steps"),
    "a stuck chain": (
        lambda fit, classes: stuck(fit()),
        "stuck chains", "fail", "Chain 2 of 4 is stuck"),
    "collapsed SGLD": (
        lambda fit, classes: fit(spread=0.02, method="SGLD"),
        "spread of draws", "fail", "The draws have collapsed"),
    "divergent NUTS": (
        lambda fit, classes: diverging(fit()),
        "divergences", "fail", "Raise the target acceptance rate"),
    "a wrong noise scale": (
        lambda fit, classes: fit(noise=0.15),
        "uniformity of the PIT", "fail", "too narrow"),
    "an overconfident network": (
        lambda fit, classes: classes(sharpen=4.0, chains=5, draws=1, kind="implicit"),
        "calibration of classes", "fail", "overconfident"),
    "counts fitted as normal": (
        lambda fit, classes: counts_as_normal(),
        "possible replicates", "fail", "Use a count likelihood"),
    "label noise": (
        lambda fit, classes: labelled(wrong=0.1),
        "surprising rows", "fail", "Look for wrong labels"),
}  # fmt: skip

GOOD: dict[str, Callable[[Make, Make, xr.DataTree], xr.DataTree]] = {
    "NUTS": lambda fit, classes, counts: fit(seed=11),
    "SVI, exact": lambda fit, classes, counts: fit(**ONE, kind="density", seed=12),
    "dropout": lambda fit, classes, counts: fit(**ONE, kind="implicit", seed=13),
    "an ensemble": lambda fit, classes, counts: fit(chains=5, draws=1, kind="implicit", seed=14),
    "two chains": lambda fit, classes, counts: fit(chains=2, draws=500, seed=15),
    "classes": lambda fit, classes, counts: classes(seed=16),
    "an ensemble for classes": (
        lambda fit, classes, counts: classes(chains=8, draws=1, kind="implicit", seed=17)),
    "counts": lambda fit, classes, counts: counts,
    "a correlated posterior, exact": lambda fit, classes, counts: collinear(mean_field=False),
    "clean labels": lambda fit, classes, counts: labelled(wrong=0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_fit_is_flagged_by_the_right_check(
    make_fit: Make, make_classes: Make, name: str
) -> None:
    make, which, verdict, words = BAD[name]
    found = {outcome.name: outcome for outcome in d.check(make(make_fit, make_classes))}
    assert found[which].verdict == verdict
    assert words in found[which].sentence
    assert d.worst(found.values()).verdict in ("warn", "fail")


def test_of_ten_good_fits_at_most_one_is_flagged(
    make_fit: Make, make_classes: Make, counts: xr.DataTree
) -> None:
    outcomes = {name: d.check(make(make_fit, make_classes, counts)) for name, make in GOOD.items()}
    flagged = {
        name: d.worst(found) for name, found in outcomes.items()
        if d.worst(found).verdict in ("warn", "fail")
    }  # fmt: skip
    assert len(flagged) <= 1, flagged


def test_what_does_not_apply_has_no_number(make_fit: Make, make_classes: Make) -> None:
    trees = [make(make_fit, make_classes) for make, *_ in BAD.values()]
    for tree in [*trees, xr.DataTree(), az.load_arviz_data("non_centered_eight")]:
        for outcome in d.check(tree):
            if outcome.verdict == "does not apply":
                assert outcome.value is None or outcome.name == "R-hat of parameters"
            else:
                assert not np.isnan(outcome.value)
            assert "nan" not in outcome.sentence.lower().split()
            assert outcome.sentence.endswith(".")
