"""Calibration on held-out rows: false-alarm rates as stated, and each fault by its name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from ppbdl import diagnostics as d
from ppbdl.diagnostics import checks

Make = Callable[..., xr.DataTree]


def predicted(
    y: np.ndarray, mean: float = 0.0, sd: float = 1.0, draws: int = 400, seed: int = 9
) -> xr.DataTree:
    """Return a fit that predicts the same normal distribution for every row."""
    dims = ("chain", "draw", "test_row")
    sampled = mean + sd * np.random.default_rng(seed).normal(size=(1, draws, len(y)))
    constant = np.ones_like(sampled)
    fit = xr.DataTree.from_dict(
        {
            "/predictions": xr.Dataset(
                {
                    "y": (dims, sampled),
                    "y_mean": (dims, mean * constant),
                    "y_variance": (dims, sd**2 * constant),
                }
            ),
            "/predictions_observed_data": xr.Dataset({"y": ("test_row", y)}),
        }
    )
    fit.attrs = {"observed": "y", "task": "regression", "kind": "implicit"}
    return fit


def test_calibrated_fits_are_flagged_as_rarely_as_stated() -> None:
    """At most 1% by coverage, 0.3% by PIT: of 200 fits, 2 and 0.6 are expected.

    More than 8 and 5 come by chance less than once in 4,000.
    """
    rng = np.random.default_rng(0)
    fits = [predicted(rng.normal(size=80), draws=200, seed=seed) for seed in range(200)]
    assert sum(checks.coverage_of_intervals(fit).verdict != "pass" for fit in fits) <= 8
    assert sum(checks.pit_uniformity(fit).verdict != "pass" for fit in fits) <= 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sd": 0.4}, "too narrow; errors are 2.5 times the stated sd"),
        ({"sd": 3.0}, "too wide; errors are 0.33 times the stated sd"),
        ({"mean": -1.0}, "above their predictions"),
        ({"mean": 1.0}, "below their predictions"),
    ],
)
def test_the_pit_names_the_fault(changes: dict[str, float], words: str) -> None:
    y = np.random.default_rng(1).normal(size=300)
    y = (y - y.mean()) / y.std()
    outcome = checks.pit_uniformity(predicted(y, **changes))
    assert outcome.verdict == "fail"
    assert words in outcome.sentence


def test_a_few_large_errors_ask_for_heavier_tails() -> None:
    """Nine of ten errors are half as large as stated, the tenth 2.7 times: their sd is right."""
    rng = np.random.default_rng(8)
    y = rng.normal(size=600) * np.where(np.arange(600) % 10, 0.5, 2.8)
    sentence = checks.pit_uniformity(predicted(y / y.std())).sentence
    assert "a few far outside; errors are 1 times the stated sd" in sentence
    assert "heavier tails" in sentence


def test_coverage_names_the_level_furthest_out() -> None:
    """Right in the middle, with tails too light: 5% of the rows lie far out, on top of the 5%."""
    rng = np.random.default_rng(2)
    y = rng.normal(size=2000)
    y[:160] = 9.0
    outcome = checks.coverage_of_intervals(predicted(y))
    assert outcome.verdict == "fail"
    assert outcome.sentence.startswith("95% intervals hold 8")
    assert "50%: " in outcome.sentence
    passed = checks.coverage_of_intervals(predicted(rng.normal(size=2000)))
    assert passed.sentence.startswith("90% intervals hold 9")


def test_classes_and_strangers_have_no_intervals(make_classes: Make) -> None:
    for fit in (make_classes(), xr.DataTree()):
        assert checks.pit_uniformity(fit).verdict == "does not apply"
        assert checks.pit_uniformity(fit).value is None


def test_an_overconfident_network_is_shown_its_temperature(make_classes: Make) -> None:
    sentence = checks.class_calibration(make_classes(sharpen=4.0)).sentence
    assert "overconfident" in sentence
    assert "temperature of" in sentence
    remedy = d.remedy_of(make_classes(sharpen=4.0))
    assert remedy.name == "temperature scaling"
    assert remedy.value == pytest.approx(4.0, rel=0.5)
    assert remedy.after["nll"] < remedy.before["nll"]
    assert (remedy.calibration_rows, remedy.test_rows) == (100, 100)
    # Binomial with 100 rows: outside once in 10,000.
    assert 0.76 <= remedy.after["coverage_90"] <= 1.0


def test_conformal_intervals_mend_a_wrong_noise_scale(make_fit: Make) -> None:
    narrow = d.remedy_of(make_fit(noise=0.1))
    assert narrow.name == "split conformal intervals"
    assert narrow.before["coverage_90"] < 0.6 < narrow.after["coverage_90"]
    assert narrow.after["interval_score_90"] < narrow.before["interval_score_90"]
    wide = d.remedy_of(make_fit(noise=4.0))
    assert wide.value < 0
    assert wide.after["width_90"] < 0.5 * wide.before["width_90"]


@pytest.mark.parametrize("tree", [xr.DataTree(), predicted(np.zeros(12))])
def test_no_remedy_without_rows(tree: xr.DataTree) -> None:
    assert d.remedy_of(tree) is None


def test_brier_parts_add_up_and_each_means_what_it_says() -> None:
    rng = np.random.default_rng(3)
    true = rng.dirichlet(np.ones(3), size=5000)
    y = (rng.uniform(size=(5000, 1)) > true.cumsum(axis=1)[:, :-1]).sum(axis=1)
    rates = np.bincount(y) / len(y)
    for probs in (true, true**3 / (true**3).sum(axis=1, keepdims=True), 0 * true + rates):
        parts = d.brier_decomposition(y, probs)
        total = parts.reliability - parts.resolution + parts.uncertainty + parts.within
        assert total == pytest.approx(d.brier(y, probs))
        assert parts.uncertainty == pytest.approx((rates * (1 - rates)).sum())
        assert abs(parts.within) < 0.01
    # The base rates alone: calibrated, and blind.
    assert (parts.reliability, parts.resolution) == pytest.approx((0, 0), abs=1e-12)
    assert d.brier_decomposition(y, true).reliability < 0.005
    sharp = true**3 / (true**3).sum(axis=1, keepdims=True)
    assert d.brier_decomposition(y, sharp).reliability > 0.02


def test_brier_parts_by_hand() -> None:
    """Murphy's two-class case: forecasts .2 (1 of 4 true) and .8 (3 of 4), each class alike."""
    p = np.repeat([0.2, 0.8], 4)
    y = np.array([1, 0, 0, 0, 1, 1, 1, 0])
    parts = d.brier_decomposition(y, np.stack([1 - p, p], axis=1))
    assert parts.reliability == pytest.approx(2 * 0.05**2)
    assert parts.resolution == pytest.approx(2 * 0.25**2)
    assert parts.uncertainty == pytest.approx(0.5)
    assert parts.within == pytest.approx(0.0, abs=1e-12)


def test_the_interval_score_is_least_at_the_true_quantiles() -> None:
    y = np.random.default_rng(4).normal(size=20_000)
    best = d.interval_score(y, np.full(len(y), -1.645), np.full(len(y), 1.645), 0.9).mean()
    for half in (1.2, 2.2):
        assert d.interval_score(y, np.full(len(y), -half), np.full(len(y), half)).mean() > best
    # Width plus 2 / 0.1 times twice E(z - 1.645)+ of one tail.
    tail = np.exp(-(1.645**2) / 2) / np.sqrt(2 * np.pi) - 1.645 * 0.05
    assert best == pytest.approx(2 * 1.645 + 20 * 2 * tail, rel=0.02)


def test_intervals_of_a_separation_hold_their_level() -> None:
    """95% intervals of an AUROC from 60 rows: 92 to 97% in the literature; under 85 of 100 by
    chance, at 0.93, once in 500."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(100):
        known, novel = rng.normal(size=60), 1 + rng.normal(size=60)
        low, high = d.separation_intervals(known, novel, resamples=100)["auroc"]
        held += low <= 0.7602 <= high  # Phi(1 / sqrt(2))
    assert held >= 85


def test_a_single_row_has_no_interval() -> None:
    with pytest.raises(d.DiagnosticsError, match="novel"):
        d.separation_intervals(np.arange(5.0), np.ones(1))
