"""Distributions over an autoencoder's weights, instead of its stochastic code and beside it."""

from __future__ import annotations

import jax
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer.autoguide import AutoDiagonalNormal

import ppbdl
from ppbdl.guides import Completed
from ppbdl.models import VAE, Autoencoder, Dense, Normal

RNG = np.random.default_rng(0)
LINE = RNG.normal(size=(200, 1)) @ RNG.normal(size=(1, 5)) + 0.1 * RNG.normal(size=(200, 5))
DATA = ppbdl.Data(LINE, LINE)


def test_an_autoencoder_of_one_number_finds_the_first_principal_component() -> None:
    model = Autoencoder((5,), 1, Normal(0.1), Dense(()))
    method = ppbdl.MAP(optax.adam(optax.cosine_decay_schedule(3e-2, 3000)), steps=3000)
    posterior = ppbdl.fit(0, model, DATA, method, progress=False)
    centred = LINE - LINE.mean(0)
    left = (centred**2).sum() - np.linalg.svd(centred)[1][0] ** 2
    again = np.asarray(model.reconstruct(posterior, LINE))
    assert ((again - LINE) ** 2).sum() == pytest.approx(left, rel=0.01)
    assert model.encode(posterior, LINE).mean.shape == (200, 1)
    with pytest.raises(ppbdl.InputError, match="y"):
        model.encode(posterior, LINE[:, :4])
    with pytest.raises(ppbdl.InputError, match="x"):
        ppbdl.fit(0, model, ppbdl.Data(LINE[:, :4], LINE), method, progress=False)


@pytest.mark.parametrize("where", ["encoder_prior", "decoder_prior"])
@pytest.mark.parametrize("estimator", [ppbdl.flipout, None])
def test_weights_in_doubt_make_what_is_far_from_the_data_doubtful(where, estimator) -> None:
    networks = Dense((8,), jax.nn.relu)  # tanh would flatten out far away
    model = Autoencoder((5,), 1, Normal(0.1), networks, **{where: dist.Normal(0, 1)})
    settings = {"estimator": estimator} if estimator else {}
    svi = ppbdl.SVI(steps=800, draws=50, **settings)
    posterior = ppbdl.fit(0, model, DATA, svi, progress=False)
    side = where.split("_")[0]
    assert all(name.startswith(side) for name in posterior.draws)
    near, far = (ppbdl.predict(1, model, posterior, s * LINE[:40]).epistemic for s in (1, 5))
    assert 0 < near.mean() < 0.5 * far.mean()


def test_a_stochastic_code_is_noise_and_weights_are_doubt() -> None:
    """Of one network: far from the data the weights' spread grows, and the code's does not."""
    networks, x = Dense((16,), jax.nn.relu), LINE[:60]
    vae = VAE((5,), 1, Normal(0.1), networks)
    net = Autoencoder((5,), 1, Normal(0.1), networks, decoder_prior=dist.Normal(0, 1))
    adam = optax.adam(1e-2)
    by_code = ppbdl.fit(
        0, vae, ppbdl.Data(None, LINE), ppbdl.SVI(vae.guide, adam, 2000), progress=False
    )
    by_weights = ppbdl.fit(0, net, DATA, ppbdl.SVI(steps=2000, draws=100), progress=False)

    def of_code(y):
        z = vae.encode(by_code, y).sample(jax.random.key(1), (100,))
        each = vae.decode(by_code, z.reshape(-1, 1)).mean.reshape(100, -1, 5)
        return float(each.var(0).mean())

    def of_weights(y):
        return float(ppbdl.predict(1, net, by_weights, y).epistemic.mean())

    growth = [spread(8 * x) / spread(x) for spread in (of_code, of_weights)]
    assert growth[0] < 3 < 10 < growth[1]


def test_a_decoder_in_doubt_beside_the_code_is_fitted_by_both_guides() -> None:
    vae = VAE((5,), 1, Normal(0.1), Dense((8,)), weights=dist.Normal(0, 1))
    svi = ppbdl.SVI(Completed(vae.guide), optax.adam(1e-2), steps=2500, draws=20)
    posterior = ppbdl.fit(0, vae, ppbdl.Data(None, LINE), svi, progress=False)
    again = np.stack([vae.reconstruct(posterior, LINE, draw=i) for i in range(20)])
    spread = ((LINE - LINE.mean(0)) ** 2).mean()
    assert ((again.mean(0) - LINE) ** 2).mean() < 0.1 * spread
    assert posterior.draws["decoder.linear_0.w"].shape == (1, 20, 1, 8)
    assert 0 < again.std(0).mean() < 0.2 * np.sqrt(spread)
    assert "encoder$params" in posterior.params
    assert posterior.provenance.failure == ""


def test_a_completed_guide_gives_each_site_one_guide() -> None:
    """The program's sites keep its distribution, all others get the rest's: conjugate, exact."""
    import numpyro

    def model(x, y=None):
        a = numpyro.sample("a", dist.Normal(0, 1))
        b = numpyro.sample("b", dist.Normal(0, 1))
        with numpyro.plate("data", len(x)):
            numpyro.sample("y", dist.Normal(b, 1.0), obs=y)
        return a

    def program(x, y=None):
        numpyro.sample("a", dist.Normal(3.0, 0.5))

    y = RNG.normal(size=49)
    svi = ppbdl.SVI(Completed(program), optax.adam(1e-2), steps=3000, draws=4000)
    posterior = ppbdl.fit(0, model, ppbdl.Data(np.zeros((49, 1)), y), svi, progress=False)
    a, b = (np.asarray(posterior.draws[name]) for name in ("a", "b"))
    # 4,000 draws: 5 standard errors, once in two million.
    assert a.mean() == pytest.approx(3.0, abs=5 * 0.5 / np.sqrt(4000))
    assert b.mean() == pytest.approx(y.sum() / 50, abs=0.03)
    assert b.std() == pytest.approx(1 / np.sqrt(50), rel=0.1)


def test_a_guide_that_is_bound_already_completes_nothing() -> None:
    vae = VAE((5,), 1, weights=dist.Normal(0, 1))
    with pytest.raises(ppbdl.InputError, match="rest"):
        Completed(vae.guide, AutoDiagonalNormal(vae))
