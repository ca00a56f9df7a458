"""Guides: dropout's penalty in closed form, densities on constrained supports, and binding."""

import dataclasses
import functools
import itertools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.autoguide import AutoDiagonalNormal, AutoLaplaceApproximation

import ppbdl
import ppbdl.models
from ppbdl.guides import bind
from ppbdl.structure import inspect_model, shapes_of

RATE = 0.3
X = np.random.default_rng(0).normal(size=(8, 3))
DATA = ppbdl.Data(X, X[:, 0] - X[:, 1])


def linear_layer(x, y=None):
    """One linear layer without bias, a unit normal prior, and a likelihood that sees nothing."""
    net = ppbdl.random_haiku_module(
        "net", lambda x: hk.Linear(2, with_bias=False)(x), dist.Normal(0.0, 1.0), x
    )
    net(x)
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


STRUCTURE = inspect_model(linear_layer, shapes_of(DATA))
GUIDE = ppbdl.MCDropout(RATE).bind(linear_layer, STRUCTURE)
M = np.random.default_rng(1).normal(size=(3, 2)).astype("f")
NAME, UNITS, WEIGHTS = "net.linear.w", 3, 6
PARAMS = {"auto_loc": {NAME: jnp.asarray(M)}}
LOG_LIKELIHOOD = float(dist.Normal().log_prob(DATA.y).sum())


def test_dropouts_penalty_is_gals_l2_term():
    """Every mask of three units, weighed by its probability: (1 - p)/2 |M|^2 + const."""

    @jax.jit
    def loss(kept):
        dropped = substitute(GUIDE, data=PARAMS | {f"{NAME}.kept": kept[:, None]})
        q = trace(seed(dropped, 0)).get_trace(DATA.x, DATA.y)
        placed = substitute(linear_layer, data={NAME: q[NAME]["value"]})
        site = trace(seed(placed, 0)).get_trace(DATA.x, DATA.y)[NAME]
        return -site["fn"].log_prob(site["value"]).sum()

    expected = 0.0
    for mask in itertools.product([0, 1], repeat=UNITS):
        probability = RATE ** mask.count(0) * (1 - RATE) ** mask.count(1)
        expected += probability * float(loss(jnp.array(mask)))
    constant = WEIGHTS * np.log(2 * np.pi) / 2
    assert expected - constant == pytest.approx((1 - RATE) / 2 * (M**2).sum(), rel=1e-5)


@functools.cache
def losses():
    loss = ppbdl.AnalyticELBO()
    one = jax.vmap(lambda key: loss.loss(key, PARAMS, linear_layer, GUIDE, DATA.x, DATA.y))
    return np.float64(jax.jit(one)(jax.random.split(jax.random.key(0), 4000)))


def test_the_objective_is_gals_in_expectation():
    """Over 4,000 keys |z| < 4.5: 7 false alarms in 10^6."""
    constant = WEIGHTS * np.log(2 * np.pi) / 2 - LOG_LIKELIHOOD
    expected = (1 - RATE) / 2 * (M**2).sum() + constant
    error = losses().std() / np.sqrt(losses().size)
    assert 0 < error < 0.05
    assert abs(losses().mean() - expected) < 4.5 * error


def test_the_objective_takes_no_noise_from_the_masks_entropy():
    """The loss has as many values as there are masks: 8, each at its mask's penalty."""
    assert len(np.unique(losses().round(3))) == 8


def net(x):
    return hk.nets.MLP([4, 1], activation=jax.nn.tanh)(x)


BNN = ppbdl.models.BNN(net, likelihood=ppbdl.models.Normal())
SVI = ppbdl.SVI(ppbdl.MCDropout(RATE), optax.adam(0.02), steps=100, draws=1000)


@pytest.fixture(scope="module")
def dropped():
    return ppbdl.fit(0, BNN, DATA, SVI, progress=False)


def test_draws_keep_dropout_on(dropped):
    """7 units in 1,000 draws: the share of zero rows is p to 4.5 of its errors (7 in 10^6)."""
    zero = [
        (np.asarray(dropped.draws[f"net.linear_{layer}.w"][0]) == 0).all(-1) for layer in (0, 1)
    ]
    zero = np.concatenate(zero, axis=-1)
    assert zero.shape == (1000, 7)
    error = np.sqrt(RATE * (1 - RATE) / zero.size)
    assert abs(zero.mean() - RATE) < 4.5 * error
    assert len(np.unique(zero, axis=0)) > 50  # a mask of its own for each draw
    correlation = np.corrcoef(zero.T) - np.eye(7)
    assert abs(correlation).max() < 5 / np.sqrt(1000)  # units are dropped apart: 1 in 10^5


def test_what_is_no_weight_is_a_point(dropped):
    for name in ("net.linear_0.b", "net.linear_1.b", "noise"):
        assert np.ptp(np.asarray(dropped.draws[name]), axis=1).max() == 0
    assert (np.asarray(dropped.draws["noise"]) > 0).all()
    assert dropped.provenance.kind == "implicit"
    assert dict(dropped.stats) == {}


def test_predictions_keep_dropout_on(dropped):
    predicted = ppbdl.predict(0, BNN, dropped, X)
    assert (predicted.epistemic > 1e-4).all()


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, True, float("nan")])
def test_a_rate_is_a_probability(rate):
    with pytest.raises(ppbdl.InputError, match="rate: expected a probability"):
        ppbdl.MCDropout(rate)


def test_dropout_needs_a_weight():
    model = ppbdl.models.LinearRegression()
    with pytest.raises(ppbdl.ModelError, match=r"guide: .*weight matrix"):
        ppbdl.fit(0, model, DATA, SVI, progress=False)


def supports(x, y=None):
    numpyro.sample("real", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("positive", dist.Gamma(2.0, 2.0))
    numpyro.sample("unit", dist.Beta(2.0, 2.0))
    numpyro.sample("simplex", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("vector", dist.HalfNormal(1.0).expand([2]).to_event(1))
    numpyro.sample("bounded", dist.Uniform(0.0, scale))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(0.0, scale), obs=y)


@pytest.fixture(scope="module")
def on_supports():
    """One draw of AutoNormal on each kind of support."""
    structure = inspect_model(supports, shapes_of(DATA))
    size = structure.size
    params = {
        "auto_loc": jnp.linspace(-0.5, 0.5, size),
        "auto_scale": jnp.linspace(0.3, 0.9, size),
    }
    guide = ppbdl.AutoNormal().bind(supports, structure)
    sites = trace(seed(substitute(guide, data=params), 0)).get_trace(DATA.x, DATA.y)
    return structure, params, sites


BIJECTIONS = {
    "real": lambda u, s: u,
    "positive": lambda u, s: jnp.exp(u),
    "unit": lambda u, s: jax.nn.sigmoid(u),
    "vector": lambda u, s: jnp.exp(u),
    "bounded": lambda u, s: s["positive"]["value"] * jax.nn.sigmoid(u),
}


@pytest.mark.parametrize("name", BIJECTIONS)
def test_log_q_is_the_change_of_variables(on_supports, name):
    """log q(t(u)) = log N(u; loc, scale) - log |dt/du|, the derivative by autodiff."""
    structure, params, sites = on_supports
    site = sites[name]
    loc, scale = (np.ravel(structure.unflatten(params[p])[name]) for p in PARAMETERS)

    def bijection(u):
        return BIJECTIONS[name](u, sites)

    value = jnp.ravel(site["value"])
    u = inverse(bijection, value)
    slope = jax.vmap(jax.grad(bijection))(u)
    expected = dist.Normal(loc, scale).log_prob(u).sum() - jnp.log(abs(slope)).sum()
    found = jnp.sum(site["fn"].log_prob(site["value"]))
    assert float(found) == pytest.approx(float(expected), abs=2e-3)


PARAMETERS = ("auto_loc", "auto_scale")


def inverse(bijection, value):
    """By bisection, so that no inverse of the library's is trusted."""
    low, high = jnp.full(value.shape, -12.0), jnp.full(value.shape, 12.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            jnp.where(bijection(middle) < value, middle, low),
            jnp.where(bijection(middle) < value, high, middle),
        )
    return (low + high) / 2


def test_draws_lie_in_their_supports(on_supports):
    sites = on_supports[2]
    value = {name: np.asarray(site["value"]) for name, site in sites.items()}
    assert value["positive"] > 0
    assert 0 < value["unit"] < 1
    assert value["simplex"].sum() == pytest.approx(1, rel=1e-5)
    assert (value["vector"] > 0).all()
    assert 0 < value["bounded"] < value["positive"]


def test_a_density_on_the_unit_interval_integrates_to_one(on_supports):
    grid = jnp.linspace(1e-4, 1 - 1e-4, 4001)
    density = jnp.exp(on_supports[2]["unit"]["fn"].log_prob(grid))
    assert float(jnp.trapezoid(density, grid)) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), "small"])
def test_an_initial_scale_is_positive(scale):
    with pytest.raises(ppbdl.InputError, match="init_scale"):
        ppbdl.AutoNormal(init_scale=scale)


def test_an_autoguide_is_bound_anew_each_time():
    """NumPyro's autoguides keep what they met, tracers included."""
    structure = inspect_model(BNN, shapes_of(DATA))
    given = AutoDiagonalNormal(BNN)
    bound = [bind(given, BNN, structure) for _ in range(2)]
    assert bound[0] is not bound[1] is not given
    assert isinstance(bind(AutoDiagonalNormal, BNN, structure), AutoDiagonalNormal)


@pytest.mark.parametrize("guide", ["AutoNormal", 3, None, dict, optax.adam(0.1)])
def test_what_is_no_guide_is_refused(guide):
    with pytest.raises(ppbdl.InputError, match="guide: expected a guide"):
        ppbdl.fit(0, BNN, DATA, ppbdl.SVI(guide, steps=5), progress=False)


def unseen(x, y=None):
    """Two latents, and neither the data nor a prior know anything of the second."""
    a, b = (
        numpyro.sample(name, dist.ImproperUniform(dist.constraints.real, (), ())) for name in "ab"
    )
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(a + 0 * b, 1.0), obs=y)


LAPLACE = ppbdl.SVI(AutoLaplaceApproximation, steps=20, draws=10)


def test_a_singular_hessian_is_no_point_mass():
    with pytest.raises(ppbdl.FitError, match=r"not finite in 'log_q'.*singular"):
        ppbdl.fit(0, unseen, DATA, LAPLACE, progress=False)


def test_a_hessian_of_a_minibatch_is_refused():
    with pytest.raises(ppbdl.ModelError, match=r"batch_size: expected None.*ppbdl\.Laplace"):
        ppbdl.fit(0, BNN, DATA, dataclasses.replace(LAPLACE, batch_size=4), progress=False)
