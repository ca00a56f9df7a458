"""Which rows are uncertain, and where two fits disagree: tables with the rows' inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from ppbdl import diagnostics as d

Make = Callable[..., xr.DataTree]


def named(fit: xr.DataTree) -> xr.DataTree:
    x = fit["predictions_constant_data"]["x"].values
    inputs = xr.Dataset(
        {"x": (("test_row", "feature"), x)}, {"feature": ["age", "observed", "dose", "site"]}
    )
    fit["predictions_constant_data"] = xr.DataTree(inputs)
    return fit


def test_the_most_uncertain_rows_come_first_with_their_inputs(make_fit: Make) -> None:
    fit = named(make_fit())
    table = d.uncertain_rows(fit, most=7)
    epistemic = fit["uncertainty"]["epistemic"].values
    np.testing.assert_array_equal(table.index, np.argsort(-epistemic)[:7])
    np.testing.assert_array_equal(table["epistemic"], np.sort(epistemic)[::-1][:7])
    np.testing.assert_allclose(
        table["epistemic_share"], table["epistemic"] / (table["epistemic"] + table["aleatoric"])
    )
    x, y = (
        fit["predictions_constant_data"]["x"].values,
        fit["predictions_observed_data"]["y"].values,
    )
    # A feature called as one of the table's own columns is told apart by its variable's name.
    assert list(table.columns)[-4:] == ["age", "x.observed", "dose", "site"]
    for row, entries in table.iterrows():
        assert entries["observed"] == y[row]
        np.testing.assert_array_equal(entries[["age", "x.observed", "dose", "site"]], x[row])


def test_classes_are_called_by_their_names(make_classes: Make) -> None:
    table = d.uncertain_rows(make_classes(), most=200)
    assert set(table["prediction"]) == {"red", "green", "blue"}
    probs = d.decompose(make_classes())["probs"].values
    names = np.array(["red", "green", "blue"])
    assert (table["prediction"] == names[probs[table.index].argmax(axis=1)]).all()
    assert table["observed"].isin(names).all()
    assert len(table) == 200


def test_rows_of_many_inputs_are_told_by_number_alone(make_fit: Make) -> None:
    fit = make_fit()
    image = xr.Dataset({"x": (("test_row", "height", "width"), np.zeros((60, 28, 28)))})
    fit["predictions_constant_data"] = xr.DataTree(image)
    expected = ["epistemic", "aleatoric", "epistemic_share", "prediction", "observed"]
    assert list(d.uncertain_rows(fit).columns) == expected


def test_isolation_tells_the_row_far_from_the_data(make_fit: Make) -> None:
    """Training rows a unit step apart; held-out rows among them, and one ten steps beyond."""
    fit = make_fit()
    places = np.arange(60.0)
    places[7] = 119.0 + 10.0
    for group, dim, x in (
        ("constant_data", "row", np.arange(120.0)),
        ("predictions_constant_data", "test_row", places),
    ):
        fit[group] = xr.DataTree(xr.Dataset({"x": ((dim, "feature"), np.tile(x[:, None], 4))}))
    isolation = d.uncertain_rows(fit, most=60)["isolation"]
    assert isolation.loc[7] == pytest.approx(10.0)
    assert (isolation.drop(7) == 0).all()


def test_two_fits_disagree_most_where_one_was_moved(make_fit: Make) -> None:
    fit, moved = named(make_fit()), named(make_fit())
    moved["predictions"]["y"][:, :, 17] += 3.0
    moved["predictions"]["y"][:, :, 5] -= 2.0
    table = d.disagreements(moved, fit, most=3)
    assert table.index[:2].tolist() == [17, 5]
    np.testing.assert_allclose(table["distance"], [3.0, 2.0, 0.0])
    np.testing.assert_allclose((table["prediction"] - table["reference"])[:2], [3.0, -2.0])
    assert "dose" in table


def test_two_classifiers_disagree_by_their_total_variation(make_classes: Make) -> None:
    fit, other = make_classes(), make_classes(seed=5, spread=0.6)
    ours, theirs = (d.decompose(each)["probs"].values for each in (fit, other))
    table = d.disagreements(fit, other, most=4)
    apart = 0.5 * np.abs(ours - theirs).sum(axis=1)
    np.testing.assert_allclose(table["distance"], np.sort(apart)[::-1][:4])
    assert set(table["reference"]) <= {"red", "green", "blue"}


def test_uncertainties_are_ranked_alike_or_not(make_fit: Make) -> None:
    fit, wide = make_fit(seed=1), make_fit(seed=2, spread=3.0)
    # The same directions are uncertain, however wide: 1,000 draws rank 60 rows nearly alike.
    assert d.distance(wide, fit)["uncertainty_rank_correlation"] > 0.95
    turned = make_fit(seed=2)
    turned["uncertainty"]["epistemic"][:] = -turned["uncertainty"]["epistemic"].values
    assert d.distance(turned, fit)["uncertainty_rank_correlation"] < -0.95
    still = make_fit(spread=0.0)
    still["uncertainty"]["epistemic"][:] = 0.0
    assert "uncertainty_rank_correlation" not in d.distance(still, fit)


def test_without_predictions_there_is_nothing_to_list(make_fit: Make) -> None:
    with pytest.raises(d.DiagnosticsError) as caught:
        d.uncertain_rows(xr.DataTree())
    assert caught.value.argument == "fit"
    with pytest.raises(d.DiagnosticsError) as caught:
        d.disagreements(make_fit(), xr.DataTree())
    assert caught.value.argument == "fit"


def test_intervals_of_separation_hold_the_truth() -> None:
    """AUROC of normals one apart is Phi(1/sqrt 2); 95% intervals of 20 pairs of samples.

    Fewer than 15 of 20 hold it by chance, at 93%, once in 2,000.
    """
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(20):
        known, novel = rng.normal(size=150), 1 + rng.normal(size=100)
        ends = d.separation_intervals(known, novel, resamples=50)
        held += ends["auroc"][0] <= 0.7602 <= ends["auroc"][1]
        assert all(0 <= low <= high <= 1 for low, high in ends.values())
    assert held >= 15
    with pytest.raises(d.DiagnosticsError):
        d.separation_intervals(np.array([]), np.ones(3))
