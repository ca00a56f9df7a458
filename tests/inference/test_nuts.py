"""What a chain of NUTS must do beside sampling; `tests/posteriordb` tells whether it is right."""

import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ppbdl
import ppbdl.models
from ppbdl.inference import sampling


def test_statistics_have_arvizs_names_and_count_the_gradients():
    data = ppbdl.Data(np.linspace(-1, 1, 20)[:, None], np.linspace(-1, 2, 20))
    posterior = ppbdl.fit(
        0, ppbdl.models.LinearRegression(), data, ppbdl.NUTS(50, 40, 2), progress=False
    )
    assert set(posterior.stats) == {
        "lp", "energy", "n_steps", "tree_depth", "acceptance_rate", "diverging", "step_size",
    }  # fmt: skip
    assert all(stat.shape == (2, 50) for stat in posterior.stats.values())
    steps, depth = posterior.stats["n_steps"], posterior.stats["tree_depth"]
    assert (steps < 2**depth).all()
    assert (steps >= 2 ** (depth - 1)).all()
    assert posterior.provenance.gradients > steps.sum()  # warm-up costs gradients, too


def test_a_second_fit_compiles_nothing():
    compiled = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    x = np.linspace(-1, 1, 20)[:, None]
    model, nuts = ppbdl.models.LinearRegression(noise=0.5), ppbdl.NUTS(30, 30, 2)
    ppbdl.fit(0, model, ppbdl.Data(x, x[:, 0]), nuts, progress=False)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        ppbdl.fit(1, model, ppbdl.Data(x + 1, 2 * x[:, 0]), nuts, progress=False)
        assert compiled == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_a_starting_point_without_density_names_the_site():
    def model(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 1))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(jnp.log(-jnp.exp(w)) + x[:, 0], 1.0), obs=y)

    data = ppbdl.Data(np.ones((5, 1)), np.arange(5.0))
    with pytest.raises(ppbdl.FitError, match="'y'") as caught:
        ppbdl.fit(0, model, data, ppbdl.NUTS(10, 10, 1), progress=False)
    assert (caught.value.step, caught.value.site) == (0, "y")


def subsampling(x, y=None):
    w = numpyro.sample("w", dist.Normal(0, 1))
    with numpyro.plate("data", x.shape[0], subsample_size=4) as rows:
        numpyro.sample("y", dist.Normal(w * x[rows, 0], 1.0), obs=None if y is None else y[rows])


def learning(x, y=None):
    slope = numpyro.param("slope", jnp.ones(()))
    noise = numpyro.sample("noise", dist.HalfNormal(1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(slope * x[:, 0], noise), obs=y)


@pytest.mark.parametrize(
    ("model", "message"), [(subsampling, "one batch for ever"), (learning, "slope")]
)
def test_what_a_chain_cannot_sample_is_refused(model, message):
    data = ppbdl.Data(np.linspace(-1, 1, 8)[:, None], np.arange(8.0))
    with pytest.raises(ppbdl.ModelError, match=message):
        ppbdl.fit(0, model, data, ppbdl.NUTS(10, 10, 1), progress=False)


def test_control_c_keeps_the_draws_made(monkeypatch):
    """The main thread gets the signal once the first draws after warm-up are there."""
    run = sampling.Chain.run

    def interrupt(chain, advance, x, y, total, stop):
        def watch():
            while chain.done < 20:
                time.sleep(0.005)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=watch, daemon=True).start()
        run(chain, advance, x, y, total, stop)

    monkeypatch.setattr(sampling.Chain, "run", interrupt)
    monkeypatch.setattr(sampling, "BUFFER", 100)
    data = ppbdl.Data(np.linspace(-1, 1, 20)[:, None], np.linspace(-1, 2, 20))
    nuts = ppbdl.NUTS(draws=2_000_000, warmup=10, chains=1)
    posterior = ppbdl.fit(0, ppbdl.models.LinearRegression(), data, nuts, progress=False)
    assert 10 <= posterior.shape[1] < 2_000_000
    assert "Interrupted after" in posterior.provenance.failure
    assert np.isfinite(posterior.draws["weights"]).all()
