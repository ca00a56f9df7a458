"""Laplace against closed forms, and its curvatures against the exact Hessian and each other."""

from dataclasses import replace

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import ppbdl
import ppbdl.models
from ppbdl.gaussian import Gaussian, first_chain, join
from ppbdl.inference import laplace
from ppbdl.inference.curvature import sums
from ppbdl.inference.curvature.evidence import tuned
from ppbdl.inference.curvature.layout import Point, layout_of
from ppbdl.inference.curvature.matrix import curvature_of
from ppbdl.inference.curvature.precision import Prior, dense, diagonal, kronecker
from ppbdl.inference.curvature.products import low_rank
from ppbdl.inference.curvature.sums import Rows
from ppbdl.inference.laplace import Laplace
from ppbdl.latents import initial_latents
from ppbdl.linearization import delta_method
from ppbdl.potential import potential
from ppbdl.structure import inspect_model, shapes_of

RNG = np.random.default_rng(0)
COLUMNS = RNG.normal(size=(40, 3)) @ np.array([[1.0, 0.9, 0.0], [0.0, 0.4, 0.5], [0.0, 0.0, 1.0]])
ADAM = optax.adam(optax.cosine_decay_schedule(0.1, 300))
QUICK = Laplace(optimizer=ADAM, steps=300, draws=20)
CORRELATED = ppbdl.Data(COLUMNS, COLUMNS @ [1.0, -2.0, 0.5] + RNG.normal(size=40)).standardized()
REGRESSION = ppbdl.models.LinearRegression(noise=0.5)


def fit(method, model, data):
    return ppbdl.fit(0, model, data, method, progress=False)


def found(posterior, *sites):
    """The mode and the precision of some sites, in that order, from a posterior."""
    gaussian = Gaussian.of(first_chain(posterior.params["laplace"]))
    return np.asarray(join(gaussian.mode, sites)), precision_of(gaussian, *sites)


def precision_of(gaussian, *sites):
    root = jax.jacobian(lambda z: join(gaussian.at(z), sites))(jnp.zeros(gaussian.size))
    return np.linalg.inv(np.float64(root @ root.T))


def test_a_conjugate_regression_is_exact():
    posterior = fit(QUICK, REGRESSION, CORRELATED)
    mean, covariance = REGRESSION.exact_posterior(CORRELATED)
    mode, precision = found(posterior, "intercept", "weights")
    np.testing.assert_allclose(mode, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(precision, np.linalg.inv(covariance), rtol=1e-5, atol=1e-4)
    evidence = posterior.params["laplace"]["log_evidence"]
    np.testing.assert_allclose(evidence, [REGRESSION.log_evidence(CORRELATED)], rtol=1e-5)
    assert posterior.provenance.kind == "density"


def test_double_precision_is_kept(x64):
    data = ppbdl.Data(COLUMNS, COLUMNS @ [1.0, -2.0, 0.5] + 1.0)
    posterior = fit(QUICK, REGRESSION, data)
    mean, covariance = REGRESSION.exact_posterior(data)
    mode, precision = found(posterior, "intercept", "weights")
    assert mode.dtype == posterior.draws["weights"].dtype == np.float64
    np.testing.assert_allclose(mode, mean, rtol=1e-10)
    np.testing.assert_allclose(precision, np.linalg.inv(covariance), rtol=1e-9, atol=1e-9)


def test_a_rate_is_gaussian_in_its_logarithm():
    """y ~ Poisson(r), r ~ Gamma(a, b): in log r the mode is log((a + sum y) / (b + n)), and the
    curvature there a + sum y."""

    def model(x, y=None):
        rate = numpyro.sample("rate", dist.Gamma(3.0, 2.0))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Poisson(rate), obs=y)

    y = np.array([4, 2, 7, 1, 3])
    posterior = fit(QUICK, model, ppbdl.Data(np.zeros((5, 0)), y))
    mode, precision = found(posterior, "rate")
    np.testing.assert_allclose(mode, np.log(20 / 7), rtol=1e-5)
    np.testing.assert_allclose(precision, [[20.0]], rtol=1e-5)
    # log q is of the rate itself: a log-normal's density.
    rate = posterior.draws["rate"]
    log_q = dist.LogNormal(np.log(20 / 7), 20**-0.5).log_prob(rate)
    np.testing.assert_allclose(posterior.stats["log_q"], log_q, rtol=1e-4, atol=1e-4)
    log_prior = dist.Gamma(3.0, 2.0).log_prob(rate)
    np.testing.assert_allclose(posterior.stats["log_prior"], log_prior, rtol=1e-4, atol=1e-5)


def test_location_and_log_scale():
    """y ~ N(a, e^b): the expected information is n / s^2 and 2 n, whatever y."""

    def model(x, y=None):
        a = numpyro.sample("a", dist.Normal(0.0, 10.0))
        b = numpyro.sample("b", dist.Normal(0.0, 10.0))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(a, jnp.exp(b)), obs=y)

    posterior = fit(QUICK, model, ppbdl.Data(np.zeros((50, 0)), RNG.normal(1.0, 3.0, 50)))
    mode, precision = found(posterior, "a", "b")
    expected = np.diag([50 * np.exp(-2 * mode[1]) + 0.01, 100 + 0.01])
    np.testing.assert_allclose(precision, expected, rtol=1e-5, atol=1e-4)


def parts_at_random(model, data, sites=None):
    """A random point, the rows, and the curvature's programs."""
    structure = inspect_model(model, shapes_of(data))
    start = jax.jit(lambda x, y: initial_latents(jax.random.key(1), model, structure, x, y))
    point = Point(structure.unflatten(start(data.x, data.y)), ({}, {}))
    rows = Rows(jnp.asarray(data.x), jnp.asarray(data.y), whole=False)
    layout = layout_of(model, structure, sites, point, rows.x, rows.y)
    return point, rows, curvature_of(model, layout)


def canonical(likelihood):
    """A generalised linear model, of correlated priors: its Gauss-Newton matrix is the Hessian."""

    def model(x, y=None):
        shape = (x.shape[1], 2)
        prior = jnp.eye(6) + 0.3
        w = numpyro.sample("w", dist.MultivariateNormal(jnp.zeros(6), precision_matrix=prior))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", likelihood(0.3 * x @ w.reshape(shape)), obs=y)

    return model


@pytest.mark.parametrize(
    ("likelihood", "y"),
    [
        (lambda f: dist.Normal(f, 0.5).to_event(1), RNG.normal(size=(40, 2))),
        (lambda f: dist.Bernoulli(logits=f[:, 0]), RNG.integers(0, 2, 40)),
        (lambda f: dist.Bernoulli(probs=jax.nn.sigmoid(f[:, 0])), RNG.integers(0, 2, 40)),
        (lambda f: dist.Binomial(7, logits=f[:, 0] - f[:, 1]), RNG.integers(0, 8, 40)),
        (lambda f: dist.Poisson(jnp.exp(f[:, 0])), RNG.integers(0, 9, 40)),
        (lambda f: dist.Categorical(jax.nn.softmax(f)), RNG.integers(0, 2, 40)),
        (lambda f: dist.Categorical(logits=f), RNG.integers(0, 2, 40)),
        (lambda f: dist.LogNormal(f[:, 1], 2.0), RNG.lognormal(size=40)),
        (
            lambda f: dist.Normal(f[:, 0], 1.0).mask(jnp.arange(40) % 3 == 0),
            RNG.normal(size=40),
        ),
    ],
    ids=range(9),
)
def test_the_curvature_of_a_canonical_likelihood_is_the_hessian(likelihood, y, x64):
    model, data = canonical(likelihood), ppbdl.Data(COLUMNS, y)
    point, rows, parts = parts_at_random(model, data)
    precision = parts.dense(rows, point) + Prior(parts, point, rows).matrix()
    energy = potential(model, inspect_model(model, shapes_of(data)))
    hessian = jax.hessian(energy)(point.mode["w"], data.x, data.y)
    np.testing.assert_allclose(precision, hessian, rtol=1e-8, atol=1e-8)


def test_newtons_steps_end_at_the_mode():
    model = canonical(lambda f: dist.Poisson(jnp.exp(f[:, 0])))
    data = ppbdl.Data(COLUMNS, RNG.integers(0, 9, 40))
    posterior = fit(replace(QUICK, steps=1), model, data)
    mode, precision = found(posterior, "w")
    energy = potential(model, inspect_model(model, shapes_of(data)))
    slope = jax.grad(energy)(mode, data.x, data.y)
    assert slope @ np.linalg.solve(precision, slope) < 1e-8  # squared, in standard deviations
    hessian = jax.hessian(energy)(mode, data.x, data.y)
    np.testing.assert_allclose(precision, hessian, rtol=1e-3, atol=1e-3)


def mlp(x):
    return hk.nets.MLP([4, 3], activation=jnp.tanh)(x)


def sequence(x):
    return hk.Linear(3)(jnp.sum(jnp.tanh(hk.Linear(4)(x)), axis=1))


def convolutional(x):
    h = jnp.tanh(hk.Conv2D(3, (3, 2), stride=2)(x))
    h = hk.LayerNorm(-1, True, True)(hk.Conv2D(2, 2, padding="VALID", with_bias=False)(h))
    return hk.Linear(3)(h.reshape(h.shape[0], -1))


def channels_first(x):
    h = jnp.tanh(hk.Conv2D(3, 3, rate=2, data_format="NCHW")(jnp.moveaxis(x, -1, 1)))
    return hk.Linear(3)(h.reshape(h.shape[0], -1))


def recurrent(x):
    out, _ = hk.dynamic_unroll(
        hk.VanillaRNN(3), x, hk.VanillaRNN(3).initial_state(x.shape[0]), False
    )
    return hk.Linear(3)(out[:, -1])


def tied(x):
    layer = hk.Linear(2)
    return hk.Linear(3)(jnp.tanh(layer(jnp.tanh(layer(x)))))


def autoencoder(x):
    """A weight that is used outside of its layer as well."""
    layer = hk.Linear(4)
    h = jnp.tanh(layer(x))
    return hk.Linear(3)(h @ layer.params_dict()["linear/w"].T)


IMAGES = RNG.normal(size=(6, 5, 4, 2))
NETWORKS = {
    "dense": (mlp, RNG.normal(size=(9, 2))),
    "dense on a sequence": (sequence, RNG.normal(size=(9, 5, 2))),
    "convolutional": (convolutional, IMAGES),
    "channels first": (channels_first, IMAGES),
    "one layer twice": (tied, RNG.normal(size=(9, 2))),
    "tied to another": (autoencoder, RNG.normal(size=(9, 2))),
    "grouped": (
        lambda x: hk.Linear(3)(
            jnp.tanh(hk.Conv2D(4, 2, feature_group_count=2)(x)).reshape(x.shape[0], -1)
        ),
        IMAGES,
    ),
}


def parts_of(net, x, sites=None, rows=None):
    """The curvature's programs for a network, at a random point."""
    model = ppbdl.models.BNN(net, likelihood=ppbdl.models.Categorical(3))
    x = x[:rows]
    return parts_at_random(model, ppbdl.Data(x, np.arange(len(x)) % 3), sites)


@pytest.mark.parametrize("network", NETWORKS)
def test_diagonal_and_biases_are_those_of_the_whole(network, x64):
    point, rows, parts = parts_of(*NETWORKS[network])
    whole = parts.dense(rows, point)
    squares, start = [], 0
    if parts.layout.layers:
        captured = parts.captured["diagonal"](rows, point)
        factors = parts.captured["kronecker"](rows, point)
    for layer in parts.layout.layers:
        squares += [a.ravel() for a in captured[layer.weight][: len(layer.sites)]]
        start += captured[layer.weight][0].size
        if layer.bias is not None:
            bias = factors[layer.weight][2]
            stop = start + len(bias)
            np.testing.assert_allclose(bias, whole[start:stop, start:stop], atol=1e-12)
            start = stop
    if parts.layout.others:
        squares.append(parts.squares(rows, point))
    np.testing.assert_allclose(jnp.concatenate(squares), jnp.diag(whole), rtol=1e-8, atol=1e-12)
    every = jnp.eye(len(whole))
    np.testing.assert_allclose(parts.product(rows, point, every), whole, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("network", NETWORKS)
def test_layers_are_captured_where_they_can_be(network):
    _, _, parts = parts_of(*NETWORKS[network])
    expected = {
        "dense": ["net.linear_0.w", "net.linear_1.w"],
        "dense on a sequence": ["net.linear_1.w", "net.linear.w"],
        "convolutional": ["net.conv2_d.w", "net.conv2_d_1.w", "net.linear.w"],
        "channels first": ["net.conv2_d.w", "net.linear.w"],
        "one layer twice": ["net.linear_1.w"],
        "tied to another": ["net.linear_1.w"],
        "grouped": ["net.linear.w"],
    }
    assert [layer.weight for layer in parts.layout.layers] == expected[network]


@pytest.mark.parametrize("network", ["dense", "convolutional", "channels first"])
def test_kronecker_factors_are_exact_where_theory_says(network, x64):
    """A row has one input and, at one place, one sum of slopes' products: the product is exact.
    Over places it is only where inputs or slopes do not vary: a window that is the whole image."""

    def whole_window(x):
        h = hk.Conv2D(2, (5, 4), padding="VALID", data_format="NHWC")(x)
        return hk.Linear(3)(jnp.tanh(h).reshape(x.shape[0], -1))

    net, x = NETWORKS[network] if network == "dense" else (whole_window, IMAGES)
    point, rows, parts = parts_of(net, x, rows=1)
    whole, start = parts.dense(rows, point), 0
    for layer in parts.layout.layers:
        inputs, outputs, bias, places = parts.captured["kronecker"](rows, point)[layer.weight]
        stop = start + len(inputs) * len(outputs)
        product = jnp.kron(inputs, outputs) / places
        np.testing.assert_allclose(product, whole[start:stop, start:stop], atol=1e-12)
        start = stop + len(bias)


def test_the_last_layer_is_a_block_of_the_whole(x64):
    point, rows, parts = parts_of(*NETWORKS["convolutional"])
    _, _, last = parts_of(*NETWORKS["convolutional"], sites="last")
    assert last.layout.sites == ("net.linear.w", "net.linear.b")
    start = sum(point.mode[site].size for site in parts.layout.sites[:3])
    block = parts.dense(rows, point)[start:, start:][:-4, :-4]  # LayerNorm's come last
    (quick,) = last.captured["dense"](rows, point).values()
    np.testing.assert_allclose(quick, block, atol=1e-12)
    np.testing.assert_allclose(last.dense(rows, point), block, atol=1e-12)


def test_rows_are_taken_in_blocks_within_the_budget(monkeypatch, x64):
    point, rows, parts = parts_of(*NETWORKS["convolutional"])
    before = [parts.dense(rows, point), parts.captured["diagonal"](rows, point)]
    monkeypatch.setattr(sums, "BUDGET", 20_000)
    after = [parts.dense(rows, point), parts.captured["diagonal"](rows, point)]
    assert len(parts.dense.program._compiled) == 2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), before, after)


SMALL = ppbdl.models.BNN(mlp, likelihood=ppbdl.models.Categorical(3))
LABELLED = ppbdl.Data(RNG.normal(size=(60, 2)), RNG.integers(0, 3, 60))
SITES = ("net.linear_0.b", "net.linear_0.w", "net.linear_1.b", "net.linear_1.w")


def test_low_rank_of_full_rank_is_full():
    full = replace(QUICK, curvature="full")
    model, data = REGRESSION, CORRELATED
    _, whole = found(fit(full, model, data), "intercept", "weights")
    _, precision = found(
        fit(replace(full, curvature="low_rank"), model, data), "intercept", "weights"
    )
    np.testing.assert_allclose(precision, whole, rtol=1e-4, atol=1e-3)


def test_low_rank_keeps_what_the_data_say_most_of(x64):
    """The prior's precision P and the top of P^(-1/2) J'FJ P^(-1/2), by its definition."""
    point, rows, parts = parts_at_random(SMALL, LABELLED)
    blocks, gradients = low_rank(parts, point, rows, Prior(parts, point, rows), 5)
    (block,) = blocks.values()
    root = jnp.sqrt(block.prior)
    values, vectors = jnp.linalg.eigh(parts.dense(rows, point) / root / root[:, None])
    np.testing.assert_allclose(block.gains, values[::-1][:5], rtol=1e-3)
    np.testing.assert_allclose(abs(block.vectors.T @ vectors[:, ::-1][:, :5]), np.eye(5), atol=0.05)
    assert gradients > 0


def test_draws_without_a_matrix_have_the_covariance(monkeypatch):
    """Four means and ten covariances of 4,000 draws, within six of their standard errors: false
    alarms in less than 1 of 10^7 runs; the solver's tolerance is a hundredth of that."""
    monkeypatch.setattr(laplace, "BUDGET", 1)
    posterior = fit(replace(QUICK, draws=4000), REGRESSION, CORRELATED)
    mean, covariance = REGRESSION.exact_posterior(CORRELATED)
    draws = np.column_stack([posterior.draws["intercept"][0], posterior.draws["weights"][0]])
    sd = np.sqrt(np.diag(covariance))
    error = np.sqrt((np.outer(sd**2, sd**2) + covariance**2) / 4000)
    assert (abs(draws.mean(0) - mean) < 6 * sd / np.sqrt(4000) + 0.03 * sd).all()
    assert (abs(np.cov(draws.T) - covariance) < 6 * error).all()
    assert posterior.provenance.kind == "implicit"
    assert "log_evidence" not in posterior.params["laplace"]
    with pytest.raises(ppbdl.InputError, match="matrix-free"):
        delta_method(REGRESSION, posterior, CORRELATED)


def test_minibatches_lead_to_the_same_curvature():
    batches = replace(QUICK, batch_size=7)
    one, other = (found(fit(m, REGRESSION, CORRELATED), "weights") for m in (QUICK, batches))
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one[1], other[1], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["full", "kronecker"])
def test_batch_norm_and_learned_weights_stay_as_fitted(kind):
    def net(x, is_training):
        h = jnp.tanh(hk.BatchNorm(True, True, 0.9)(hk.Linear(4)(x), is_training))
        return hk.Linear(3)(h)

    prior = {"batch_norm.*": None, "*": dist.Normal(0.0, 1.0)}
    model = ppbdl.models.BNN(net, prior, ppbdl.models.Categorical(3))
    method = replace(QUICK, curvature=kind, batch_size=20, steps=60)
    posterior = fit(method, model, LABELLED)
    assert set(posterior.draws) == {
        f"net.{leaf}" for leaf in ("linear.w", "linear.b", "linear_1.w", "linear_1.b")
    }
    assert {"net.batch_norm.scale", "net.batch_norm.offset"} <= set(posterior.params)
    assert "net$state" in posterior.mutables
    assert np.isfinite(ppbdl.predict(1, model, posterior, LABELLED.x).mean).all()


def grouped(x, y=None):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    w = numpyro.sample("w", dist.Normal(0.0, scale).expand([3]).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


@pytest.mark.parametrize("kind", ["diagonal", "kronecker", "low_rank"])
def test_a_hierarchical_prior_needs_the_full_curvature(kind):
    with pytest.raises(ppbdl.ModelError, match='curvature="full"'):
        fit(replace(QUICK, curvature=kind), grouped, CORRELATED)
    posterior = fit(replace(QUICK, curvature=kind, sites="w"), grouped, CORRELATED)
    assert np.ptp(posterior.draws["scale"]) == 0 < np.ptp(posterior.draws["w"])
    assert posterior.provenance.kind == "implicit"  # no density of all latents


def test_a_hierarchical_prior_has_its_exact_hessian():
    """log p(w | s) + log p(s) + u, s = e^u: all of it is the prior's."""
    mode, precision = found(fit(QUICK, grouped, CORRELATED), "scale", "w")

    def log_prior(u):
        scale, w = jnp.exp(u[0]), u[1:]
        prior = dist.HalfNormal(1.0).log_prob(scale) + dist.Normal(0, scale).log_prob(w).sum()
        return prior + u[0]

    hessian = -np.array(jax.hessian(log_prior)(mode))
    hessian[1:, 1:] += CORRELATED.x.T @ CORRELATED.x / 0.25
    np.testing.assert_allclose(precision, hessian, rtol=1e-3, atol=1e-3)


def between_two_humps(x, y=None):
    """y ~ N(a^2, 1) with y far below zero holds a at 0, where the prior has a trough: a mode, but
    the part of the Hessian that makes it one is none that Gauss and Newton see."""
    humps = dist.Normal(jnp.array([-1.0, 1.0]), 0.5)
    prior = dist.MixtureSameFamily(dist.Categorical(probs=jnp.ones(2) / 2), humps)
    a = numpyro.sample("a", prior, infer={"init": lambda site: jnp.full((), 0.01)})
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(a**2 + 0 * b, 1.0), obs=y)


TROUGH = ppbdl.Data(np.zeros((4, 0)), np.array([-9.0, -11.0, -10.0, -10.0]))


@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_an_indefinite_curvature_is_damped_with_a_warning(kind):
    method = replace(QUICK, curvature=kind, steps=1, optimizer=optax.sgd(1e-6), draws=200)
    with pytest.warns(UserWarning, match="not positive in 1 of 2 directions"):
        posterior = fit(method, between_two_humps, TROUGH)
    assert abs(posterior.params["laplace"]["mode"]["a"]) < 1e-3
    for draws in posterior.draws.values():
        assert np.isfinite(draws).all()
        assert 0.1 < draws.std() < 2


def test_an_indefinite_prior_is_refused_where_it_must_be_positive():
    point, rows, parts = parts_at_random(between_two_humps, TROUGH)
    with pytest.raises(ppbdl.ModelError, match="positive curvature"):
        low_rank(parts, point, rows, Prior(parts, point, rows), 1)


def flat(x, y=None):
    free = dist.ImproperUniform(dist.constraints.real, (), (2,))
    w = numpyro.sample("w", free)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


@pytest.mark.parametrize("kind", ["full", "diagonal", "kronecker"])
def test_a_direction_that_nothing_is_known_of_is_refused(kind):
    data = ppbdl.Data(np.stack([np.arange(5.0), np.zeros(5)], axis=1), np.arange(5.0))
    with pytest.raises(ppbdl.FitError, match="zero in 1 of 2"):
        fit(replace(QUICK, curvature=kind), flat, data)


def test_a_singular_curvature_is_damped_with_a_warning():
    twice = ppbdl.Data(np.stack([np.arange(5.0)] * 2, axis=1), np.arange(5.0))
    with pytest.warns(UserWarning, match="not positive in 1 of 2 directions"):
        posterior = fit(QUICK, flat, twice)
    draws = posterior.draws["w"][0]
    assert np.isfinite(draws).all()
    assert np.std(draws[:, 0] - draws[:, 1]) > 100 * np.std(draws[:, 0] + draws[:, 1]) > 0


@pytest.mark.parametrize(
    ("sites", "chosen"),
    [
        (None, set(SITES)),
        ("*.w", {"net.linear_0.w", "net.linear_1.w"}),
        (("net.linear_0.*", "*_1.b"), {"net.linear_0.b", "net.linear_0.w", "net.linear_1.b"}),
        ("last", {"net.linear_1.b", "net.linear_1.w"}),
    ],
)
def test_the_sites_that_vary(sites, chosen):
    point, _, parts = parts_at_random(SMALL, LABELLED, sites)
    assert set(parts.layout.sites) == chosen
    assert set(point.mode) == set(SITES)


def test_the_other_sites_stay_at_the_mode():
    posterior = fit(replace(QUICK, sites="last"), SMALL, LABELLED)
    varied = {site for site, draws in posterior.draws.items() if np.std(draws, axis=1).max() > 1e-6}
    assert varied == {"net.linear_1.b", "net.linear_1.w"}
    assert set(posterior.draws) == set(SITES)
    assert posterior.provenance.method == "Laplace full last layer"


def test_kronecker_blocks_are_built_of_their_factors(x64):
    point, rows, parts = parts_at_random(SMALL, LABELLED)
    blocks = kronecker(parts, point, rows, Prior(parts, point, rows))
    gaussian = Gaussian(point.mode, blocks)
    inputs, outputs, bias, places = parts.captured["kronecker"](rows, point)["net.linear_1.w"]
    expected = jnp.kron(inputs, outputs) / places + 4 * jnp.eye(12)  # the default prior's 1/fan-in
    np.testing.assert_allclose(precision_of(gaussian, "net.linear_1.w"), expected, rtol=1e-8)
    expected = bias + jnp.eye(3)
    np.testing.assert_allclose(precision_of(gaussian, "net.linear_1.b"), expected, rtol=1e-8)


def test_kronecker_needs_one_prior_precision_a_layer():
    def prior(name, shape):
        return dist.Normal(jnp.zeros(shape), 1 + jnp.arange(np.prod(shape)).reshape(shape))

    model = ppbdl.models.BNN(mlp, prior, ppbdl.models.Categorical(3))
    point, rows, parts = parts_at_random(model, LABELLED)
    with pytest.raises(ppbdl.ModelError, match=r"'net\.linear_0\.w'"):
        kronecker(parts, point, rows, Prior(parts, point, rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curvature": "kfac"}, "curvature"),
        ({"sites": "net.lin"}, "sites"),
        ({"rank": 0}, "rank"),
        ({"draws": -1}, "draws"),
    ],
)
def test_wrong_settings_are_refused(change, message):
    with pytest.raises(ppbdl.InputError) as caught:
        fit(replace(QUICK, steps=3, **change), SMALL, LABELLED)
    assert caught.value.argument == message


def subsampling(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("half", x.shape[0], subsample_size=4) as rows:
        numpyro.sample("y", dist.Normal(w * x[rows, 0], 1.0), obs=None if y is None else y[rows])


def amortised(x, y=None):
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0), infer={"local": True})
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


def switching(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    flip = numpyro.sample("flip", dist.Bernoulli(0.5))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(w * flip, 1.0), obs=y)


def certain(x, y=None):
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(x[:, 0], 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (subsampling, "subsampling plate.*half"),
        (amortised, "local.*'z'"),
        (switching, "continuous latents only.*'flip'"),
        (certain, "at least one continuous latent"),
    ],
)
def test_models_beyond_it_are_refused(model, message):
    with pytest.raises(ppbdl.ModelError, match=message):
        fit(replace(QUICK, steps=3), model, CORRELATED)


def test_the_last_layer_needs_a_network():
    with pytest.raises(ppbdl.InputError, match="last layer"):
        fit(replace(QUICK, steps=3, sites="last"), REGRESSION, CORRELATED)


def test_latents_of_the_rows_are_kept_together(monkeypatch):
    """Each row has its own latent: rows cannot be cut, and the closed form is each row's."""
    monkeypatch.setattr(sums, "BUDGET", 100)

    def model(x, y=None):
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(z, 0.5), obs=y)

    y = np.linspace(-1, 1, 5)
    mode, precision = found(fit(QUICK, model, ppbdl.Data(np.zeros((5, 0)), y)), "z")
    np.testing.assert_allclose(mode, 0.8 * y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(precision, 5 * np.eye(5), rtol=1e-5, atol=1e-5)


def test_a_second_fit_compiles_nothing():
    for kind in ("full", "kronecker", "diagonal", "low_rank"):
        method = replace(QUICK, curvature=kind, steps=20, rank=3)
        fit(method, SMALL, LABELLED)
        other = replace(LABELLED, x=LABELLED.x + 1)
        assert ppbdl.fit(5, SMALL, other, method, progress=False).provenance.seconds_compiling == 0


def test_white_noise_and_latents_are_one_to_one():
    for kind in ("full", "kronecker", "diagonal", "low_rank"):
        posterior = fit(replace(QUICK, curvature=kind, steps=20, rank=3), SMALL, LABELLED)
        gaussian = Gaussian.of(first_chain(posterior.params["laplace"]))
        noise = jax.random.normal(jax.random.key(0), (gaussian.size,))
        there = gaussian.at(noise)
        np.testing.assert_allclose(gaussian.noise(there), noise, rtol=1e-3, atol=1e-3)
        root = jax.jacobian(lambda z, at=gaussian.at: join(at(z), SITES))(noise)
        _, log_det = np.linalg.slogdet(np.float64(root))
        np.testing.assert_allclose(gaussian.log_det, -2 * log_det, rtol=1e-4)
        constant = gaussian.size * np.log(2 * np.pi)
        density = -0.5 * (noise @ noise + constant) - log_det
        np.testing.assert_allclose(gaussian.log_density(noise), density, rtol=1e-4)


@pytest.mark.parametrize("kind", ["full", "low_rank"])
def test_the_tuned_prior_has_the_highest_evidence(kind):
    """Of a conjugate regression log Z at a fixed mode m is a closed form in the factor; its best is
    looked for on a grid."""
    posterior = fit(replace(QUICK, curvature=kind, tune_prior=True), REGRESSION, CORRELATED)
    mean, covariance = REGRESSION.exact_posterior(CORRELATED)
    data = np.linalg.inv(covariance) - np.eye(4)
    factors = np.exp(np.linspace(-6, 6, 4001))
    evidence = [
        2 * np.log(f) - f / 2 * mean @ mean - np.linalg.slogdet(data + f * np.eye(4))[1] / 2
        for f in factors
    ]
    best = factors[np.argmax(evidence)]
    arrays = posterior.params["laplace"]
    np.testing.assert_allclose(arrays["prior_factor"], [best], rtol=0.01)
    gain = max(evidence) - (-mean @ mean / 2 - np.linalg.slogdet(data + np.eye(4))[1] / 2)
    expected = REGRESSION.log_evidence(CORRELATED) + gain
    np.testing.assert_allclose(arrays["log_evidence"], [expected], rtol=1e-4)
    _, precision = found(posterior, "intercept", "weights")
    np.testing.assert_allclose(precision, data + best * np.eye(4), rtol=0.01, atol=0.01)
    # log p of the draws is under the prior that was chosen.
    weights = np.concatenate([d.reshape(1, 20, -1) for d in posterior.draws.values()], axis=-1)
    log_prior = dist.Normal(0, float(arrays["prior_factor"][0]) ** -0.5).log_prob(weights).sum(-1)
    np.testing.assert_allclose(posterior.stats["log_prior"], log_prior, rtol=1e-3)


@pytest.mark.parametrize("rule", [diagonal, kronecker, dense])
def test_a_tuned_block_is_that_under_the_tuned_prior(rule, x64):
    """The same curvature, made anew with a prior of that precision."""
    prior = {"*": dist.Normal(0.0, 1.0)}
    model = ppbdl.models.BNN(mlp, prior, ppbdl.models.Categorical(3))
    point, rows, parts = parts_at_random(model, LABELLED)
    before = Prior(parts, point, rows)
    tuning = tuned(model, parts, point, rows, before, rule(parts, point, rows, before))
    there = {"*": dist.Normal(0.0, tuning.factor**-0.5)}
    other = replace(model, prior=there)
    _, _, again = parts_at_random(other, LABELLED)
    expected = rule(again, point, rows, Prior(again, point, rows))
    for sites in expected:
        got, want = (Gaussian(point.mode, {sites: b[sites]}) for b in (tuning.blocks, expected))
        np.testing.assert_allclose(
            precision_of(got, *sites), precision_of(want, *sites), rtol=1e-6, atol=1e-8
        )
    assert abs(np.log(tuning.factor)) > 0.01


def test_only_normal_priors_can_be_tuned():
    model = ppbdl.models.BNN(mlp, dist.Laplace(0.0, 1.0), ppbdl.models.Categorical(3))
    with pytest.raises(ppbdl.ModelError, match="zero-mean normal priors"):
        fit(replace(QUICK, tune_prior=True, curvature="diagonal", steps=3), model, LABELLED)
