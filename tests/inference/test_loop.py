"""Whichever way a loop runs, whole, by calls, or member by member, it makes the same steps."""

import haiku as hk
import jax
import numpy as np
import optax
import pytest

import ppbdl
import ppbdl.models
from ppbdl.inference import loop
from ppbdl.inference.optimisation import programs_of
from ppbdl.structure import shapes_of

ADAM = optax.adam(1e-2)


def convolutional(x):
    return hk.Linear(2)(jax.nn.relu(hk.Conv2D(3, 3, stride=2)(x)).mean((1, 2)))


def dense(x):
    return hk.nets.MLP([6, 2])(x.reshape(x.shape[0], -1))


def run(net, members, by_call, large, monkeypatch):
    monkeypatch.setattr(loop, "LARGE", large)
    rng = np.random.default_rng(0)
    data = ppbdl.Data(rng.normal(size=(20, 6, 6, 1)), rng.integers(0, 2, 20))
    model = ppbdl.models.BNN(net, likelihood=ppbdl.models.Categorical(2))
    svi = ppbdl.SVI(optimizer=ADAM, steps=1, batch_size=10, draws=1)
    programs = programs_of(model, svi, members, shapes_of(data))
    state = programs.init(jax.random.key(0), data.x, data.y)
    if by_call is not None:
        monkeypatch.setattr(programs.advance, "_convolves", by_call)
    state, losses, good = programs.advance(state, data.x, data.y, 7)
    assert bool(good)
    return programs.advance, (np.asarray(losses)[:7], state.params)


@pytest.mark.parametrize("members", [None, 3])
def test_calls_make_the_steps_of_a_compiled_loop(members, monkeypatch):
    advance, whole = run(convolutional, members, False, 10**9, monkeypatch)
    calls, stepped = run(convolutional, members, True, 10**9, monkeypatch)
    assert advance._step.seconds == 0 < calls._step.seconds
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(stepped), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_large_members_take_turns_and_make_the_same_steps(monkeypatch):
    _, together = run(dense, 3, None, 10**9, monkeypatch)
    advance, alone = run(dense, 3, None, 0, monkeypatch)
    assert advance._together.seconds == 0 < advance._alone.seconds
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the fast kernels are a CPU's matter")
def test_only_convolutions_are_called_step_by_step(monkeypatch):
    assert run(convolutional, None, None, 0, monkeypatch)[0]._convolves
    assert not run(dense, None, None, 0, monkeypatch)[0]._convolves


def test_a_nan_is_found_in_steps_by_call():
    rng = np.random.default_rng(0)
    data = ppbdl.Data(rng.normal(size=(20, 6, 6, 1)), rng.integers(0, 2, 20))
    model = ppbdl.models.BNN(convolutional, likelihood=ppbdl.models.Categorical(2))
    wild = optax.chain(optax.sgd(1.0), optax.scale_by_schedule(lambda i: 10.0 ** (i * i)))
    with pytest.raises(ppbdl.FitError, match="not finite at step"):
        ppbdl.fit(0, model, data, ppbdl.SVI(optimizer=wild, steps=60), progress=False)


def test_members_shuffle_once_an_epoch():
    """A branch, taken when an epoch begins; a count of steps for each member would make it none."""
    data = ppbdl.Data(np.ones((20, 2)), np.arange(20.0))
    svi = ppbdl.MAP(ADAM, steps=1, batch_size=10).svi
    programs = programs_of(ppbdl.models.LinearRegression(), svi, 3, shapes_of(data))
    state = programs.init(jax.random.key(0), data.x, data.y)
    assert "stablehlo.case" in programs.advance.text(state, data.x, data.y, np.int32(1))
