"""Replicates, surprises, the prior's say, explained variance, and LOO of many rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from ppbdl import diagnostics as d
from ppbdl.diagnostics import checks, cross_validation
from ppbdl.diagnostics.checks import leave_one_out, prior
from ppbdl.diagnostics.thinning import thinned

Make = Callable[..., xr.DataTree]
PAIR, THREE = ("chain", "draw"), ("chain", "draw", "row")
TEST = ("chain", "draw", "test_row")


def replicating(y: np.ndarray, replicates: np.ndarray, task: str = "regression") -> xr.DataTree:
    fit = xr.DataTree.from_dict(
        {
            "/observed_data": xr.Dataset({"y": ("row", y)}),
            "/posterior_predictive": xr.Dataset({"y": (THREE, replicates[None])}),
        }
    )
    fit.attrs = {"observed": "y", "task": task}
    return fit


def conjugate(prior_mean: float, prior_sd: float, rows: int, seed: int = 0) -> xr.DataTree:
    """The mean of standard normal data with a normal prior: exact draws of its posterior."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=rows)
    precision = prior_sd**-2 + rows
    middle = (prior_mean * prior_sd**-2 + y.sum()) / precision
    mu = middle + rng.normal(size=(4, 500)) / np.sqrt(precision)
    prior = prior_mean + prior_sd * rng.normal(size=(1, 1000, 1))
    fit = xr.DataTree.from_dict(
        {
            "/posterior": xr.Dataset({"mu": (PAIR, mu)}),
            "/log_prior": xr.Dataset({"mu": (PAIR, -0.5 * ((mu - prior_mean) / prior_sd) ** 2)}),
            "/log_likelihood": xr.Dataset({"y": (THREE, -0.5 * (y - mu[..., None]) ** 2)}),
            "/observed_data": xr.Dataset({"y": ("row", y)}),
            "/prior_predictive": xr.Dataset(
                {"y": (THREE, prior + rng.normal(size=(1, 1000, rows)))}
            ),
        }
    )
    fit.attrs = {"observed": "y", "task": "regression", "kind": "mcmc"}
    return fit


def test_a_statistic_of_ones_own() -> None:
    rng = np.random.default_rng(0)

    def longest_run(y: np.ndarray) -> float:
        breaks = np.flatnonzero(np.diff(y > 0))
        return float(np.diff(np.r_[-1, breaks, len(y) - 1]).max())

    replicates = rng.normal(size=(500, 100))
    passed = checks.predictive_statistic(
        replicating(rng.normal(size=100), replicates), longest_run, "longest run"
    )
    assert (passed.name, passed.verdict) == ("replicates: longest run", "pass")
    sorted_data = replicating(np.sort(rng.normal(size=100)), replicates)
    failed = checks.predictive_statistic(sorted_data, longest_run, "longest run")
    assert failed.verdict == "fail"
    assert "cannot make data like yours" in failed.sentence
    none = checks.predictive_statistic(xr.DataTree(), longest_run, "longest run")
    assert (none.verdict, none.value) == ("does not apply", None)


def test_predictive_p_values_are_uniform_for_data_from_the_model() -> None:
    """Two-sided p under 0.2 in 20% of 400: outside 12 to 28% once in 15,000."""
    rng = np.random.default_rng(1)
    found = [
        checks.predictive_statistic(
            replicating(rng.normal(size=20), rng.normal(size=(99, 20))), np.max, "maximum"
        ).value
        for _ in range(400)
    ]
    assert 0.12 <= np.mean(np.array(found) <= 0.2) <= 0.28


def test_impossible_replicates_are_told_by_what_the_data_are() -> None:
    rng = np.random.default_rng(2)
    normal = 1.0 + rng.normal(size=(400, 100))
    counts = checks.possible_replicates(replicating(rng.poisson(1.0, size=100) * 1.0, normal))
    assert (counts.verdict, counts.value) == ("fail", pytest.approx(0.159, abs=0.01))
    assert "Poisson" in counts.sentence
    positive = checks.possible_replicates(replicating(rng.exponential(size=100), normal))
    assert positive.verdict == "warn"
    assert "log-normal" in positive.sentence
    assert checks.possible_replicates(replicating(rng.normal(size=100), normal)).value is None
    fine = replicating(rng.exponential(size=100), rng.exponential(size=(400, 100)))
    assert checks.possible_replicates(fine).verdict == "pass"


@pytest.mark.parametrize(
    ("draw", "verdict", "words"),
    [
        (lambda rng: rng.poisson(4.0, size=200), "pass", "as the counts do"),
        (lambda rng: rng.negative_binomial(1, 0.2, size=200), "fail", "negative binomial"),
        (lambda rng: rng.binomial(5, 0.8, size=200), "fail", "underdispersed"),
        (
            lambda rng: rng.poisson(4.4, size=200) * (rng.uniform(size=200) > 0.1),
            "fail",
            "zero-inf",
        ),
    ],
)
def test_counts_are_dispersed_as_their_replicates(draw: Callable, verdict: str, words: str) -> None:
    rng = np.random.default_rng(3)
    y = draw(rng)
    fit = replicating(y, rng.poisson(y.mean(), size=(1000, 200)), "count")
    outcome = checks.dispersion_of_counts(fit)
    assert outcome.verdict == verdict
    assert words in outcome.sentence


def test_good_counts_are_flagged_as_rarely_as_stated(counts: xr.DataTree) -> None:
    """Two p-values under 0.005: 1% of 200 fits, more than 8 once in 4,000."""
    rng = np.random.default_rng(4)
    flagged = 0
    for _ in range(200):
        fit = replicating(rng.poisson(2.0, size=60), rng.poisson(2.0, size=(800, 60)), "count")
        flagged += checks.dispersion_of_counts(fit).verdict != "pass"
    assert flagged <= 8
    assert checks.dispersion_of_counts(counts).verdict == "pass"


def test_outliers_and_wrong_labels_are_listed(make_fit: Make, make_classes: Make) -> None:
    assert checks.surprising_rows(make_fit()).verdict == "pass"
    fit = make_fit()
    y = fit["predictions_observed_data"]["y"].values.copy()
    y[[3, 8, 20, 41, 50]] += 9.0
    fit["predictions_observed_data"] = xr.DataTree(xr.Dataset({"y": ("test_row", y)}))
    outcome = checks.surprising_rows(fit)
    assert outcome.verdict in ("warn", "fail")
    assert "Student" in outcome.sentence
    listed = outcome.sentence.split("first: ")[1].split(")")[0].split(", ")
    assert {int(row) for row in listed} == {3, 8, 20, 41, 50}
    assert checks.surprising_rows(make_classes()).verdict == "pass"


def test_surprises_come_as_rarely_as_stated() -> None:
    """Calibrated probabilities of four classes: flagged less than once in 1,000 of 300 fits."""
    rng = np.random.default_rng(5)
    flagged = 0
    for _ in range(300):
        probs = rng.dirichlet(np.full(4, 0.3), size=120)
        y = (rng.uniform(size=(120, 1)) > probs.cumsum(axis=1)[:, :-1]).sum(axis=1)
        fit = xr.DataTree.from_dict(
            {
                "/predictions": xr.Dataset({"y_probs": ((*TEST, "class"), probs[None, None])}),
                "/predictions_observed_data": xr.Dataset({"y": ("test_row", y)}),
            }
        )
        fit.attrs["observed"] = "y"
        flagged += checks.surprising_rows(fit).verdict != "pass"
    assert flagged <= 3


def test_the_prior_is_judged_by_what_it_decides() -> None:
    wide, far, tight = conjugate(0, 10, 50), conjugate(5, 0.5, 20), conjugate(0, 0.1, 5)
    assert checks.prior_sensitivity(wide).verdict == "pass"
    assert checks.prior_predictive(wide).verdict == "pass"
    torn, silent = checks.prior_sensitivity(far), checks.prior_sensitivity(tight)
    assert (torn.verdict, silent.verdict) == ("warn", "warn")
    assert "mu moves with the prior" in torn.sentence
    assert "conflict" in torn.sentence
    assert "the data say little" in silent.sentence
    surprised = checks.prior_predictive(far)
    assert surprised.verdict == "warn"
    assert "The observed mean" in surprised.sentence


def test_the_prior_check_alarms_as_often_as_stated() -> None:
    """Data drawn from the prior: 1% of 300 fits, more than 10 once in 3,000."""
    rng = np.random.default_rng(6)
    flagged = 0
    for _ in range(300):
        replicates = rng.normal(size=(401, 1)) + rng.normal(size=(401, 20))
        fit = replicating(replicates[0], replicates[1:])
        fit["prior_predictive"] = fit["posterior_predictive"]
        flagged += checks.prior_predictive(fit).verdict != "pass"
    assert flagged <= 10


def test_without_priors_the_checks_of_the_prior_do_not_apply(make_fit: Make) -> None:
    for check in (checks.prior_sensitivity, checks.prior_predictive):
        assert (check(make_fit()).verdict, check(make_fit()).value) == ("does not apply", None)


def test_a_sample_of_rows_is_weighed_as_all_of_them() -> None:
    """A prior worth 500 rows, far from the data's 2,000: both pull, though 50 rows are kept.

    The sample's likelihood alone is worth a tenth of the prior. The rest varies, by the sample.
    """
    whole = conjugate(0.3, 500**-0.5, 2000)
    few = thinned(whole, rows=50)
    assert (few["log_likelihood"].sizes["row"], few.attrs["training_rows"]) == (50, 2000)
    full, outcome = checks.prior_sensitivity(whole), checks.prior_sensitivity(few)
    assert outcome.value == full.value
    for told in (full, outcome):
        assert (told.verdict, "conflict" in told.sentence) == ("warn", True)
    scaled = prior._of_all_rows(few)["log_likelihood"]["y"]
    expected = 40 * few["log_likelihood"]["y"].values.sum(axis=-1)
    np.testing.assert_allclose(scaled, expected)


def test_missing_observations_are_told_not_judged(make_fit: Make, make_classes: Make) -> None:
    fit, classes = make_fit(), make_classes()
    fit["prior_predictive"] = fit["posterior_predictive"]
    for group in ("observed_data", "predictions_observed_data"):
        for tree in (fit, classes):
            y = tree[group]["y"].astype(float)
            tree[group] = xr.DataTree(xr.Dataset({"y": y.where(np.arange(len(y)) > 2)}))
    of_numbers = (
        *("prior_predictive", "possible_replicates", "dispersion_of_counts", "explained_variance"),
        *("coverage_of_intervals", "pit_uniformity", "surprising_rows"),
    )
    found = [getattr(checks, name)(fit) for name in of_numbers]
    found += [checks.predictive_statistic(fit, np.std, "standard deviation")]
    found += [checks.class_calibration(classes), checks.surprising_rows(classes)]
    for outcome in found:
        assert (outcome.value, outcome.verdict) == (None, "does not apply"), outcome
        assert outcome.sentence.startswith("3 of "), outcome
        assert outcome.sentence.endswith("observations are missing: leave those rows out.")


def test_explained_variance_is_its_definition(make_fit: Make) -> None:
    fit = make_fit()
    outcome = checks.explained_variance(fit)
    means = fit["predictions"]["y_mean"].values
    signal = means.var(axis=-1, ddof=1)
    assert outcome.value == pytest.approx((signal / (signal + 0.25)).mean())
    assert outcome.verdict == "pass"
    del fit["uncertainty"]
    # Errors of 1.3 times the rows' own sd, and of far more.
    y = fit["predictions_observed_data"]["y"].values
    for error, verdict in ((1.3, "warn"), (5.0, "fail")):
        fit["predictions"]["y_mean"][:] = y + error * y.std()
        worse = checks.explained_variance(fit)
        assert worse.verdict == verdict
        assert "mean alone predicts better" in worse.sentence


@pytest.mark.parametrize("kind", ["mcmc", "density"])
def test_loo_of_many_rows_is_subsampled_with_its_error(
    make_fit: Make, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Within five standard errors of the subsampling, from LOO of every row."""
    fit = make_fit(kind=kind)
    full = d.loo(fit)
    monkeypatch.setattr(cross_validation, "_MANY", 100)
    monkeypatch.setattr(cross_validation, "_SUBSAMPLE", 40)
    some = d.loo(fit)
    assert some.route == "loo_subsample"
    assert len(some.rows) == len(some.pareto_k) == 40
    assert some.subsampling_se > 0
    assert full.subsampling_se == 0
    assert some.elpd == pytest.approx(full.elpd, abs=5 * some.subsampling_se + 0.01)
    np.testing.assert_allclose(some.pareto_k, full.pareto_k[some.rows], atol=1e-6)
    assert checks.loo_reliability(fit).verdict == "pass"


def test_draws_of_one_value_have_no_prior_sensitivity(make_fit: Make) -> None:
    fit = make_fit()
    same = xr.zeros_like(fit["log_likelihood"]["y"].isel(row=0))
    fit["log_prior"] = xr.DataTree(xr.Dataset({"w": same}))
    assert "A network's weights" in checks.prior_sensitivity(fit).sentence
    fit["posterior"] = xr.DataTree(fit["posterior"].to_dataset().rename({"net.linear_0.w": "w"}))
    outcome = checks.prior_sensitivity(fit)
    assert outcome.verdict == "does not apply"
    assert "do not move" in outcome.sentence


def test_few_replicates_cannot_show_a_dispersion(counts: xr.DataTree) -> None:
    few = counts.isel(draw=slice(2), missing_dims="ignore")
    assert checks.dispersion_of_counts(counts).verdict == "pass"
    outcome = checks.dispersion_of_counts(few)
    assert outcome.verdict == "does not apply"
    assert "replicates" in outcome.sentence


def test_loo_that_overflows_is_not_reliable(
    make_fit: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = make_fit()
    found = d.loo(fit)
    broken = dataclasses.replace(found, pareto_k=np.full_like(found.pareto_k, np.nan))
    monkeypatch.setattr(leave_one_out, "loo", lambda fit: broken)
    outcome = checks.loo_reliability(fit)
    assert outcome.verdict == "warn"
    assert "means nothing" in outcome.sentence


def test_stacking_gives_the_better_fit_the_weight(make_fit: Make, side_by_side: Make) -> None:
    members = make_fit(chains=5, draws=1, kind="implicit")
    tree = side_by_side({"good": make_fit(), "noisy": make_fit(noise=3.0), "members": members})
    weights = d.stacking_weights(tree)
    assert set(weights) == {"good", "noisy"}
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["good"] > 0.9
    assert d.stacking_weights(side_by_side({"good": make_fit(), "members": members})) == {}
