"""Concrete dropout: the objective, its gradient and its optimum, against quadrature."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from scipy import special

import ppbdl
import ppbdl.models
from ppbdl.guides import ConcreteDropout
from ppbdl.structure import inspect_model, shapes_of

X = np.random.default_rng(0).normal(size=(8, 3))
DATA = ppbdl.Data(X, X[:, 0] - X[:, 1])


def blind(x, y=None):
    """One linear layer, a unit normal prior, and a likelihood that sees nothing."""
    net = ppbdl.random_haiku_module(
        "net", lambda x: hk.Linear(2, with_bias=False)(x), dist.Normal(0.0, 1.0), x
    )
    net(x)
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


GUIDE = ConcreteDropout().bind(blind, inspect_model(blind, shapes_of(DATA)))
NAME, UNITS, WEIGHTS = "net.linear.w", 3, 6
M = np.random.default_rng(1).normal(size=(UNITS, 2)).astype("f")
CONSTANT = WEIGHTS * np.log(2 * np.pi) / 2 - float(dist.Normal().log_prob(DATA.y).sum())
HARD = special.expit((M**2).sum() / (2 * UNITS))  # the best rate of masks that are 0 or 1


def loss(key, rate, weights=M):
    params = {"auto_loc": {NAME: weights}, f"{NAME}.rate": rate}
    return ppbdl.AnalyticELBO().loss(key, params, blind, GUIDE, DATA.x, DATA.y)


@functools.cache
def losses_and_slopes(rate):
    """Over 4,000 keys."""
    keys = jax.random.split(jax.random.key(0), 4000)
    one = jax.vmap(jax.value_and_grad(loss, argnums=1), in_axes=(0, None))
    return [np.float64(a) for a in jax.jit(one)(keys, jnp.asarray(rate))]


def expected(rate):
    """E[z^2]/2 |M|^2 - K H(p), by the midpoint rule over u, and its slope in p."""
    u = (np.arange(200_000) + 0.5) / 200_000
    z = special.expit((special.logit(u) - special.logit(rate)) / 0.1)
    dz = -z * (1 - z) / 0.1 / (rate * (1 - rate))
    half = (M**2).sum() / 2
    value = half * (z**2).mean() - UNITS * (special.entr(rate) + special.entr(1 - rate))
    return value + CONSTANT, half * (2 * z * dz).mean() + UNITS * special.logit(rate)


@pytest.mark.parametrize("rate", [0.1, 0.5, HARD, 0.95])
def test_the_objective_and_its_slope_are_the_papers(rate):
    """Of 8 means over 4,000 keys |z| < 4.5: 5 false alarms in 100,000."""
    for found, exact in zip(losses_and_slopes(rate), expected(rate), strict=True):
        error = found.std() / np.sqrt(found.size)
        assert 0 < error < 0.15
        assert abs(found.mean() - exact) < 4.5 * error


def test_the_best_rate_is_nearly_the_closed_form_of_hard_masks():
    """The relaxed objective's slope changes its sign within 0.02 of sigmoid(|M|^2 / 2K)."""
    assert 0.6 < HARD < 0.9
    assert expected(HARD - 0.02)[1] < 0 < expected(HARD + 0.02)[1]


def test_without_weights_the_entropy_alone_is_left():
    """-K H(p), exactly and for every key: least where p is a half."""
    at = {rate: float(loss(jax.random.key(3), rate, np.zeros_like(M))) for rate in (0.1, 0.5, 0.8)}
    for rate, value in at.items():
        entropy = special.entr(rate) + special.entr(1 - rate)
        assert value == pytest.approx(CONSTANT - UNITS * entropy, rel=1e-5)
    assert min(at, key=lambda rate: at[rate]) == 0.5


def test_a_blind_likelihood_leaves_a_rate_of_a_half():
    """The weights go to 0, and with them all that speaks for another rate."""
    svi = ppbdl.SVI(ConcreteDropout(), optax.adam(0.02), steps=1000, draws=1)
    learned = ppbdl.fit(0, blind, DATA, svi, progress=False).params
    assert abs(np.asarray(learned["auto_loc"][NAME])).max() < 0.1
    assert learned[f"{NAME}.rate"] == pytest.approx(0.5, abs=0.02)


@pytest.fixture(scope="module")
def fitted():
    """A function of one of 5 inputs under much noise, with 64 hidden units: more than needed."""
    x = np.random.default_rng(2).normal(size=(200, 5))
    data = ppbdl.Data(x, np.sin(2 * x[:, 0]))
    model = ppbdl.models.BNN(
        lambda x: hk.nets.MLP([64, 1])(x), likelihood=ppbdl.models.Normal(noise=0.5)
    )
    svi = ppbdl.SVI(ConcreteDropout(), optax.adam(0.02), steps=2000, draws=400)
    return ppbdl.fit(0, model, data, svi, progress=False)


INPUT, HIDDEN = "net.linear_0.w", "net.linear_1.w"


def test_each_layer_learns_a_rate_of_its_own(fitted):
    """From 0.1 at the start: the input is needed, of the hidden units each can be spared."""
    assert fitted.params[f"{INPUT}.rate"][0] < 0.05
    assert 0.15 < fitted.params[f"{HIDDEN}.rate"][0] < 0.5
    assert fitted.provenance.kind == "implicit"
    assert dict(fitted.stats) == {}


def test_draws_drop_units_at_the_learned_rate(fitted):
    """P(z < 1/2) = p, relaxed or not; in both layers |z| < 4.5: 14 false alarms in 10^6."""
    for name in (INPUT, HIDDEN):
        rate = float(fitted.params[f"{name}.rate"][0])
        mean = np.asarray(fitted.params["auto_loc"][name][0])
        alive = (mean**2).sum(-1) > 1e-6  # a unit without effect loses its weights
        draws = np.asarray(fitted.draws[name][0])[:, alive]
        kept = (draws * mean[alive]).sum(-1) / (mean[alive] ** 2).sum(-1)
        error = np.sqrt(rate * (1 - rate) / kept.size)
        assert abs((kept < 0.5).mean() - rate) < 4.5 * error
        assert -1e-4 < kept.min() < 0.01
        assert 0.99 < kept.max() < 1 + 1e-4


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, True, float("nan")])
def test_an_initial_rate_is_a_probability(rate):
    with pytest.raises(ppbdl.InputError, match="init_rate: expected a probability"):
        ConcreteDropout(rate)
