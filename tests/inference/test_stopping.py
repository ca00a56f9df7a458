"""Early stopping: the best state is kept, by the rows that the fit has not seen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from numpyro import distributions as dist
from scipy.special import logsumexp

import ppbdl
from ppbdl.diagnostics import checks
from ppbdl.errors import FitError, InputError, ModelError
from ppbdl.inference.stopping import EarlyStopping
from ppbdl.models import VAE, Dense, LinearRegression, Normal

STOPPING = EarlyStopping(0.3, every=50, patience=4)


def wiggly(x, y=None):
    """Too flexible for thirty rows: a hundred random cosines, and a noise that can vanish."""
    rng = np.random.default_rng(5)
    cosines = jnp.cos(x * jnp.array(rng.normal(size=100) * 40) + jnp.array(rng.uniform(0, 6, 100)))
    weights = numpyro.param("weights", jnp.zeros(100))
    log_noise = numpyro.param("log_noise", jnp.zeros(()))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(cosines @ weights, jnp.exp(log_noise)), obs=y)


def noisy_line(rows, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (rows, 1))
    return ppbdl.Data(x, x[:, 0] + 0.5 * rng.normal(size=rows))


TRAIN = noisy_line(40, 0)


def kept_rows(posterior_key, data, stopping=STOPPING, batch_size=None):
    return stopping.divide(jax.random.key(posterior_key), data, batch_size)[1]


def test_the_state_that_explains_the_kept_rows_best_is_the_result():
    method = ppbdl.MAP(optax.adam(1e-2), 5000, stopping=STOPPING)
    stopped = ppbdl.fit(3, wiggly, TRAIN, method, progress=False)
    looks = stopped.kept_losses
    assert looks["step"][-1] == stopped.losses.shape[1] < 5000
    # It ended `patience` looks after the best, and that state is the posterior.
    assert looks["loss"].shape == (1, len(looks["step"]))
    assert looks["loss"].argmin() == len(looks["step"]) - 1 - STOPPING.patience
    scores = ppbdl.log_likelihood(0, wiggly, stopped, kept_rows(3, TRAIN))["y"]
    np.testing.assert_allclose(-scores.mean(), looks["loss"].min(), rtol=1e-5)
    assert stopped.provenance.gradients == looks["step"][-1]
    assert not stopped.provenance.failure

    on = ppbdl.fit(3, wiggly, TRAIN, ppbdl.MAP(optax.adam(1e-2), 5000), progress=False)
    test = noisy_line(2000, 1)
    ours, theirs = (ppbdl.log_likelihood(0, wiggly, p, test)["y"].mean() for p in (stopped, on))
    assert ours > theirs + 100  # measured: -1.4 and -846 nats a row


def test_each_member_keeps_its_own_best_state():
    def model(x, y=None):
        start = numpyro.param("start", lambda key: jax.random.normal(key) * 3)
        weights = numpyro.param("weights", jnp.zeros(20))
        powers = x ** jnp.arange(20)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(start + powers @ weights, 0.3), obs=y)

    map_ = ppbdl.MAP(optax.adam(3e-2), 3000, stopping=STOPPING)
    posterior = ppbdl.fit(0, model, TRAIN, ppbdl.Ensemble(map_, 3), progress=False)
    looks = posterior.kept_losses["loss"]
    scores = ppbdl.log_likelihood(0, model, posterior, kept_rows(0, TRAIN))["y"][:, 0]
    assert len(set(looks.argmin(axis=1).tolist())) > 1  # so that one state for all would be wrong
    np.testing.assert_allclose(-scores.mean(axis=-1), looks.min(axis=1), rtol=1e-4)


def test_minibatches_keep_whole_batches_back_and_fit_the_others():
    data = noisy_line(100, 2)
    stopping = EarlyStopping(0.37, every=20, patience=3)
    train, kept = stopping.divide(jax.random.key(0), data, 8)
    assert (train.rows, kept.rows) == (68, 32)
    both = np.concatenate([train.y, kept.y])
    np.testing.assert_array_equal(np.sort(both), np.sort(data.y))
    method = ppbdl.MAP(optax.adam(1e-1), 1000, batch_size=8, stopping=stopping)
    posterior = ppbdl.fit(0, wiggly, data, method, progress=False)
    scores = ppbdl.log_likelihood(0, wiggly, posterior, kept)["y"]
    np.testing.assert_allclose(-scores.mean(), posterior.kept_losses["loss"].min(), rtol=1e-4)


def test_codes_of_the_kept_rows_are_weighed_as_in_the_bound():
    y = np.random.default_rng(0).normal(size=(200, 3))
    vae, data = VAE((3,), 2, Normal(1.0), Dense((8,))), ppbdl.Data(None, y)
    svi = ppbdl.SVI(vae.guide, steps=400, draws=200, stopping=EarlyStopping(0.5, every=100))
    posterior = ppbdl.fit(0, vae, data, svi, progress=False)
    kept = kept_rows(0, data, svi.stopping)
    weights = ppbdl.log_likelihood(1, vae, posterior, kept, guide=vae.guide)["y"][0]
    bound, exact = weights.mean(), (logsumexp(weights, axis=0) - np.log(200)).mean()
    loss = posterior.kept_losses["loss"].min()
    # Eight draws of each of 100 rows' codes, whose bound varies by the gap and a little.
    error = 4 * weights.std(axis=0).mean() / np.sqrt(8 * 100) + 1e-3
    assert -exact - error < loss
    assert abs(loss + bound) < error


def test_the_tree_and_the_report_tell_where_it_ended(tmp_path):
    method = ppbdl.MAP(optax.adam(1e-2), 5000, stopping=STOPPING)
    posterior = ppbdl.fit(3, wiggly, TRAIN, method, progress=False)
    tree = ppbdl.to_datatree(0, wiggly, posterior, TRAIN)
    kept = tree["optimization"]["kept_loss"]
    assert kept.dims == ("chain", "look")
    assert kept["look"].values[0] == 50
    outcome = checks.elbo_convergence(tree)
    best = int(kept["look"].values[kept.values.argmin()])
    assert outcome.verdict == "pass"
    assert f"step {best}," in outcome.sentence
    back = ppbdl.load(ppbdl.save(posterior, tmp_path / "fit"))
    np.testing.assert_array_equal(back.kept_losses["loss"], posterior.kept_losses["loss"])

    short = ppbdl.MAP(optax.adam(1e-4), 60, stopping=STOPPING)
    posterior = ppbdl.fit(3, wiggly, TRAIN, short, progress=False)
    assert posterior.kept_losses["step"].tolist() == [50, 60]  # the end is looked at, too
    outcome = checks.elbo_convergence(ppbdl.to_datatree(0, wiggly, posterior, TRAIN))
    assert outcome.verdict == "warn"
    assert "more steps" in outcome.sentence


def test_a_second_fit_compiles_nothing_and_repeats_the_first():
    method = ppbdl.MAP(optax.adam(1e-2), 300, stopping=STOPPING)
    first, second = (ppbdl.fit(7, wiggly, TRAIN, method, progress=False) for _ in range(2))
    assert second.provenance.seconds_compiling == 0
    np.testing.assert_array_equal(first.kept_losses["loss"], second.kept_losses["loss"])


def test_kept_rows_without_a_chance_are_an_error():
    def narrow(x, y=None):
        high = numpyro.param("high", 1.1 * jnp.max(jnp.abs(x[:, 0])) if y is None else y.max())
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Uniform(-10.0, high), obs=y)

    data = ppbdl.Data(np.zeros((40, 1)), np.linspace(-1, 1, 40))
    kept = kept_rows(0, data, EarlyStopping(0.5))
    assert kept.y.max() == 1  # the largest value is kept back, beyond what is fitted
    method = ppbdl.MAP(optax.sgd(0.0), 200, stopping=EarlyStopping(0.5))
    with pytest.raises(FitError, match="rows kept back"):
        ppbdl.fit(0, narrow, data, method, progress=False)


def row_latents(x, y=None):
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.Normal())
        numpyro.sample("y", dist.Normal(z), obs=y)


def hidden_classes(x, y=None):
    p = numpyro.sample("p", dist.Beta(2, 2))
    with numpyro.plate("data", x.shape[0]):
        k = numpyro.sample("k", dist.Bernoulli(p))
        numpyro.sample("y", dist.Normal(k), obs=y)


@pytest.mark.parametrize(
    ("model", "loss", "words"),
    [
        (row_latents, None, "'z', which has an entry for each fitted row"),
        (hidden_classes, numpyro.infer.TraceEnum_ELBO(), "'k'"),
    ],
)
def test_what_cannot_be_scored_apart_is_refused(model, loss, words):
    settings = {} if loss is None else {"loss": loss}
    svi = ppbdl.SVI(steps=10, stopping=STOPPING, **settings)
    with pytest.raises(ModelError, match=words):
        ppbdl.fit(0, model, TRAIN, svi, progress=False)


def test_settings_that_cannot_be_met_are_refused():
    for share in (0.0, 1.0, 40, 0.001):
        stopping = EarlyStopping(share)
        with pytest.raises(InputError, match="share"):
            ppbdl.fit(0, LinearRegression(0.1), TRAIN, ppbdl.MAP(stopping=stopping), progress=False)
    with pytest.raises(InputError, match="patience"):
        EarlyStopping(patience=0)
    with pytest.raises(InputError, match="early stopping"):
        ppbdl.SWAG(ppbdl.MAP(stopping=STOPPING))
