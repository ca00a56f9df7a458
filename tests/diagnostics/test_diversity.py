"""Members and draws that have collapsed, chains that are stuck, superchains that disagree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from ppbdl import diagnostics as d
from ppbdl.diagnostics import checks

Make = Callable[..., xr.DataTree]
MEMBERS = {"chains": 5, "draws": 1, "kind": "implicit"}


def means_of(means: np.ndarray, **attributes: object) -> xr.DataTree:
    dims = ("chain", "draw", "test_row")
    predictions = xr.Dataset({"y_mean": (dims, means), "y_variance": (dims, np.ones_like(means))})
    fit = xr.DataTree.from_dict({"/predictions": predictions})
    fit.attrs = {"observed": "y", "kind": "mcmc", "task": "regression", **attributes}
    return fit


def test_an_exact_posterior_is_worth_its_parameters(make_fit: Make, make_classes: Make) -> None:
    """Four weights, known noise: 2 n times the information tends to 4 (a few percent below)."""
    found = d.diversity_of(make_fit())
    assert found is not None
    assert found.parameters == pytest.approx(4.0, rel=0.2)
    assert found.members == 1000
    # Conditional on the noise drawn once, two members' errors share all but the epistemic part.
    assert 0.9 < found.error_correlation < 1.0
    assert found.disagreement is None


def test_few_members_are_not_biased() -> None:
    """The mean over 400 ensembles of 3 errs by its own standard error, five of them allowed."""
    rng = np.random.default_rng(0)
    tiny = 0.01 * rng.normal(size=(400, 3, 1, 20))
    found = [d.diversity_of(means_of(means, n_train=100)).parameters for means in tiny]
    error = np.std(found) / 20
    assert np.mean(found) == pytest.approx(100 * 1e-4, abs=5 * error)


def test_disagreement_and_correlation_by_hand() -> None:
    named = np.array([[0, 0, 1, 2], [0, 1, 1, 0], [0, 1, 1, 1]])
    fit = xr.DataTree.from_dict(
        {
            "/predictions": xr.Dataset(
                {"y_probs": (("chain", "draw", "test_row", "class"), np.eye(3)[named][:, None])}
            ),
            "/predictions_observed_data": xr.Dataset({"y": ("test_row", [0, 1, 0, 0])}),
        }
    )
    fit.attrs["observed"] = "y"
    found = d.diversity_of(fit)
    assert found.disagreement == pytest.approx((0 + 2 / 3 + 0 + 1) / 4)
    wrong = named != np.array([0, 1, 0, 0])
    pairs = np.corrcoef(wrong)[np.triu_indices(3, 1)]
    assert found.error_correlation == pytest.approx(pairs.mean())
    assert found.parameters is None


@pytest.mark.parametrize("classes", [False, True])
def test_a_collapsed_ensemble_is_told(make_fit: Make, make_classes: Make, classes: bool) -> None:
    make, narrow = (make_classes, 0.0015) if classes else (make_fit, 0.01)
    assert checks.ensemble_diversity(make(**MEMBERS)).verdict == "pass"
    outcome = checks.ensemble_diversity(make(**MEMBERS, spread=narrow))
    assert outcome.verdict == "warn"
    assert "collapsed to nearly one function" in outcome.sentence
    assert checks.spread_of_draws(make(**MEMBERS)).verdict == "does not apply"
    assert checks.ensemble_diversity(make()).verdict == "does not apply"


def test_copies_fail(make_fit: Make) -> None:
    assert checks.ensemble_diversity(make_fit(**MEMBERS, spread=0.0)).verdict == "fail"


def test_good_ensembles_pass_as_often_as_stated() -> None:
    """Five members of two parameters: under 0.1 once in 16,000 ensembles; of 2,000, two allowed.

    P(two parameters' chi-square with 8 degrees of freedom < 0.4) = 6e-5: three or more of 2,000
    come by chance 3 times in 10,000.
    """
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 2))
    gram = np.linalg.cholesky(np.linalg.inv(rows.T @ rows / 40) / 1000)
    flagged = 0
    for _ in range(500):
        means = rng.normal(size=(5, 1, 2)) @ gram.T @ rows.T
        flagged += checks.ensemble_diversity(means_of(means, n_train=1000)).verdict != "pass"
    assert flagged <= 2


def test_collapsed_chains_are_told_though_they_agree(make_fit: Make) -> None:
    fit = make_fit(spread=0.02)
    assert checks.agreement_of_chains(fit).verdict == "pass"
    outcome = checks.spread_of_draws(fit)
    assert outcome.verdict == "fail"
    assert "collapsed" in outcome.sentence
    assert "step size" in outcome.sentence
    still = make_fit(spread=0.0)
    assert checks.spread_of_draws(still).verdict == "fail"
    # Of draws that are all the same, R-hat and ESS say nothing, rather than that all is well.
    for check in (checks.agreement_of_chains, checks.effective_draws):
        assert check(still).verdict == "does not apply"


def test_a_point_estimate_states_no_epistemic_uncertainty(make_fit: Make) -> None:
    fit = make_fit(chains=1, draws=100, kind="implicit", spread=0.0)
    assert checks.spread_of_draws(fit).verdict == "does not apply"
    assert "point estimate" in checks.spread_of_draws(fit).sentence


def test_the_stuck_chain_is_named(make_fit: Make) -> None:
    fit = make_fit()
    assert checks.stuck_chains(fit).verdict == "pass"
    for group in fit.children.values():
        for array in group.data_vars.values():
            if "chain" in array.dims:
                array[{"chain": 2}] = array.isel(chain=2, draw=0).values
    outcome = checks.stuck_chains(fit)
    assert (outcome.verdict, outcome.value) == ("fail", pytest.approx(0.0))
    assert "Chain 3 of 4 is stuck" in outcome.sentence


def test_moving_chains_pass_as_often_as_stated() -> None:
    """Four chains of ten independent draws: under 0.1 about 1 comparison in 3,000, 4 a fit.

    Of 300 fits 0.4 are expected; five or more come by chance once in 17,000.
    """
    rng = np.random.default_rng(0)
    fits = (means_of(rng.normal(size=(4, 10, 1))) for _ in range(300))
    assert sum(checks.stuck_chains(fit).verdict != "pass" for fit in fits) <= 4


def test_nested_rhat_tells_where_short_chains_started() -> None:
    """Sixteen chains of five draws, four a superchain; a false alarm once in a hundred fits."""
    rng = np.random.default_rng(1)
    settled = rng.normal(size=(16, 5, 3))
    passed = checks.agreement_of_superchains(means_of(settled, superchains=4))
    assert passed.verdict == "pass"
    start = np.repeat(rng.normal(size=(4, 1, 3)), 4, axis=0)
    outcome = checks.agreement_of_superchains(means_of(0.3 * settled + 3 * start, superchains=4))
    assert outcome.verdict == "fail"
    assert "Warm up longer" in outcome.sentence
    assert checks.agreement_of_superchains(means_of(settled)).verdict == "does not apply"
    assert checks.agreement_of_superchains(means_of(settled, superchains=3)).value is None


def test_nested_rhat_alarms_as_often_as_stated() -> None:
    """Chains that are settled but do not move within themselves: of 300 fits, 3 are expected.

    Eleven or more come by chance about once in 3,000.
    """
    rng = np.random.default_rng(2)
    flagged = 0
    for _ in range(300):
        means = rng.normal(size=(16, 1, 2)) + 0.3 * rng.normal(size=(16, 4, 2))
        flagged += checks.agreement_of_superchains(means_of(means, superchains=4)).verdict != "pass"
    assert flagged <= 10
