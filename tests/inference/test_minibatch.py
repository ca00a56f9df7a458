"""Minibatches: their expected ELBO and its gradient are the full data's, exactly.

The guide's noise is held fixed and every batch is enumerated, in double precision, so that an
expectation is a finite sum and no test here is statistical.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import Trace_ELBO
from numpyro.infer.autoguide import AutoNormal as NumPyroAutoNormal

import ppbdl
import ppbdl.data
import ppbdl.models
from ppbdl.inference.batches import Batches, scale_rows
from ppbdl.inference.optimisation import programs_of
from ppbdl.structure import inspect_model, shapes_of

pytestmark = pytest.mark.usefixtures("x64")

ROWS = 5
X = np.random.default_rng(0).normal(size=(ROWS, 1))
Y = np.random.default_rng(1).normal(size=ROWS)
LINEAR = ppbdl.models.LinearRegression(noise=0.7)


def two_sites(x, y=None):
    """Two observed sites and a prior that the rows must not weigh."""
    rate = numpyro.sample("rate", dist.Gamma(2.0, 2.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, rate))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(slope * x[:, 0], rate), obs=y)
        numpyro.sample("square", dist.Normal(slope, 1.0), obs=None if y is None else y**2)


def no_plate(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(slope * x[:, 0], 1.0), obs=y)


def scaled_rows(x, y=None):
    """A weight of the model's own, which N / M multiplies."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]), numpyro.handlers.scale(scale=0.5):
        numpyro.sample("y", dist.Normal(slope * x[:, 0], 1.0), obs=y)


def latents_of_rows(x, y=None):
    """A code for each row, which belongs to the batch with its row."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        code = numpyro.sample("code", dist.Normal(0.0, 1.0), infer={"local": True})
        numpyro.sample("y", dist.Normal(slope * code, 1.0), obs=y)


def points_for_rows(x, y=None):
    slope = numpyro.param("slope_at", 0.3)
    weight = numpyro.param("weight", 0.8)
    numpyro.sample("slope", dist.Delta(slope))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("code", dist.Delta(weight * y + 0.1))


def codes_apart(x, y=None):
    """The likelihood does not see the code: the code's part is its divergence alone."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("code", dist.Normal(0.0, 1.0), infer={"local": True})
        numpyro.sample("y", dist.Normal(slope * x[:, 0], 1.0), obs=y)


def normals_for_rows(x, y=None):
    numpyro.sample("slope", dist.Delta(numpyro.param("slope_at", 0.3)))
    with numpyro.plate("data", x.shape[0]):
        spread = numpyro.param("spread", 0.5, constraint=dist.constraints.positive)
        numpyro.sample("code", dist.Normal(numpyro.param("weight", 0.8) * y, spread))


TRACE = Trace_ELBO()
CASES = {
    "linear, point": (LINEAR, dict(guide=ppbdl.AutoDelta)),
    "linear, mean field": (LINEAR, dict(guide=ppbdl.AutoNormal)),
    "linear, NumPyro's guide and objective": (LINEAR, dict(guide=NumPyroAutoNormal, loss=TRACE)),
    "two observed sites": (two_sites, dict(guide=ppbdl.AutoNormal)),
    "no plate": (no_plate, dict(guide=ppbdl.AutoNormal)),
    "a scale of the model's own": (scaled_rows, dict(guide=ppbdl.AutoNormal)),
    "latents of rows": (latents_of_rows, dict(guide=points_for_rows)),
    "latents of rows, NumPyro's objective": (
        latents_of_rows,
        dict(guide=points_for_rows, loss=TRACE),
    ),
    "divergences of rows": (codes_apart, dict(guide=normals_for_rows)),
}


def step_of(model, settings, batch_size, order, size=None):
    """Loss and gradient of one step of the library's own loop, at the second batch of an epoch.

    With steepest descent at rate one the parameters change by minus the gradient.  The noise of
    a step depends on the key and the step's number only, which are the same in every call.
    """
    data = ppbdl.Data(X, Y, size=size)
    svi = ppbdl.SVI(**settings, optimizer=STEEPEST, steps=1, batch_size=batch_size)
    programs = programs_of(model, svi, None, shapes_of(data))
    start = programs.init(jax.random.key(3), data.x, data.y)
    start = start._replace(
        params=away(start.params),
        step=jnp.ones((), jnp.int32),
        order=jnp.asarray(order if batch_size else [], jnp.int32),
    )
    before = jax.tree.map(np.array, start.params)  # the loop reuses the state's memory
    state, losses, good = programs.advance(start, data.x, data.y, 1)
    assert bool(good)
    return losses[0], jax.tree.map(lambda a, b: a - b, before, state.params)


STEEPEST = optax.sgd(1.0)


def away(params):
    """Away from the start, where some gradients could vanish."""
    return jax.tree.map(lambda a: jnp.linspace(0.2, 0.6, a.size).reshape(a.shape), params)


@pytest.mark.parametrize("case", CASES)
def test_the_mean_over_all_batches_is_the_full_step(case):
    """At the second step of an epoch of batches of two, rows 2 and 3 of the order are used."""
    model, settings = CASES[case]
    full = step_of(model, settings, None, None)
    orders = []
    for pair in itertools.combinations(range(ROWS), 2):
        first, second, last = sorted({*range(ROWS)} - {*pair})
        orders.append([first, second, *pair, last])
    batches = [step_of(model, settings, 2, order) for order in orders]
    mean = jax.tree.map(lambda *steps: sum(steps) / len(steps), *batches)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), mean, full)
    assert np.std([loss for loss, _ in batches]) > 1e-3  # the batches do differ


def test_rows_that_stand_for_more_weigh_more():
    """Five rows for fifty: the likelihood counts ten times, the prior once."""
    data = ppbdl.Data(X, Y)
    (one, _), (ten, _) = (
        step_of(LINEAR, dict(guide=ppbdl.AutoDelta), None, None, size) for size in (5, 50)
    )
    # Each site has one entry, which `away` puts at 0.2.
    log_lik = dist.Normal(0.2 + 0.2 * X[:, 0], 0.7).log_prob(data.y).sum()
    np.testing.assert_allclose(one - ten, 9 * log_lik, rtol=1e-9)


def epoch(batches, number, x, key=0):
    """The batches of an epoch, as the loop takes them."""
    order, taken, next_order = batches.no_order, [], jax.jit(batches.order)
    per_epoch = math.ceil(batches.rows / batches.size)
    for step in range(number * per_epoch, (number + 1) * per_epoch):
        order = next_order(order, jax.random.key(key), jnp.asarray(step, jnp.int32))
        taken.append(np.asarray(batches.take(order, step, x, None)[0]))
    return taken


@pytest.mark.parametrize(("rows", "size"), [(6, 3), (7, 3), (7, 6), (4, 4)])
def test_an_epoch_visits_every_row_in_batches_of_distinct_rows(rows, size):
    epochs = [epoch(Batches(rows, size), number, np.arange(rows)) for number in (0, 1)]
    for taken in epochs:
        assert all(len(set(batch.tolist())) == size for batch in taken)
        assert len(taken) == math.ceil(rows / size)
        if rows % size == 0:
            assert sorted(np.concatenate(taken).tolist()) == list(range(rows))
        assert set(np.concatenate(taken).tolist()) == set(range(rows))
    if size < rows > 4:
        assert [b.tolist() for b in epochs[0]] != [b.tolist() for b in epochs[1]]


def test_no_batch_of_an_epoch_prefers_a_row():
    """Over all orders, each batch, the topped-up one too, is each set of rows equally often."""
    batches = Batches(4, 3)
    for step in (0, 1):
        seen = [
            tuple(sorted(np.asarray(batches.take(np.array(order), step, np.arange(4), None)[0])))
            for order in itertools.permutations(range(4))
        ]
        assert {seen.count(rows) for rows in itertools.combinations(range(4), 3)} == {24 // 4}


def test_a_topped_up_epoch_is_unbiased():
    """The mean over all orders of four rows of the ELBO of batches of three; the last is 3 + 1."""
    x, y = X[:4], Y[:4]
    full = elbo(ppbdl.Data(x, y))
    batches = Batches(4, 3)
    for step in (0, 1):
        mean = [
            elbo(ppbdl.Data(*batches.take(np.array(order), step, x, y), size=4))
            for order in itertools.permutations(range(4))
        ]
        mean = jax.tree.map(lambda *a: sum(a) / len(a), *mean)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), mean, full)


def test_host_batches_are_unbiased_with_their_own_scale(monkeypatch):
    """`Data.batches` of five rows by two: the last batch has one row, which stands for five."""
    data = ppbdl.Data(X, Y)
    full = elbo(data)
    epochs = []
    for order in itertools.permutations(range(ROWS)):
        monkeypatch.setattr(ppbdl.data, "_generator", lambda key, order=order: Fixed(order))
        epochs.append([*data.batches(None, 2)])
    assert {tuple(b.scale for b in batches) for batches in epochs} == {(2.5, 2.5, 5.0)}
    for position in range(3):
        distinct = {tuple(b[position].y.tolist()): b[position] for b in epochs}
        mean = jax.tree.map(lambda *a: sum(a) / len(a), *map(elbo, distinct.values()))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), mean, full)


class Fixed:
    def __init__(self, order):
        self.order = np.array(order)

    def permutation(self, rows):
        return self.order


def elbo(data):
    """The library's objective at one point, and its gradient, with the batch's own N / M."""
    return _elbo(shapes_of(data), data.scale)(data.x, data.y)


@functools.cache
def _elbo(shapes, scale):
    structure = inspect_model(two_sites, shapes, shapes.rows)
    guide = ppbdl.AutoDelta().bind(two_sites, structure)
    programs = [scale_rows(program, structure, scale) for program in (two_sites, guide)]

    def loss(at, x, y):
        return ppbdl.AnalyticELBO().loss(jax.random.key(0), {"auto_loc": at}, *programs, x, y)

    at = structure.unflatten(jnp.array([0.3, -0.4]))
    return functools.partial(jax.jit(jax.value_and_grad(loss)), at)


def test_a_batch_of_all_rows_is_the_full_data():
    settings = dict(guide=ppbdl.AutoNormal)
    full = step_of(two_sites, settings, None, None)
    batch = step_of(two_sites, settings, 5, [*range(5)])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), batch, full)
