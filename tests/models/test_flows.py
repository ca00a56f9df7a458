"""Flow densities learn known ones, with a context and without, by every kind of method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpyro.handlers import seed, trace

import ppbdl
from ppbdl.flows import rational_quadratic
from ppbdl.models import IAF, MAF, NSF, FlowDensity, PlanarFlow, RealNVP

ADAM = optax.adam(optax.cosine_decay_schedule(1e-2, 500))
MODELS = {
    "RealNVP": RealNVP(features=2, layers=4, width=32),
    "NSF": NSF(features=2, layers=2, width=32),
    "MAF": MAF(features=2, layers=4, width=32),
    "MAF of splines": MAF(2, layers=2, width=32, transformer=rational_quadratic()),
    "IAF": IAF(features=2, layers=4, width=32),
    "planar": PlanarFlow(features=2, layers=16, width=32),
}
SMALL = {  # for what does not depend on how well they are fitted
    name: type(model)(features=3, layers=2, width=8) for name, model in MODELS.items()
}
del SMALL["MAF of splines"]


def banana(rows, key, bend=1.0):
    """A bent band: y_1 ~ N(x, 0.7^2), y_2 ~ N(bend y_1^2, 0.4^2) with x uniform, or 0."""
    rng = np.random.default_rng(key)
    x = rng.uniform(-1, 1, (rows, 1))
    first = x[:, 0] * (bend != 1) + 0.7 * rng.normal(size=rows)
    return x, np.stack([first, bend * first**2 + 0.4 * rng.normal(size=rows)], 1)


def exact(x, y, bend=1.0):
    u, v = (y[:, 0] - x[:, 0] * (bend != 1)) / 0.7, (y[:, 1] - bend * y[:, 0] ** 2) / 0.4
    return -np.log(2 * np.pi * 0.7 * 0.4) - (u**2 + v**2) / 2


@functools.cache
def learned(name, conditional):
    x, y = banana(2000, 0, 0.8 if conditional else 1.0)
    data = ppbdl.Data(x if conditional else None, y).standardized()
    method = ppbdl.MAP(ADAM, 500, batch_size=256)
    return ppbdl.fit(0, MODELS[name], data, method, progress=False)


SLOWER = [pytest.param(name, marks=pytest.mark.slow) for name in ("IAF", "planar")]


# Affine maps came to 0.01 nats, splines to 0.15: in the band's tail, beyond their bound.  With the
# context 0.06 and 0.16.  The estimates' standard errors are at most 0.023.
LIMITS = {"NSF": 0.25, "MAF of splines": 0.25, "planar": 0.2}


def gaussians(y):
    """The divergence of the best Gaussian from the band."""
    entropy = np.linalg.slogdet(2 * np.pi * np.e * np.cov(y.T))[1] / 2
    return exact(np.zeros((len(y), 1)), y).mean() + entropy


@pytest.mark.parametrize("name", MODELS)
def test_it_learns_a_known_density_better_than_a_gaussian_does(name):
    x, y = banana(4000, 1)
    scores = ppbdl.log_likelihood(1, MODELS[name], learned(name, False), ppbdl.Data(None, y))["y"]
    assert scores.shape == (1, 1, 4000)
    divergence = (exact(x, y) - scores[0, 0]).mean()
    assert -0.03 < divergence < LIMITS.get(name, 0.08), divergence
    assert gaussians(y) > 0.5


@pytest.mark.parametrize("name", ["RealNVP", "NSF", "MAF", *SLOWER])
def test_it_learns_a_density_given_a_context(name):
    x, y = banana(4000, 1, 0.8)
    posterior, data = learned(name, True), ppbdl.Data(x, y)
    divergence = (
        exact(x, y, 0.8) - ppbdl.log_likelihood(1, MODELS[name], posterior, data)["y"][0, 0]
    )
    assert -0.1 < divergence.mean() < LIMITS.get(name, 0.15), divergence.mean()
    far = np.repeat([[-0.8], [0.8]], 2000, 0)
    drawn = ppbdl.predict(2, MODELS[name], posterior, far, draws=True).draws["y"][0, 0]
    means = drawn[:, 0].reshape(2, 2000).mean(1)
    assert (abs(means - [-0.8, 0.8]) < 0.2).all(), means


@pytest.mark.parametrize("name", ["RealNVP", "NSF", "MAF of splines"])
def test_the_fitted_flow_is_in_the_users_units(name):
    model, posterior = MODELS[name], learned(name, False)
    _, y = banana(500, 2)
    flow = model.fitted(posterior)
    scores = ppbdl.log_likelihood(1, model, posterior, ppbdl.Data(None, y))["y"][0, 0]
    np.testing.assert_allclose(flow.log_prob(y), scores, atol=1e-3)
    z = flow.inverse(y)
    np.testing.assert_allclose(flow.forward(z), y, atol=1e-3)
    # If the model is right z is N(0, I): the mean of 500 lies within 5 errors (and a fit's 0.1).
    assert (abs(z.mean(0)) < 0.33).all()
    drawn = np.asarray(flow.sample(jax.random.key(3), (4000,)))
    assert (abs(drawn.mean(0) - [0, 0.49]) < 0.1).all()


def test_the_temperature_is_the_spread_of_z():
    model, posterior = MODELS["RealNVP"], learned("RealNVP", False)
    cold, warm = (model.fitted(posterior, temperature=t) for t in (0.5, 1.0))
    drawn = [flow.sample(jax.random.key(0), (10,)) for flow in (cold, warm)]
    np.testing.assert_allclose(2 * warm.inverse(drawn[0]), warm.inverse(drawn[1]), atol=1e-3)


# Every method, every model.


Y = np.random.default_rng(0).normal(size=(60, 3))
X = np.random.default_rng(1).normal(size=(60, 2))
BRIEF = optax.adam(1e-2)


@pytest.mark.parametrize("name", ["RealNVP", "NSF", "MAF", *SLOWER])
def test_its_weights_may_be_bayesian(name):
    """Draws of weights are draws of densities: each scores, predicts and maps by itself."""
    model = type(SMALL[name])(features=3, layers=2, width=8, prior=dist.Normal(0.0, 0.3))
    data = ppbdl.Data(X, Y)
    svi = ppbdl.SVI(optimizer=BRIEF, steps=5, draws=3)
    posterior = ppbdl.fit(0, model, data, svi, progress=False)
    assert all(site.startswith("flow.") for site in posterior.draws)
    scores = ppbdl.log_likelihood(1, model, posterior, data)["y"]
    assert scores.shape == (1, 3, 60)
    assert scores.std(1).max() > 0
    assert ppbdl.predict(2, model, posterior, X[:4], draws=True).draws["y"].shape == (1, 3, 4, 3)
    flow = model.fitted(posterior, X, draw=2)
    np.testing.assert_allclose(flow.log_prob(Y), scores[0, 2], atol=1e-3)


def test_an_ensemble_is_of_several_densities(tmp_path):
    model, data = SMALL["NSF"], ppbdl.Data(X, Y)
    ensemble = ppbdl.Ensemble(ppbdl.MAP(BRIEF, steps=20), members=3)
    posterior = ppbdl.fit(0, model, data, ensemble, progress=False)
    scores = ppbdl.log_likelihood(1, model, posterior, data)["y"]
    assert scores.shape == (3, 1, 60)
    np.testing.assert_allclose(
        model.fitted(posterior, X, chain=2).log_prob(Y), scores[2, 0], atol=1e-3
    )
    ppbdl.save(posterior, tmp_path / "fit")
    loaded = ppbdl.load(tmp_path / "fit")
    again = ppbdl.log_likelihood(1, model, loaded, data)["y"]
    np.testing.assert_array_equal(again, scores)
    flow = model.fitted(loaded, X)
    np.testing.assert_allclose(flow.forward(flow.inverse(Y)), Y, atol=1e-4)


@pytest.mark.parametrize("layers", [3, 12], ids=["unrolled", "scanned"])
def test_its_layers_differ_and_come_in_order(layers):
    """The density is that of the layers one by one, written out."""
    model = RealNVP(features=3, layers=layers, width=8, prior=dist.Normal(0.0, 0.3))
    flow = seed(model.flow, 0)(jnp.zeros((1, 0)))
    (repeat,) = flow.transforms
    y, total = jnp.asarray(Y), 0.0
    for i in reversed(range(layers)):
        layer = repeat.layer(jax.tree.map(lambda w, i=i: w[i], repeat.weights))
        y, change = layer.inverse_and_log_det(y)
        total += change
    by_hand = dist.Normal(0, 1).log_prob(y).sum(-1) + total
    np.testing.assert_allclose(flow.log_prob(jnp.asarray(Y)), by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["RealNVP", "NSF", "MAF", "IAF"])
def test_it_starts_as_the_identity(name):
    flow = seed(SMALL[name].flow, 0)(jnp.zeros((1, 0)))
    np.testing.assert_allclose(
        flow.log_prob(jnp.asarray(Y)), dist.Normal(0, 1).log_prob(Y).sum(-1), rtol=1e-4
    )


# At the door.


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: RealNVP(features=1), "features"),
        (lambda: NSF(features=1), "features"),
        (lambda: RealNVP(features=2, layers=1), "layers"),
        (lambda: NSF(features=2, bins=1), "bins"),
        (lambda: NSF(features=2, bound=-1.0), "bound"),
        (lambda: MAF(features=0), "features"),
        (lambda: PlanarFlow(features=2, layers=0), "layers"),
        (lambda: RealNVP(features=2, width=2.5), "width"),
    ],
)
def test_a_density_that_cannot_be_is_refused(make, argument):
    with pytest.raises(ppbdl.InputError) as error:
        make()
    assert error.value.argument == argument


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        FlowDensity(features=2, layers=2)


@pytest.mark.parametrize("y", [Y[:, :2], Y[:, 0], Y[:, :, None]])
def test_a_y_of_another_width_is_refused(y):
    with pytest.raises(ppbdl.InputError, match=r"y: expected shape \(rows, 3\)"):
        ppbdl.fit(0, SMALL["MAF"], ppbdl.Data(X, y), ppbdl.MAP(BRIEF, steps=2), progress=False)


def test_a_context_that_is_not_a_matrix_is_refused():
    with pytest.raises(ppbdl.InputError, match="x: expected a context"):
        trace(seed(SMALL["MAF"], 0)).get_trace(jnp.zeros((5, 2, 2)))


def test_a_context_missing_at_prediction_is_refused():
    posterior = learned("RealNVP", True)
    for missing in (
        lambda: MODELS["RealNVP"].fitted(posterior),
        lambda: ppbdl.predict(0, MODELS["RealNVP"], posterior, np.empty((4, 0))),
    ):
        with pytest.raises(ppbdl.InputError, match=r"x: expected rows of the fitted shape \(1,\)"):
            missing()


def test_a_draw_that_is_not_there_is_refused():
    with pytest.raises(ppbdl.InputError, match="draw"):
        MODELS["RealNVP"].fitted(learned("RealNVP", False), draw=1)


def test_a_temperature_is_positive():
    with pytest.raises(ppbdl.InputError, match="temperature"):
        MODELS["RealNVP"].fitted(learned("RealNVP", False), temperature=0.0)


@pytest.mark.parametrize("features", [2, 3, 8, 43])
def test_couplings_move_all_and_part_every_pair(features):
    """After two layers all have moved; after eight each pair was apart, so that one steered one."""
    model = RealNVP(features, layers=8, width=4)
    orders = model.orders()
    orders = np.tile(np.arange(features)[::-1], (8, 1)) if orders is None else orders
    places, kept = np.arange(features), []
    for order in orders:
        kept.append(np.isin(np.arange(features), places[: features // 2]))
        places = places[order]
    kept = np.array(kept)
    assert not (kept[0] & kept[1]).any()
    apart = (kept[:, :, None] != kept[:, None]).any(0)
    assert (apart | np.eye(features, dtype=bool)).mean() > (0.99 if features < 43 else 0.9)
