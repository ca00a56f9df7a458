"""`fit` refuses what cannot be fitted, with one typed error, before anything is compiled."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import ppbdl
import ppbdl.inference
import ppbdl.models

X = np.linspace(-1, 1, 8)[:, None]
DATA = ppbdl.Data(X, X[:, 0] ** 2)
MODEL = ppbdl.models.LinearRegression()
SVI = ppbdl.SVI(steps=3)
GOOD = dict(key=0, model=MODEL, data=DATA, method=SVI)


class Unhashable:
    __hash__ = None

    def __call__(self, x, y=None):
        MODEL(x, y)


def unobserved(x, y=None):
    numpyro.sample("w", dist.Normal(0.0, 1.0))


REFUSED = {
    "the name of a method": (dict(method="SVI"), ppbdl.InputError, "method: .*'SVI'"),
    "no method": (dict(method=None), ppbdl.InputError, "method: .*None"),
    "a method's class": (dict(method=ppbdl.SVI), ppbdl.InputError, "method: .*parentheses"),
    "an optimiser": (dict(method=optax.adam(0.1)), ppbdl.InputError, "method: "),
    "an unhashable model": (dict(model=Unhashable()), ppbdl.InputError, "model: .*hashable"),
    "no model": (dict(model=None), ppbdl.InputError, "model: .*None"),
    "an unknown guide": (
        dict(method=ppbdl.SVI("normal", steps=3)),
        ppbdl.InputError,
        "guide: .*'normal'",
    ),
    "arrays": (dict(data=(X, X[:, 0])), ppbdl.InputError, "data: .*tuple"),
    "a large batch": (
        dict(method=ppbdl.SVI(steps=3, batch_size=9)),
        ppbdl.InputError,
        "batch_size: expected at most the 8 rows of the data, got 9",
    ),
    "a float key": (dict(key=0.5), ppbdl.InputError, "key: .*0.5"),
    "a boolean key": (dict(key=True), ppbdl.InputError, "key: .*True"),
    "no key": (dict(key=None), ppbdl.InputError, "key: .*None"),
    "several keys": (dict(key=np.arange(4)), ppbdl.InputError, "key: "),
    "a constant target": (
        dict(data=ppbdl.Data(X, np.ones(8))),
        ppbdl.DataError,
        "y: .*1.0 in all 8 rows",
    ),
    "a single row": (dict(data=ppbdl.Data(X[:1], [1.0])), ppbdl.DataError, "data: .*single row"),
    "nothing observed": (dict(model=unobserved), ppbdl.ModelError, "model: .*observed"),
    "an ensemble's large batch": (
        dict(method=ppbdl.Ensemble(ppbdl.MAP(steps=3, batch_size=9))),
        ppbdl.InputError,
        "batch_size",
    ),
}


@pytest.fixture
def compiled():
    names = []

    def listen(event, seconds, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(about.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_compiled(case, compiled):
    wrong, error, message = REFUSED[case]
    arguments = GOOD | wrong
    jax.random.key(0)  # a key is made before anything is looked at, and compiles once a process
    compiled.clear()
    with pytest.raises(error, match=message) as caught:
        ppbdl.fit(*arguments.values(), progress=False)
    assert type(caught.value) is error
    assert isinstance(caught.value, ValueError)
    assert caught.value.remedy.endswith(".")
    assert compiled == []


# A setting is refused where it is written: the values are wrong for every field named so.
WRONG = {
    "steps": [0, -1, 1.5, True, "10"],
    "draws": [0, -1, 2.0],
    "batch_size": [0, -4, 2.5],
    "members": [0, -1],
    "warmup": [-1, 1.5],
    "chains": [0, -2],
    "target_accept": [0.0, 1.0, -0.5],
    "max_tree_depth": [0, -1],
}
SETTINGS = [
    (method, field, value)
    for method in (getattr(ppbdl.inference, name) for name in ("SVI", "MAP", "Ensemble", "NUTS"))
    for field in getattr(method, "__dataclass_fields__", ())
    for value in WRONG.get(field, ())
]


@pytest.mark.parametrize(("method", "field", "value"), SETTINGS)
def test_a_setting_out_of_range(method, field, value):
    with pytest.raises(ppbdl.InputError, match=f"{field}: expected"):
        method(**{field: value})


def test_an_ensembles_members_are_optimised():
    with pytest.raises(ppbdl.InputError, match="method: expected MAP, SVI or SWAG"):
        ppbdl.Ensemble(ppbdl.Ensemble())


KEYS = {
    "an integer": 7,
    "a typed key": jax.random.key(7),
    "a raw key": jax.random.PRNGKey(7),
}


@pytest.mark.parametrize("kind", KEYS)
def test_every_way_to_say_a_key_is_the_same(kind):
    method = ppbdl.MAP(steps=2)
    one, other = (ppbdl.fit(key, MODEL, DATA, method, progress=False) for key in (KEYS[kind], 7))
    np.testing.assert_array_equal(one.draws["weights"], other.draws["weights"])


def test_the_error_has_its_parts():
    with pytest.raises(ppbdl.InputError) as caught:
        ppbdl.SVI(steps=0)
    error = caught.value
    assert (error.argument, error.got) == ("steps", "0")
    assert str(error) == f"steps: expected {error.expected}, got 0. {error.remedy}"


def test_a_fit_within_jit_is_refused():
    data = ppbdl.Data(np.ones((3, 1)), np.arange(3.0))
    model = ppbdl.models.LinearRegression()
    with pytest.raises(
        ppbdl.InputError, match=r"key: expected a concrete key.*outside of jax\.jit"
    ):
        jax.jit(lambda key: ppbdl.fit(key, model, data, ppbdl.MAP(steps=1)).draws)(
            jax.random.key(0)
        )
