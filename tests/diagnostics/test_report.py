"""The page: self-contained, equal bytes for equal input, and something to see."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import arviz as az
import numpy as np
import pytest
import xarray as xr

from ppbdl import diagnostics as d

Make = Callable[..., xr.DataTree]


@pytest.fixture(scope="module")
def page(regressions: xr.DataTree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return d.report(regressions, tmp_path_factory.mktemp("report") / "report.html")


def test_nothing_is_run_or_loaded(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<link" not in text
    assert "@import" not in text
    assert "url(" not in text
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert len(text) < 3_000_000


def test_it_says_what_the_issue_asks(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for words in (
        "What to believe", "Yacht-like", "resistance", "training rows", "held-out ELPD",
        "does not apply", "epistemic", "Uncertainty along the data", "Posterior predictive check",
        "Calibration", "Do the chains agree?", "Did the optimiser finish?", "Pareto k",
        "numpyro 0.22.0", "reference", "compiling",
    ):  # fmt: skip
        assert words in text, words
    pictures = re.findall(r"<img[^>]*>", text)
    assert len(pictures) >= 20
    assert all(re.search(r'alt="[^"]+"', picture) for picture in pictures)


def test_equal_trees_give_equal_bytes(make_fit: Make, tmp_path: Path) -> None:
    first, second = (d.report(make_fit(), tmp_path / name) for name in ("a.html", "b.html"))
    assert first.read_bytes() == second.read_bytes()


def test_names_are_escaped_and_dollars_are_no_mathematics(
    make_fit: Make, side_by_side: Make, tmp_path: Path
) -> None:
    fit = make_fit(kind="implicit", chains=1, draws=200)
    fit.attrs |= {"target": "$x_{ <script>alert(1)</script>", "data_name": "<b>&\"'"}
    text = d.report(side_by_side({"<i>$a": fit}), tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<i>$a" not in text
    assert "could not be drawn" not in text


def test_classes_counts_and_strangers(
    classifications: xr.DataTree, counts: xr.DataTree, tmp_path: Path
) -> None:
    for tree in (classifications, counts, az.load_arviz_data("centered_eight")):
        text = d.report(tree, tmp_path / "report.html").read_text(encoding="utf-8")
        assert "could not be drawn" not in text
        assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower().split()


def test_a_density_estimate_is_reported(make_fit: Make, tmp_path: Path) -> None:
    fit = make_fit(kind="implicit", chains=1, draws=1)
    fit.attrs["task"] = "density"
    for group in ("predictions", "uncertainty", "posterior_predictive"):
        del fit[group]
    text = d.report(fit, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "density estimation" in text
    assert "could not be drawn" not in text


def test_missing_groups_are_named(make_fit: Make, tmp_path: Path) -> None:
    fit = make_fit()
    for group in ("predictions", "posterior_predictive", "uncertainty", "posterior"):
        del fit[group]
    text = d.report(fit, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Store posterior_predictive or predictions" in text
    assert "could not be drawn" not in text


def test_a_failed_fit_is_reported(make_fit: Make, side_by_side: Make, tmp_path: Path) -> None:
    broken = make_fit(kind="density", chains=1, draws=200)
    broken.attrs["failure"] = "NaN at step 7"
    for group in ("predictions", "uncertainty", "predictions_log_likelihood", "log_likelihood"):
        for name in broken[group].data_vars:
            broken[group][name][:] = np.nan
    broken["optimization"]["loss"][:, 7:] = np.nan
    tree = side_by_side({"NUTS": make_fit(), "AutoNormal": broken})
    text = d.report(tree, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "AutoNormal fails “the fit ended”" in text
    assert "The fit failed: NaN at step 7." in text


def test_importing_loads_no_plotting_library() -> None:
    code = "import sys, ppbdl.diagnostics; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_callers_figures_and_style_stay(make_fit: Make, tmp_path: Path) -> None:
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    plt.close("all")
    mine = plt.figure()
    before = dict(mpl.rcParams)
    d.report(make_fit(), tmp_path / "report.html")
    assert plt.get_fignums() == [mine.number]
    assert dict(mpl.rcParams) == before
    plt.close(mine)


@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_shows_it(page: Path, tmp_path: Path, width: int) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed: nothing here can render the page")
    from PIL import Image

    picture, profile = tmp_path / "page.png", tmp_path / "profile"
    profile.mkdir()
    subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--hide-scrollbars", f"--user-data-dir={profile}",
         f"--screenshot={picture}", f"--window-size={width},4000", page.as_uri()],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    with Image.open(picture) as image:
        grey = np.asarray(image.convert("L"), dtype=float)
    # Text and figures at every height: no stretch of 800 pixels may be of one shade.
    assert grey.shape[1] == width
    for top in range(0, 4000, 800):
        assert grey[top : top + 800].std() > 3
