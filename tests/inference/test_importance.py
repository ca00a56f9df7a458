"""The importance-weighted bound on a model whose marginal is known, and its gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import distributions as dist
from scipy import stats

import ppbdl
from ppbdl.errors import ModelError
from ppbdl.inference.elbo import AnalyticELBO
from ppbdl.inference.free_bits import FreeBits
from ppbdl.inference.importance import IWAE

ROWS = 30
Y = np.random.default_rng(0).normal(size=(ROWS, 2)) * 1.5
X = np.zeros((ROWS, 0))
# log p(y), y ~ N(0, I + 0.5^2 I); and a guide that is well off the exact posterior.
LOG_P = stats.norm(0, np.sqrt(1.25)).logpdf(Y).sum(1)
PARAMS = {"slope": jnp.asarray(0.5), "log_scale": jnp.asarray(-0.3), "shift": jnp.asarray(0.1)}


def model(x, y=None):
    shift = numpyro.param("shift", jnp.zeros(()))
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1), infer={"local": True})
        numpyro.sample("y", dist.Normal(z + shift, 0.5).to_event(1), obs=y)


def guide(x, y=None):
    slope = numpyro.param("slope", jnp.ones(()))
    scale = jnp.exp(numpyro.param("log_scale", jnp.zeros(())))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("z", dist.Normal(slope * y, scale).to_event(1))


def loss(params, key, particles, doubly=True):
    return IWAE(particles, doubly).loss(key, params, model, guide, jnp.asarray(X), jnp.asarray(Y))


def mean_loss(particles, repeats=4000):
    keys = jax.random.split(jax.random.key(particles), repeats)
    params = PARAMS | {"shift": jnp.zeros(())}
    found = np.asarray(jax.jit(jax.vmap(lambda key: loss(params, key, particles)))(keys), float)
    return found.mean(), found.std() / np.sqrt(repeats)


def test_the_bound_rises_to_the_marginal_with_the_number_of_draws():
    bounds = {k: mean_loss(k) for k in (1, 5, 50)}
    z = Y @ np.eye(2)
    # K = 1 is the evidence lower bound, in closed form.
    s, v = np.exp(-0.3), 0.25
    fit = stats.norm(0, 0.5).logpdf(z * 0.5).sum() - Y.size * s**2 / (2 * v)
    divergence = 0.5 * np.sum(s**2 + (0.5 * z) ** 2 - 1 + 0.6)
    mean, error = bounds[1]
    assert abs(-mean - (fit - divergence)) < 5 * error
    assert -bounds[1][0] < -bounds[5][0] < -bounds[50][0] < LOG_P.sum()
    assert LOG_P.sum() + bounds[50][0] < 0.1 * (LOG_P.sum() + bounds[1][0])


@pytest.mark.parametrize("particles", [1, 8])
def test_the_doubly_reparameterised_gradient_is_unbiased_and_varies_less(particles):
    keys = jax.random.split(jax.random.key(1), 20_000)

    def gradients(doubly):
        slope = jax.grad(lambda params, key: loss(params, key, particles, doubly))
        found = jax.jit(jax.vmap(lambda key: ravel_pytree(slope(PARAMS, key))[0]))(keys)
        return np.asarray(found, float)

    ours, plain = gradients(True), gradients(False)
    names = sorted(PARAMS)
    error = np.sqrt((ours.var(0) + plain.var(0)) / len(keys))
    assert (abs(ours.mean(0) - plain.mean(0)) < 5 * error).all()
    of_guide = [names.index(name) for name in ("log_scale", "slope")]
    assert (ours.std(0)[of_guide] < plain.std(0)[of_guide]).all()
    np.testing.assert_allclose(
        ours[:, names.index("shift")], plain[:, names.index("shift")], rtol=1e-3
    )


def test_a_fit_by_minibatches_reaches_the_exact_posterior():
    svi = ppbdl.SVI(
        guide,
        optax.adam(optax.exponential_decay(3e-2, 300, 0.5)),
        steps=1500,
        batch_size=10,
        loss=IWAE(5),
        draws=5,
    )
    posterior = ppbdl.fit(0, model, ppbdl.Data(None, Y), svi, progress=False)
    # q is the exact posterior where the bound is: its slope is 1 / 1.25, its variance 1 / 5.
    assert abs(float(posterior.params["slope"][0]) - 0.8) < 0.02
    assert abs(float(jnp.exp(posterior.params["log_scale"][0])) - np.sqrt(0.2)) < 0.01


def test_shared_latents_are_refused():
    def shared(x, y=None):
        noise = numpyro.sample("noise", dist.HalfNormal(1))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(0, noise).expand([2]).to_event(1), obs=y)

    svi = ppbdl.SVI(steps=2, loss=IWAE(3))
    with pytest.raises(ModelError, match="noise"):
        ppbdl.fit(0, shared, ppbdl.Data(None, Y), svi, progress=False)


def test_free_bits_are_the_bound_above_and_free_below():
    """At K = 1 and a tiny allowance it is the ELBO; at a large one the divergence has no say."""
    at = (jax.random.key(0), PARAMS, model, guide, jnp.asarray(X), jnp.asarray(Y))
    elbo = AnalyticELBO().loss(*at)
    np.testing.assert_allclose(FreeBits(1e-6).loss(*at), elbo, rtol=1e-5)
    s, m = np.exp(-0.3), 0.5 * Y
    each = 0.5 * (s**2 + m**2 - 1 + 0.6).mean(0)  # the mean divergence of each dimension
    between = each.mean()  # one dimension is above it, the other below
    gained = ROWS * (np.maximum(each, between) - each).sum()
    np.testing.assert_allclose(FreeBits(float(between)).loss(*at) - elbo, gained, rtol=1e-3)
    free = jax.grad(lambda params: FreeBits(50.0).loss(at[0], params, *at[2:]))(PARAMS)
    fit = jax.grad(lambda params: AnalyticELBO().loss(at[0], params, *at[2:]))(PARAMS)
    assert abs(float(free["log_scale"] - fit["log_scale"])) > 1  # the prior's pull is gone


def test_free_bits_weigh_a_minibatch():
    half = ppbdl.Data(None, Y)
    svi = ppbdl.SVI(guide, optax.sgd(0.0), steps=400, batch_size=10, draws=5, loss=FreeBits(1e-6))
    plain = ppbdl.SVI(guide, optax.sgd(0.0), steps=400, batch_size=10, draws=5)
    ours, theirs = (ppbdl.fit(0, model, half, s, progress=False).losses[0] for s in (svi, plain))
    assert abs(ours.mean() - theirs.mean()) < 1e-3 * abs(theirs.mean())


def test_free_bits_without_a_code_of_normals_are_refused():
    def flat(x, y=None):
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Uniform(-9, 9).expand([2]).to_event(1))
            numpyro.sample("y", dist.Normal(z, 0.5).to_event(1), obs=y)

    at = (jax.random.key(0), {}, flat, guide, jnp.asarray(X), jnp.asarray(Y))
    with pytest.raises(ModelError, match="Uniform"):
        FreeBits().loss(*at)
