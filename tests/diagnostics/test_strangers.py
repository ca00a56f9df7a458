"""Trees that other libraries make, and what must not be said of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pytest
import xarray as xr

from ppbdl import diagnostics as d
from ppbdl.diagnostics import checks, cross_validation, thinning

Make = Callable[..., xr.DataTree]
RNG = np.random.default_rng(0)
Y = RNG.normal(size=40)
DRAWN = RNG.normal(size=(4, 200, 40))


def density(y: np.ndarray, mean: Any) -> np.ndarray:
    return -0.5 * (np.log(2 * np.pi) + (y - mean) ** 2)


SHIFTED = 0.15 * RNG.normal(size=(4, 200, 1))
LEFT_OUT = {"log_likelihood": {"y": density(Y, SHIFTED)}, "observed_data": {"y": Y}}


def page(tree: xr.DataTree) -> dict[str, Any]:
    """Return a report's content, having seen that all of it could be made."""
    found = d.report(tree)
    text = re.sub(r"base64,[^\"]*", "", found.html)
    for words in ("could not be drawn", "could not be made", "could not be computed"):
        assert words not in text, re.findall(f"[^<>]*{words}[^<>]*", text)
    return found.content


@pytest.mark.parametrize(
    "groups",
    [
        {"observed_data": {"y": Y}},
        {"posterior": {"a": DRAWN[:1, :, 0]}},
        {"predictions": {"y": DRAWN}},
        {"posterior_predictive": {"y": DRAWN}, "observed_data": {"y": Y}},
    ],
)
def test_what_shows_nothing_is_not_recommended(groups: dict[str, Any]) -> None:
    content = page(az.from_dict(groups))
    assert content["recommended"] is None
    assert content["recommendation"].startswith("Nothing here tells whether")


def test_one_chain_is_used_with_care() -> None:
    groups = {"log_likelihood": {"y": density(Y, SHIFTED[:1])}, "observed_data": {"y": Y}}
    told = page(az.from_dict(groups))["recommendation"]
    assert told == "Use fit with care: one chain cannot show that it converged. Run at least 4."


def test_a_density_of_another_name_is_found() -> None:
    groups = {"log_likelihood": {"log_lik": density(Y, SHIFTED)}, "observed_data": {"y": Y}}
    fit = az.from_dict(groups)
    assert d.loo(fit).route == "loo"
    assert page(fit)["recommendation"] == "Use fit. It passes every check that applies to it."


def test_dimensions_named_by_variable_are_thinned_together() -> None:
    rows = 12_000
    y, mean = RNG.normal(size=rows), np.zeros((2, 30, rows))
    groups = {
        "predictions": {"y": RNG.normal(size=mean.shape), "y_mean": mean, "y_variance": mean + 1},
        "predictions_observed_data": {"y": y},
        "predictions_constant_data": {"x": y},
    }
    few = d.thinned(az.from_dict(groups))
    assert {array.shape[-1] for group in few.children.values()
            for array in group.data_vars.values()} == {thinning.ROWS}  # fmt: skip
    np.testing.assert_array_equal(
        few["predictions_observed_data"]["y"].values, few["predictions_constant_data"]["x"].values
    )


CLASSES = RNG.integers(3, size=40)
PROBS = RNG.dirichlet(np.ones(3), size=(2, 50, 40))


@pytest.mark.parametrize("labels", ["from 0", "from 1", "names"])
def test_classes_are_numbered_alike(labels: str) -> None:
    names = np.array(["red", "green", "blue"])
    y = {"from 0": CLASSES, "from 1": CLASSES + 1, "names": names[CLASSES]}[labels]
    dims = ("chain", "draw", "row", "class")
    fit = xr.DataTree.from_dict(
        {
            "/predictions": xr.Dataset({"y_probs": (dims, PROBS)}, {"class": names}),
            "/predictions_observed_data": xr.Dataset({"y": ("row", y)}),
        }
    )
    page(fit)
    accuracy = (PROBS.mean(axis=(0, 1)).argmax(axis=1) == CLASSES).mean()
    assert d.scores(fit)["accuracy"] == pytest.approx(accuracy)


def test_a_binary_probability_may_stand_alone() -> None:
    y, p = RNG.integers(2, size=40), RNG.uniform(size=(2, 50, 40))
    fit = az.from_dict({"predictions": {"y_probs": p}, "predictions_observed_data": {"y": y}})
    page(fit)
    assert d.scores(fit)["accuracy"] == pytest.approx(((p.mean(axis=(0, 1)) > 0.5) == y).mean())


@pytest.mark.parametrize("what", ["missing labels", "no rows", "text for seconds", "two sites"])
def test_odd_trees_are_reported(what: str, make_fit: Make) -> None:
    if what == "missing labels":
        y = np.where(np.arange(40) < 3, np.nan, CLASSES)
        groups = {"predictions": {"y_probs": PROBS}, "predictions_observed_data": {"y": y}}
        fit = az.from_dict(groups, dims={"y_probs": ["row", "class"]})
        fit.attrs["task"] = "classification"
    elif what == "no rows":
        fit = make_fit().isel(test_row=slice(0), missing_dims="ignore")
    elif what == "text for seconds":
        fit = make_fit()
        fit.attrs["seconds_running"] = "12 s"
    else:
        fit = az.from_dict({**LEFT_OUT, "observed_data": {"y": Y, "z": Y}})
    content = page(fit)
    if what == "two sites":
        assert content["besides"][-1] == "Judged is y alone; observed are also z."


def test_without_held_out_rows_fits_are_compared_by_leaving_out(side_by_side: Make) -> None:
    good = az.from_dict(LEFT_OUT)
    biased = {"log_likelihood": {"y": density(Y, 2 + SHIFTED)}, "observed_data": {"y": Y}}
    content = page(side_by_side({"A": good, "B": az.from_dict(biased)}))
    assert content["recommended"] == "A"
    gap = d.loo(good).elpd - d.loo(az.from_dict(biased)).elpd
    assert any(f"B is {gap:.1f} ± " in sentence for sentence in content["besides"])


def test_scores_of_different_rows_are_refused(make_fit: Make, side_by_side: Make) -> None:
    fewer = make_fit().isel(test_row=slice(9), missing_dims="ignore")
    for group in ("predictions", "uncertainty"):
        del fewer[group]
    with pytest.raises(d.DiagnosticsError, match="same held-out rows"):
        d.report(side_by_side({"A": make_fit(), "B": fewer}))


def test_large_fits_are_compared_by_all_of_their_rows(
    make_fit: Make, side_by_side: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = side_by_side({"A": make_fit(), "B": make_fit(noise=3.0)})
    whole = page(tree)["besides"]
    monkeypatch.setattr(thinning.thinned, "__defaults__", (40,))
    gaps = [
        re.findall(r"[\d.]+ ± [\d.]+ nats", " ".join(one)) for one in (whole, page(tree)["besides"])
    ]
    assert gaps[0]
    assert gaps[0] == gaps[1]


def test_a_point_estimate_is_told_as_one(make_fit: Make) -> None:
    content = page(make_fit(kind="implicit", chains=1, draws=1))
    assert "NUTS is a point estimate: it says nothing of its own ignorance." in content["besides"]
    titles = [table["title"] for section in content["sections"] for table in section["tables"]]
    assert not any("knows least" in title for title in titles)


def test_the_callers_style_is_none_of_the_pages(make_fit: Make) -> None:
    from matplotlib import pyplot as plt

    fit = make_fit(kind="implicit", chains=1, draws=120)
    plain = d.report(fit).html
    with plt.style.context("ggplot"):
        assert d.report(fit).html == plain


def test_the_json_does_not_take_the_pages_place(make_fit: Make, tmp_path: Path) -> None:
    with pytest.raises(d.DiagnosticsError, match=r"report\.html"):
        d.report(make_fit(kind="implicit", chains=1, draws=120), tmp_path / "r.json")


def test_a_check_that_breaks_costs_no_other_and_has_not_passed(
    make_fit: Make, side_by_side: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    energy = checks.energy

    def broken(fit: xr.DataTree) -> d.Check:
        if fit.attrs["method"] == "B":
            raise RuntimeError("no luck")
        return energy(fit)

    monkeypatch.setattr(checks, "energy", broken)
    content = d.report(side_by_side({"A": make_fit(method="A"), "B": make_fit(method="B")})).content
    assert [fit["verdict"] for fit in content["fits"]] == ["pass", "warn"]
    told = [check for section in content["sections"] for check in section["checks"]]
    found = next(check for check in told if check["name"] == "energy")
    assert found["gravest"]["sentence"] == "It could not be computed (RuntimeError: no luck)."
    assert content["recommended"] == "A"


def test_loo_is_estimated_once_a_fit(make_fit: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    estimate = cross_validation._estimate
    monkeypatch.setattr(cross_validation, "_estimate", lambda fit: calls.append(1) or estimate(fit))
    d.report(make_fit())
    assert len(calls) == 1
