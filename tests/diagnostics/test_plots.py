"""What the figures show: every mark where the arrays say, and no legend over it."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest

from ppbdl import diagnostics as d

CLASSES = ["bag", "boot", "shirt"]
RNG = np.random.default_rng(0)
SCORES = {
    "point": (RNG.gamma(1.0, size=400), RNG.gamma(3.0, size=100)),
    "VI": (RNG.gamma(1.0, size=400), RNG.gamma(5.0, size=100)),
}
DRAWS = {"point": RNG.dirichlet(np.ones(3), (1, 2)), "VI": RNG.dirichlet(np.ones(3), (500, 2))}
ANGLE = np.linspace(0.0, 180.0, 19)
# The third class never matters.
SWEEP = {name: RNG.dirichlet([9.0, 9.0, 0.5], (draws, 19)) for name, draws in (("a", 8), ("b", 40))}
CURVES = {
    name: d.rejection_curve(RNG.uniform(size=200) < 0.8, RNG.normal(size=200)) for name in "abcde"
}
FIGURES = {
    "scores": lambda: d.plot_scores(SCORES, "entropy, nats"),
    "scores of one": lambda: d.plot_scores({"VI": SCORES["VI"]}, "entropy, nats"),
    "rejection": lambda: d.plot_rejection(CURVES),
    "draws": lambda: d.plot_class_draws(DRAWS, ["boot", "sneaker"], CLASSES),
    "draws of one": lambda: d.plot_class_draws({"VI": DRAWS["VI"]}, ["x", "y"], CLASSES),
    "sweep": lambda: d.plot_sweep(SWEEP, ANGLE, "angle, degrees", CLASSES),
    "sweep of one": lambda: d.plot_sweep({"b": SWEEP["b"]}, ANGLE, "angle, degrees", CLASSES),
}


def legend_of(figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_covered_or_cut_and_the_callers_style_stays(name: str) -> None:
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    open_before, style = plt.get_fignums(), dict(mpl.rcParams)
    figure = FIGURES[name]()
    figure.savefig(io.BytesIO(), format="png")
    assert plt.get_fignums() == open_before
    assert dict(mpl.rcParams) == style
    legend, page = figure.legends[0].get_window_extent(), figure.bbox
    assert page.x0 <= legend.x0
    assert legend.x1 <= page.x1
    for axes in figure.axes:
        assert not legend.overlaps(axes.get_tightbbox())
        assert axes.get_tightbbox().y0 >= page.y0 - 1
        assert axes.get_tightbbox().y1 <= page.y1 + 1
        assert axes.bbox.width > 100


def test_scores_are_shares_with_the_threshold() -> None:
    figure = FIGURES["scores"]()
    assert legend_of(figure) == ["known", "novel", "rejects 5% of the known"]
    assert figure.axes[0].get_ylabel() == "share of rows, root scale"
    for axes, (name, (known, novel)) in zip(figure.axes, SCORES.items(), strict=True):
        found = d.separation(known, novel)
        assert axes.get_title() == f"{name}\nAUROC {found.auroc:.3f}"
        assert axes.get_xlabel() == "entropy, nats"
        assert axes.lines[0].get_xdata() == pytest.approx([found.threshold] * 2)
        (bars,) = axes.containers
        edges = [bar.get_x() for bar in bars] + [bars[-1].get_x() + bars[-1].get_width()]
        outline = axes.patches[-1].get_xy()[1:-1:2, 1]
        for side, heights in ((known, [bar.get_height() for bar in bars]), (novel, outline)):
            assert sum(heights) == pytest.approx(1)
            # Edges come back rounded, which may move a row or two to the next bin.
            np.testing.assert_allclose(heights, np.histogram(side, edges)[0] / len(side), atol=0.02)


def test_equal_scores_have_no_threshold_to_draw() -> None:
    figure = d.plot_scores({"point": (np.zeros(9), np.zeros(3))}, "mutual information, nats")
    figure.savefig(io.BytesIO(), format="png")
    assert legend_of(figure) == ["known", "novel"]


def test_a_rejection_curve_is_a_line_each() -> None:
    figure = FIGURES["rejection"]()
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "share of rows rejected", "accuracy of the rows kept")  # fmt: skip
    assert legend_of(figure) == [f"{name}, area {c.area:.3f}" for name, c in CURVES.items()]
    for line, curve in zip(axes.lines, CURVES.values(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), curve.accuracy[: len(line.get_ydata())])
        assert line.get_xdata()[-1] == pytest.approx(0.99)
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 5


def test_draws_are_dots_about_their_mean() -> None:
    figure = FIGURES["draws"]()
    grid = np.array(figure.axes).reshape(2, 2)
    assert [axes.get_title() for axes in grid[0]] == ["point", "VI"]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["boot", "sneaker"]
    assert [axes.get_xlabel() for axes in grid[1]] == ["class probability"] * 2
    assert [text.get_text() for text in grid[0, 0].get_yticklabels()] == CLASSES
    assert legend_of(figure) == ["a draw", "90% of the draws", "mean"]
    for column, probs in enumerate(DRAWS.values()):
        for row in range(2):
            marks = {c.get_label(): c for c in grid[row, column].collections}
            dots, mean = marks["a draw"].get_offsets(), marks["mean"].get_offsets()
            assert len(dots) == 3 * min(len(probs), 200)
            assert set(dots[:, 0]) <= set(probs[:, row].ravel())
            np.testing.assert_array_equal(np.unique(np.rint(dots[:, 1])), [0, 1, 2])
            np.testing.assert_allclose(mean[:, 0], probs[:, row].mean(axis=0))
            bars = [bar[:, 0] for bar in marks["90% of the draws"].get_segments()]
            np.testing.assert_allclose(bars, np.quantile(probs[:, row], [0.05, 0.95], axis=0).T)


def test_a_sweep_has_a_mean_and_a_band_for_each_class_that_matters() -> None:
    figure = FIGURES["sweep"]()
    assert legend_of(figure) == ["bag", "boot", "other classes"]
    assert figure.legends[0].get_title().get_text() == "mean and 90% band"
    for axes, (name, probs) in zip(figure.axes, SWEEP.items(), strict=True):
        assert (axes.get_title(), axes.get_xlabel()) == (name, "angle, degrees")
        assert len(axes.lines) == 3
        for line in axes.lines:
            which = [*CLASSES[:2], "other classes"].index(line.get_label())
            np.testing.assert_allclose(line.get_ydata(), probs[..., which].mean(axis=0))
            np.testing.assert_array_equal(line.get_xdata(), ANGLE)
        for which, band in enumerate(axes.collections):
            ends = np.quantile(probs[..., which], [0.05, 0.95], axis=0)
            ordinates = band.get_paths()[0].vertices[:, 1]
            assert (ordinates.min(), ordinates.max()) == pytest.approx((ends.min(), ends.max()))
        assert len(axes.collections) == 2


def test_fidelity_has_a_dot_for_each_positive_number_in_rows_by_the_first_measure() -> None:
    far = {"NUTS": 0.0, "MAP": 0.3, "VI": 0.02, "failed": np.nan}
    seconds = {"NUTS": 60.0, "MAP": 2.0, "VI": 4.0, "Laplace": 3.0}
    figure = d.plot_fidelity({"total variation": far, "seconds": seconds})
    figure.savefig(io.BytesIO(), format="png")
    rows = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert rows == ["NUTS", "failed", "Laplace", "VI", "MAP"]
    top, bottom = figure.axes[0].get_ylim()[::-1]
    assert top < 0 < len(rows) - 1 < bottom
    for axes, measure in zip(figure.axes, (far, seconds), strict=True):
        (dots,) = axes.collections
        found = {rows[int(y)]: x for x, y in dots.get_offsets()}
        assert found == {name: value for name, value in measure.items() if value > 0}
        assert axes.get_xscale() == "log"
        low, high = axes.get_xlim()
        assert low < min(found.values())
        assert max(found.values()) < high
        assert any(low <= tick <= high for tick in axes.get_xticks())
        assert axes.get_tightbbox().x1 <= figure.bbox.x1 + 1
    assert [axes.get_xlabel() for axes in figure.axes] == ["total variation", "seconds"]
    assert figure.axes[0].get_tightbbox().x0 >= figure.bbox.x0 - 1


def test_a_number_far_beyond_the_others_is_written() -> None:
    far = {"MAP": 0.2, "VI": 0.1, "SWAG": 0.3, "Laplace": 2e7}
    (axes,) = d.plot_fidelity({"Wasserstein": far}).axes
    assert len(axes.collections[0].get_offsets()) == 3
    assert [text.get_text() for text in axes.texts] == ["2e+07 ▶"]
    assert axes.get_xlim()[1] < 1


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: d.plot_scores({}, "entropy"), "scores"),
        (lambda: d.plot_scores({"VI": (np.ones(2), np.array([]))}, "entropy"), "novel"),
        (lambda: d.plot_rejection({}), "curves"),
        (lambda: d.plot_class_draws({}, ["boot"], CLASSES), "draws"),
        (lambda: d.plot_class_draws(DRAWS, ["boot"], CLASSES), "draws['point']"),
        (lambda: d.plot_class_draws({"VI": np.ones((2, 3))}, ["boot"], CLASSES), "draws['VI']"),
        (lambda: d.plot_sweep(SWEEP, ANGLE[1:], "angle", CLASSES), "draws['a']"),
        (lambda: d.plot_sweep({}, ANGLE, "angle", CLASSES), "draws"),
        (lambda: d.plot_fidelity({}), "measures"),
        (lambda: d.plot_fidelity({"seconds": {"MAP": 0.0}}), "measures['seconds']"),
    ],
)
def test_shapes_are_checked(call: Callable, argument: str) -> None:
    with pytest.raises(d.DiagnosticsError) as caught:
        call()
    assert caught.value.argument == argument
