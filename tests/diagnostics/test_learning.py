"""What more rows teach: against the closed form of a conjugate linear regression."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

import ppbdl
import ppbdl.models
from ppbdl import diagnostics as d
from ppbdl.posterior import Provenance

Make = Callable[..., xr.DataTree]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(260, 2))
ALL = ppbdl.Data(X, 1 + X @ [2.0, -1.0] + 0.5 * RNG.normal(size=260))
DATA, TEST = ALL.take(range(200)), ALL.take(range(200, 260))
MODEL = ppbdl.models.LinearRegression(noise=0.5)
SIZES = (40, 10, 160)


@dataclass(frozen=True)
class Exact:
    """Draws from the closed form, so that only their number limits the agreement."""

    draws: int = 4000

    def run(self, key, model, data, *, progress=False):
        if data.rows == 13:
            raise ppbdl.FitError("planted", step=0, site="y")
        mean, covariance = model.exact_posterior(data)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        w = np.float32(rng.multivariate_normal(mean, covariance, (1, self.draws)))
        return ppbdl.Posterior(
            draws={"intercept": w[..., 0], "weights": w[..., 1:]},
            params={},
            mutables={},
            stats={},
            shape=(1, self.draws),
            observed=("y",),
            x_shape=(2,),
            provenance=Provenance("Exact", {}, "mcmc", (0,)),
        )


def fit_sizes(sizes, seed=0):
    return ppbdl.fit_sizes(seed, MODEL, DATA, Exact(), sizes, test=TEST, progress=False)


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    return fit_sizes(SIZES)


def test_the_curve_is_the_closed_form(tree: xr.DataTree) -> None:
    """A variance of 4,000 draws is within 10 % of the exact one, by 4.5 standard errors.

    The predictive density is normal, with the exact mean and both variances: its log is within
    the same share of the epistemic part.
    """
    table = d.learning_curve(tree)
    assert table.index.tolist() == [10, 40, 160]
    for rows, line in table.iterrows():
        fit = tree[f"{rows} rows"]
        part = ppbdl.Data(fit["constant_data"]["x"].values, fit["observed_data"]["y"].values)
        mean, variance = MODEL.exact_predictive(part, TEST.x)
        assert line["epistemic"] == pytest.approx(variance.mean(), rel=0.1)
        assert line["aleatoric"] == pytest.approx(0.25, rel=1e-5)
        assert line["total"] == line["epistemic"] + line["aleatoric"]
        score = norm.logpdf(TEST.y, mean, np.sqrt(variance + 0.25))
        assert line["elpd"] == pytest.approx(score.mean(), abs=0.02)
        assert line["elpd_se"] == pytest.approx(score.std(ddof=1) / np.sqrt(60), rel=0.05)
    # As one over the number of rows, but for the prior and what the rows happen to be.
    assert table["epistemic"][10] / table["epistemic"][160] == pytest.approx(16, rel=0.5)


def test_larger_sets_hold_the_smaller_ones(tree: xr.DataTree) -> None:
    sets = [set(tree[f"{n} rows"]["observed_data"]["y"].values.tolist()) for n in sorted(SIZES)]
    assert sets[0] < sets[1] < sets[2] <= set(DATA.y.tolist())
    assert [tree[f"{n} rows"].attrs["n_train"] for n in SIZES] == list(SIZES)
    first = DATA.y[:10].tolist()
    assert sets[0] != set(first)  # not the first rows, which may be sorted


def test_a_key_decides_the_rows(tree: xr.DataTree) -> None:
    def y(tree: xr.DataTree) -> list[float]:
        return tree["10 rows"]["observed_data"]["y"].values.tolist()

    # A size's fit does not depend on which others there are.
    xr.testing.assert_equal(fit_sizes((10,))["10 rows"], tree["10 rows"])
    assert y(fit_sizes((10,), seed=1)) != y(tree)


@pytest.mark.parametrize("sizes", [(), (10, 201), (10, 10), (0, 10)])
def test_sizes_that_cannot_be_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ppbdl.InputError, match="sizes"):
        fit_sizes(sizes)


def test_a_fit_that_failed_is_left_out() -> None:
    tree = fit_sizes((10, 13))
    assert "planted" in tree["13 rows"].attrs["failure"]
    assert d.learning_curve(tree).index.tolist() == [10]
    del tree["10 rows"]
    with pytest.raises(d.DiagnosticsError, match="did not fail"):
        d.learning_curve(tree)


def test_a_fit_that_failed_midway_is_left_out() -> None:
    tree = fit_sizes((10, 40))
    tree["40 rows"].attrs["failure"] = "NaN at step 7."
    assert d.learning_curve(tree).index.tolist() == [10]


def test_fits_of_one_size_are_refused() -> None:
    tree = fit_sizes((10, 40))
    tree["again"] = tree["10 rows"].copy()
    with pytest.raises(d.DiagnosticsError, match="different numbers of rows"):
        d.learning_curve(tree)


def test_a_tree_of_another_library_counts_its_rows(make_classes: Make) -> None:
    fits = {name: make_classes() for name in ("small", "large")}
    for fit in fits.values():
        del fit.attrs["n_train"]
    for group in ("observed_data", "log_likelihood", "posterior_predictive", "constant_data"):
        fits["small"][group] = xr.DataTree(fits["small"][group].to_dataset().isel(row=slice(50)))
    table = d.learning_curve(xr.DataTree.from_dict({f"/{n}": fit for n, fit in fits.items()}))
    assert table.index.tolist() == [50, 150]
    for fit in fits.values():
        del fit["observed_data"]
    with pytest.raises(d.DiagnosticsError, match="n_train"):
        d.learning_curve(fits["small"])


def test_the_picture_stacks_what_the_table_holds(tree: xr.DataTree) -> None:
    table = d.learning_curve(tree)
    split, score = d.plot_learning_curve(table).axes
    low, high = (part.get_paths()[0].vertices for part in split.collections)
    assert low[:, 1].max() == pytest.approx(table["aleatoric"].max())
    assert high[:, 1].max() == pytest.approx(table["total"].max())
    assert [label.get_text() for label in score.get_xticklabels()] == ["10", "40", "160"]
    line = score.lines[0].get_xydata()
    np.testing.assert_allclose(line, np.column_stack([table.index, table["elpd"]]))
    with pytest.raises(d.DiagnosticsError, match="two sizes"):
        d.plot_learning_curve(table[:1])


def test_the_curve_loads_no_plotting_library() -> None:
    code = "import sys, ppbdl.diagnostics.learning; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
