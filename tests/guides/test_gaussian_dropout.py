"""Gaussian dropout: closed-form optima, sparsity, and the normal sites that estimators read."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.handlers import seed, trace
from scipy import optimize

import ppbdl
import ppbdl.models
from ppbdl.guides import GaussianDropout
from ppbdl.handlers import flipout, local_reparameterization
from ppbdl.structure import inspect_model, shapes_of

GRID = np.linspace(-1, 1, 20)
COLUMNS = np.stack([np.ones(20), GRID], axis=1)  # orthogonal: the posterior factorises
NOISE, PRIOR = 0.5, 2.0
DATA = ppbdl.Data(COLUMNS, COLUMNS @ [1.0, -2.0] + 0.3 * np.cos(30 * GRID))
NAME = "net.linear.w"
FADING = optax.adam(optax.cosine_decay_schedule(0.05, 3000))


def linear(x, y=None):
    """Regression on the columns: y ~ N(x w, NOISE^2), w ~ N(0, PRIOR^2)."""
    net = ppbdl.random_haiku_module(
        "net", lambda x: hk.Linear(1, with_bias=False)(x), dist.Normal(0.0, PRIOR), x
    )
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(net(x)[:, 0], NOISE), obs=y)


PRECISION = (COLUMNS**2).sum(0) / NOISE**2 + PRIOR**-2
MEAN = COLUMNS.T @ DATA.y / NOISE**2 / PRECISION


def optimum(per):
    """Means and standard deviations of the best q.

    With a posterior N(MEAN, 1/PRECISION), KL(N(m, s^2) || posterior) is, but for a constant, the
    sum of PRECISION ((m - MEAN)^2 + s^2)/2 - log s; nothing ties s to m but a shared alpha.
    """
    if per != "layer":  # with one output a unit has one weight
        return MEAN, PRECISION**-0.5

    def kl(u):
        mean, sd = u[:2], np.exp(u[2] / 2) * abs(u[:2])
        return (PRECISION * ((mean - MEAN) ** 2 + sd**2) / 2 - np.log(sd)).sum()

    best = optimize.minimize(kl, [*MEAN, -3.0], method="Nelder-Mead", tol=1e-10).x
    return best[:2], np.exp(best[2] / 2) * abs(best[:2])


@pytest.mark.parametrize("per", ["weight", "unit", "layer"])
def test_the_conjugate_optimum_is_found(per):
    """But for Adam's noise: to a tenth of a posterior sd for means, and 5 % for sds."""
    svi = ppbdl.SVI(
        GaussianDropout(per),
        FADING,
        steps=3000,
        draws=10,
        loss=ppbdl.AnalyticELBO(num_particles=4),
    )
    learned = ppbdl.fit(0, linear, DATA, svi, progress=False).params
    mean = np.asarray(learned["auto_loc"][NAME][0])
    if per == "weight":
        sd = np.asarray(learned[f"{NAME}.scale"][0])
    else:
        sd = np.sqrt(learned[f"{NAME}.alpha"][0]) * abs(mean)
    expected_mean, expected_sd = optimum(per)
    assert abs((mean[:, 0] - expected_mean) / expected_sd).max() < 0.1
    assert abs(sd[:, 0] / expected_sd - 1).max() < 0.05


ROWS, RELEVANT, IRRELEVANT = 100, 3, 17
X = np.linalg.qr(np.random.default_rng(0).normal(size=(ROWS, RELEVANT + IRRELEVANT)))[0] * 10
ERROR = NOISE / np.sqrt(ROWS)  # of each coefficient's estimate: the columns are orthogonal
ESTIMATES = np.array([2.0, -1.5, 1.0, *(ERROR * np.linspace(-0.6, 0.6, IRRELEVANT))])


def test_irrelevant_inputs_are_dropped_under_the_scale_invariant_prior():
    """Weights whose estimate is lost in its error have log alpha > 3, Molchanov's rule.  Far from
    0 the prior is flat: alpha is the squared ratio of error and estimate."""
    model = ppbdl.models.BNN(
        lambda x: hk.Linear(1)(x),
        {"*.w": ppbdl.models.ScaleInvariant(), "*": None},
        ppbdl.models.Normal(noise=NOISE),
    )
    svi = ppbdl.SVI(GaussianDropout(), FADING, steps=3000, draws=10)
    data = ppbdl.Data(X, X @ ESTIMATES)
    learned = ppbdl.fit(0, model, data, svi, progress=False).params
    scale, mean = learned[f"{NAME}.scale"][0, :, 0], learned["auto_loc"][NAME][0, :, 0]
    log_alpha = 2 * np.log(scale / abs(mean))
    exact = 2 * np.log(ERROR / abs(ESTIMATES[:RELEVANT]))
    assert abs(log_alpha[:RELEVANT] - exact).max() < 0.3
    assert (log_alpha[RELEVANT:] > 3).all()


def traced(per):
    structure = inspect_model(supports, shapes_of(DATA))
    guide = GaussianDropout(per, init_alpha=0.25).bind(supports, structure)
    return trace(seed(guide, 0)).get_trace(DATA.x, DATA.y)


def supports(x, y=None):
    numpyro.sample("matrix", dist.Normal().expand([3, 2]).to_event(2))
    numpyro.sample("kernel", dist.Normal().expand([5, 5, 1, 2]).to_event(4))
    numpyro.sample("scale", dist.Normal().expand([1, 1, 1, 2]).to_event(4))
    numpyro.sample("vector", dist.Normal().expand([3]).to_event(1))
    numpyro.sample("positive", dist.HalfNormal().expand([3, 2]).to_event(2))
    numpyro.sample("y", dist.Normal(), obs=y)


@pytest.mark.parametrize("per", ["weight", "unit", "layer"])
def test_weights_are_normal_and_all_else_is_a_point(per):
    sites = traced(per)
    for name, fan_in in (("matrix", 3), ("kernel", 25)):
        q = sites[name]["fn"]
        assert type(q.base_dist) is dist.Normal
        assert q.event_shape == sites[name]["value"].shape
        loc = sites["auto_loc"]["value"][name]
        np.testing.assert_array_equal(q.base_dist.loc, loc)
        start = np.sqrt(0.25 / fan_in) if per == "weight" else 0.5 * abs(loc)
        np.testing.assert_allclose(q.base_dist.scale, np.broadcast_to(start, loc.shape), rtol=1e-5)
        assert (sites[name]["value"] != loc).all()
    for name in ("scale", "vector", "positive"):
        assert isinstance(sites[name]["fn"], dist.Delta)
    shapes = {"unit": {"matrix": (3, 1), "kernel": (1, 1)}, "layer": {"matrix": (), "kernel": ()}}
    for name, shape in shapes.get(per, {}).items():
        assert sites[f"{name}.alpha"]["value"].shape == shape


def test_draws_have_the_learned_moments():
    """Of 6 weights over 5,000 draws |z| < 5 for mean and sd: 7 false alarms in 10^6."""
    structure = inspect_model(supports, shapes_of(DATA))
    guide = GaussianDropout("layer", init_alpha=0.25).bind(supports, structure)
    loc = {n: jnp.full(s, 2.0) for n, s in structure.latents.items()}

    def draw(key):
        fixed = numpyro.handlers.substitute(guide, data={"auto_loc": loc})
        return trace(seed(fixed, key)).get_trace(DATA.x, DATA.y)["matrix"]["value"]

    draws = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), 5000))
    draws = np.float64(draws).reshape(5000, 6)
    assert abs(draws.mean(0) - 2).max() < 5 / np.sqrt(5000)
    assert abs(draws.std(0) - 1).max() < 5 / np.sqrt(2 * 5000)
    correlation = np.corrcoef(draws.T) - np.eye(6)
    assert abs(correlation).max() < 5 / np.sqrt(5000)


NET = ppbdl.models.BNN(
    lambda x: hk.nets.MLP([4, 1], w_init=jnp.zeros)(x), likelihood=ppbdl.models.Normal(noise=0.5)
)


@pytest.mark.parametrize(
    ("per", "estimator"), [("weight", local_reparameterization), ("unit", flipout)]
)
def test_estimators_take_its_normals(per, estimator):
    """From weights that all start at 0."""
    svi = ppbdl.SVI(GaussianDropout(per), steps=30, draws=5, estimator=estimator)
    posterior = ppbdl.fit(0, NET, DATA, svi, progress=False)
    assert np.isfinite(posterior.losses).all()
    assert posterior.losses[0, -1] < posterior.losses[0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per": "row"}, "per: expected"),
        ({"init_alpha": 0.0}, "init_alpha: expected a positive number"),
        ({"init_alpha": float("nan")}, "init_alpha: expected a positive number"),
        ({"per": "layer", "init_alpha": 1.0}, r"init_alpha: .*\(0, 1\) for an alpha per layer"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ppbdl.InputError, match=message):
        GaussianDropout(**settings)
