"""Glow and RealNVP of images: exact densities at every scale, and a start that standardises."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpyro.handlers import seed, substitute, trace

import ppbdl
from ppbdl.models import Glow, ImageRealNVP

Y = 3 + 2 * np.random.default_rng(0).normal(size=(40, 4, 4, 1))
SMALL = Glow((4, 4, 1), levels=2, steps=2, width=4, prior=dist.Normal(0.0, 0.3))
BRIEF = optax.adam(1e-3)


def declared(model, y=None, x=None):
    return seed(model.flow, 0)(jnp.zeros((1, 0)) if x is None else x, y)


CHECKERED = ImageRealNVP((4, 4, 1), levels=2, steps=2, width=4, prior=dist.Normal(0.0, 0.3))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("model", "context"),
    [(SMALL, 2), pytest.param(SMALL, 0, marks=pytest.mark.slow), (CHECKERED, 2)],
    ids=["Glow", "Glow without context", "RealNVP"],
)
def test_its_log_determinant_is_the_jacobians(model, context):
    x = jnp.ones((1, context))
    flow = declared(model, jnp.asarray(Y[:1]), x)
    y = jnp.asarray(Y[:1])
    z = flow.inverse(y)
    np.testing.assert_allclose(flow.forward(z), y, atol=1e-9)
    jacobian = jax.jacfwd(lambda v: flow.inverse(v.reshape(y.shape)).ravel())(y.ravel())
    truth = dist.Normal(0, 1).log_prob(z).sum() + jnp.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(flow.log_prob(y).sum(), truth, rtol=1e-9)


@pytest.mark.parametrize("model", [SMALL, CHECKERED], ids=["Glow", "RealNVP"])
def test_all_pixels_meet(model):
    """Two levels of two steps with random weights leave every z a function of many y."""
    flow = declared(model)
    jacobian = jax.jacfwd(lambda v: flow.inverse(v.reshape(1, 4, 4, 1)).ravel())(jnp.ones(16))
    assert (abs(jacobian).max(1) > 0).all()
    assert (abs(jacobian) > 1e-6).mean() > 0.5


def test_it_starts_where_the_data_are_standardised():
    """z of the first batch has mean 0 and variance 1 in each channel of the first level."""
    model = Glow((4, 4, 1), levels=1, steps=2, width=4)
    z = declared(model, Y).inverse(Y)
    blocks = np.asarray(z).reshape(40, 2, 2, 2, 2, 1)
    np.testing.assert_allclose(blocks.mean((0, 1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(blocks.std((0, 1, 3)), 1, atol=1e-4)
    assert abs(np.asarray(declared(model).inverse(Y)).mean() - 3) < 0.5  # without data it does not


def test_28_pixels_have_two_levels():
    model = Glow((28, 28, 1), levels=2, steps=1, width=4)
    flow = declared(model, x=jnp.zeros((2, 0)))
    y = jax.random.normal(jax.random.key(0), (2, 28, 28, 1))
    np.testing.assert_allclose(flow.forward(flow.inverse(y)), y, atol=1e-4)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(ppbdl.MAP(BRIEF, steps=5), marks=pytest.mark.slow),
        ppbdl.SVI(optimizer=BRIEF, steps=5, draws=2),
        pytest.param(ppbdl.Ensemble(ppbdl.MAP(BRIEF, steps=5), members=2), marks=pytest.mark.slow),
    ],
    ids=["map", "bayesian", "ensemble"],
)
def test_every_method_fits_it(method, tmp_path):
    prior = dist.Normal(0.0, 0.3) if isinstance(method, ppbdl.SVI) else None
    model, data = Glow((4, 4, 1), levels=1, steps=2, width=4, prior=prior), ppbdl.Data(None, Y)
    posterior = ppbdl.fit(0, model, data, method, progress=False)
    ppbdl.save(posterior, tmp_path / "fit")
    posterior = ppbdl.load(tmp_path / "fit")
    chains, draws = posterior.shape
    scores = ppbdl.log_likelihood(1, model, posterior, data)["y"]
    assert scores.shape == (chains, draws, 40)
    flow = model.fitted(posterior, chain=chains - 1, draw=draws - 1)
    np.testing.assert_allclose(flow.log_prob(Y), scores[-1, -1], atol=1e-2)
    drawn = ppbdl.predict(1, model, posterior, np.empty((3, 0)), draws=True).draws["y"]
    assert drawn.shape == (chains, draws, 3, 4, 4, 1)


def test_it_learns_that_neighbours_agree():
    """Images of one grey level and a little noise: a Gaussian, whose density is known."""
    rng = np.random.default_rng(0)
    y = 0.8 * rng.normal(size=(2000, 1, 1, 1)) + 0.6 * rng.normal(size=(2000, 4, 4, 1))
    model = Glow((4, 4, 1), levels=2, steps=2, width=8)
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, 300))
    method = ppbdl.MAP(adam, 300, batch_size=200)
    posterior = ppbdl.fit(0, model, ppbdl.Data(None, y[:1000]), method, progress=False)
    test = ppbdl.Data(None, y[1000:])
    score = ppbdl.log_likelihood(1, model, posterior, test)["y"].mean()
    covariance = 0.64 + 0.36 * np.eye(16)
    exact = -np.linalg.slogdet(2 * np.pi * np.e * covariance)[1] / 2
    independent = -8 * np.log(2 * np.pi * np.e)
    assert independent + 3 < score < exact + 0.5  # 6.2 nats lie between; the flow has to find half


@pytest.mark.parametrize("shape", [(6, 4, 1), (4, 6, 3), (4, 4)])
def test_a_shape_that_cannot_be_halved_is_refused(shape):
    with pytest.raises(ppbdl.InputError, match="shape"):
        Glow(shape, levels=2)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ppbdl.InputError, match="y: expected images"):
        ppbdl.fit(0, SMALL, ppbdl.Data(None, Y[:, :2]), ppbdl.MAP(steps=1), progress=False)


def test_parameters_are_found_again():
    """With its parameters substituted the density of the data does not move."""
    sites = trace(seed(SMALL, 0)).get_trace(jnp.zeros((40, 0)), Y)
    values = {n: s["value"] for n, s in sites.items() if s["type"] in ("param", "sample")}
    again = trace(substitute(seed(SMALL, 1), data=values)).get_trace(jnp.zeros((40, 0)))
    np.testing.assert_allclose(
        again["y"]["fn"].log_prob(Y), sites["y"]["fn"].log_prob(Y), rtol=1e-4
    )


def test_one_coupling_of_a_kind_would_leave_pixels_where_they_are():
    with pytest.raises(ppbdl.InputError, match="steps"):
        ImageRealNVP((4, 4, 1), steps=1)
