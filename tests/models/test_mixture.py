"""Gaussian mixtures: a known one is found again, and a single component is a Gaussian."""

import numpy as np
import optax
import pytest
from scipy import stats

import ppbdl
from ppbdl.models import GaussianMixture

CENTRES = np.array([[-2.0, 0.0], [2.0, 1.0], [0.0, -3.0]])
SPREAD = np.array([[0.5, 0.3], [0.3, 0.4]])
FADING = optax.adam(optax.cosine_decay_schedule(0.05, 400))


def rows(number, key):
    rng = np.random.default_rng(key)
    which = rng.choice(3, number, p=[0.5, 0.3, 0.2])
    return CENTRES[which] + rng.multivariate_normal(np.zeros(2), SPREAD, number)


@pytest.mark.parametrize("key", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2))])
def test_it_finds_a_known_mixture(key):
    """Within 0.05 nats of the exact log density of 2,000 new rows; weights within 0.05."""
    model = GaussianMixture(features=2, components=3)
    data = ppbdl.Data(None, rows(1500, 0)).standardized()
    posterior = ppbdl.fit(key, model, data, ppbdl.MAP(FADING, 400), progress=False)
    new = rows(2000, 1)
    scores = ppbdl.log_likelihood(1, model, posterior, ppbdl.Data(None, new))["y"][0, 0]
    each = [stats.multivariate_normal(c, SPREAD).pdf(new) for c in CENTRES]
    exact = np.log(np.tensordot([0.5, 0.3, 0.2], each, 1))
    assert abs((exact - scores).mean()) < 0.05
    found = np.sort(posterior.draws["weights"][0, 0])
    np.testing.assert_allclose(found, [0.2, 0.3, 0.5], atol=0.05)


def test_one_component_is_a_gaussian():
    y = np.random.default_rng(0).multivariate_normal(np.zeros(3), np.eye(3) + 0.5, 800)
    model, data = GaussianMixture(features=3, components=1), ppbdl.Data(None, y)
    posterior = ppbdl.fit(0, model, data, ppbdl.MAP(FADING, 400), progress=False)
    tril = posterior.draws["scale_tril"][0, 0, 0]
    np.testing.assert_allclose(tril @ tril.T, np.cov(y.T, bias=True), atol=0.03)
    prediction = ppbdl.predict(0, model, posterior, np.empty((1, 0)))
    np.testing.assert_allclose(prediction.mean[0], y.mean(0), atol=0.01)


@pytest.mark.parametrize("features", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_it_may_be_bayesian_or_an_ensemble(features):
    y = rows(80, 0)[:, :features]
    model, data = GaussianMixture(features, components=2), ppbdl.Data(None, y).standardized()
    brief = optax.adam(1e-2)
    for method in (
        ppbdl.SVI(optimizer=brief, steps=5, draws=4),
        ppbdl.Ensemble(ppbdl.MAP(brief, steps=5), members=2),
    ):
        posterior = ppbdl.fit(0, model, data, method, progress=False)
        scores = ppbdl.log_likelihood(1, model, posterior, ppbdl.Data(None, y))["y"]
        assert scores.shape == (*posterior.shape, 80)
        drawn = ppbdl.predict(1, model, posterior, np.empty((5, 0)), draws=True).draws["y"]
        assert drawn.shape == (*posterior.shape, 5, features)


def test_more_components_than_rows_that_differ():
    """The density of two distinct rows is unbounded; the prior keeps its maximum finite."""
    y = np.repeat([[0.0, 1.0], [1.0, 0.0]], 10, 0)
    model = GaussianMixture(features=2, components=4)
    posterior = ppbdl.fit(0, model, ppbdl.Data(None, y), ppbdl.MAP(FADING, 400), progress=False)
    # The prior pulls with exp(-(log s + 1)^2 / 2) against 10 rows: s^-10.
    assert (posterior.draws["scales"] > np.exp(-25)).all()


def test_bad_input_is_refused():
    model, brief = GaussianMixture(features=2, components=2), ppbdl.MAP(steps=2)
    with pytest.raises(ppbdl.InputError, match="components"):
        GaussianMixture(features=2, components=0)
    with pytest.raises(ppbdl.InputError, match=r"y: expected shape \(rows, 2\)"):
        ppbdl.fit(
            0,
            model,
            ppbdl.Data(None, np.random.default_rng(0).normal(size=(5, 3))),
            brief,
            progress=False,
        )
    with pytest.raises(ppbdl.InputError, match="x: expected no inputs"):
        ppbdl.fit(0, model, ppbdl.Data(np.zeros((5, 1)), rows(5, 0)), brief, progress=False)
