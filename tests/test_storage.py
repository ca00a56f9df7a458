"""Saving and loading: the same posterior or an error, never another posterior."""

import collections
import dataclasses
import json

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ppbdl
import ppbdl.models
from ppbdl.module import fan_in_normal
from ppbdl.posterior import Posterior, Provenance

X = np.random.default_rng(0).normal(size=(12, 2))
DATA = ppbdl.Data(10 + X, 100 + 5 * X[:, 0]).standardized()
CLASSES = ppbdl.Data({"a": X, "b": np.arange(12)}, np.arange(12) % 2)


def normalised(x):
    x = hk.BatchNorm(True, True, 0.9)(hk.Linear(3)(x), is_training=True)
    return hk.Linear(1)(x)


def linear(x):
    return hk.Linear(1)(x)


def of_a_dict(x, y=None):
    net = ppbdl.random_haiku_module("net", linear, fan_in_normal, x["a"])
    ppbdl.models.Bernoulli()(net(x["a"]), y)


ADAM = optax.adam(0.01)
CASES = {
    "densities, standardised": (
        ppbdl.models.LinearRegression(),
        DATA,
        ppbdl.SVI(optimizer=ADAM, steps=20, draws=5),
    ),
    "state, members": (
        ppbdl.models.BNN(normalised),
        DATA,
        ppbdl.Ensemble(ppbdl.MAP(ADAM, steps=20), members=2),
    ),
    "a dict of inputs": (of_a_dict, CLASSES, ppbdl.SVI(ppbdl.MCDropout(0.2), ADAM, 20, draws=5)),
    "no latents": (
        ppbdl.models.RealNVP(features=2, layers=2, width=4),
        ppbdl.Data(None, X),
        ppbdl.MAP(ADAM, steps=5),
    ),
}


@pytest.fixture(scope="module", params=CASES)
def fitted(request, tmp_path_factory):
    model, data, method = CASES[request.param]
    posterior = ppbdl.fit(0, model, data, method, progress=False)
    folder = ppbdl.save(posterior, tmp_path_factory.mktemp("saved") / "deep" / "fit")
    return model, data, posterior, folder


def test_every_part_is_the_same(fitted):
    _, _, before, folder = fitted
    after = ppbdl.load(folder)
    for field in dataclasses.fields(Posterior):
        one, other = getattr(before, field.name), getattr(after, field.name)
        if field.name == "scaling":
            one, other = (s and dataclasses.asdict(s) for s in (one, other))
        if field.name == "provenance":
            assert one == other
            continue
        assert jax.tree.structure(one) == jax.tree.structure(other), field.name
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            assert np.asarray(a).dtype == np.asarray(b).dtype
            np.testing.assert_array_equal(a, b)


def test_predictions_are_the_same(fitted):
    model, data, before, folder = fitted
    after = ppbdl.load(folder)
    one, other = (ppbdl.predict(3, model, p, data.x, draws=True) for p in (before, after))
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.draws["y"], other.draws["y"])


def test_the_folder_holds_no_pickle(fitted):
    names = {file.name for file in fitted[3].iterdir()}
    assert names == {"arrays.safetensors", "posterior.json", "manifest.json"}
    json.loads((fitted[3] / "posterior.json").read_text())


@pytest.fixture
def small(tmp_path):
    """A small posterior on disk, to be damaged."""
    posterior = Posterior(
        draws={"w": jnp.arange(6.0).reshape(1, 3, 2)},
        params={},
        mutables={},
        stats={"lp": jnp.zeros((1, 3))},
        shape=(1, 3),
        observed=("y",),
        provenance=Provenance("given", {}, "mcmc", (0,)),
        x_shape=(2,),
    )
    return ppbdl.save(posterior, tmp_path / "fit")


@pytest.mark.parametrize("name", ["arrays.safetensors", "posterior.json", "manifest.json"])
def test_a_damaged_byte_is_refused(small, name):
    """A bit flipped in each of 60 bytes along the file, the first and the last among them."""
    file = small / name
    whole = file.read_bytes()
    for position in np.unique(np.linspace(0, len(whole) - 1, 60).astype(int)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(position % 8)
        file.write_bytes(damaged)
        with pytest.raises(ppbdl.InputError, match="path: "):
            ppbdl.load(small)
    file.write_bytes(whole)
    assert ppbdl.load(small).shape == (1, 3)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b" ", lambda b: b""])
@pytest.mark.parametrize("name", ["arrays.safetensors", "posterior.json"])
def test_another_length_is_refused(small, name, change):
    file = small / name
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ppbdl.InputError, match="damaged"):
        ppbdl.load(small)


@pytest.mark.parametrize("name", ["arrays.safetensors", "posterior.json", "manifest.json"])
def test_a_missing_file_is_refused(small, name):
    (small / name).unlink()
    with pytest.raises(ppbdl.InputError, match=f"no .*{name}"):
        ppbdl.load(small)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ppbdl.InputError, match="path: expected a folder"):
        ppbdl.load(tmp_path / "nowhere")


def test_an_existing_folder_is_kept(small):
    posterior = ppbdl.load(small)
    with pytest.raises(ppbdl.InputError, match="path: expected a new folder"):
        ppbdl.save(posterior, small)
    assert ppbdl.load(small).shape == (1, 3)


def test_a_small_float_is_kept_exactly(small, tmp_path):
    posterior = dataclasses.replace(
        ppbdl.load(small), draws={"w": jnp.asarray([[1.0, 2.5, -3.0]], jnp.bfloat16)}
    )
    loaded = ppbdl.load(ppbdl.save(posterior, tmp_path / "bfloat16"))
    assert loaded.draws["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(loaded.draws["w"], posterior.draws["w"])


def test_lists_and_tuples_stay_what_they_are(small, tmp_path):
    params = {"a": [jnp.zeros(1), ((jnp.ones((1, 2)), jnp.arange(1)), ())], "b": {}}
    posterior = dataclasses.replace(ppbdl.load(small), params=params)
    loaded = ppbdl.load(ppbdl.save(posterior, tmp_path / "nested")).params
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_another_container_is_refused(small, tmp_path):
    held = collections.namedtuple("Held", ["w"])
    posterior = dataclasses.replace(ppbdl.load(small), params={"a": held(jnp.zeros(1))})
    with pytest.raises(ppbdl.InputError, match=r"got Held in \['params'\]\['a'\]"):
        ppbdl.save(posterior, tmp_path / "held")
    assert not (tmp_path / "held").exists()
