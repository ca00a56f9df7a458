"""Conditioners: who sees whom, contexts, and the identity at the start."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppbdl import flows
from ppbdl.module import haiku_module

from .cases import TRANSFORMERS, away, key

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(("features", "hidden"), [(1, (4,)), (2, (1,)), (5, (4, 9)), (6, ())])
@pytest.mark.parametrize("context", [0, 3])
def test_made_sees_all_before_and_nothing_after(features, hidden, context):
    width = 2
    hidden = tuple(units + bool(context) for units in hidden)
    # Without a curved activation no path can be shut by chance.
    net = hk.without_apply_rng(
        hk.transform(flows.made(features, width, hidden, context, activation=jnp.tanh))
    )
    inputs = [jnp.ones(features)] + ([jnp.ones(context)] if context else [])
    w = away(net.init(key(0), *inputs), key(1))
    jacobians = jax.jacfwd(lambda *args: net.apply(w, *args), argnums=tuple(range(len(inputs))))
    seen = [np.asarray(jacobian) != 0 for jacobian in jacobians(*inputs)]
    before = np.tri(features, k=-1, dtype=bool).repeat(width, axis=0)
    np.testing.assert_array_equal(seen[0], before)
    assert not context or seen[1].all()


@pytest.mark.parametrize("context", [0, 2])
def test_every_conditioner_starts_at_zero(context):
    given = [jnp.ones((4, context))] if context else []
    for function, h in (
        (flows.mlp(6, (5,), context), jnp.ones((4, 3))),
        (flows.made(3, 2, (5,), context), jnp.ones((4, 3))),
        (flows.cnn(6, 5, context), jnp.ones((4, 2, 2, 3))),
    ):
        net = hk.without_apply_rng(hk.transform(function))
        out = net.apply(net.init(key(0), h, *given), h, *given)
        assert out.shape == (*h.shape[:-1], 6)
        assert (out == 0).all()


@pytest.mark.parametrize("transformer", TRANSFORMERS)
def test_zeros_are_the_identity(transformer):
    chosen = TRANSFORMERS[transformer]
    x = jnp.linspace(-4, 4, 50)
    y, log_det = chosen.build(jnp.zeros((50, chosen.width))).forward_and_log_det(x)
    np.testing.assert_allclose(y, x, atol=1e-13)
    np.testing.assert_allclose(jnp.broadcast_to(log_det, x.shape), 0, atol=1e-13)


def test_a_context_broadcasts_over_draws_and_reaches_every_pixel():
    context = jnp.array([[0.0, 1.0], [2.0, 3.0]])
    net = hk.without_apply_rng(hk.transform(flows.cnn(1, 4, 2)))
    h = jnp.zeros((3, 2, 4, 4, 1))
    w = away(net.init(key(0), h[0], context), key(1))
    out = net.apply(w, h[0], context)
    alone = net.apply(w, h[0, 1], context[1])
    np.testing.assert_allclose(out[1], alone, atol=1e-12)
    assert not np.allclose(out[0], out[1])
    dense = hk.without_apply_rng(hk.transform(flows.mlp(1, (4,), 2)))
    v = away(dense.init(key(0), jnp.zeros((2, 1)), context), key(1))
    drawn = dense.apply(v, jnp.zeros((3, 2, 1)), context)
    np.testing.assert_allclose(drawn[2], dense.apply(v, jnp.zeros((2, 1)), context))


def test_equal_settings_are_one_network_to_the_bridge():
    assert flows.mlp(4, (8,)) is flows.mlp(4, (8,))
    assert flows.made(3, 2) is flows.made(3, 2)
    import numpyro

    with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as sites:
        haiku_module("net", flows.made(3, 2), jnp.ones((1, 3)))
    assert sorted(sites["net$params"]["value"]) == [
        f"linear{i}.{part}" for i in ("", "_1", "_2") for part in "bw"
    ]
