"""AlphaELBO against integrals in closed form; RenyiELBO where it belongs, on latents of rows."""

import itertools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import RenyiELBO
from scipy import optimize, stats

import ppbdl
import ppbdl.models
from ppbdl.inference import AlphaELBO
from ppbdl.inference.batches import scale_rows
from ppbdl.structure import inspect_model, shapes_of

ROWS = 5
RNG = np.random.default_rng(0)
DATA = ppbdl.Data(RNG.normal(size=(ROWS, 1)), 2 * RNG.normal(size=ROWS))


def mean_of_rows(x, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def normal_guide(x, y=None):
    loc, scale = numpyro.param("loc", 0.6), numpyro.param("scale", 0.5)
    numpyro.sample("mean", dist.Normal(loc, scale))


def divergence(m, s):
    """KL(N(m, s^2) || N(0, 4))."""
    return np.log(2 / s) + (s**2 + m**2) / 8 - 0.5


def log_expected_power(y, alpha, m, s):
    """log E_q N(y; w, 1)^alpha: the power is, but for a factor, a normal density again."""
    factor = -0.5 * alpha * np.log(2 * np.pi) + 0.5 * np.log(2 * np.pi / alpha)
    return factor + stats.norm(m, np.sqrt(s**2 + 1 / alpha)).logpdf(y)


def objective(y, alpha, m, s):
    return divergence(m, s) - log_expected_power(y, alpha, m, s).sum() / alpha


def values(loss, model, data=DATA, keys=400, m=0.6, s=0.5, guide=normal_guide):
    at = {"loc": m, "scale": s}
    one = jax.jit(jax.vmap(lambda key: loss.loss(key, at, model, guide, data.x, data.y)))
    return np.float64(one(jax.random.split(jax.random.key(1), keys)))


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("draws", [20, 1000])
def test_the_objective_and_its_bias_are_the_known_ones(alpha, draws):
    """Too high by cv^2 / (2 K alpha) a row: within 15 % of it for the next order, and 4.5 errors,
    7 false alarms in 10^6 for each of four cases."""
    exact = objective(DATA.y, alpha, 0.6, 0.5)
    log_square = log_expected_power(DATA.y, 2 * alpha, 0.6, 0.5)
    cv2 = np.expm1(log_square - 2 * log_expected_power(DATA.y, alpha, 0.6, 0.5))
    bias = cv2.sum() / (2 * draws * alpha)
    found = values(AlphaELBO(alpha, draws), mean_of_rows, keys=8000 if draws < 100 else 800)
    error = 4.5 * found.std() / np.sqrt(len(found))
    assert abs(found.mean() - exact - bias) < error + 0.15 * bias
    if draws < 100:
        assert error < 0.4 * bias  # so that the bias is seen


BNN = ppbdl.models.BNN(
    lambda x: hk.nets.MLP([4, 3], activation=jax.nn.tanh)(x), likelihood=ppbdl.models.Categorical(3)
)


def two_sites(x, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    with numpyro.plate("data", x.shape[0]):
        for i in range(2):
            numpyro.sample(f"y{i}", dist.Normal(mean, 1.0), obs=None if y is None else y[:, i])


def two_outputs(x, y=None):
    """Its second axis is in no plate, and a last row is in no sum."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    with (
        numpyro.plate("data", x.shape[0], dim=-2),
        numpyro.plate("outputs", 2, dim=-1),
        numpyro.handlers.mask(mask=jnp.arange(x.shape[0])[:, None] < ROWS - 1),
    ):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@pytest.mark.parametrize(("model", "rows"), [(two_sites, ROWS), (two_outputs, ROWS - 1)])
def test_a_row_is_one_factor(model, rows):
    """Both of a row's numbers are in one logarithm: at alpha = 1 they are jointly normal, with
    covariance I + s^2.  The bias at K = 2,000 is below 0.005; 7 false alarms in 10^6 each."""
    y = np.random.default_rng(2).normal(size=(ROWS, 2))
    joint = stats.multivariate_normal([0.6, 0.6], np.eye(2) + 0.5**2)
    exact = divergence(0.6, 0.5) - joint.logpdf(y[:rows]).sum()
    apart = objective(y[:rows].ravel(), 1.0, 0.6, 0.5)
    found = values(AlphaELBO(1.0, 2000), model, ppbdl.Data(DATA.x, y))
    assert abs(found.mean() - exact) < 4.5 * found.std() / np.sqrt(len(found)) + 0.005
    assert abs(exact - apart) > 0.1


CASES = {
    "a line": (ppbdl.models.LinearRegression(noise=0.7), DATA),
    "a network for classes": (BNN, ppbdl.Data(DATA.x, np.arange(ROWS) % 3)),
    "two observed sites": (two_sites, ppbdl.Data(DATA.x, RNG.normal(size=(ROWS, 2)))),
}


def at(case, loss, batch=None):
    """Loss and gradient at one key, of some of the rows, which stand for all."""
    model, data = CASES[case]
    structure = inspect_model(model, shapes_of(data), len(batch or range(ROWS)))
    guide = ppbdl.AutoNormal().bind(model, structure)
    chosen = jnp.array(batch or range(ROWS))
    programs = [scale_rows(p, structure, ROWS / len(chosen)) for p in (model, guide)]

    def of(params, chosen):
        x, y = (jnp.asarray(a)[chosen] for a in (data.x, data.y))
        return loss.loss(jax.random.key(3), params, *programs, x, y)

    params = {
        "auto_loc": jnp.linspace(-0.5, 0.5, structure.size),
        "auto_scale": jnp.linspace(0.2, 0.6, structure.size),
    }
    if not batch:
        return jax.jit(jax.value_and_grad(of))(params, chosen)
    orders = jnp.array([*itertools.combinations(range(ROWS), len(batch))])
    return jax.jit(jax.vmap(jax.value_and_grad(of), (None, 0)))(params, orders)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES)
def test_as_alpha_vanishes_it_is_minus_the_evidence_lower_bound(case):
    """At the same draws, so that nothing here is statistical; the next order is alpha's."""
    ours, bound = (at(case, loss) for loss in (AlphaELBO(1e-7, 4), ppbdl.AnalyticELBO(4)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, bound)
    far, _ = at(case, AlphaELBO(1.0, 4))
    assert far < bound[0] - 0.05


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES)
def test_the_mean_over_all_batches_is_the_full_one(case):
    """Loss and gradient of all ten batches of two of five rows, at the same draws."""
    loss = AlphaELBO(0.5, 3)
    full, batches = at(case, loss), at(case, loss, batch=[0, 1])
    mean = jax.tree.map(lambda a: a.mean(0), batches)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), mean, full)
    assert np.std(batches[0]) > 1e-3


WIDE = ppbdl.Data(np.zeros((24, 1)), 0.5 + 2.0 * stats.norm.ppf((np.arange(24) + 0.5) / 24))
BEST = optimize.minimize(
    lambda at: objective(WIDE.y, 1.0, at[0], np.exp(at[1])), [0.0, 0.0], tol=1e-10
)


@pytest.mark.parametrize("batch_size", [None, 8])
def test_a_fit_covers_what_the_noise_does_not(batch_size):
    """Rows of sd 2 under a noise of sd 1: at alpha = 1 the posterior makes up for it.  The 4,000
    draws' mean and sd are known within 0.1; the rest is for the optimiser and K = 50."""
    fading = optax.adam(optax.cosine_decay_schedule(0.05, 600))
    settings = dict(optimizer=fading, steps=600, draws=4000, batch_size=batch_size)
    svi = ppbdl.SVI(loss=AlphaELBO(1.0, 50), **settings)
    drawn = ppbdl.fit(0, mean_of_rows, WIDE, svi, progress=False).draws["mean"]
    m, s = BEST.x[0], np.exp(BEST.x[1])
    assert s > 1.5  # the exact posterior's is 0.2
    assert abs(drawn.mean() - m) < 0.25
    assert abs(drawn.std() / s - 1) < 0.1


def normalised(x, is_training=False):
    x = hk.BatchNorm(True, True, 0.9)(hk.Linear(6)(x), is_training)
    return hk.Linear(1)(jax.nn.relu(x))


def plain(x):
    return hk.nets.MLP([6, 1], activation=jax.nn.tanh)(x)


SINE_X = np.linspace(-1, 1, 40)[:, None]
SINE = ppbdl.Data(SINE_X, np.sin(3 * SINE_X[:, 0]))


def fit_sine(net, guide, steps):
    model = ppbdl.models.BNN(net, likelihood=ppbdl.models.Normal(noise=0.3))
    loss = AlphaELBO(0.5, 4)
    svi = ppbdl.SVI(guide, optax.adam(0.02), steps, batch_size=20, draws=50, loss=loss)
    return model, ppbdl.fit(0, model, SINE, svi, progress=False)


@pytest.mark.parametrize("guide", [ppbdl.AutoNormal(0.05), ppbdl.MCDropout(0.1)])
def test_a_network_fits_by_minibatches(guide):
    model, posterior = fit_sine(plain, guide, 400)
    assert posterior.losses[0, -50:].mean() < posterior.losses[0, :20].mean() - 20
    predicted = ppbdl.predict(1, model, posterior, SINE_X)
    assert np.sqrt(np.mean((predicted.mean - SINE.y) ** 2)) < 0.4  # the sine has 0.7


def test_a_networks_state_is_carried_on():
    _, posterior = fit_sine(normalised, ppbdl.AutoNormal(0.05), 5)
    (state,) = posterior.mutables.values()
    counters = [a for path, a in jax.tree.leaves_with_path(state) if "counter" in str(path)]
    assert counters
    assert all((a == 5).all() for a in counters)


def code_of_row(x, y=None):
    shift = numpyro.param("shift", 0.0)
    with numpyro.plate("data", x.shape[0]):
        code = numpyro.sample("code", dist.Normal(0.0, 1.0), infer={"local": True})
        numpyro.sample("y", dist.Normal(1.5 * code + shift, 0.7), obs=y)


def code_guide(x, y=None):
    slope, offset = numpyro.param("slope", 0.1), numpyro.param("offset", 0.0)
    spread = numpyro.param("spread", 1.0, constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("code", dist.Normal(slope * y + offset, spread))


def mixed(x, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        code = numpyro.sample("code", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mean + code, 1.0), obs=y)


def joint_density(x, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    ones = jnp.ones(x.shape[0])
    covariance = jnp.diag(ones) + 0.5 * jnp.outer(ones, ones)
    numpyro.sample("y", dist.MultivariateNormal(mean * ones, covariance), obs=y)


def own_subsample(x, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0], subsample_size=2) as chosen:
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=None if y is None else y[chosen])


def discrete_of_row(x, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        sign = numpyro.sample("sign", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(mean * (2 * sign - 1), 1.0), obs=y)


def two_scales(x, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        with numpyro.handlers.scale(scale=0.5):
            numpyro.sample("again", dist.Normal(mean, 1.0), obs=y)


LOCAL = ppbdl.SVI(code_guide, loss=AlphaELBO(), steps=2)
REFUSED = {
    "latents of rows": (code_of_row, LOCAL, r"loss: .*\['code'\] in the plate of the rows"),
    "unmarked ones": (mixed, ppbdl.SVI(loss=AlphaELBO(), steps=2), r"loss: .*\['code'\]"),
    "no row axis": (joint_density, ppbdl.SVI(loss=AlphaELBO(), steps=2), "'y' with the 5 rows"),
    "a subsample": (own_subsample, ppbdl.SVI(loss=AlphaELBO(), steps=2), "'data', which draws"),
    "discrete": (discrete_of_row, ppbdl.SVI(loss=AlphaELBO(), steps=2), r"loss: .*\['sign'\]"),
    "two scales": (two_scales, ppbdl.SVI(loss=AlphaELBO(), steps=2), "scales that differ"),
    "RenyiELBO by minibatches": (
        mean_of_rows,
        ppbdl.SVI(loss=RenyiELBO(), batch_size=2, steps=2),
        r"loss: .*\['mean'\].*AlphaELBO",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    model, svi, message = REFUSED[case]
    with pytest.raises(ppbdl.ModelError, match=message):
        ppbdl.fit(0, model, DATA, svi, progress=False)


@pytest.mark.parametrize(
    "settings", [dict(alpha=0.0), dict(alpha=-1.0), dict(num_particles=1), dict(num_particles=2.0)]
)
def test_settings_are_refused(settings):
    with pytest.raises(ppbdl.InputError, match=next(iter(settings))):
        AlphaELBO(**settings)


CODES = ppbdl.Data(None, np.random.default_rng(3).normal(0.5, 2.0, size=40))


@pytest.mark.parametrize("batch_size", [None, 10])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_the_renyi_bound_of_codes_reaches_the_evidence(alpha, batch_size):
    """q can be the posterior, where every importance weight is p(y): the losses' mean over whole
    epochs is then minus the log evidence of N(y; shift, 1.5^2 + 0.7^2), at its best shift."""
    fading = optax.adam(optax.cosine_decay_schedule(0.05, 600))
    loss = RenyiELBO(alpha=alpha, num_particles=5)
    svi = ppbdl.SVI(code_guide, fading, 600, batch_size, draws=10, loss=loss)
    losses = ppbdl.fit(0, code_of_row, CODES, svi, progress=False).losses[0]
    evidence = stats.norm(CODES.y.mean(), np.hypot(1.5, 0.7)).logpdf(CODES.y).sum()
    assert losses[:4].mean() > -evidence + 1
    assert abs(losses[-40:].mean() + evidence) < 0.1
