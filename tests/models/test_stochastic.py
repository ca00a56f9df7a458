"""Stochastic hidden units: bounds in closed form, several modes, and beside its two rivals."""

import functools

import haiku as hk
import jax
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import RenyiELBO
from scipy import stats
from scipy.special import logsumexp

import ppbdl
from ppbdl.models import BNN, Normal, StochasticUnits

NOISE = 0.2
RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (200, 1))
LINE = ppbdl.Data(X, 1 + X[:, 0] + np.sqrt(0.6**2 + NOISE**2) * RNG.normal(size=200))
GAUSSIAN = StochasticUnits(
    lambda x: hk.Linear(2)(x), lambda h: hk.Linear(1)(h), Normal(noise=NOISE)
)
MANY = RenyiELBO(alpha=0, num_particles=20)
FADING = optax.adam(optax.cosine_decay_schedule(0.03, 1500))


@functools.cache
def fitted(model, data, loss, draws=500):
    svi = ppbdl.SVI(model.guide, FADING, 1500, draws=draws, loss=loss)
    return ppbdl.fit(0, model, data, svi, progress=False)


def moments(posterior):
    """With linear maps y given x is normal: its mean given h's mean, and h's part of its sd."""
    weights = {
        f"{net}.{leaf}": np.float64(a[0])
        for net in ("encoder", "decoder")
        for leaf, a in posterior.params[f"{net}$params"].items()
    }
    units = X @ weights["encoder.linear.w"] + weights["encoder.linear.b"]
    slope, offset = weights["decoder.linear.w"][0, 0], weights["decoder.linear.b"][0]
    return slope * units[:, 0] + offset, abs(slope) * np.logaddexp(0, units[:, 1])


ONE = ppbdl.AnalyticELBO()


@pytest.mark.parametrize("loss", [ONE, MANY], ids=["one draw", "many draws"])
def test_the_density_of_rows(loss):
    """Over 4,000 draws of h, its mean is within 5 of its errors (and 0.01) of the exact density
    N(y; mean, sd^2 + noise^2) for each of 200 rows: 1 false alarm in 10,000."""
    posterior = fitted(GAUSSIAN, LINE, loss, draws=4000)
    mean, sd = moments(posterior)
    exact = stats.norm.pdf(LINE.y, mean, np.hypot(sd, NOISE))
    scores = ppbdl.log_likelihood(1, GAUSSIAN, posterior, LINE, guide=GAUSSIAN.guide)["y"]
    weights = np.exp(np.float64(scores[0]))
    error = weights.std(0) / np.sqrt(len(weights))
    assert (abs(weights.mean(0) - exact) < 5 * error + 0.01 * exact).all()


def test_the_default_loss_bounds_the_evidence_and_lets_the_noise_collapse():
    """E log p(y | h) = log N(y; mean, noise^2) - sd^2 / (2 noise^2), which is greatest at sd = 0;
    a last bit of sd is left by a softplus that has 1,500 steps to fall."""
    posterior = fitted(GAUSSIAN, LINE, ONE, draws=4000)
    mean, sd = moments(posterior)
    bound = stats.norm.logpdf(LINE.y, mean, NOISE).sum() - (sd**2).sum() / (2 * NOISE**2)
    evidence = stats.norm.logpdf(LINE.y, mean, np.hypot(sd, NOISE)).sum()
    last = -posterior.losses[0, -100:]
    assert abs(last.mean() - bound) < 5 * last.std() / 10 + 0.5
    assert bound < evidence
    assert sd.max() < 0.25 * 0.6


def widest_bound(sd, noise, draws):
    """The total sd that maximises the bound of several draws for y ~ N(0, sd^2), by simulation."""
    units, y = RNG.normal(size=(5000, draws)), sd * RNG.normal(size=5000)
    scales = np.arange(0.02, 2 * sd, 0.02)
    bounds = [
        logsumexp(-0.5 * ((y[:, None] - scale * units) / noise) ** 2, axis=1).mean()
        for scale in scales
    ]
    return np.hypot(scales[np.argmax(bounds)], noise)


def test_several_draws_keep_the_noise():
    """Somewhat too much of it, as their bound wants: 13 % at 20 draws.  Estimated from 200 rows
    it has an error of 5 %: within 20 % is four of them; the collapsed network's is 70 % less."""
    mean, sd = moments(fitted(GAUSSIAN, LINE, MANY, draws=4000))
    best = widest_bound(np.hypot(0.6, NOISE), NOISE, MANY.num_particles)
    assert 1.03 < best / np.hypot(0.6, NOISE) < 1.25
    assert abs(np.hypot(sd, NOISE).mean() / best - 1) < 0.2
    assert abs(mean - 1 - X[:, 0]).max() < 0.25  # a line of 200 rows, within four errors


def root_data(rows):
    """Two modes, y = sqrt(x) and y = -sqrt(x), as often; nothing lies between."""
    x = RNG.uniform(0.2, 1, (rows, 1))
    sign = RNG.choice([-1, 1], rows)
    return ppbdl.Data(x, sign * np.sqrt(x[:, 0]) + 0.05 * RNG.normal(size=rows))


ROOTS, MORE = root_data(200), root_data(200)


def mlp(outputs):
    return lambda inputs: hk.nets.MLP([20, outputs], activation=jax.nn.tanh)(inputs)


UNITS = StochasticUnits(mlp(4), mlp(1), Normal(noise=0.1))


def elpd(model, posterior, data, guide=None):
    scores = ppbdl.log_likelihood(1, model, posterior, data, guide=guide)["y"]
    flat = np.float64(scores).reshape(-1, data.rows)
    return (logsumexp(flat, axis=0) - np.log(len(flat))).mean()


def test_two_modes():
    """A deterministic network of the same noise predicts their middle, where there is nothing;
    of both modes with a noise of 0.1 the mean log density can be 0.56 nats a row."""
    posterior = fitted(UNITS, ROOTS, MANY)
    y = ppbdl.predict(1, UNITS, posterior, np.array([[0.4], [0.8]]), draws=True).draws["y"][0]
    assert (abs((y > 0).mean(0) - 0.5) < 0.2).all()
    np.testing.assert_allclose(np.median(abs(y), axis=0), np.sqrt([0.4, 0.8]), atol=0.15)
    assert ((abs(y) < 0.3).mean(0) < 0.25).all()
    point = BNN(mlp(1), {"*": None}, Normal(noise=0.1))
    middle = ppbdl.fit(0, point, ROOTS, ppbdl.MAP(FADING, 1500), progress=False)
    at_middle = ppbdl.predict(1, point, middle, np.array([[0.4], [0.8]]))
    assert (abs(at_middle.mean) < 0.3).all()
    assert elpd(UNITS, posterior, MORE, UNITS.guide) > 0
    assert elpd(point, middle, MORE) < -10


def test_saved_and_loaded(tmp_path):
    posterior = fitted(UNITS, ROOTS, MANY)
    assert dict(posterior.draws) == {}
    assert posterior.shape == (1, 500)
    loaded = ppbdl.load(ppbdl.save(posterior, tmp_path / "units"))
    first, second = (
        ppbdl.predict(1, UNITS, each, MORE.x[:5], draws=True).draws["y"]
        for each in (posterior, loaded)
    )
    np.testing.assert_array_equal(first, second)
    scores = [
        ppbdl.log_likelihood(1, UNITS, each, MORE, guide=UNITS.guide)["y"]
        for each in (posterior, loaded)
    ]
    np.testing.assert_array_equal(*scores)


def test_the_units_are_drawn_anew_for_each_row_and_draw():
    """Shares of the upper mode: over 500 draws in each of 200 rows, over the rows in each draw.
    About their common mean each is within 6 binomial errors: 1 false alarm in 10^6."""
    same = np.full((200, 1), 0.8)
    prediction = ppbdl.predict(1, UNITS, fitted(UNITS, ROOTS, MANY), same, draws=True)
    upper = prediction.draws["mean"][0] > 0
    share = upper.mean()
    assert 0.3 < share < 0.7
    for axis, size in ((0, 500), (1, 200)):
        error = np.sqrt(share * (1 - share) / size)
        assert abs(upper.mean(axis) - share).max() < 6 * error


WRONG = {
    "an odd number of outputs": (mlp(3), Normal(noise=0.1), None, r"encoder: .*\(200, 3\)"),
    "a likelihood with a latent": (mlp(4), Normal(), None, r"guide: .*\['noise_excess'\]"),
    "no guide": (mlp(4), Normal(noise=0.1), ppbdl.SVI(steps=2), r"guide: .*\['h'\]"),
    "NUTS": (mlp(4), Normal(noise=0.1), ppbdl.NUTS(draws=2, warmup=2), "for NUTS, no learnable"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused(case):
    encoder, likelihood, method, message = WRONG[case]
    model = StochasticUnits(encoder, mlp(1), likelihood)
    with pytest.raises(ppbdl.ModelError, match=message):
        ppbdl.fit(0, model, ROOTS, method or ppbdl.SVI(model.guide, steps=2), progress=False)


WAVE_X = np.linspace(-1, 1, 60)[:, None]
WAVE = ppbdl.Data(WAVE_X, np.sin(3 * WAVE_X[:, 0]) + 0.1 * RNG.normal(size=60))
KNOWN = Normal(noise=0.1)
EVERYWHERE = BNN(mlp(1), likelihood=KNOWN)
LAST_LAYER = BNN(mlp(1), {"linear_1.*": dist.Normal(0.0, 1.0), "*": None}, KNOWN)
WAVE_UNITS = StochasticUnits(mlp(4), mlp(1), KNOWN)
RIVALS = {
    "weight uncertainty everywhere": (EVERYWHERE, ppbdl.AutoNormal(0.01), ONE),
    "variational output only": (LAST_LAYER, ppbdl.AutoNormal(0.01), ONE),
    "stochastic units": (WAVE_UNITS, WAVE_UNITS.guide, MANY),
}


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_fit_the_same_data_by_the_same_verbs(name):
    model, guide, loss = RIVALS[name]
    svi = ppbdl.SVI(guide, FADING, 1500, draws=200, loss=loss)
    posterior = ppbdl.fit(0, model, WAVE, svi, progress=False)
    prediction = ppbdl.predict(1, model, posterior, WAVE_X)
    assert isinstance(prediction, ppbdl.Prediction)
    truth = np.sin(3 * WAVE_X[:, 0])
    assert np.sqrt(np.mean((prediction.mean - truth) ** 2)) < 0.15  # sin has one of 0.7 itself
    assert ((prediction.sd >= 0.1 - 1e-6) & (prediction.sd < 0.5)).all()
    drawn = {
        "weight uncertainty everywhere": {
            f"net.linear_{i}.{leaf}" for i in (0, 1) for leaf in "wb"
        },
        "variational output only": {"net.linear_1.w", "net.linear_1.b"},
        "stochastic units": set(),
    }
    assert set(posterior.draws) == drawn[name]
