"""The page: self-contained, equal bytes for equal input, and something to see."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import arviz as az
import numpy as np
import pytest
import xarray as xr

from ppbdl import diagnostics as d
from ppbdl.diagnostics.wording import printable

Make = Callable[..., xr.DataTree]


@pytest.fixture(scope="module")
def page(regressions: xr.DataTree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return d.report(regressions).save(tmp_path_factory.mktemp("report") / "report.html")


def test_nothing_is_run_or_loaded(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<link" not in text
    assert "@import" not in text
    assert "url(" not in text
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources
    links = ("https://doi.org/", "https://arxiv.org/abs/")  # to read, not to load
    assert all(source.startswith(("data:image/", "#", *links)) for source in sources)


def test_it_says_what_the_issue_asks(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for words in (
        "Contents", "Yacht-like", "Use NUTS.", "resistance", "training rows", "held-out ELPD",
        "does not apply", "epistemic", "Uncertainty along the data", "Can the fit make data",
        "Calibration", "Split conformal intervals", "stacking weight", "disagree most",
        "What a score", "Do the chains agree?", "Did the optimiser finish?", "Pareto k",
        "numpyro 0.22.0", "reference", "seconds compiling", "knows least",
    ):  # fmt: skip
        assert words in text, words
    pictures = re.findall(r"<img[^>]*>", text)
    assert len(pictures) >= 20
    assert all(re.search(r'alt="[^"]+"', picture) for picture in pictures)


def test_equal_trees_give_equal_bytes(make_fit: Make, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        d.report(make_fit(), tmp_path / name)
    for ending in ("html", "json"):
        first, second = (tmp_path / f"{name}.{ending}" for name in "ab")
        assert first.read_bytes() == second.read_bytes()


HOSTILE = (
    "<script>alert(1)</script>", "</title><script>x()</script>", "</style><script>x()</script>",
    "<img src=x onerror=alert(1)>", "\"><svg onload=alert(1)>", "' onmouseover='alert(1)",
    "\" autofocus onfocus=\"alert(1)", "<!--", "-->", "]]>", "<![CDATA[<b>]]>", "<b>bold",
    "javascript:alert(1)", "<a href=javascript:alert(1)>x</a>", "<iframe src=//evil.example>",
    "<link rel=stylesheet href=//evil.example>", "<base href=//evil.example>", "<object data=x>",
    "<meta http-equiv=refresh content=0>", "&lt;script&gt;", "&#60;script&#62;", "&amp;", "&", "<",
    ">", "\"", "'", "`", "{{ 7 * 7 }}", "{% raw %}", "${7*7}", "$x_{1}$", "$\\frac{1}{0}$",
    "\\alert", "%s %d %(x)s", "{0} {name}", "\x00null", "\x1b[31mred", "\u202egnp.exe",
    "\u2028line", "a\nb\r\nc\td",
    "\ud800lone", "\ufeffbom", "🜚 alchemy", "名前", "نام", "e\u0301\u0301\u0301",
    "[bold red]rich[/]", "a" * 500, "../../etc/passwd", "'; DROP TABLE rows; --",
    "=cmd|' /C calc'!A0", "url(//evil.example)",
)  # fmt: skip


class Elements(HTMLParser):
    """Every element of a page, with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_of_the_users_data_are_text(
    make_fit: Make, side_by_side: Make, regressions: xr.DataTree
) -> None:
    assert len(HOSTILE) >= 50
    fits = {}
    for start in range(0, len(HOSTILE), 9):
        name, target, data_name, *others = HOSTILE[start : start + 9]
        fit = make_fit(kind="implicit", chains=1, draws=120)
        inputs = (("test_row", "feature"), np.ones((60, 4)))
        inputs = xr.Dataset({"x": inputs}, {"feature": [*others, *"abcd"][:4]})
        fit["predictions_constant_data"] = xr.DataTree(inputs)
        fit.attrs |= {"target": target, "data_name": data_name, "likelihood": target}
        fit.attrs["settings"] = json.dumps(dict.fromkeys([target, data_name, *others], "1"))
        fits[name.replace("/", "∕")] = fit
    found = d.report(side_by_side(fits, title=HOSTILE[0]))
    page, innocent = Elements(found.html), Elements(d.report(regressions).html)
    assert {tag for tag, _ in page.found} <= {tag for tag, _ in innocent.found}
    known = {(tag, key) for tag, keys in innocent.found for key in keys}
    assert {(tag, key) for tag, keys in page.found for key in keys} <= known
    assert all((keys.get("href") or "#").startswith(("#", "https://")) for _, keys in page.found)
    assert all((keys.get("src") or "data:").startswith("data:") for _, keys in page.found)
    shown = [name for name in HOSTILE if printable(name) in page.text]
    assert len(shown) > len(HOSTILE) - 6  # the names of fits lost their slashes
    assert all(c.isprintable() or c in "\n\u202f" for c in page.text)
    assert "could not be drawn" not in page.text
    assert "\x1b" not in str(found)
    json.loads(found.json)


def test_the_same_content_as_json_and_in_a_terminal(regressions: xr.DataTree) -> None:
    found = d.report(regressions)
    told = json.loads(found.json)
    assert told["title"] == "Yacht-like"
    assert told["recommendation"].startswith("Use NUTS. ")
    for fit, each in zip(told["fits"], d.assess(regressions), strict=True):
        outcomes = {check["name"]: check for check in fit["checks"]}
        for check in each.checks:
            assert outcomes[check.name]["verdict"] == check.verdict
            assert outcomes[check.name]["sentence"] == check.sentence
        assert fit["scores"] == each.scores
    for text in (str(found), found.html):
        for words in (told["recommendation"], *(fit["name"] for fit in told["fits"])):
            assert words in " ".join(text.split())
    assert max(map(len, str(found).splitlines())) <= 120


def test_every_check_is_told_once(regressions: xr.DataTree) -> None:
    content = d.report(regressions).content
    told = [check["name"] for section in content["sections"] for check in section["checks"]]
    told += [check["name"] for check in content["absent"]]
    assert sorted(told) == sorted(check.name for check in d.assess(regressions)[0].checks)


def test_your_own_statistics_are_checked(make_fit: Make) -> None:
    fit = make_fit()
    y = fit["observed_data"]["y"].values.copy()
    y[3] += 30.0
    fit["observed_data"] = xr.DataTree(xr.Dataset({"y": ("row", y)}))
    statistics = {"largest": np.max, "median": lambda y: float(np.median(y))}
    content = d.report(fit, statistics=statistics).content
    section = next(one for one in content["sections"] if one["anchor"] == "predictive-check")
    verdicts = {check["name"]: check["verdict"] for check in section["checks"]}
    assert verdicts["replicates: largest"] == "fail"
    assert verdicts["replicates: median"] == "pass"


def test_a_notebook_frames_the_page(make_fit: Make) -> None:
    found = d.report(make_fit(kind="implicit", chains=1, draws=120))
    frame = ElementTree.fromstring(found._repr_html_())
    assert frame.tag == "iframe"
    assert frame.attrib["srcdoc"] == found.html.replace("\n", " ")  # as XML reads attributes


def test_ten_methods_fit_in_three_megabytes(make_fit: Make, side_by_side: Make) -> None:
    kinds = [{}, {"chains": 1, "draws": 1000, "kind": "density"}]
    fits = {f"method {i}": make_fit(**kinds[i % 2], seed=i) for i in range(10)}
    assert len(d.report(side_by_side(fits)).html.encode()) < 3_000_000


def test_classes_counts_and_strangers(classifications: xr.DataTree, counts: xr.DataTree) -> None:
    for tree in (classifications, counts, az.load_arviz_data("centered_eight")):
        text = d.report(tree).html
        assert "could not be drawn" not in text
        assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower().split()


def test_a_density_estimate_is_reported(make_fit: Make) -> None:
    fit = make_fit(kind="implicit", chains=1, draws=1)
    fit.attrs["task"] = "density"
    for group in ("predictions", "uncertainty", "posterior_predictive"):
        del fit[group]
    text = d.report(fit).html
    assert "Density estimation" in text
    assert "could not be drawn" not in text


def test_missing_groups_are_named(make_fit: Make) -> None:
    fit = make_fit()
    for group in ("predictions", "posterior_predictive", "uncertainty", "posterior"):
        del fit[group]
    text = d.report(fit).html
    assert "Store posterior_predictive or predictions" in text
    assert "could not be drawn" not in text


def test_a_failed_fit_is_reported(make_fit: Make, side_by_side: Make) -> None:
    broken = make_fit(kind="density", chains=1, draws=200)
    broken.attrs["failure"] = "NaN at step 7"
    for group in ("predictions", "uncertainty", "predictions_log_likelihood", "log_likelihood"):
        for name in broken[group].data_vars:
            broken[group][name][:] = np.nan
    broken["optimization"]["loss"][:, 7:] = np.nan
    tree = side_by_side({"NUTS": make_fit(), "AutoNormal": broken})
    text = d.report(tree).html
    assert "AutoNormal (“the fit ended”)" in text
    assert "The fit failed: NaN at step 7." in text


def test_importing_loads_no_plotting_library() -> None:
    code = "import sys, ppbdl.diagnostics; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_callers_figures_and_style_stay(make_fit: Make) -> None:
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    plt.close("all")
    mine = plt.figure()
    before = dict(mpl.rcParams)
    d.report(make_fit())
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
