"""Anchored members of a linear model have a covariance that is known in closed form."""

import haiku as hk
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import ppbdl
import ppbdl.models

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3))
X[:, 2] = X[:, 1] + 0.1 * X[:, 2]  # one direction that the data hardly see
DATA = ppbdl.Data(X, X[:, 0] + 0.5 * RNG.normal(size=6))
MODEL = ppbdl.models.LinearRegression(noise=0.5)
MEMBERS = 400
METHOD = ppbdl.Ensemble(
    ppbdl.MAP(optax.adam(optax.cosine_decay_schedule(0.1, 2000)), steps=2000), members=MEMBERS
)


@pytest.fixture(scope="module")
def posterior():
    return ppbdl.fit(0, ppbdl.anchored(MODEL), DATA, METHOD, progress=False)


def members(posterior):
    parts = posterior.draws["intercept"][..., None], posterior.draws["weights"]
    return np.concatenate([np.asarray(part)[:, 0] for part in parts], axis=-1)


def test_each_member_is_the_mode_with_its_own_anchor(posterior):
    design = np.column_stack([np.ones(6), X])
    precision = np.eye(4) + design.T @ design / 0.25
    anchors = [posterior.mutables[f"{site}$anchor"]["at"] for site in ("intercept", "weights")]
    anchors = np.concatenate([np.asarray(anchors[0])[:, None], np.asarray(anchors[1])], axis=1)
    modes = np.linalg.solve(precision, (anchors + design.T @ DATA.y / 0.25).T).T
    np.testing.assert_allclose(members(posterior), modes, atol=2e-3)
    # Standard normal anchors, independent between members: 5 errors, 1 in 10^5 runs.
    assert abs(anchors.mean(0)).max() < 5 / np.sqrt(MEMBERS)
    assert abs(np.cov(anchors.T) - np.eye(4)).max() < 5 * np.sqrt(2 / MEMBERS)


def test_members_spread_as_the_closed_form_says(posterior):
    """A sample covariance of 400 errs by 7 %; within 5 such errors: 1 in 10^5 runs."""
    _, covariance = MODEL.exact_posterior(DATA)
    expected = covariance @ covariance  # H^-1 P H^-1, P the identity
    sd = np.sqrt(np.diag(expected))
    found = np.cov(members(posterior).T)
    assert (abs(found - expected) < 5 * np.outer(sd, sd) * np.sqrt(2 / MEMBERS)).all()
    assert (np.diag(found) < np.diag(covariance)).all()


def test_without_anchors_members_agree():
    plain = members(ppbdl.fit(0, MODEL, DATA, METHOD, progress=False))
    assert plain.std(0).max() < 1e-2


def test_the_model_itself_predicts(posterior):
    predicted = ppbdl.predict(1, MODEL, posterior, X)
    design = np.column_stack([np.ones(6), X])
    by_hand = (members(posterior) @ design.T).var(0)
    np.testing.assert_allclose(predicted.epistemic, by_hand, rtol=1e-3)


def noise_only(x, y=None):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(0.0, scale), obs=y)


def test_a_model_without_normal_priors_is_refused():
    with pytest.raises(ppbdl.ModelError, match=r"normal prior.*latents \['scale'\]"):
        ppbdl.fit(0, ppbdl.anchored(noise_only), DATA, METHOD, progress=False)


def test_other_priors_stay():
    model = ppbdl.models.BNN(lambda x: hk.Linear(1)(x))
    posterior = ppbdl.fit(
        0, ppbdl.anchored(model), DATA, ppbdl.Ensemble(ppbdl.MAP(steps=3), 2), progress=False
    )
    assert set(posterior.mutables) == {"net.linear.w$anchor", "net.linear.b$anchor"}
    assert jax.tree.leaves(dict(posterior.mutables))[0].shape[0] == 2
