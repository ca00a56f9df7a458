"""Scores and splits against closed forms and the published test vectors."""

from __future__ import annotations

import numpy as np
import pytest

from ppbdl import diagnostics as d

CASES = {
    "brier, two classes": (d.brier(np.array([0, 1]), np.array([[0.8, 0.2], [0.3, 0.7]])), 0.13),
    "brier, three classes": (
        d.brier(np.array([0, 2]), np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])), 0.52),
    "crps of N(0, 1) at 0": (d.crps_gaussian(0.0, 0.0, 1.0), (np.sqrt(2) - 1) / np.sqrt(np.pi)),
    "rmse": (d.rmse(np.array([1.0, 2.0]), np.array([0.0, 2.0])), np.sqrt(0.5)),
    "nll": (d.nll(np.array([1]), np.array([[0.75, 0.25]])), np.log(4)),
    "accuracy": (d.accuracy(np.array([0, 0]), np.array([[0.9, 0.1], [0.2, 0.8]])), 0.5),
    "sharpness": (d.sharpness(np.array([1.0, 9.0])), 2.0),
}  # fmt: skip
TWO = np.array([[0.9, 0.1], [0.5, 0.5]])


@pytest.mark.parametrize("name", CASES)
def test_vectors(name: str) -> None:
    found, expected = CASES[name]
    assert found == pytest.approx(expected, abs=1e-9)


def test_entropy_split_of_the_test_vector() -> None:
    total, aleatoric, epistemic = d.entropy_split(TWO)
    assert (total, aleatoric, epistemic) == pytest.approx((0.610864, 0.509115, 0.101749), abs=1e-6)


def test_kwon_matrices_of_the_test_vector() -> None:
    aleatoric, epistemic = d.kwon_matrices(TWO)
    np.testing.assert_allclose(np.diag(aleatoric), 0.17)
    np.testing.assert_allclose(np.diag(epistemic), 0.04)


def test_kwon_matrices_add_to_the_covariance_of_the_label() -> None:
    probs = np.random.default_rng(0).dirichlet(np.ones(4), size=(50, 3))
    aleatoric, epistemic = d.kwon_matrices(probs)
    p = probs.mean(axis=0)
    covariance = p[..., None] * np.eye(4) - p[:, :, None] * p[:, None]
    np.testing.assert_allclose(aleatoric + epistemic, covariance, atol=1e-14)
    for part, diagonal in zip((aleatoric, epistemic), d.kwon_diagonals(probs), strict=True):
        np.testing.assert_allclose(np.diagonal(part, axis1=1, axis2=2), diagonal, atol=1e-14)


def test_variance_split_is_the_law_of_total_variance() -> None:
    rng = np.random.default_rng(0)
    means, variances = rng.normal(size=(30, 4)), rng.gamma(2.0, size=(30, 4))
    aleatoric, epistemic = d.variance_split(means, variances)
    second_moment = (means**2 + variances).mean(axis=0)
    np.testing.assert_allclose(aleatoric + epistemic, second_moment - means.mean(axis=0) ** 2)


def test_crps_of_draws_is_its_definition_and_nears_the_closed_form() -> None:
    draws, y = np.random.default_rng(0).normal(size=(4000, 2)), np.array([0.0, 1.3])
    few = draws[:40]
    pairs = np.abs(few[:, None] - few[None]).mean(axis=(0, 1))
    np.testing.assert_allclose(d.crps(y, few), np.abs(few - y).mean(axis=0) - pairs / 2)
    np.testing.assert_allclose(d.crps(y, draws), d.crps_gaussian(y, 0.0, 1.0), atol=0.02)


def test_the_mixture_is_not_its_moments() -> None:
    means, y = np.array([[-3.0], [3.0]]), np.zeros(1)
    each = d.gaussian_log_score(y, means, np.ones((2, 1)))
    mixture = d.log_score(each)
    assert mixture == pytest.approx(-4.5 - 0.5 * np.log(2 * np.pi))
    assert d.gaussian_log_score(y, np.zeros(1), np.array([10.0])) > mixture


def test_ece_by_hand() -> None:
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    y = np.array([0, 1, 0, 0])
    assert d.ece(y, probs) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert d.adaptive_ece(y, probs, bins=2) == pytest.approx(0.4)


def test_pit_of_counts_is_uniform() -> None:
    """False alarm once in 10,000: Kolmogorov-Smirnov of 2,000 rows."""
    from scipy.stats import kstest

    rng = np.random.default_rng(1)
    values = d.pit(rng.poisson(1.5, size=2000), rng.poisson(1.5, size=(400, 2000)))
    assert kstest(values, "uniform").pvalue > 1e-4


def test_mismatched_rows_are_refused_with_a_remedy() -> None:
    with pytest.raises(d.DiagnosticsError, match=r"probs: expected .* 3 rows .* got 2"):
        d.nll(np.zeros(3), np.ones((2, 2)))
