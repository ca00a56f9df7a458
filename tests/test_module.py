"""The Haiku bridge: any network's weights become sites, and the network stays Haiku's own."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.handlers import seed, substitute, trace

import ppbdl
import ppbdl.models
from ppbdl.module import fan_in_normal

KEY = jax.random.key(0)


def mlp(x):
    return hk.nets.MLP([4, 2])(x)


def convolution(x):
    x = jax.nn.relu(hk.Conv2D(2, 3)(x))
    return hk.Linear(2)(x.mean((1, 2)))


def recurrence(x):
    out, _ = hk.dynamic_unroll(hk.LSTM(3), x, hk.LSTM(3).initial_state(x.shape[0]), False)
    return hk.Linear(2)(out[:, -1])


def attention(x):
    attend = hk.MultiHeadAttention(2, 3, w_init=hk.initializers.VarianceScaling(1.0))
    return hk.Linear(2)(attend(x, x, x).mean(1))


def normalisation(x):
    x = hk.Linear(4)(x)
    x = hk.BatchNorm(True, True, 0.9)(x, is_training=True)
    return hk.Linear(2)(x)


def two_networks(x):
    return hk.Linear(2, name="left")(x) + hk.nets.MLP([2, 2], name="right")(x)


def shared_name(x):
    """One top-level module whose children would clash with its own weights were it left out."""
    return hk.nets.MLP([2], name="only")(x)


def input_of(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


NETWORKS = {
    "MLP": (mlp, input_of(5, 3), {"linear_0.w", "linear_0.b", "linear_1.w", "linear_1.b"}),
    "convolution": (
        convolution,
        input_of(5, 6, 6, 1),
        {"conv2_d.w", "conv2_d.b", "linear.w", "linear.b"},
    ),
    "recurrence": (
        recurrence,
        input_of(5, 4, 3),
        {"lstm.linear.w", "lstm.linear.b", "linear.w", "linear.b"},
    ),
    "attention": (
        attention,
        input_of(5, 4, 6),
        {
            f"multi_head_attention.{part}.{leaf}"
            for part in ("query", "key", "value", "linear")
            for leaf in "wb"
        }
        | {"linear.w", "linear.b"},
    ),
    "normalisation": (
        normalisation,
        input_of(5, 3),
        {
            "linear.w",
            "linear.b",
            "batch_norm.scale",
            "batch_norm.offset",
            "linear_1.w",
            "linear_1.b",
        },
    ),
    "two networks": (
        two_networks,
        input_of(5, 3),
        {"left.w", "left.b"} | {f"right.linear_{i}.{leaf}" for i in (0, 1) for leaf in "wb"},
    ),
    "one module": (shared_name, input_of(5, 3), {"linear_0.w", "linear_0.b"}),
}


def run(program, key=KEY):
    """The program's value, and its sites."""
    tracer = trace(seed(program, key))
    value = tracer()
    return value, tracer.trace


def haikus_own(network, x, weights):
    """Haiku's apply with the same weights, by the order of its own tree."""
    transformed = hk.transform_with_state(network)
    params, state = transformed.init(KEY, x)
    paths, treedef = jax.tree_util.tree_flatten_with_path(params)
    leaves = []
    for (path, name), leaf in paths:
        dotted = f"{path.key}.{name.key}".replace("/~/", ".").replace("/", ".")
        fitting = [key for key in weights if dotted == key or dotted.endswith(f".{key}")]
        found = weights[max(fitting, key=len)]  # a single module's own name is left out
        assert found.shape == leaf.shape
        leaves.append(found)
    return transformed.apply(treedef.unflatten(leaves), state, KEY, x)[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_random_network_is_haikus_with_a_site_for_each_weight(name):
    network, x, weights = NETWORKS[name]
    prior = dist.Normal(0.0, 0.5)
    value, sites = run(lambda: ppbdl.random_haiku_module("net", network, prior, x)(x))
    drawn = {n.removeprefix("net."): s["value"] for n, s in sites.items() if s["type"] == "sample"}
    assert set(drawn) == weights
    assert not any("/" in site for site in sites)  # which an ArviZ tree would take for a group
    np.testing.assert_allclose(value, haikus_own(network, x, drawn), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_learned_network_is_haikus_with_one_parameter(name):
    network, x, weights = NETWORKS[name]
    value, sites = run(lambda: ppbdl.haiku_module("net", network, x)(x))
    params = sites["net$params"]["value"]
    assert set(params) == weights
    assert sites["net$params"]["type"] == "param"
    np.testing.assert_allclose(value, haikus_own(network, x, params), rtol=1e-5, atol=1e-6)


FORMS = {
    "a function": mlp,
    "transformed": hk.transform(mlp),
    "with state": hk.transform_with_state(mlp),
    "without a key": hk.without_apply_rng(hk.transform(mlp)),
    "with state, without a key": hk.without_apply_rng(hk.transform_with_state(mlp)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_network_is_the_same(form):
    x = input_of(5, 3)
    values = [
        run(lambda network=network: ppbdl.random_haiku_module("net", network, NORMAL, x)(x))[0]
        for network in (FORMS[form], mlp)
    ]
    np.testing.assert_array_equal(*values)


NORMAL = dist.Normal(0.0, 1.0)


def dropout(x):
    return hk.dropout(hk.next_rng_key(), 0.5, hk.Linear(50)(x))


def test_a_network_that_draws_takes_a_key_first():
    x = jnp.ones((1, 3))

    def program():
        net = ppbdl.random_haiku_module("net", dropout, NORMAL, x, apply_rng=True)
        keys = jax.random.split(KEY)
        return net(keys[0], x), net(keys[0], x), net(keys[1], x)

    (one, same, other), _ = run(program)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one == 0, other == 0)
    assert 5 < (np.asarray(one) == 0).sum() < 45  # of 50 at one half: 1 false alarm in 10^9


def test_dropout_in_a_learned_network_fits():
    def model(x, y=None):
        net = ppbdl.haiku_module("net", lambda x: dropout(x)[:, :1], x, apply_rng=True)
        mean = net(numpyro.prng_key(), x)[:, 0]
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    x = np.linspace(-1, 1, 12)[:, None]
    data = ppbdl.Data(x, x[:, 0])
    posterior = ppbdl.fit(0, model, data, ppbdl.MAP(steps=20), progress=False)
    assert np.isfinite(posterior.losses).all()


def with_statistics(x, y=None):
    net = ppbdl.haiku_module("net", lambda x: normalisation(x)[:, 0], x)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(net(x), 1.0), obs=y)


def test_running_statistics_move_in_a_fit():
    x = 5.0 + np.random.default_rng(0).normal(size=(20, 3))
    data = ppbdl.Data(x, x[:, 0])
    short, long = (
        ppbdl.fit(0, with_statistics, data, ppbdl.MAP(steps=steps), progress=False)
        for steps in (1, 60)
    )
    assert set(long.mutables) == {"net$state"}
    means = [
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(p.mutables)])
        for p in (short, long)
    ]
    assert not np.allclose(means[0], means[1])
    assert np.isfinite(means[1]).all()
    predicted = ppbdl.predict(0, with_statistics, long, x)
    assert np.isfinite(predicted.mean).all()


def test_no_gradient_flows_through_the_statistics():
    """The new state depends on the weights, yet its derivative by them is zero."""
    x = input_of(5, 3)

    def state_after(weight):
        def program():
            return ppbdl.random_haiku_module("net", normalisation, NORMAL, x)(x)

        placed = substitute(program, data={"net.linear.w": weight})
        sites = trace(seed(placed, KEY)).get_trace()
        state = sites["net$state"]["value"]["state"]
        return sum(jnp.sum(leaf.astype(float)) for leaf in jax.tree.leaves(state))

    weight = input_of(3, 4)
    assert not np.isclose(state_after(weight), state_after(2 * weight))
    np.testing.assert_array_equal(jax.grad(state_after)(weight), 0.0)


def sites_of(prior, **given):
    x = input_of(5, 3)
    args = () if given else (x,)
    return run(lambda: ppbdl.random_haiku_module("net", mlp, prior, *args, **given)(x))[1]


def scale_of(fn):
    return np.sqrt(np.unique(np.asarray(fn.variance))).tolist()


PRIORS = {
    "a distribution": (dist.Normal(0.0, 3.0), {"linear_0.w": 3.0, "linear_1.b": 3.0}),
    "a callable": (
        lambda name, shape: dist.Normal(0.0, 2.0 if name.endswith(".w") else len(shape) + 4.0),
        {"linear_0.w": 2.0, "linear_1.b": 5.0},
    ),
    "a callable of the shape": (
        lambda name, shape: dist.Normal(jnp.zeros(shape), 7.0),
        {"linear_0.w": 7.0, "linear_1.b": 7.0},
    ),
    "patterns": (
        {"linear_0.*": dist.Normal(0.0, 0.1), "*.w": dist.Normal(0.0, 8.0), "*": NORMAL},
        {"linear_0.w": 0.1, "linear_0.b": 0.1, "linear_1.w": 8.0, "linear_1.b": 1.0},
    ),
    "the default": (fan_in_normal, {"linear_0.w": 3**-0.5, "linear_1.w": 0.5, "linear_1.b": 1.0}),
}


@pytest.mark.parametrize("name", PRIORS)
def test_priors(name):
    prior, expected = PRIORS[name]
    sites = sites_of(prior)
    for leaf, scale in expected.items():
        site = sites[f"net.{leaf}"]
        assert scale_of(site["fn"]) == pytest.approx([scale], rel=1e-5)
        assert site["fn"].event_shape == site["value"].shape  # one event: no stray batch axes
        assert site["fn"].batch_shape == ()


def test_the_default_prior_keeps_a_layers_variance():
    """A kernel's fan-in is the product of all axes but the last."""
    assert fan_in_normal("w", (3, 3, 4, 8)).scale == pytest.approx(1 / 6)
    assert fan_in_normal("w", (100, 2)).scale == pytest.approx(0.1)
    assert fan_in_normal("b", (100,)).scale == 1.0


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"conv*": NORMAL}, r"prior: .*'linear_0\.\w'.*\['conv\*'\]"),
        (dist.Normal(jnp.zeros(7), 1.0), r"prior: .*got shape \(7,\)"),
        (lambda name, shape: dist.Normal(jnp.zeros((2, *shape)), 1.0), "prior: .*got shape"),
    ],
)
def test_a_prior_that_does_not_fit(prior, message):
    with pytest.raises(ppbdl.ModelError, match=message):
        sites_of(prior)


def test_the_shape_of_an_input_will_do():
    one, other = sites_of(NORMAL), sites_of(NORMAL, input_shape=(1, 3))
    assert one.keys() == other.keys()
    np.testing.assert_array_equal(one["net.linear_0.w"]["value"], other["net.linear_0.w"]["value"])


@pytest.mark.parametrize("declare", [ppbdl.haiku_module, ppbdl.random_haiku_module])
def test_a_network_without_an_example_is_refused(declare):
    with pytest.raises(ppbdl.ModelError, match=r"args: .*'net'.*input_shape"):
        run(lambda: declare("net", mlp))


def test_keywords_reach_the_network():
    def network(x, width):
        return hk.Linear(width)(x)

    x = input_of(5, 3)
    _, sites = run(lambda: ppbdl.random_haiku_module("net", network, NORMAL, x, width=7))
    assert sites["net.linear.w" if "net.linear.w" in sites else "net.w"]["value"].shape == (3, 7)


ARCHITECTURES = [name for name in NETWORKS if name not in ("one module", "two networks", "MLP")]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_a_bayesian_network(name):
    network, x, weights = NETWORKS[name]
    model = ppbdl.models.BNN(lambda x: network(x)[:, :1], likelihood=ppbdl.models.Normal(1.0))
    data = ppbdl.Data(np.asarray(x), np.arange(5.0))
    svi = ppbdl.SVI(optimizer=optax.adam(0.01), steps=10, draws=3)
    posterior = ppbdl.fit(0, model, data, svi, progress=False)
    assert {site.removeprefix("net.") for site in posterior.draws} == weights
    assert np.isfinite(ppbdl.predict(0, model, posterior, data).mean).all()


# Copies: equal networks in one tree, for layers that are scanned.


def declared(copies, prior=None):
    x = input_of(5, 3)

    def model():
        if prior is None:
            return ppbdl.haiku_module("net", mlp, x, copies=copies)
        return ppbdl.random_haiku_module("net", mlp, prior, x, copies=copies)

    return trace(seed(model, KEY)).get_trace(), seed(model, KEY)(), x


@pytest.mark.parametrize("prior", [None, fan_in_normal], ids=["parameters", "random"])
def test_copies_are_networks_of_their_own(prior):
    sites, nets, x = declared(3, prior)
    out = jax.vmap(lambda net: net(x))(nets)
    values = {name: sites[name]["value"] for name in sites}
    leaves = values["net$params"] if prior is None else values
    assert leaves["linear_0.w" if prior is None else "net.linear_0.w"].shape == (3, 3, 4)
    alone = hk.without_apply_rng(hk.transform(mlp))
    for copy in range(3):
        weights = {
            f"mlp/~/linear_{i}": {
                part: leaves[f"{'' if prior is None else 'net.'}linear_{i}.{part}"][copy]
                for part in ("w", "b")
            }
            for i in (0, 1)
        }
        np.testing.assert_allclose(out[copy], alone.apply(weights, x), rtol=1e-5)
    assert len(np.unique(np.asarray(out[:, 0, 0]))) == 3


def test_the_prior_of_copies_is_that_of_one():
    sites, _, _ = declared(7, fan_in_normal)
    fn = sites["net.linear_0.w"]["fn"]
    assert fn.event_shape == (7, 3, 4)
    np.testing.assert_allclose(fn.variance, 1 / 3, rtol=1e-6)


def test_copies_have_no_state():
    with pytest.raises(ppbdl.ModelError, match="without state"):
        seed(lambda: ppbdl.haiku_module("net", normalisation, input_of(5, 3), copies=2), KEY)()
