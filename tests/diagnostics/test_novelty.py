"""Scores of novelty and their separation, against definitions, closed forms and test vectors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from ppbdl import diagnostics as d

NAMES = ["nll of the top class", "entropy", "total variance"]
SOME = st.lists(st.integers(-8, 8), min_size=1, max_size=60).map(np.array)


def test_scores_of_the_test_vector() -> None:
    draws = np.array([[[0.9, 0.1]], [[0.5, 0.5]]])
    _, _, epistemic = d.entropy_split(draws)
    scores = d.novelty_scores(draws.mean(axis=0), epistemic)
    expected = [-np.log(0.7), 0.610864, 0.42, 0.101749]
    assert [float(score[0]) for score in scores.values()] == pytest.approx(expected, abs=1e-6)


def test_scores_are_their_definitions() -> None:
    draws = np.random.default_rng(0).dirichlet(np.full(5, 0.3), size=(20, 200))
    p = draws.mean(axis=0)
    scores = d.novelty_scores(p)
    assert list(scores) == NAMES
    np.testing.assert_allclose(scores["nll of the top class"], -np.log(p.max(axis=1)), atol=1e-12)
    np.testing.assert_allclose(scores["entropy"], d.entropy_split(draws)[0], atol=1e-12)
    trace = sum(np.trace(part, axis1=1, axis2=2) for part in d.kwon_matrices(draws))
    np.testing.assert_allclose(scores["total variance"], trace, atol=1e-12)


def test_energy_sees_what_the_softmax_takes_away() -> None:
    """Rows of equal probabilities, whose logits are the smaller the further off the row is."""
    logits = np.array([[9.0, 7.0], [4.0, 2.0], [0.0, -2.0]])
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    energy = -np.log(np.exp(logits).sum(axis=1))
    scores = d.novelty_scores(probs, energy=energy)
    assert list(scores) == [*NAMES, "energy"]
    np.testing.assert_array_equal(scores["energy"], energy)
    assert (np.diff(scores["energy"]) > 1).all()
    assert np.ptp(scores["entropy"]) < 1e-12
    with pytest.raises(d.DiagnosticsError, match="each of the 3 rows"):
        d.novelty_scores(probs, energy=energy[:2])


def test_scores_at_their_ends() -> None:
    scores = d.novelty_scores(np.array([[0.0, 1.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]]))
    most = [np.log(4), np.log(4), 0.75]
    for score, end in zip(scores.values(), most, strict=True):
        np.testing.assert_allclose(score, [0.0, end], atol=1e-15)


def test_rows_too_sure_for_any_precision_keep_their_order() -> None:
    probs = np.array([[1.0, 1e-30], [1.0, 1e-20], [1.0, 1e-9]], np.float32)
    assert (probs[:, 0] == 1).all()
    for score in d.novelty_scores(probs).values():
        assert (np.diff(score) > 0).all()


def test_probabilities_that_rounding_left_above_one_are_scaled() -> None:
    scores = d.novelty_scores(np.full((1, 300), 1.005 / 300))
    found = [float(score[0]) for score in scores.values()]
    assert found == pytest.approx([np.log(300), np.log(300), 1 - 1 / 300])


def test_a_tree_feeds_the_scores(classifications: xr.DataTree) -> None:
    split = d.decompose(classifications["NUTS"])
    scores = d.novelty_scores(split["probs"].values, split["epistemic"].values)
    np.testing.assert_allclose(scores["entropy"], split["total"].values, atol=1e-6)
    assert list(scores) == [*NAMES, "mutual information"]


def test_fpr95_of_the_test_vector() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.2, 0.1])
    novel = np.array([1, 0, 1, 0, 0, 1, 0], bool)
    found = d.separation(score[~novel], score[novel])
    assert found.fpr95 == 0.75
    # Recall after each novel row, in the order of the scores: 1/1, 2/3 and 3/6 of the flagged.
    assert found.aupr == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert (found.known, found.novel) == (4, 3)


def test_a_recall_of_exactly_95_percent_is_enough() -> None:
    found = d.separation(np.arange(10), np.r_[np.full(19, 7), -1])
    assert found.fpr95 == 0.3


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_two_normals(shift: float) -> None:
    """False alarm at most once in 50,000: three numbers, each within 4.5 standard errors.

    The AUROC's variance is at most A (1 - A) / rows (van Dantzig 1951); a rate at an estimated
    threshold has its own variance and, by the delta method, the threshold's.
    """
    rows, z = 20_000, norm.ppf(0.95)
    rng = np.random.default_rng(0)
    found = d.separation(rng.normal(size=rows), rng.normal(shift, size=rows))
    area = norm.cdf(shift / np.sqrt(2))
    assert abs(found.auroc - area) < 4.5 * np.sqrt(area * (1 - area) / rows)
    rate = norm.cdf(shift - z)
    slope = norm.pdf(shift - z) / norm.pdf(z)
    error = np.sqrt((rate * (1 - rate) + slope**2 * 0.05 * 0.95) / rows)
    assert abs(found.detected - rate) < 4.5 * error
    # By symmetry the known rows flagged at 95 % recall are the novel ones missed at 5 %.
    assert abs(found.fpr95 - (1 - rate)) < 4.5 * error


@given(SOME, SOME)
def test_auroc_is_the_chance_that_a_novel_row_scores_higher(known, novel) -> None:
    pairs = novel[:, None] - known[None]
    found = d.separation(known, novel)
    assert found.auroc == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
    assert found.auroc + d.separation(novel, known).auroc == pytest.approx(1)


@given(SOME, SOME, st.sampled_from([np.exp, np.arctan, lambda x: x**3 + 5.0]))
def test_only_the_order_counts(known, novel, monotone: Callable) -> None:
    before, after = d.separation(known, novel), d.separation(monotone(known), monotone(novel))
    for what in ("auroc", "aupr", "fpr95", "detected"):
        assert getattr(after, what) == getattr(before, what), what


@given(SOME, SOME)
def test_the_threshold_flags_what_it_says(known, novel) -> None:
    found = d.separation(known, novel)
    assert (novel >= found.threshold).mean() == found.detected
    assert (known >= found.threshold).mean() <= 0.05
    lower = np.concatenate([known, novel])
    lower = lower[lower < found.threshold]
    assert (known >= lower.max()).mean() > 0.05
    # FPR95 is the least that any threshold of enough recall lets through.
    enough = [(known >= t).mean() for t in novel if (novel >= t).mean() >= 0.95]
    assert found.fpr95 == min(enough)


def test_a_score_that_knows_nothing() -> None:
    found = d.separation(np.zeros(30), np.zeros(10))
    assert (found.auroc, found.aupr, found.fpr95) == (0.5, 0.25, 1.0)
    assert (found.detected, found.threshold) == (0.0, np.inf)


def test_ties_are_flagged_together_or_not_at_all() -> None:
    novel = np.array([94, 95, 99])
    alone = d.separation(np.arange(100), novel)
    assert (alone.detected, alone.threshold) == (2 / 3, 95)
    tied = np.where(np.arange(100) == 94, 95, np.arange(100))
    found = d.separation(tied, novel)
    assert (found.detected, found.threshold) == (1 / 3, 96)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: d.separation(np.array([]), np.ones(2)), "known"),
        (lambda: d.separation(np.ones(2), np.array([])), "novel"),
        (lambda: d.separation(np.array([1.0, np.nan]), np.ones(2)), "known"),
        (lambda: d.separation(np.ones(2), np.array([np.inf])), "novel"),
        (lambda: d.separation(np.ones(2), np.ones((2, 2))), "novel"),
        (lambda: d.novelty_scores(np.array([0.5, 0.5])), "probs"),
        (lambda: d.novelty_scores(np.empty((0, 3))), "probs"),
        (lambda: d.novelty_scores(np.array([[2.0, -1.0]])), "probs"),
        (lambda: d.novelty_scores(np.array([[0.2, 0.3]])), "probs"),
        (lambda: d.novelty_scores(np.array([[np.nan, 1.0]])), "probs"),
        (lambda: d.novelty_scores(np.full((2, 2), 0.5), np.zeros(3)), "mutual_information"),
        (lambda: d.novelty_scores(np.full((1, 2), 0.5), np.array([np.nan])), "mutual_information"),
    ],
)
def test_what_cannot_be_scored_is_refused(call: Callable, argument: str) -> None:
    with pytest.raises(d.DiagnosticsError) as caught:
        call()
    assert caught.value.argument == argument


def test_importing_loads_no_scikit_learn() -> None:
    code = "import sys, ppbdl.diagnostics; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
