"""Variational autoencoders against what is known exactly: probabilistic PCA."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro.handlers import seed
from scipy import stats

import ppbdl
from ppbdl import models as m
from ppbdl.errors import InputError
from ppbdl.models import VAE, Convolutional, Dense, Normal
from ppbdl.posterior import at_draw, one_draw

NOISE = 0.5


def low_rank(rows: int, seed: int) -> np.ndarray:
    """Five features that two hidden ones drive, with noise of standard deviation one half."""
    rng = np.random.default_rng(seed)
    load = np.random.default_rng(9).normal(size=(2, 5)) * [[2.0], [1.0]]
    return rng.normal(size=(rows, 2)) @ load + NOISE * rng.normal(size=(rows, 5)) + 0.3


Y = low_rank(500, 0)


def pca_optimum(y: np.ndarray, latent: int) -> float:
    """Mean log likelihood of the best y ~ N(b, W W' + noise^2 I): Tipping and Bishop (1999)."""
    values = np.linalg.eigvalsh(np.cov(y.T, bias=True))[::-1]
    fitted = np.where(np.arange(len(values)) < latent, np.maximum(values, NOISE**2), NOISE**2)
    return -0.5 * float(np.sum(np.log(2 * np.pi * fitted) + values / fitted))


def exact(vae: VAE, posterior: ppbdl.Posterior, y: np.ndarray) -> np.ndarray:
    """log p(y) of a linear decoder."""
    origin, *ends = np.asarray(vae.decode(posterior, np.eye(3, 2, -1)).mean)
    loads = np.array(ends) - origin
    covariance = loads.T @ loads + NOISE**2 * np.eye(5)
    return stats.multivariate_normal(origin, covariance).logpdf(y)


LINEAR = VAE((5,), latent=2, likelihood=Normal(NOISE), networks=Dense(()))


@functools.cache
def fitted(vae: VAE = LINEAR, steps: int = 5000) -> ppbdl.Posterior:
    rate = optax.exponential_decay(5e-2, 1000, 0.5)
    svi = ppbdl.SVI(vae.guide, optax.adam(rate), steps=steps, draws=1)
    return ppbdl.fit(0, vae, ppbdl.Data(None, Y), svi, progress=False)


def test_a_linear_vae_reaches_the_optimum_of_probabilistic_pca() -> None:
    posterior = fitted()
    best = pca_optimum(Y, 2)
    reached = exact(LINEAR, posterior, Y).mean()
    assert best - 0.01 < reached < best + 1e-5
    # The bound is tight there: the exact posterior is a normal that the encoder can give.
    bound = -posterior.losses[0, -500:].mean() / len(Y)
    assert best - 0.03 < bound < best + 0.03


def test_the_marginal_is_exact_by_importance_sampling() -> None:
    posterior = fitted(steps=600)  # an encoder that is not there yet
    log_p, error = LINEAR.log_marginal(1, posterior, Y[:50], samples=20_000)
    off = (log_p - exact(LINEAR, posterior, Y[:50])) / error
    assert abs(off).max() < 5  # the largest of 50 normal z: beyond 5 once in 30,000 runs
    assert error.max() < 0.1
    fewer, _ = LINEAR.log_marginal(1, posterior, Y[:50], samples=5)
    assert fewer.mean() < log_p.mean()  # the bound is tighter with more samples


def test_annealing_finds_what_a_poor_encoder_misses() -> None:
    """Its weights are right (5 standard errors of 50 rows: once in 30,000), and vary less."""
    posterior, y = fitted(steps=20), Y[:50]
    truth = exact(LINEAR, posterior, y)
    plain, _ = LINEAR.log_marginal(1, posterior, y, samples=20)
    found, error = LINEAR.log_marginal(1, posterior, y, samples=20, temperatures=50)
    assert abs((found - truth) / (error + 1e-3)).max() < 5
    assert abs(found - truth).mean() < 0.2 * abs(plain - truth).mean()
    assert LINEAR.log_marginal(1, posterior, y, samples=20, temperatures=200)[1].max() < error.max()


def clusters(rows: int, seed: int) -> np.ndarray:
    """Two clusters on a line in five dimensions: what no standard normal code looks like."""
    rng = np.random.default_rng(seed)
    side = np.where(rng.uniform(size=(rows, 1)) < 0.5, -2.0, 2.0)
    return (side + 0.3 * rng.normal(size=(rows, 1))) * np.ones(5) / 2 + 0.5 * rng.normal(
        size=(rows, 5)
    )


CODES = {
    "diagonal": {},
    "full": {"posterior": m.FullNormal()},
    "IAF": {"posterior": m.FlowPosterior(functools.partial(m.IAF, layers=2, width=8))},
    "planar": {
        "posterior": m.FlowPosterior(functools.partial(m.PlanarFlow, layers=2, samples=True), 4)
    },
    "Sylvester": {
        "posterior": m.FlowPosterior(functools.partial(m.SylvesterFlow, layers=2, samples=True), 4)
    },
    "ladder": {"posterior": m.LadderPosterior(1, 8), "prior": m.LadderPrior(1, 8)},
    "mixture": {"prior": m.MixturePrior(4)},
    "VampPrior": {"prior": m.VampPrior(4)},
    "flow prior": {"prior": m.FlowPrior(functools.partial(m.MAF, layers=1, width=8))},
}


@pytest.mark.parametrize("name", CODES)
def test_the_marginal_agrees_with_quadrature_over_the_code(name: str) -> None:
    one = name not in ("IAF", "flow prior", "Sylvester", "ladder")  # of two features or more
    vae = VAE((5,), 1 if one else 2, Normal(NOISE), Dense((8,)), **CODES[name])
    y = clusters(200, 0)
    svi = ppbdl.SVI(vae.guide, optax.adam(1e-2), steps=600, draws=1)
    posterior = ppbdl.fit(0, vae, ppbdl.Data(None, y), svi, progress=False)
    drawn = one_draw(posterior)
    ticks = jnp.linspace(-12, 12, 4001 if one else 241)
    z = ticks[:, None] if one else jnp.stack(jnp.meshgrid(ticks, ticks), -1).reshape(-1, 2)
    log_prior = at_draw(vae._prior, drawn)(None).log_prob(z)
    cell = jnp.log(ticks[1] - ticks[0]) * vae.latent
    np.testing.assert_allclose(jax.nn.logsumexp(log_prior + cell), 0.0, atol=1e-3)
    log_lik = jax.vmap(lambda row: vae.decode(posterior, z).log_prob(row))(jnp.asarray(y[:40]))
    truth = jax.nn.logsumexp(log_lik + log_prior + cell, axis=1)
    found, error = vae.log_marginal(1, posterior, y[:40], samples=4000)
    # From below where the weights' tail is heavy, and then by more than their spread tells.
    assert error.max() < 0.3
    assert (found - truth < 6 * error + 1e-3).all()
    assert -0.05 < (found - truth).mean() < 0.01
    # The codes that the encoder gives are where the exact posterior puts them, on average.
    weight = jax.nn.softmax(log_lik + log_prior, axis=1)
    draws = vae.encode(posterior, y[:40]).sample(jax.random.key(2), (4000,)).mean(0)
    assert abs(draws - weight @ z).mean() < 0.25 * draws.std()


def test_a_prior_of_its_own_explains_clusters_better() -> None:
    train, test = clusters(400, 0), clusters(400, 1)

    def score(**codes: object) -> float:
        vae = VAE((5,), 1, Normal(NOISE), Dense(()), **codes)
        svi = ppbdl.SVI(vae.guide, optax.adam(2e-2), steps=2000, draws=1)
        posterior = ppbdl.fit(0, vae, ppbdl.Data(None, train), svi, progress=False)
        return vae.log_marginal(1, posterior, test, samples=500)[0].mean()

    assert score(prior=m.MixturePrior(4)) > score() + 0.1  # measured: by 0.4 nats


LIKELIHOODS = {
    "Bernoulli": (m.Bernoulli(), lambda u: u > 0.6),
    "continuous Bernoulli": (m.ContinuousBernoulli(), lambda u: u),
    "categorical": (m.Categorical(3), lambda u: np.floor(3 * u)),
    "discretised logistic": (m.DiscretizedLogistic(16), lambda u: np.floor(16 * u)),
    "normal, learned noise": (Normal(), lambda u: u),
    "normal, noise of its own": (m.HeteroscedasticNormal(), lambda u: u),
}


CONVOLUTIONS = [(name, Convolutional((8, 8), 32)) for name in ("Bernoulli", "discretised logistic")]


@pytest.mark.parametrize(
    ("name", "networks"), [*((name, Dense((16,))) for name in LIKELIHOODS), *CONVOLUTIONS]
)
def test_images_of_each_likelihood_are_learned(name: str, networks: object) -> None:
    likelihood, to_pixels = LIKELIHOODS[name]
    rng = np.random.default_rng(0)
    tone = rng.uniform(size=(120, 1, 1, 1))
    y = to_pixels(np.clip(tone + 0.05 * rng.normal(size=(120, 4, 4, 1)), 0, 0.999))
    y = y.astype(int) if name in ("Bernoulli", "categorical", "discretised logistic") else y
    vae = VAE((4, 4, 1), 2, likelihood, networks)
    svi = ppbdl.SVI(vae.guide, optax.adam(5e-3), steps=300, draws=2)
    data = ppbdl.Data(None, y)
    posterior = ppbdl.fit(0, vae, data, svi, progress=False)
    assert posterior.losses[0, -20:].mean() < 0.8 * posterior.losses[0, :5].mean()
    again = vae.reconstruct(posterior, data.y)
    assert again.shape == (120, 4, 4, 1)
    if name != "categorical":  # whose levels have no mean
        tones = np.mean(np.asarray(again), (1, 2, 3)), data.y.mean((1, 2, 3))
        assert np.corrcoef(*tones)[0, 1] > 0.8
    drawn = vae.sample(1, posterior, rows=7)
    assert drawn.shape == (7, 4, 4, 1)
    assert np.isfinite(vae.log_marginal(2, posterior, data.y[:5], samples=10)[0]).all()
    assert np.isfinite(np.asarray(vae.decode(posterior, jnp.zeros((1, 2))).log_prob(y[:1]))).all()


def test_only_what_was_seen_counts_and_the_rest_is_filled_in() -> None:
    seen = np.random.default_rng(3).uniform(size=Y.shape) < 0.7
    vae = VAE((5,), 2, Normal(NOISE), Dense((32,)))
    svi = ppbdl.SVI(vae.guide, optax.adam(1e-2), steps=2000, draws=1)
    posterior = ppbdl.fit(0, vae, ppbdl.Data(seen * 1.0, Y), svi, progress=False)
    other = np.where(seen, Y, 99.0)
    scores = [vae.log_marginal(1, posterior, y, seen, samples=20)[0] for y in (Y, other)]
    np.testing.assert_allclose(*scores, rtol=1e-5)
    filled = np.asarray(vae.reconstruct(posterior, other, seen))[~seen]
    spread = np.broadcast_to(Y.mean(0), Y.shape)[~seen]
    assert np.mean((filled - Y[~seen]) ** 2) < 0.6 * np.mean((spread - Y[~seen]) ** 2)


@pytest.mark.parametrize(
    ("x", "y", "word"),
    [(None, np.zeros((4, 6)), "y"), (np.ones((4, 3)), np.zeros((4, 5)), "x")],
)
def test_rows_of_another_shape_are_refused(x: object, y: np.ndarray, word: str) -> None:
    with pytest.raises(InputError, match=word):
        ppbdl.fit(0, LINEAR, ppbdl.Data(x, y), ppbdl.SVI(LINEAR.guide, steps=1), progress=False)


def test_an_image_that_cannot_be_halved_is_refused() -> None:
    vae = VAE((6, 6, 1), networks=Convolutional((4, 4), 8))
    data = ppbdl.Data(None, np.zeros((3, 6, 6, 1), int))
    with pytest.raises(InputError, match="divisible by 4"):
        ppbdl.fit(0, vae, data, ppbdl.SVI(vae.guide, steps=1), progress=False)


@pytest.mark.parametrize("logit", [-60.0, -8.0, -0.11, -0.09, 0.0, 1e-3, 0.09, 3.0, 60.0])
def test_the_continuous_bernoulli_is_a_density_with_its_moments(logit: float) -> None:
    fn = m.ContinuousBernoulli().distribution(jnp.asarray([logit]))
    y = np.linspace(0, 1, 100_001)
    density = np.exp(np.asarray(fn.log_prob(jnp.asarray(y)), float))
    mean = np.trapezoid(density * y, y)
    np.testing.assert_allclose(np.trapezoid(density, y), 1.0, atol=2e-5)
    np.testing.assert_allclose(fn.mean, mean, rtol=1e-4)
    variance = np.trapezoid(density * (y - mean) ** 2, y)
    np.testing.assert_allclose(fn.variance, variance, rtol=1e-3)
    draws = np.asarray(fn.sample(jax.random.key(0), (40_000,)))
    assert abs(draws.mean() - mean) < 5 * np.sqrt(variance / 40_000)
    slope = jax.grad(lambda f: m.ContinuousBernoulli().distribution(f[None]).log_prob(0.3))(
        jnp.asarray(logit)
    )
    np.testing.assert_allclose(slope, 0.3 - mean, atol=1e-4)  # of an exponential family


@pytest.mark.parametrize("raw", [(0.3, 0.0), (-1.2, -3.0), (0.9, 2.0), (0.0, -50.0)])
def test_the_levels_of_a_discretised_logistic_have_a_total_of_one(raw: tuple[float, float]) -> None:
    fn = m.DiscretizedLogistic(16).distribution(jnp.asarray(raw))
    mass = np.exp(np.asarray(fn.log_prob(jnp.arange(16)), float))
    np.testing.assert_allclose(mass.sum(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(fn.mean, (mass * np.arange(16)).sum(), rtol=1e-4)
    scale = np.exp(np.clip(raw[1] - np.log(4), -7, 7))  # by the logistic distribution function
    ends = stats.logistic.cdf((2 * (np.arange(1, 16) - 0.5) / 15 - 1 - raw[0]) / scale)
    truth = np.diff(np.concatenate([[0.0], ends, [1.0]]))
    np.testing.assert_allclose(mass, truth, atol=5e-5)
    counts = np.bincount(np.asarray(fn.sample(jax.random.key(0), (20_000,))), minlength=16)
    assert abs(counts / 20_000 - truth).max() < 5 * np.sqrt(0.25 / 20_000)
    assert np.isfinite(
        jax.grad(lambda r: m.DiscretizedLogistic(16).distribution(r).log_prob(3))(jnp.asarray(raw))
    ).all()


def test_a_fit_of_standardised_rows_is_refused_by_the_verbs() -> None:
    data = ppbdl.Data(None, Y).standardized()
    svi = ppbdl.SVI(LINEAR.guide, steps=2)
    with pytest.raises(InputError, match="standardised"):
        ppbdl.fit(0, LINEAR, data, svi, progress=False)
    posterior = svi.run(jax.random.key(0), LINEAR, data)
    with pytest.raises(InputError, match="standardised"):
        LINEAR.encode(posterior, Y)
    with pytest.raises(InputError, match="chain"):
        LINEAR.encode(fitted(steps=600), Y, chain=3)


@pytest.mark.parametrize("code", [m.DiagonalNormal(), m.FullNormal(), m.LadderPosterior(1, 4)])
@pytest.mark.parametrize("size", [1e3, -1e3])
def test_an_encoder_that_is_thrown_off_leaves_the_bound_finite(code: Any, size: float) -> None:
    raw = jnp.full((2, code.numbers(2)), size)

    def bound(raw: Any) -> Any:
        with seed(rng_seed=0):
            q = code.build(raw, 2)
            z = q.sample(jax.random.key(0))
        return (jax.scipy.stats.norm.logpdf(z).sum(-1) - q.log_prob(z)).sum()

    value, slope = jax.value_and_grad(bound)(raw)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_a_fit_of_another_model_is_refused() -> None:
    other = VAE((5,), 2, Normal(NOISE), Dense(()), prior=m.MixturePrior(3))
    with pytest.raises(ppbdl.ModelError, match=r"prior\$params"):
        other.sample(0, fitted(steps=600), rows=2)


def test_scores_are_of_values_that_the_likelihood_knows() -> None:
    y = np.random.default_rng(0).uniform(size=(60, 4))
    vae = VAE((4,), networks=Dense((4,)))
    svi = ppbdl.SVI(vae.guide, steps=5, draws=1)
    posterior = ppbdl.fit(0, vae, ppbdl.Data(None, (y > 0.5) * 1), svi, progress=False)
    with pytest.raises(ppbdl.DataError, match="240 outside it"):
        vae.log_marginal(1, posterior, y, samples=2)
    seen = np.ones(y.shape)
    seen[:, 1:] = 0
    with pytest.raises(ppbdl.DataError, match="60 outside it"):
        ppbdl.fit(0, vae, ppbdl.Data(seen, y), svi, progress=False)
