"""What the dropout guides have in common: from a fit to a prediction, kept on disk between."""

import haiku as hk
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.handlers import seed, trace
from numpyro.infer import Trace_ELBO

import ppbdl
import ppbdl.models
from ppbdl.guides import ConcreteDropout, GaussianDropout, MCDropout
from ppbdl.structure import inspect_model, shapes_of

X = np.random.default_rng(0).normal(size=(40, 3))
DATA = ppbdl.Data(X, np.sin(X[:, 0]))
MODEL = ppbdl.models.BNN(lambda x: hk.nets.MLP([8, 1])(x))
GUIDES = {
    "concrete": ConcreteDropout(),
    "weight": GaussianDropout(),
    "unit": GaussianDropout("unit"),
}


@pytest.mark.parametrize("name", GUIDES)
def test_an_ensemble_is_fitted_kept_and_predicts(name, tmp_path):
    svi = ppbdl.SVI(GUIDES[name], optax.adam(0.02), steps=150, batch_size=20, draws=30)
    posterior = ppbdl.fit(0, MODEL, DATA, ppbdl.Ensemble(svi, members=2), progress=False)
    assert posterior.losses[:, -20:].mean() < posterior.losses[:, :20].mean()
    assert posterior.draws["net.linear_0.w"].shape == (2, 30, 3, 8)
    assert (np.asarray(posterior.draws["net.linear_0.w"]).std(1) > 0).all()
    assert (np.ptp(posterior.draws["net.linear_0.b"], axis=1) == 0).all()  # vectors are points
    loaded = ppbdl.load(ppbdl.save(posterior, tmp_path / "posterior"))
    for kept, given in zip(*map(jax.tree.leaves, (loaded.params, posterior.params)), strict=True):
        np.testing.assert_array_equal(kept, given)
    ours, again = (ppbdl.predict(1, MODEL, p, X) for p in (posterior, loaded))
    np.testing.assert_array_equal(ours.mean, again.mean)
    assert (ours.epistemic > 1e-5).all()


def sites_of_all_kinds(x, y=None):
    numpyro.sample("matrix", dist.Normal().expand([3, 2]).to_event(2))
    numpyro.sample("kernel", dist.Normal().expand([5, 5, 4, 2]).to_event(4))
    numpyro.sample("one_input", dist.Normal().expand([1, 1, 1, 2]).to_event(4))
    numpyro.sample("vector", dist.Normal().expand([3]).to_event(1))
    numpyro.sample("positive", dist.HalfNormal().expand([3, 2]).to_event(2))
    numpyro.sample("y", dist.Normal(), obs=y)


STRUCTURE = inspect_model(sites_of_all_kinds, shapes_of(DATA))


@pytest.mark.parametrize("guide", [MCDropout(0.4), ConcreteDropout(0.4)])
def test_a_dropped_site_tells_how_to_draw_more_masks(guide):
    """Masks rise with the uniforms, and pass a half at the rate."""
    program = guide.bind(sites_of_all_kinds, STRUCTURE)
    sites = trace(seed(program, 0)).get_trace(DATA.x, DATA.y)
    for name in ("matrix", "kernel"):
        weights, mask = sites[name]["infer"]["dropout"]
        np.testing.assert_array_equal(weights, sites["auto_loc"]["value"][name])
        kept = sites[f"{name}.kept"]["value"]
        assert kept.shape == (weights.shape[-2], 1)
        np.testing.assert_array_equal(sites[name]["value"], weights * kept)
        u = np.linspace(0, 0.999, 1000, dtype="f").reshape(100, 10)
        masks = np.float64(mask(u))
        assert masks.shape == u.shape
        assert (np.diff(masks.ravel()) >= 0).all()
        assert (masks[u < 0.39] < 0.5).all()
        assert (masks[u > 0.41] > 0.5).all()
    for name in ("one_input", "vector", "positive"):
        assert "dropout" not in sites[name]["infer"]
        assert f"{name}.kept" not in sites


@pytest.mark.parametrize("name", GUIDES)
def test_numpyros_objective_agrees(name):
    """The mean over 500 keys of Trace_ELBO, which samples every term, and of ours; |z| < 4.5 of
    three: 2 false alarms in 100,000."""
    structure = inspect_model(MODEL, shapes_of(DATA))
    guide = GUIDES[name].bind(MODEL, structure)
    sites = trace(seed(guide, 0)).get_trace(DATA.x, DATA.y)
    params = {n: s["value"] for n, s in sites.items() if s["type"] == "param"}

    def losses(loss, key):
        one = jax.vmap(lambda key: loss.loss(key, params, MODEL, guide, DATA.x, DATA.y))
        return np.float64(jax.jit(one)(jax.random.split(jax.random.key(key), 500)))

    ours, theirs = losses(ppbdl.AnalyticELBO(), 1), losses(Trace_ELBO(), 2)
    error = np.hypot(ours.std(), theirs.std()) / np.sqrt(500)
    assert 0 < error < 0.1 * abs(ours.mean())
    assert abs(ours.mean() - theirs.mean()) < 4.5 * error
