"""What is compiled, and when: once for a model, settings and shapes, and the same text always.

Compilations are counted by JAX's own event, in new processes, where nothing is compiled yet.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace

import haiku as hk
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer.autoguide import AutoDiagonalNormal

import ppbdl
import ppbdl.models
from ppbdl.structure import shapes_of

COMPILED = "/jax/core/compile/backend_compile_duration"

NEW_PROCESS = """
import hashlib, json, sys
from dataclasses import replace
import haiku as hk, jax, numpy as np
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **about: compiled.append(about.get("fun_name")) if event == sys.argv[1]
    else None
)
import ppbdl, ppbdl.models
from ppbdl.inference.optimisation import programs_of
from ppbdl.structure import shapes_of

said = {"importing": list(compiled)}
x = np.random.default_rng(0).normal(size=(40, 2))
model = ppbdl.models.BNN(lambda x: hk.nets.MLP([5, 1], activation=jax.nn.tanh)(x))

def count(name, seed, method):
    compiled.clear()
    data = ppbdl.Data(x + seed, np.sin(x[:, 0]) * (1 + seed)).standardized()
    ppbdl.fit(seed, model, data, method, progress=False)
    said[name] = list(compiled)
    return data

svi = ppbdl.SVI(steps=120, draws=20)
data = count("first", 0, svi)
count("second", 1, svi)
count("other steps", 2, replace(svi, steps=77))

for guide in (ppbdl.AutoNormal(), ppbdl.MCDropout(0.1)):
    programs = programs_of(model, replace(svi, guide=guide, steps=1), None, shapes_of(data))
    state = programs.init(jax.random.key(0), data.x, data.y)
    text = programs.advance.text(state, data.x, data.y, np.int32(1))
    said[type(guide).__name__] = hashlib.sha256(text.encode()).hexdigest()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def processes():
    """What two new processes say, whose sets are in different orders."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", NEW_PROCESS, COMPILED],
            env=os.environ | {"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    ended = [process.communicate(timeout=300) for process in started]
    assert all(process.returncode == 0 for process in started), ended
    return [json.loads(out) for out, _ in ended]


def test_a_first_fit_compiles_at_most_six_programs(processes):
    # Three of ours (set-up, loop, draws) and the two of JAX that make a key.
    assert 3 <= len(processes[0]["first"]) <= 6, processes[0]["first"]


def test_importing_compiles_nothing(processes):
    assert processes[0]["importing"] == []


@pytest.mark.parametrize("again", ["second", "other steps"])
def test_a_further_fit_compiles_nothing(processes, again):
    assert processes[0][again] == []


@pytest.mark.parametrize("guide", ["AutoNormal", "MCDropout"])
def test_the_program_is_the_same_in_every_process(processes, guide):
    first, second = processes
    assert first[guide] == second[guide]


@pytest.fixture
def compiled():
    """The names of what JAX compiles while the test runs."""
    names = []

    def listen(event, seconds, **about):
        if event == COMPILED:
            names.append(about.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def net(x):
    return hk.nets.MLP([3, 1], activation=jax.nn.tanh)(x)


def hierarchical(x, y=None):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, scale))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(slope * x[:, 0], 1.0), obs=y)


BNN = ppbdl.models.BNN(net)
ADAM = optax.adam(1e-2)
AGAIN = {
    "minibatches": (BNN, ppbdl.SVI(optimizer=ADAM, steps=60, draws=8, batch_size=16)),
    "an autoguide of NumPyro's": (
        hierarchical,
        ppbdl.SVI(AutoDiagonalNormal, optimizer=ADAM, steps=60, draws=8),
    ),
    "MAP": (BNN, ppbdl.MAP(ADAM, steps=60)),
    "an ensemble": (BNN, ppbdl.Ensemble(ppbdl.MAP(ADAM, steps=60), members=2)),
}


@pytest.mark.parametrize("case", AGAIN)
def test_every_optimisation_is_compiled_once(case, compiled):
    model, method = AGAIN[case]
    x = np.random.default_rng(0).normal(size=(40, 2))
    first, second = (ppbdl.Data(x * scale, scale * x[:, 1]) for scale in (1.0, 2.0))
    x_test = x[:7]
    posterior = ppbdl.fit(0, model, first, method, progress=False)
    ppbdl.predict(0, model, posterior, x_test)
    ppbdl.log_likelihood(0, model, posterior, first)
    assert compiled, "the event's name has changed: nothing was counted"
    compiled.clear()
    # Equal settings made anew, more steps than one chunk holds, other data and another seed.
    posterior = ppbdl.fit(1, model, second, more_steps(method), progress=False)
    ppbdl.predict(1, model, posterior, x_test + 1)
    ppbdl.log_likelihood(1, model, posterior, second)
    assert compiled == []


def more_steps(method):
    if isinstance(method, ppbdl.Ensemble):
        return replace(method, method=more_steps(method.method))
    return replace(method, steps=1234)


def test_other_shapes_are_compiled_anew(compiled):
    """The counter's own check: what must be compiled is seen to be."""
    for rows in (31, 33):
        compiled.clear()
        x = np.random.default_rng(0).normal(size=(rows, 2))
        ppbdl.fit(0, BNN, ppbdl.Data(x, x[:, 0]), ppbdl.MAP(ADAM, steps=5), progress=False)
        assert len(compiled) >= 3


def test_the_seconds_of_compiling_are_told_apart():
    x = np.random.default_rng(0).normal(size=(37, 2))
    data = ppbdl.Data(x, x[:, 0])
    svi = ppbdl.SVI(optimizer=ADAM, steps=20, draws=4)
    first, second = (ppbdl.fit(seed, BNN, data, svi, progress=False) for seed in (0, 1))
    assert first.provenance.seconds_compiling > 0
    assert second.provenance.seconds_compiling == 0
    assert second.provenance.seconds_running > 0
    assert shapes_of(data) == shapes_of(ppbdl.Data(x + 1, x[:, 1]))
