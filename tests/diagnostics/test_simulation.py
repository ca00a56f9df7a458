"""Simulation-based calibration: right ranks pass; bias and width are told apart."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

from ppbdl.diagnostics import checks
from ppbdl.diagnostics.checks import simulation


def tree_of(*ranks: np.ndarray) -> xr.DataTree:
    group = {f"theta{i}": (("chain", "draw"), p[None]) for i, p in enumerate(ranks)}
    return xr.DataTree.from_dict({"/prior_sbc": xr.Dataset(group)})


def gaussian(narrow: float, shift: float, simulations: int = 500, seed: int = 0) -> np.ndarray:
    """Ranks of a standard normal truth under an approximation of this sd, moved by `shift`."""
    truth = np.random.default_rng(seed).normal(size=simulations)
    return norm.cdf((truth - shift) / narrow)


def test_calibrated_methods_are_flagged_as_rarely_as_stated() -> None:
    """One of 100 in the long run: of 100 methods, more than 5 once in 2,000."""
    rng = np.random.default_rng(0)
    found = [checks.simulated_calibration(tree_of(*rng.uniform(size=(6, 200)))) for _ in range(100)]
    assert sum(outcome.verdict != "pass" for outcome in found) <= 5
    assert all(0 <= outcome.value <= 1 for outcome in found)


def test_symmetry_has_its_size_where_a_two_sample_test_has_not() -> None:
    """At 5 %, 400 symmetric samples, of which a tenth more alarm once in 100,000.

    The samples are not uniform: too narrow an approximation may be symmetric.
    """
    from scipy.stats import ks_2samp

    samples = [gaussian(0.5, 0.0, 200, seed) for seed in range(400)]
    alarms = np.mean([simulation._symmetry(p) < 0.05 for p in samples])
    assert alarms <= 0.10
    assert np.mean([ks_2samp(p, 1 - p).pvalue < 0.05 for p in samples]) > 0.12


@pytest.mark.parametrize(
    ("narrow", "shift", "words"),
    [
        (0.6, 0.0, ["theta1 are too narrow", "no bias is found"]),
        (1.8, 0.0, ["theta1 are too wide", "no bias is found"]),
        (1.0, 0.5, ["theta1 comes out too high", "a bias"]),
        (1.0, -0.5, ["theta1 comes out too low", "a bias"]),
        (0.4, 0.4, ["theta1 are too narrow", "and theta1 comes out too high"]),
    ],
)
def test_what_is_wrong_is_told(narrow: float, shift: float, words: list[str]) -> None:
    outcome = checks.simulated_calibration(
        tree_of(gaussian(1.0, 0.0, seed=1), gaussian(narrow, shift))
    )
    assert outcome.verdict == "fail"
    assert all(word in outcome.sentence for word in words)
    assert "1 of 2 quantities over 500 simulations" in outcome.sentence


def test_entries_have_their_names() -> None:
    p = np.random.default_rng(2).uniform(size=(1, 300, 2, 2))
    p[..., 1, 0] = gaussian(0.3, 0.0, 300)
    group = xr.Dataset({"w": (("chain", "draw", "a", "b"), p)})
    outcome = checks.simulated_calibration(xr.DataTree.from_dict({"/prior_sbc": group}))
    assert "The draws of w[1, 0] are too narrow" in outcome.sentence


def test_without_simulations_it_does_not_apply() -> None:
    ranks = np.random.default_rng(3).uniform(size=49)
    for tree in (xr.DataTree(), tree_of(ranks), tree_of(np.arange(500.0))):
        outcome = checks.simulated_calibration(tree)
        assert (outcome.verdict, outcome.value) == ("does not apply", None)


@pytest.mark.parametrize("draws", [99, 200, 1000])
@pytest.mark.parametrize("named", [True, False])
def test_ranks_on_a_grid_are_flagged_as_rarely_as_stated(draws: int, named: bool) -> None:
    """As others count them, share of draws below the truth, 0 and 1 among them: 1 in 100."""
    rng, flagged = np.random.default_rng(draws), 0
    for _ in range(60):
        tree = tree_of(*rng.integers(0, draws + 1, size=(4, 200)) / draws)
        tree.attrs = {"ranked_among": draws} if named else {}
        flagged += checks.simulated_calibration(tree).verdict != "pass"
    assert flagged <= 4  # more come once in 3,000 times


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("simulations", [50, 2000])
def test_a_grid_is_found_where_there_is_one(simulations: int, dtype: type) -> None:
    rng = np.random.default_rng(0)
    for draws in (20, 99, 1000):
        ranks = rng.integers(0, draws + 1, size=simulations) / draws
        assert simulation._grid(ranks.astype(dtype), 0) == draws
        assert simulation._grid(ranks.astype(dtype), draws) == draws
    # Those of ppbdl.sbc are continuous already.
    for named in (0, 63):
        assert simulation._grid(rng.uniform(size=simulations).astype(dtype), named) == 0


def test_one_quantity_is_singular_and_no_p_is_zero() -> None:
    good = checks.simulated_calibration(tree_of(np.random.default_rng(0).uniform(size=500)))
    assert "of 1 quantity over 500 simulations (p 0." in good.sentence
    bad = checks.simulated_calibration(tree_of(np.full(500, 0.001)))
    assert "(p under 1e-16; 1 of 1 quantity over 500 simulations departs)" in bad.sentence
