"""A step sees one draw of the grey pixels, whoever asks; the next step sees another."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.handlers import seed, substitute, trace

import ppbdl
from ppbdl.models import M2, VAE, Binarized, Dense

GREY = np.random.default_rng(0).uniform(size=(400, 3)).astype(np.float32) ** [0.5, 1.0, 2.0]


class Independent:
    """Binary pixels, each of a probability of its own, and a code that they do not know of."""

    def __call__(self, x, y=None):
        logits = numpyro.param("logits", jnp.zeros(3))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(0, 1), infer={"local": True})
            numpyro.sample("y", dist.Bernoulli(logits=logits).to_event(1), obs=y)

    def guide(self, x, y=None):
        numpyro.deterministic("seen", y)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(0, 1))


MODEL = Binarized(Independent())


def draws(state, key: int):
    """What the model and the guide see in a step of this state, and the state after it."""
    x = np.zeros((400, 0))
    model, guide = (
        trace(seed(substitute(program, data=state), k)).get_trace(x, jnp.asarray(GREY))
        for program, k in ((MODEL, key), (MODEL.guide, key + 1))
    )
    name = "binarization$state"
    for entry in model[name]["value"]:
        after = [np.asarray(sites[name]["value"][entry]) for sites in (model, guide)]
        np.testing.assert_array_equal(*after)
    return model["y"]["value"], guide["seen"]["value"], {name: model[name]["value"]}


def test_the_model_and_its_guide_see_one_draw_and_the_next_step_another() -> None:
    """The mean of 1,200 x 50 draws lies within 5 errors of the greys': 1 false alarm in 10^6."""
    state = {"binarization$state": {"key": jax.random.key_data(jax.random.key(3))}}
    seen = []
    for step in range(50):
        by_model, by_guide, state = draws(state, key=2 * step)
        np.testing.assert_array_equal(by_model, by_guide)
        seen.append(np.asarray(by_model))
    assert set(np.unique(seen)) == {0.0, 1.0}
    assert all((a != b).mean() > 0.1 for a, b in itertools.pairwise(seen))
    off = np.mean(seen, axis=0) - GREY
    error = np.sqrt(GREY * (1 - GREY) / 50)
    assert abs(off.mean()) < 5 * np.sqrt((error**2).sum()) / GREY.size
    assert abs(off / np.maximum(error, 0.02)).max() < 6


@pytest.mark.parametrize("loss", [ppbdl.AnalyticELBO(), ppbdl.IWAE(20)], ids=["ELBO", "IWAE"])
def test_the_fit_reaches_the_cross_entropy_of_the_greys(loss) -> None:
    """The particles of a bound share the draw, or the IWAE would be above E log p(b).

    The mean of 500 losses of 400 rows each is known to 5 errors: 1 false alarm in 10^6.
    """
    svi = ppbdl.SVI(
        MODEL.guide, optax.adam(optax.exponential_decay(0.1, 100, 0.5)), 1000, draws=1, loss=loss
    )
    posterior = ppbdl.fit(0, MODEL, ppbdl.Data(None, GREY), svi, progress=False)
    p = GREY.mean(axis=0)
    np.testing.assert_allclose(jax.nn.sigmoid(posterior.params["logits"][0]), p, atol=0.01)
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p)).sum() * 400
    late = posterior.losses[0, 500:]
    error = late.std() / np.sqrt(len(late))
    assert error < 1
    assert abs(late.mean() - entropy) < 5 * error + 0.1


def test_its_fit_is_the_vaes_and_scores_binary_images() -> None:
    rng = np.random.default_rng(1)
    grey = np.clip(rng.uniform(size=(200, 1, 1, 1)) + 0.1 * rng.normal(size=(200, 4, 4, 1)), 0, 1)
    vae = VAE((4, 4, 1), 2, networks=Dense((16,)))
    model = Binarized(vae)
    adam = optax.adam(1e-2)
    svi = ppbdl.SVI(model.guide, adam, 600, batch_size=50, draws=1)
    posterior = ppbdl.fit(0, model, ppbdl.Data(None, grey), svi, progress=False)
    binary = (rng.uniform(size=grey.shape) < grey).astype(int)
    log_p, error = vae.log_marginal(1, posterior, binary, samples=200)
    # Sixteen pixels that know of each other; alone each has its own entropy.
    p = grey.mean(axis=0)
    assert log_p.mean() > (p * np.log(p) + (1 - p) * np.log1p(-p)).sum() + 0.5
    assert error.mean() < 0.1
    other = ppbdl.fit(1, model, ppbdl.Data(None, grey), svi, progress=False)
    keys = [fit.mutables["binarization$state"]["key"] for fit in (posterior, other)]
    assert not np.array_equal(*keys)  # another key, other draws


def test_what_is_no_probability_is_refused() -> None:
    levels = np.rint(255 * GREY)
    svi = ppbdl.SVI(MODEL.guide, steps=3, draws=1)
    with pytest.raises(ppbdl.DataError, match="outside it"):
        ppbdl.fit(0, MODEL, ppbdl.Data(None, levels), svi, progress=False)


def test_what_the_model_refuses_is_refused() -> None:
    model = Binarized(M2((3,), 1, networks=Dense((4,)), classes=2, supervision=1.0))
    labels = np.arange(400) % 3
    with pytest.raises(ppbdl.DataError, match="labels from -1 to 1"):
        ppbdl.fit(0, model, ppbdl.Data(labels, GREY), ppbdl.SVI(model.guide, steps=1))
