"""Scores, LOO's route, distances and the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from ppbdl import diagnostics as d

Make = Callable[..., xr.DataTree]


def test_loo_equals_the_closed_form(linear: Any, make_fit: Make) -> None:
    """PSIS errs by about 0.1 nats here; 0.5 is five times that."""
    exact = d.loo(make_fit())
    assert exact.route == "loo"
    assert exact.elpd == pytest.approx(linear.exact_loo, abs=0.5)


def test_loo_corrects_an_approximation_that_is_too_wide(linear: Any, make_fit: Make) -> None:
    wide = make_fit(chains=1, draws=2000, kind="density", spread=1.4)
    corrected = d.loo(wide)
    assert corrected.route == "loo_approximate_posterior"
    assert corrected.elpd == pytest.approx(linear.exact_loo, abs=0.5)
    wide.attrs["kind"] = "mcmc"
    assert d.loo(wide).elpd < linear.exact_loo - 0.5


@pytest.mark.parametrize("kind", ["implicit", "density"])
def test_loo_never_falls_back_to_the_plain_route(make_fit: Make, kind: str) -> None:
    fit = make_fit()
    fit.attrs["kind"] = kind
    found = d.loo(fit)
    assert (found.route, found.elpd) == ("does not apply", None)
    assert found.reason


def test_loo_needs_no_posterior_group(make_fit: Make) -> None:
    fit = make_fit()
    del fit["posterior"]
    assert d.loo(fit).elpd == pytest.approx(d.loo(make_fit()).elpd)


def test_scores_against_the_exact_predictive(linear: Any, make_fit: Make) -> None:
    """1,000 draws estimate each density within a few percent."""
    _, _, x, y = linear.data
    mean, covariance = linear.posterior
    variance = linear.noise**2 + np.einsum("nf,fg,ng->n", x, covariance, x)
    found = d.scores(make_fit())
    exact = d.gaussian_log_score(y, x @ mean, variance)
    assert found["elpd"] == pytest.approx(exact.sum(), abs=0.5)
    assert found["log_score_gaussian"] == pytest.approx(exact.mean(), abs=0.01)
    assert found["crps"] == pytest.approx(
        d.crps_gaussian(y, x @ mean, np.sqrt(variance)).mean(), rel=0.03
    )
    share = (variance - linear.noise**2).mean() / variance.mean()
    assert found["epistemic_share"] == pytest.approx(share, rel=0.1)
    assert found["epistemic_share"] + found["aleatoric_share"] == pytest.approx(1.0)


def test_decompose_computes_what_the_tree_lacks(make_fit: Make, make_classes: Make) -> None:
    fit = make_fit()
    stored = d.decompose(fit)
    del fit["uncertainty"]
    computed = d.decompose(fit)
    for part in ("mean", "aleatoric", "epistemic"):
        np.testing.assert_allclose(computed[part], stored[part])
    classes = d.decompose(make_classes())
    np.testing.assert_allclose(classes["aleatoric"] + classes["epistemic"], classes["total"])
    with pytest.raises(d.DiagnosticsError, match="uncertainty"):
        d.decompose(xr.DataTree())


def test_distance_of_a_known_shift(make_fit: Make) -> None:
    fit, moved = make_fit(), make_fit()
    moved["predictions"]["y"] = moved["predictions"]["y"] + 2.0
    found = d.distance(moved, fit)
    assert found["wasserstein"] == pytest.approx(2.0)
    assert found["sd_ratio"] == pytest.approx(1.0)
    assert found["mean_difference"] == pytest.approx(found["wasserstein_sd"])


def test_distance_between_classes(make_classes: Make) -> None:
    fit = make_classes()
    assert d.distance(fit, fit) == {
        "agreement": 1.0, "total_variation": 0.0, "uncertainty_rank_correlation": 1.0,
    }  # fmt: skip
    flipped = fit.copy()
    flipped["predictions"]["y_probs"] = 0 * fit["predictions"]["y_probs"] + [0.0, 0.0, 1.0]
    probs = np.asarray(d.decompose(fit)["probs"])
    found = d.distance(flipped, fit)
    assert found["agreement"] == pytest.approx((probs.argmax(axis=1) == 2).mean())
    assert found["total_variation"] == pytest.approx((1 - probs[:, 2]).mean())


def test_the_table_has_a_row_a_method(regressions: xr.DataTree) -> None:
    table = d.compare(regressions)
    assert list(table.index) == ["NUTS", "AutoNormal", "AutoIAFNormal", "MCDropout", "Ensemble"]
    assert np.isnan(table.loc["NUTS", "distance"])
    assert table.loc["MCDropout", "loo_note"].startswith("The draws have no density")
    assert "fail" not in set(table["verdict"])


def test_bad_trees_are_refused(make_fit: Make, side_by_side: Make) -> None:
    fit = make_fit()
    cases = {
        "an empty tree": xr.DataTree(),
        "'HMC'": side_by_side({"NUTS": fit}, reference="HMC"),
        "same held-out rows": side_by_side(
            {"A": fit, "B": fit.isel(test_row=slice(5), missing_dims="ignore")}
        ),
    }
    for words, tree in cases.items():
        with pytest.raises(d.DiagnosticsError, match=words):
            d.compare(tree)
    with pytest.raises(d.DiagnosticsError, match="DataTree"):
        d.compare("fit.nc")  # pyright: ignore[reportArgumentType]


def test_a_fit_that_failed_at_once_is_told_and_no_reference(
    make_fit: Make, side_by_side: Make
) -> None:
    tree = side_by_side({"SVI": make_fit(kind="density", chains=1)})
    failed = xr.DataTree(xr.Dataset(attrs={"failure": "No finite density at the start."}))
    both = xr.DataTree.from_dict({"/NUTS": failed, "/SVI": tree["SVI"]})
    table = d.compare(both)
    assert table["because"].tolist()[0] == "the fit ended"
    assert [each.name for each in d.assess(both) if each.is_reference] == ["SVI"]
