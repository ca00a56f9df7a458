"""Labels, counts and shapes that a likelihood cannot have are refused before any compiling."""

import haiku as hk
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ppbdl
from ppbdl.models import (
    BNN,
    VAE,
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Dense,
    DiscretizedLogistic,
    LinearRegression,
    Poisson,
)

X = np.linspace(-1, 1, 20)[:, None]


@pytest.mark.parametrize(
    ("likelihood", "y", "message"),
    [
        (Bernoulli(), [0, 1, 2, 1], "5 outside it, the first in row 2: 2"),
        (Bernoulli(), [0, 0.5, 1, 1], "5 outside it, the first in row 1: 0.5"),
        (Bernoulli(), [-1, 1, 1, 1], "5 outside it, the first in row 0: -1"),
        (Categorical(3), [0, 1, 2, 3], "5 outside it, the first in row 3: 3"),
        (Categorical(3), [0, -1, 2, 2], "5 outside it, the first in row 1: -1"),
        (Categorical(3), [0.0, 1.0, 2.0, 2.0], "integers.*float"),
        (Poisson(), [0, -1, 2, 2], "5 outside it, the first in row 1: -1"),
        (Poisson(), [0, 1.5, 2, 2], "5 outside it, the first in row 1: 1.5"),
    ],
)
def test_labels_outside_the_support_are_refused(likelihood, y, message):
    outputs = getattr(likelihood, "classes", 1)
    model = BNN(lambda x: hk.Linear(outputs)(x), likelihood=likelihood)
    with pytest.raises(ppbdl.DataError, match=message):
        ppbdl.fit(0, model, ppbdl.Data(X, np.array(y * 5)), ppbdl.MAP(steps=5), progress=False)


@pytest.mark.parametrize(
    ("likelihood", "wrong", "message"),
    [
        (Bernoulli(), 0.5, "1 outside it, the first in row 3: 0.5.*ContinuousBernoulli"),
        (ContinuousBernoulli(), 255.0, "1 outside it, the first in row 3: 255.0"),
        (DiscretizedLogistic(256), 256, "1 outside it, the first in row 3: 256"),
    ],
)
def test_a_pixel_outside_the_support_is_refused(likelihood, wrong, message):
    vae = VAE((2, 2, 1), likelihood=likelihood, networks=Dense((4,)))
    y = np.zeros((20, 2, 2, 1), type(wrong))
    y[3, 1, 0, 0] = wrong
    with pytest.raises(ppbdl.DataError, match=message):
        ppbdl.fit(0, vae, ppbdl.Data(None, y), ppbdl.SVI(vae.guide, steps=1), progress=False)
    seen = np.ones(y.shape)
    seen[3] = 0.0  # what was not seen may be anything
    ppbdl.fit(0, vae, ppbdl.Data(seen, y), ppbdl.SVI(vae.guide, steps=1), progress=False)


def test_a_held_out_label_outside_the_support_is_refused():
    model = BNN(lambda x: hk.Linear(2)(x), likelihood=Categorical(2))
    data = ppbdl.Data(X, np.arange(20) % 2)
    posterior = ppbdl.fit(0, model, data, ppbdl.MAP(steps=5), progress=False)
    with pytest.raises(ppbdl.DataError, match="row 7: 2"):
        ppbdl.log_likelihood(0, model, posterior, ppbdl.Data(X[:8], np.array([0] * 7 + [2])))


@pytest.mark.parametrize("plate", [True, False])
def test_a_mean_that_would_broadcast_over_the_rows_is_refused(plate):
    def model(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([1, 1]).to_event(2))
        if plate:
            with numpyro.plate("data", x.shape[0]):
                numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)
        else:
            numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    with pytest.raises(ppbdl.ModelError, match=r"\[:, 0\]"):
        ppbdl.fit(0, model, ppbdl.Data(X, X[:, 0]), ppbdl.MAP(steps=5), progress=False)


def test_a_guide_without_a_latent_is_refused():
    data, svi = ppbdl.Data(X, X[:, 0]), ppbdl.SVI(lambda x, y=None: None, steps=5)
    with pytest.raises(ppbdl.ModelError, match="intercept"):
        ppbdl.fit(0, LinearRegression(), data, svi, progress=False)


def test_a_standardised_test_set_is_told_from_a_raw_one():
    raw = ppbdl.Data(X, 3 + 50 * X[:, 0])
    model, fitted = LinearRegression(noise=0.1), raw.standardized()
    posterior = ppbdl.fit(0, model, fitted, ppbdl.MAP(steps=50), progress=False)
    given = [ppbdl.to_datatree(1, model, posterior, fitted, test=test) for test in (raw, fitted)]
    for group, name in (("uncertainty", "mean"), ("predictions_observed_data", "y")):
        one, other = (tree[group][name].values for tree in given)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(
        ppbdl.predict(0, model, posterior, fitted).mean,
        ppbdl.predict(0, model, posterior, X).mean,
        rtol=1e-5,
        atol=1e-4,
    )


def test_a_standardised_y_of_several_sites_is_refused():
    """The one scale of y would be given back to each of them."""

    def model(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 1))
        with numpyro.plate("data", x.shape[0]):
            for i, name in enumerate("ab"):
                fn = dist.Normal(w * x[:, 0], 1.0)
                numpyro.sample(name, fn, obs=None if y is None else y[:, i])

    data = ppbdl.Data(X, np.concatenate([X, 9 * X], axis=1))
    assert ppbdl.fit(0, model, data, ppbdl.MAP(steps=5), progress=False).observed == ("a", "b")
    with pytest.raises(ppbdl.ModelError, match="dict"):
        ppbdl.fit(0, model, data.standardized(), ppbdl.MAP(steps=5), progress=False)
