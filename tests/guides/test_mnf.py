"""Multiplicative flows: the pair (W, z) has right importance weights, and z is as it should be."""

from dataclasses import replace

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.handlers import seed, trace
from scipy.special import logsumexp

import ppbdl
import ppbdl.models
from ppbdl.structure import inspect_model, shapes_of

RNG = np.random.default_rng(0)
NOISE = 1.5
X = RNG.normal(size=(12, 3))
X[:, 1] = 0.8 * X[:, 0] + 0.6 * X[:, 1]
DATA = ppbdl.Data(X, X @ [1.0, -1.0, 0.5] + NOISE * RNG.normal(size=12))


def linear(x, y=None):
    net = ppbdl.random_haiku_module("net", lambda x: hk.Linear(1)(x), dist.Normal(0, 1), x)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(net(x)[:, 0], NOISE), obs=y)


def adam(steps):
    return optax.adam(optax.cosine_decay_schedule(0.02, steps))


SVI = ppbdl.SVI(ppbdl.MNF(hidden=8), adam(3000), 3000, draws=20_000, loss=ppbdl.AnalyticELBO(8))


def log_evidence():
    design = np.column_stack([np.ones(12), X])
    covariance = design @ design.T + NOISE**2 * np.eye(12)
    _, log_det = np.linalg.slogdet(2 * np.pi * covariance)
    return -0.5 * (DATA.y @ np.linalg.solve(covariance, np.float64(DATA.y)) + log_det)


@pytest.fixture(scope="module")
def posterior():
    return ppbdl.fit(0, linear, DATA, SVI, progress=False)


def log_weights(posterior):
    scores = ppbdl.log_likelihood(1, linear, posterior, DATA)["y"].sum(-1)
    return np.float64(scores + np.asarray(posterior.stats["log_prior"] - posterior.stats["log_q"]))


def test_importance_weights_give_the_evidence(posterior):
    """Their mean is p(y) whatever q, z's flow and r are, if all densities are right: within 5
    standard errors of the closed form, 6 false alarms in 10^7."""
    assert posterior.provenance.kind == "density"
    weights = log_weights(posterior)
    relative = np.exp(weights - logsumexp(weights) + np.log(weights.size))
    error = relative.std() / np.sqrt(weights.size)
    assert error < 0.05
    assert abs(logsumexp(weights) - np.log(weights.size) - log_evidence()) < 5 * error


def test_the_loss_is_minus_the_weights_mean(posterior):
    """The objective has closed-form divergences, the weights have not: over 4,000 keys and 20,000
    draws within 5 standard errors."""
    structure = inspect_model(linear, shapes_of(DATA))
    guide = SVI.guide.bind(linear, structure)
    params, loss = jax.tree.map(lambda a: a[0], dict(posterior.params)), ppbdl.AnalyticELBO()
    one = jax.jit(lambda key: loss.loss(key, params, linear, guide, DATA.x, DATA.y))
    losses = jax.lax.map(one, jax.random.split(jax.random.key(5), 4000))
    weights = log_weights(posterior)
    error = np.hypot(losses.std() / np.sqrt(4000), weights.std() / np.sqrt(weights.size))
    assert error < 0.1
    assert abs(losses.mean() + weights.mean()) < 5 * error


def test_the_bound_is_mean_fields_or_tighter(posterior):
    """Mean field is the member of the family with a constant z; 0.1 nats for the optimiser."""
    mean_field = ppbdl.fit(0, linear, DATA, replace(SVI, guide=ppbdl.AutoNormal), progress=False)
    assert log_weights(posterior).mean() > log_weights(mean_field).mean() - 0.1


@pytest.mark.parametrize("estimator", [ppbdl.flipout, ppbdl.local_reparameterization])
def test_estimators_keep_its_bound(posterior, estimator):
    """They draw the outputs otherwise, given the same z: the loss at the optimum stays."""
    method = replace(SVI, estimator=estimator, draws=1)
    losses = ppbdl.fit(0, linear, DATA, method, progress=False).losses[0, -500:]
    assert abs(losses.mean() - posterior.losses[0, -500:].mean()) < 0.2


def convolutional(x):
    x = jax.nn.relu(hk.Conv2D(4, 3)(x)).mean((1, 2))
    return hk.Linear(3)(x)


def test_a_convolution_has_a_factor_for_each_channel():
    images = ppbdl.Data(RNG.normal(size=(6, 5, 5, 2)), np.arange(6) % 3)
    model = ppbdl.models.BNN(convolutional, likelihood=ppbdl.models.Categorical(3))
    structure = inspect_model(model, shapes_of(images))
    guide = ppbdl.MNF(hidden=8).bind(model, structure)
    sites = trace(seed(guide, 0)).get_trace(images.x, images.y)
    assert sites["net.conv2_d.w.z"]["value"].shape == (4,)
    assert sites["net.linear.w.z"]["value"].shape == (4,)  # its inputs
    for name, along in (("net.conv2_d.w", 3), ("net.linear.w", 0)):
        z = sites[f"{name}.z"]["value"]
        loc = sites[name]["fn"].base_dist.loc
        plain = structure.unflatten(sites["auto_loc"]["value"])[name]
        np.testing.assert_allclose(
            loc, plain * np.expand_dims(z, [a for a in range(loc.ndim) if a != along]), rtol=1e-5
        )
    posterior = ppbdl.fit(0, model, images, replace(SVI, steps=3, draws=4), progress=False)
    assert np.isfinite(posterior.losses).all()
    assert posterior.draws["net.conv2_d.w"].shape == (1, 4, 3, 3, 2, 4)


def test_z_is_shared_by_a_unit_s_weights():
    """Two outputs of one input move together: at a large spread of z the correlation shows.

    Of 4,000 draws a correlation errs by 0.016; 0.5 is far beyond chance.
    """

    def two(x, y=None):
        net = ppbdl.random_haiku_module(
            "net", lambda x: hk.Linear(2, with_bias=False)(x), dist.Normal(0, 1), x
        )
        numpyro.sample("y", dist.Normal(net(x), 1.0).to_event(1), obs=y)

    data = ppbdl.Data(X, np.zeros((12, 2)))
    guide = ppbdl.MNF(hidden=8).bind(two, inspect_model(two, shapes_of(data)))
    params = {
        "auto_loc": jnp.ones(6),
        "auto_scale": jnp.full(6, 0.1),
        "net.linear.w.z_scale": jnp.ones(3),
    }
    draw = jax.jit(
        lambda key: trace(seed(numpyro.handlers.substitute(guide, params), key)).get_trace(
            data.x, data.y
        )["net.linear.w"]["value"]
    )
    draws = np.stack([draw(key) for key in jax.random.split(jax.random.key(0), 4000)])
    correlation = np.corrcoef(draws.reshape(4000, 6).T)
    assert correlation[0, 1] > 0.5  # the same input
    assert abs(correlation[0, 2]) < 0.1  # another's, before the flow has learned


def test_a_model_without_a_matrix_is_refused():
    with pytest.raises(ppbdl.ModelError, match="for MNF, a model with a weight matrix"):
        ppbdl.fit(0, ppbdl.models.LinearRegression(), DATA, SVI, progress=False)


def test_settings_are_checked():
    for wrong in ({"num_flows": 0}, {"hidden": 1.5}, {"init_scale": -1.0}):
        with pytest.raises(ppbdl.InputError):
            ppbdl.MNF(**wrong)
