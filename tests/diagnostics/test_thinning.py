"""Large trees: sums over all rows by blocks, checks on some, and within two gigabytes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from ppbdl import diagnostics as d
from ppbdl.diagnostics import thinning

Make = Callable[..., xr.DataTree]


def test_rows_stay_together_and_keep_their_labels(make_fit: Make) -> None:
    fit = make_fit()
    few = d.thinned(fit, rows=20)
    labels = few["predictions"]["test_row"].values
    assert len(labels) == 20
    for group in ("predictions", "predictions_log_likelihood", "predictions_observed_data"):
        for name, array in few[group].data_vars.items():
            xr.testing.assert_equal(
                array.drop_vars("test_row"), fit[group][name].isel(test_row=labels)
            )
    assert few["log_likelihood"].sizes["row"] == few["constant_data"].sizes["row"] == 20
    assert few["posterior"].sizes == fit["posterior"].sizes
    assert few.attrs["training_rows"] == 120
    assert few.attrs["held_out_rows"] == 60
    assert set(d.uncertain_rows(few).index) <= set(labels)
    assert d.thinned(fit, rows=120) is fit


def test_fits_of_as_many_rows_keep_the_same(make_fit: Make) -> None:
    first, second = (d.thinned(make_fit(seed=seed), rows=20) for seed in (1, 2))
    xr.testing.assert_equal(first["observed_data"], second["observed_data"])


@pytest.mark.parametrize("which", ["numbers", "classes"])
def test_scores_by_blocks_are_the_scores(
    make_fit: Make, make_classes: Make, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = make_fit() if which == "numbers" else make_classes()
    whole = d.scores(fit)
    monkeypatch.setattr(thinning, "ROWS", 10)
    monkeypatch.setattr(thinning, "_NUMBERS", 25_000)
    assert len(list(thinning.held_out_blocks(fit))) > 2
    assert d.scores(fit) == pytest.approx(whole, rel=1e-9)


def test_a_large_fit_is_judged_by_a_sample_and_scored_whole(
    make_fit: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = make_fit()
    whole = d.report(fit).content
    monkeypatch.setattr(thinning.thinned, "__defaults__", (40,))
    some = d.report(fit).content
    assert some["fits"][0]["scores"] == pytest.approx(whole["fits"][0]["scores"])
    assert some["facts"] == whole["facts"]
    told = some["besides"][-1]
    assert "40 of 120 training rows and 40 of 60 held-out rows" in told
    # 1.96 standard errors of a share of one half, of 40 rows without replacement, are 12.7 points.
    assert "within 12.7 points" in told


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["netcdf", "zarr"])
def test_100_000_rows_take_two_gigabytes(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("dask", reason="dask writes the tree")
    pytest.importorskip("zarr" if kind == "zarr" else "h5netcdf", reason="what it is stored by")
    benchmark = Path(__file__).parents[1] / "benchmarks" / "large_report.py"
    program = [sys.executable, str(benchmark), str(tmp_path), kind]
    for _ in ("write", "report"):
        done = subprocess.run(program, capture_output=True, text=True, check=True)
    found = re.search(r"peak ([\d.]+) GiB", done.stdout)
    assert found
    assert float(found[1]) < 2e9 / 2**30
    assert "5 000 of 100 000 training rows" in done.stdout.replace("\u202f", " ")
