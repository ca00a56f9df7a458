"""Conditional autoencoders against a conditional density that is known, and of images."""

from __future__ import annotations

import numpy as np
import optax
import pytest
from scipy import stats

import ppbdl
from ppbdl import models as m
from ppbdl.errors import InputError
from ppbdl.models import CVAE, SCVAE, Convolutional, Dense, Normal

NOISE = 0.4
SLOPE = np.array([[1.0, -0.5, 0.0, 0.3]])
LOADS = np.array([[0.8, 0.8, -0.8, 0.0]])


def given_a_number(rows: int, seed: int) -> ppbdl.Data:
    """Four numbers that follow x, and a hidden one besides."""
    rng = np.random.default_rng(seed)
    x, t = rng.normal(size=(2, rows, 1))
    return ppbdl.Data(x, x @ SLOPE + t @ LOADS + NOISE * rng.normal(size=(rows, 4)))


@pytest.mark.parametrize("prior", [None, m.StandardNormal()])
def test_a_linear_one_reaches_the_exact_conditional(prior: object) -> None:
    train, test = given_a_number(1500, 0), given_a_number(400, 1)
    cvae = CVAE((4,), 2, Normal(NOISE), Dense(()), m.FullNormal(), prior=prior, given=(1,))
    rate = optax.cosine_decay_schedule(2e-2, 4000)
    svi = ppbdl.SVI(cvae.guide, optax.adam(rate), steps=4000, batch_size=300, draws=500)
    posterior = ppbdl.fit(0, cvae, train, svi, progress=False)
    truth = stats.multivariate_normal(np.zeros(4), LOADS.T @ LOADS + NOISE**2 * np.eye(4)).logpdf(
        test.y - test.x @ SLOPE
    )
    found, error = cvae.log_marginal(1, posterior, test.y, test.x, samples=300)
    # Seven fitted numbers or so cost 1/2 each of 1,500 rows: .003 nats; held out as much again.
    assert (found - truth).mean() == pytest.approx(0, abs=0.03)
    assert error.max() < 0.3
    moments = ppbdl.predict(2, cvae, posterior, test.x[:50])
    assert abs(moments.mean - test.x[:50] @ SLOPE).max() < 0.25
    sd = np.sqrt((LOADS**2).sum(0) + NOISE**2)
    draws = np.asarray(cvae.sample(3, posterior, test.x[:50], draws=400))
    assert draws.shape == (400, 50, 4)
    assert (draws - test.x[:50] @ SLOPE).std((0, 1)) == pytest.approx(sd, rel=0.1)


def test_two_answers_to_one_question_are_both_given() -> None:
    rng = np.random.default_rng(0)
    x, side = rng.uniform(0.5, 1, size=(600, 1)), rng.choice([-1, 1], size=(600, 1))
    cvae = CVAE((2,), 1, Normal(0.1), Dense((32,)), given=(1,))
    svi = ppbdl.SVI(cvae.guide, optax.adam(3e-3), steps=2500, batch_size=200, draws=1)
    posterior = ppbdl.fit(0, cvae, ppbdl.Data(x, side * x * np.ones(2)), svi, progress=False)
    draws = np.asarray(cvae.sample(1, posterior, np.array([[0.8]]), draws=200))[:, 0].mean(1)
    assert 0.3 < (draws > 0).mean() < 0.7
    assert np.median(abs(draws)) == pytest.approx(0.8, abs=0.15)
    assert (abs(draws) < 0.3).mean() < 0.15


@pytest.mark.parametrize("given", [(4, 4, 1), (3,)])
def test_images_are_given_images_or_numbers(given: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(60, *given))
    y = (rng.uniform(size=(60, 4, 4, 2)) < x.mean(tuple(range(1, x.ndim)))[:, None, None, None]) * 1
    cvae = CVAE((4, 4, 2), networks=Convolutional((4,), 8), given=given)
    svi = ppbdl.SVI(cvae.guide, steps=30, batch_size=20, draws=1)
    posterior = ppbdl.fit(0, cvae, ppbdl.Data(x, y), svi, progress=False)
    assert cvae.encode(posterior, y, x).mean.shape == (60, 2)
    assert cvae.reconstruct(posterior, y, x).shape == y.shape
    assert cvae.sample(1, posterior, x[:3], draws=2).shape == (2, 3, 4, 4, 2)
    assert np.isfinite(cvae.log_marginal(1, posterior, y[:5], x[:5], samples=4)[0]).all()


CONDITIONAL = CVAE((4,), given=(1,))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda: CVAE((4,), given=(1,), prior=m.VampPrior(3)), "prior"),
        (lambda: CVAE((4,), given=(0,)), "given[0]"),
        (lambda: CONDITIONAL(np.zeros((3, 2)), np.zeros((3, 4))), "x"),
        (lambda: CONDITIONAL(np.zeros((3, 1)), np.zeros((3, 5))), "y"),
        (lambda: SCVAE((4, 4, 1), sensors=((0, 1, 0),)), "sensors"),
        (lambda: SCVAE((4, 4, 1), sensors=((0, 1), (0,))), "sensors"),
        (lambda: SCVAE((4,), sensors=(1.5,)), "sensors"),
        (lambda: SCVAE((4,), sensors=(1, 2))(np.zeros((3, 3)), np.zeros((3, 4))), "x"),
        (lambda: m.VAE((4,), 2, posterior=m.LadderPosterior(2)).guide(np.zeros((3, 0)), 0), "y"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: object, word: str) -> None:
    with pytest.raises(InputError) as caught:
        wrong()
    assert caught.value.argument == word


def test_images_of_two_sizes_are_refused_by_convolutions() -> None:
    cvae = CVAE((4, 4, 1), networks=Convolutional((4,), 8), given=(2, 2, 1))
    data = ppbdl.Data(np.zeros((3, 2, 2, 1)), np.zeros((3, 4, 4, 1), int))
    with pytest.raises(InputError, match="given"):
        ppbdl.fit(0, cvae, data, ppbdl.SVI(cvae.guide, steps=1), progress=False)
