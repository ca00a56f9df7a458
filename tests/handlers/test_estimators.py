"""Every gradient estimator estimates the same objective, the later ones with less noise.

Where a test is statistical, its seeds are fixed; the rate given is that of a false alarm over all
of its comparisons, were the seeds drawn anew.
"""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.handlers import replay, seed, substitute, trace

import ppbdl
import ppbdl.models
from ppbdl.guides import bind
from ppbdl.handlers import flipout, local_reparameterization, masks_per_example
from ppbdl.inference.elbo import AnalyticELBO
from ppbdl.module import random_haiku_module, training
from ppbdl.structure import inspect_model, shapes_of


def mlp(x):
    return hk.nets.MLP([16, 3], activation=jnp.tanh)(x)


def lenet(x):
    x = hk.avg_pool(jax.nn.relu(hk.Conv2D(4, 5)(x)), (2, 2, 1), (2, 2, 1), "SAME")
    x = hk.avg_pool(jax.nn.relu(hk.Conv2D(6, 5)(x)), (2, 2, 1), (2, 2, 1), "SAME")
    return hk.nets.MLP([12, 10, 3])(x.reshape(x.shape[0], -1))


def channels_first(x):
    x = jax.nn.relu(hk.Conv2D(4, 3, stride=2, data_format="NCHW")(x))
    x = jax.nn.relu(hk.Conv2D(6, 3, rate=2, feature_group_count=2, data_format="NCHW")(x))
    return hk.Linear(3)(x.mean((2, 3)))


def convolution_1d(x):
    x = jax.nn.relu(hk.Conv1D(4, 5, stride=2, padding="VALID")(x))
    x = jax.nn.relu(hk.Conv1D(4, 3, feature_group_count=4)(x))
    return hk.Linear(3)(x.mean(1))


def transposed(x):
    x = jax.nn.relu(hk.Conv2DTranspose(4, 3, stride=2)(x))
    return hk.Linear(3)(hk.Conv2D(2, 3, stride=2)(x).mean((1, 2)))


def residual(x, is_training):
    def normalised(x):
        return hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(x, is_training)

    x = jax.nn.relu(normalised(hk.Conv2D(4, 3, with_bias=False)(x)))
    x = x + normalised(hk.Conv2D(4, 3, with_bias=False)(jax.nn.relu(x)))
    return hk.Linear(3)(jax.nn.relu(x).mean((1, 2)))


def recurrent(x):
    core = hk.LSTM(6)
    outputs, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[0]), time_major=False)
    return hk.Linear(3)(outputs[:, -1])


def attention(x):
    x = hk.Linear(8)(x)
    x = x + hk.MultiHeadAttention(2, 4, w_init=hk.initializers.VarianceScaling(), model_size=8)(
        x, x, x
    )
    x = hk.LayerNorm(-1, create_scale=True, create_offset=True)(x)
    return hk.Linear(3)(x.mean(1))


def words(x):
    return hk.Linear(3)(jnp.tanh(hk.Embed(7, 5)(x.astype(int)[..., 0])).mean(1))


NETWORKS = {
    "MLP": (mlp, (5,)),
    "LeNet": (lenet, (8, 8, 1)),
    "channels first": (channels_first, (2, 8, 8)),
    "1-D convolution": (convolution_1d, (12, 2)),
    "transposed convolution": (transposed, (4, 4, 2)),
    "ResNet with BatchNorm": (residual, (6, 6, 2)),
    "LSTM": (recurrent, (5, 2)),
    "self-attention": (attention, (5, 3)),
    "embedding": (words, (4, 1)),
}

ROWS = 6
ESTIMATORS = {
    "one draw": (ppbdl.AutoNormal(0.3), replay),
    "flipout": (ppbdl.AutoNormal(0.3), flipout),
    "local reparameterisation": (ppbdl.AutoNormal(0.3), local_reparameterization),
    "masks for each example": (ppbdl.MCDropout(0.3), masks_per_example),
}


def some_data(shape, rows=ROWS):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, *shape)).astype(np.float32)
    return ppbdl.Data(np.abs(x) if shape == (4, 1) else x, rng.integers(0, 3, rows))


@functools.cache
def classifier(net):
    return ppbdl.models.BNN(net, dist.Normal(0.0, 0.7), ppbdl.models.Categorical(3))


def guided(model, guide, data):
    """A bound guide, and parameters of it at which its scales differ between weights."""
    program = bind(guide, model, inspect_model(model, shapes_of(data)))
    sites = trace(seed(program, 0)).get_trace(data.x, data.y)
    params = {name: s["value"] for name, s in sites.items() if s["type"] == "param"}
    if "auto_scale" in params:
        wobble = 1 + 0.5 * jnp.sin(jnp.arange(params["auto_scale"].size))
        params["auto_scale"] = params["auto_scale"] * wobble
    return substitute(program, data=params), params


def outputs_of(net, guide, estimator, data, draws):
    """Many draws of a network's outputs, (draw, row, ...)."""

    def model(x, y=None):
        outputs = random_haiku_module("net", net, dist.Normal(0.0, 0.7), x)(x)
        flat = outputs.reshape(outputs.shape[0], -1)
        numpyro.deterministic("outputs", outputs)
        with numpyro.plate("data", flat.shape[0]):
            numpyro.sample("y", dist.Normal(flat.mean(1), 1.0), obs=y)

    data = ppbdl.Data(data.x, np.zeros(data.rows))
    program, _ = guided(model, guide, data)

    @jax.jit
    @jax.vmap
    def draw(key):
        key, model_key = jax.random.split(key)
        q = trace(seed(program, key)).get_trace(data.x)
        p = trace(seed(training(estimator(model, q)), model_key)).get_trace(data.x)
        return p["outputs"]["value"]

    return np.asarray(draw(jax.random.split(jax.random.key(1), draws)))


LAYERS = {
    "dense": (lambda x: hk.Linear(3)(x), (5,)),
    "dense on a sequence": (lambda x: hk.Linear(3)(x), (4, 5)),
    "no bias": (lambda x: hk.Linear(3, with_bias=False)(x), (5,)),
    "1-D convolution": (lambda x: hk.Conv1D(3, 3)(x), (7, 2)),
    "2-D convolution": (lambda x: hk.Conv2D(3, 3)(x), (5, 5, 2)),
    "channels first": (lambda x: hk.Conv2D(3, 3, data_format="NCHW")(x), (2, 5, 5)),
    "stride": (lambda x: hk.Conv2D(3, 3, stride=2)(x), (5, 5, 2)),
    "dilation": (lambda x: hk.Conv2D(3, 2, rate=2, padding="VALID")(x), (5, 5, 2)),
    "groups": (lambda x: hk.Conv2D(4, 3, feature_group_count=2)(x), (5, 5, 4)),
    "depthwise": (lambda x: hk.DepthwiseConv2D(2, 3)(x), (5, 5, 2)),
    "transposed": (lambda x: hk.Conv2DTranspose(3, 3, stride=2)(x), (3, 3, 2)),
    "transposed, channels first": (
        lambda x: hk.Conv2DTranspose(3, 3, data_format="NCHW")(x),
        (2, 3, 3),
    ),
    "transposed, 1-D": (lambda x: hk.Conv1DTranspose(3, 3)(x), (4, 2)),
    "embedding": (lambda x: hk.Embed(7, 5)(x.astype(int)[..., 0]), (4, 1)),
}


@pytest.mark.parametrize("estimator", list(ESTIMATORS)[1:])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_has_the_marginals_of_whole_draws(layer, estimator):
    """Every example's mean within 5 standard errors and, on average, sd within 3 %.

    False alarms: fewer than 1 in 10,000 for the some 5,000 means (|z| < 5 each), and fewer than 1
    in 10,000 for each average of sds, whose standard error is below 1.2 % at 8,000 draws.
    """
    if (layer, estimator) == ("depthwise", "masks for each example"):
        pytest.skip("a single input unit is never dropped")
    net, shape = LAYERS[layer]
    guide, handler = ESTIMATORS[estimator]
    data, draws = some_data(shape), 8_000
    whole = outputs_of(net, guide, replay, data, draws)
    own = outputs_of(net, guide, handler, data, draws)
    error = np.sqrt((whole.var(0) + own.var(0)) / draws) + 1e-7
    assert np.abs((own.mean(0) - whole.mean(0)) / error).max() < 5
    varies = whole.std(0) > 1e-6
    assert varies.any()
    np.testing.assert_allclose(own.std(0)[~varies], 0, atol=1e-5)
    ratios = (own.std(0)[varies] / whole.std(0)[varies]).reshape(-1)
    assert abs(ratios.mean() - 1) < 0.03
    assert np.abs(ratios - 1).max() < 0.1  # masks of few units: kurtosis makes the noise larger


@pytest.mark.parametrize("name", ["MLP", "LeNet", "LSTM", "self-attention", "channels first"])
def test_flipouts_examples_have_whole_draws_of_every_layer(name):
    """Exact in depth: the outputs' sd of each example, on average, is that of whole draws.

    A ratio of two sds from 20,000 draws has a standard error of 0.7 % for each output, so that
    an average over 18 is outside 3 % less than once in a million.
    """
    net, shape = NETWORKS[name]
    data = some_data(shape)
    whole = outputs_of(net, ppbdl.AutoNormal(0.3), replay, data, 20_000)
    own = outputs_of(net, ppbdl.AutoNormal(0.3), flipout, data, 20_000)
    assert abs((own.std(0) / whole.std(0)).mean() - 1) < 0.03
    error = np.sqrt((whole.var(0) + own.var(0)) / 20_000)
    assert np.abs((own.mean(0) - whole.mean(0)) / error).max() < 5


@pytest.mark.parametrize("estimator", list(ESTIMATORS)[1:])
@pytest.mark.parametrize("name", ["MLP", "LeNet"])
def test_equal_examples_get_different_weights(name, estimator):
    """Twins in a batch: correlation 1 under one draw, near 0 with a draw for each example."""
    net, shape = NETWORKS[name]
    guide, handler = ESTIMATORS[estimator]
    one = some_data(shape, 1)
    twins = ppbdl.Data(np.repeat(one.x, 2, axis=0), np.repeat(one.y, 2))

    def correlation(handler):
        outputs = outputs_of(net, guide, handler, twins, 4000)
        return np.corrcoef(outputs[:, 0, 0], outputs[:, 1, 0])[0, 1]

    assert correlation(replay) > 0.999
    # Flipout's two flip the same draw: independent given the signs, not quite given its size.
    assert abs(correlation(handler)) < 0.1


def gradients(name, estimator, keys, guide=None):
    net, shape = NETWORKS[name]
    own_guide, handler = ESTIMATORS[estimator]
    model, data = classifier(net), some_data(shape, 32)
    structure = inspect_model(model, shapes_of(data))
    program = bind(guide or own_guide, model, structure)
    _, params = guided(model, guide or own_guide, data)
    elbo = AnalyticELBO(1, handler)

    def loss(params, key):
        return elbo.loss(
            key,
            {},
            substitute(model, data=params),
            substitute(program, data=params),
            data.x,
            data.y,
        )

    values, grads = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(params, keys)
    flat = jnp.concatenate([g.reshape(len(keys), -1) for g in jax.tree.leaves(grads)], axis=1)
    return np.asarray(values, float), np.asarray(flat, float)


EXACT = [
    ("MLP", "flipout"),
    ("MLP", "local reparameterisation"),
    ("MLP", "masks for each example"),
    ("LeNet", "flipout"),
    ("LeNet", "masks for each example"),
    ("LSTM", "flipout"),
    ("self-attention", "flipout"),
    ("embedding", "flipout"),
    ("transposed convolution", "flipout"),
]


@pytest.mark.parametrize(("name", "estimator"), EXACT)
def test_expected_losses_and_gradients_agree(name, estimator):
    """|z| below 4 for the loss and for the gradient along 10 random directions.

    False alarms: 6.3e-5 a comparison, so 11 comparisons 7e-4 a case.
    """
    guide, _ = ESTIMATORS[estimator]
    half = np.split(np.asarray(jax.random.key_data(jax.random.split(jax.random.key(2), 8000))), 2)
    keys = [jax.random.wrap_key_data(words) for words in half]
    whole = gradients(name, "one draw", keys[0], guide)
    own = gradients(name, estimator, keys[1])
    directions = np.random.default_rng(3).normal(size=(whole[1].shape[1], 10))
    for a, b in (
        (whole[0][:, None], own[0][:, None]),
        (whole[1] @ directions, own[1] @ directions),
    ):
        error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
        assert np.abs((a.mean(0) - b.mean(0)) / error).max() < 4


@pytest.mark.parametrize(
    ("name", "estimator"),
    [(n, e) for n in ("MLP", "LeNet") for e in ("flipout", "local reparameterisation")],
)
def test_draws_for_each_example_make_gradients_less_noisy(name, estimator):
    """At the same parameters; the total variance falls by a fifth at the least."""
    guide, _ = ESTIMATORS[estimator]
    keys = jax.random.split(jax.random.key(4), 1000)
    whole = gradients(name, "one draw", keys, guide)[1].var(0).sum()
    own = gradients(name, estimator, keys)[1].var(0).sum()
    assert own < 0.8 * whole


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_architecture_trains_or_is_refused(name, estimator):
    net, shape = NETWORKS[name]
    guide, handler = ESTIMATORS[estimator]
    data = some_data(shape, 12)
    svi = ppbdl.SVI(guide, steps=3, batch_size=6, draws=2, estimator=handler)
    if (name, estimator) == ("LSTM", "local reparameterisation"):
        with pytest.raises(ppbdl.ModelError, match=r"lstm/linear.*in a loop.*flipout"):
            ppbdl.fit(0, classifier(net), data, svi, progress=False)
        return
    posterior = ppbdl.fit(0, classifier(net), data, svi, progress=False)
    prediction = ppbdl.predict(1, classifier(net), posterior, data.x)
    np.testing.assert_allclose(prediction.mean.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("handler", [flipout, local_reparameterization, masks_per_example])
def test_a_guide_without_what_the_estimator_needs_is_refused(handler):
    other = ppbdl.AutoNormal() if handler is masks_per_example else ppbdl.AutoDelta()
    svi = ppbdl.SVI(other, steps=1, estimator=handler)
    with pytest.raises(ppbdl.ModelError, match="estimator: expected"):
        ppbdl.fit(0, classifier(NETWORKS["MLP"][0]), some_data((5,)), svi, progress=False)


def test_rows_that_are_not_in_front_are_refused_by_the_layers_name():
    def time_major(x):
        return hk.Linear(3, name="after_swap")(x.swapaxes(0, 1)).mean(0)

    svi = ppbdl.SVI(steps=1, estimator=flipout)
    with pytest.raises(ppbdl.ModelError, match=r"after_swap.*6 rows"):
        ppbdl.fit(0, classifier(time_major), some_data((4, 2)), svi, progress=False)


def test_a_layer_used_twice_is_refused_by_local_reparameterisation():
    def twice(x):
        layer = hk.Linear(5)
        return hk.Linear(3)(layer(jnp.tanh(layer(x))))

    svi = ppbdl.SVI(steps=1, estimator=local_reparameterization)
    with pytest.raises(ppbdl.ModelError, match="used again"):
        ppbdl.fit(0, classifier(twice), some_data((5,)), svi, progress=False)


def test_a_module_that_the_estimators_do_not_know_has_the_guides_draw():
    """A module with weights of its own: one draw for the batch, never the mean."""

    class Bend(hk.Module):
        def __call__(self, x):
            return x * jnp.exp(hk.get_parameter("bend", [5], init=jnp.zeros))

    def net(x):
        return jnp.concatenate([Bend()(x), hk.Linear(2)(x)], axis=1)

    data = some_data((5,))
    whole = outputs_of(net, ppbdl.AutoNormal(0.3), replay, data, 4000)
    own = outputs_of(net, ppbdl.AutoNormal(0.3), flipout, data, 4000)
    np.testing.assert_allclose(own.std(0) / whole.std(0), 1, atol=0.1)
    assert abs(np.corrcoef(own[:, 0, 0], own[:, 1, 0])[0, 1]) > 0.99  # shared between examples


def test_another_loss_takes_no_estimator_and_no_temperature():
    from numpyro.infer import Trace_ELBO

    for setting in ({"estimator": flipout}, {"temperature": 0.5}):
        with pytest.raises(ppbdl.InputError, match=f"{next(iter(setting))}: expected left out"):
            ppbdl.SVI(loss=Trace_ELBO(), **setting)
