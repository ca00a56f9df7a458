"""What a model is made of, and which models are refused before anything is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.handlers import seed, trace
from numpyro.infer.initialization import init_to_mean, init_to_value

import ppbdl
import ppbdl.models
from ppbdl.latents import initial_latents, initial_value, transforms
from ppbdl.structure import inspect_model, shapes_of

ROWS = 6
DATA = ppbdl.Data(np.linspace(0, 1, ROWS)[:, None], np.linspace(0.0, 2.0, ROWS))


def every_kind(x, y=None):
    numpyro.sample("real", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
    numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("simplex", dist.Dirichlet(jnp.ones(4)))
    numpyro.sample("ordered", dist.LKJCholesky(3))
    upper = numpyro.sample("upper", dist.LogNormal(0.0, 1.0))
    numpyro.sample("bounded", dist.Uniform(0.0, upper))
    numpyro.deterministic("twice", 2 * upper)
    numpyro.param("learned", jnp.zeros(2))
    with numpyro.plate("groups", 2):
        numpyro.sample("effect", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("code", dist.Normal(0.0, 1.0), infer={"local": True})
        numpyro.sample("switch", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


@pytest.fixture(scope="module")
def structure():
    return inspect_model(every_kind, shapes_of(DATA))


# Free coordinates: a simplex of four has three, a 3 x 3 correlation matrix three.
FREE = {
    "real": (3,),
    "scale": (),
    "simplex": (3,),
    "ordered": (3,),
    "upper": (),
    "bounded": (),
    "effect": (2,),
}


def test_each_site_has_its_part(structure):
    assert structure.latents == FREE
    assert list(structure.latents) == list(FREE)  # in trace order
    assert structure.size == 3 + 1 + 3 + 3 + 1 + 1 + 2
    assert structure.local == ("code",)
    assert structure.discrete == ("switch",)
    assert structure.observed == ("y",)
    assert structure.params == ("learned",)
    assert structure.mutables == ()
    assert structure.row_plates == {"data"}
    assert structure.subsampled == ()
    assert structure.plate_depth == 1


def test_only_computed_bounds_are_unknown(structure):
    assert [name for name, support in structure.supports.items() if support is None] == ["bounded"]


def test_flat_and_sites_are_one_another(structure):
    flat = jnp.arange(float(structure.size))
    sites = structure.unflatten(flat)
    assert {name: a.shape for name, a in sites.items()} == FREE
    np.testing.assert_array_equal(structure.flatten(sites), flat)
    shuffled = dict(reversed(sites.items()))
    np.testing.assert_array_equal(structure.flatten(shuffled), flat)


def test_a_model_without_latents_has_an_empty_vector():
    def only_params(x, y=None):
        numpyro.sample("y", dist.Normal(numpyro.param("mean", 0.0), 1.0), obs=y)

    structure = inspect_model(only_params, shapes_of(DATA))
    assert structure.size == 0
    assert structure.unflatten(jnp.zeros(0)) == {}
    assert structure.flatten({}).shape == (0,)


def test_bounds_are_those_of_the_same_draw(structure):
    """The Uniform's upper bound is another latent's value."""

    def program():
        values = structure.unflatten(jnp.linspace(-1, 1, structure.size))
        found = transforms(every_kind, structure, values, DATA.x, DATA.y)
        return {name: transform(values[name]) for name, transform in found.items()}, values

    values, free = seed(program, 0)()
    assert set(values) == set(FREE)
    upper = float(jnp.exp(free["upper"]))
    assert values["upper"] == pytest.approx(upper, rel=1e-6)
    sigmoid = float(jax.nn.sigmoid(free["bounded"]))
    assert values["bounded"] == pytest.approx(upper * sigmoid, rel=1e-5)
    assert values["simplex"].sum() == pytest.approx(1, rel=1e-6)
    assert values["scale"] == pytest.approx(float(jnp.exp(free["scale"])), rel=1e-6)
    correlation = values["ordered"] @ values["ordered"].T
    np.testing.assert_allclose(jnp.diag(correlation), 1, rtol=1e-5)


def test_starts_lie_within_two_of_the_origin(structure):
    flat = initial_latents(jax.random.key(0), every_kind, structure, DATA.x, DATA.y)
    assert flat.shape == (structure.size,)
    assert (abs(flat) <= 2.001).all()
    assert len(np.unique(flat)) == structure.size
    other = initial_latents(jax.random.key(1), every_kind, structure, DATA.x, DATA.y)
    assert not np.allclose(flat, other)


HINTS = {
    "init_to_value": (init_to_value(values={"w": jnp.full(3, 7.0)}), 7.0),
    "init_to_mean": (init_to_mean, 4.0),
    "of one's own": (lambda site: jnp.full(3, 5.5), 5.5),
}


@pytest.mark.parametrize("name", HINTS)
def test_a_site_may_say_where_to_start(name):
    hint, expected = HINTS[name]

    def model(x, y=None):
        prior = dist.Normal(4.0, 1.0).expand([3]).to_event(1)
        numpyro.sample("w", prior, infer={"init": hint})
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    structure = inspect_model(model, shapes_of(DATA))
    flat = initial_latents(jax.random.key(0), model, structure, DATA.x, DATA.y)
    np.testing.assert_allclose(flat, expected)


def test_the_strategy_is_one_of_numpyros():
    """Called without a site it gives itself; observed and other sites it leaves alone."""
    assert callable(initial_value())
    assert initial_value({"type": "param", "name": "a"}) is None
    sites = trace(seed(every_kind, 0)).get_trace(DATA.x, DATA.y)
    assert initial_value(sites["y"]) is None


def test_plates_of_minibatches_hold_latents_of_rows():
    def effects(x, y=None):
        with numpyro.plate("data", x.shape[0]):
            effect = numpyro.sample("effect", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(effect, 1.0), obs=y)

    whole = inspect_model(effects, shapes_of(DATA))
    batches = inspect_model(effects, shapes_of(DATA), 3)
    assert (whole.latents, whole.local) == ({"effect": (ROWS,)}, ())
    assert (batches.latents, batches.local) == ({}, ("effect",))


def test_a_plate_as_long_as_the_data_is_the_rows_only_around_what_is_observed():
    def model(x, y=None):
        with numpyro.plate("features", ROWS):
            w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(w.sum(), 1.0), obs=y)

    assert inspect_model(model, shapes_of(DATA)).row_plates == {"data"}


def nothing_observed(x, y=None):
    numpyro.sample("w", dist.Normal(0.0, 1.0))


def other_plate(x, y=None):
    with numpyro.plate("fixed", 5):
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


def size_of_all(x, y=None):
    """Right for all the rows, wrong for a minibatch."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", ROWS):
        numpyro.sample("y", dist.Normal(w, 1.0), obs=y)


def other_rows(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(w, 1.0), obs=jnp.zeros(5))


def column_of_y(x, y=None):
    """Without an error these would broadcast to rows times rows."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(w * x[:, 0], 1.0), obs=None if y is None else y[:, None])


def subsampling(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0], subsample_size=2) as rows:
        numpyro.sample("y", dist.Normal(w, 1.0), obs=None if y is None else y[rows])


REFUSED = {
    "nothing observed": (nothing_observed, {}, "model: expected at least one observed site"),
    "a plate of another size": (other_plate, {}, r"model: .*6 rows.*'fixed' of size 5"),
    "a plate of all rows": (size_of_all, {"batch_size": 3}, r"model: .*3 rows.*'data' of size 6"),
    "a column for a vector": (column_of_y, {}, r"model: .*\(6,\) and its .*\(6, 1\)"),
    "values of other rows": (other_rows, {}, r"model: .*6 rows in front.*'y' of shape \(5,\)"),
    "two subsamples": (subsampling, {"batch_size": 3}, r"batch_size: expected None.*'data'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    model, settings, message = REFUSED[case]
    with pytest.raises(ppbdl.ModelError, match=message):
        ppbdl.fit(0, model, DATA, ppbdl.SVI(steps=2, **settings), progress=False)


def test_a_plate_that_subsamples_fits_by_itself():
    structure = inspect_model(subsampling, shapes_of(DATA))
    assert structure.subsampled == ("data",)
    posterior = ppbdl.fit(0, subsampling, DATA, ppbdl.SVI(steps=20, draws=3), progress=False)
    assert posterior.draws["w"].shape == (1, 3)


def test_errors_of_the_model_itself_are_left_alone():
    def broken(x, y=None):
        raise ValueError("a mistake of the user's own")

    with pytest.raises(ValueError, match="a mistake of the user's own"):
        inspect_model(broken, shapes_of(DATA))


def test_nothing_is_computed():
    """Tracing only: the model never sees a value."""
    seen = []

    def model(x, y=None):
        seen.append(isinstance(x, jax.core.Tracer))
        numpyro.sample("y", dist.Normal(numpyro.sample("w", dist.Normal()), 1.0), obs=y)

    inspect_model(model, shapes_of(DATA))
    assert seen
    assert all(seen)
