"""How a code is used, against what is known of it; a collapse is told by the fit and the report."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import ppbdl
from ppbdl.diagnostics import report
from ppbdl.diagnostics.checks import use_of_code
from ppbdl.models import CVAE, VAE, Dense, FlowPosterior, FullNormal, Normal, SylvesterFlow
from ppbdl.models.examination import examined

RNG = np.random.default_rng(0)
LOADS = np.array([[2.0, 0, 0, 0], [0, 0.7, 0, 0]])
Y = RNG.normal(size=(600, 2)) @ LOADS + 0.5 * RNG.normal(size=(600, 4))
DATA = ppbdl.Data(None, Y)


def fitted(model, data=DATA, steps=2000, rate=1e-2, **settings):
    svi = ppbdl.SVI(model.guide, optax.adam(rate), steps=steps, draws=2, **settings)
    return ppbdl.fit(0, model, data, svi, progress=False)


def check(model, posterior, data=DATA):
    guide = model.guide
    return use_of_code(ppbdl.to_datatree(1, model, posterior, data, guide=guide))


@pytest.mark.parametrize(
    "code",
    [FullNormal(), FlowPosterior(lambda n: SylvesterFlow(n, layers=1, samples=True), context=4)],
)
def test_a_linear_code_tells_what_a_channel_of_its_noise_can(code) -> None:
    """Two channels of signal 4 and 0.49 in noise 0.25: half a log of 1 + signal / noise each."""
    vae = VAE((4,), 3, Normal(0.5), Dense(()), posterior=code)
    posterior = fitted(vae)
    found = {name: value[0] for name, value in posterior.findings["code"].items()}
    capacity = 0.5 * np.log1p(np.array([4.0, 0.49]) / 0.25)
    # A flow's normal base is not rotated by one map of two directions as the full normal is.
    assert found["rate"] == pytest.approx(capacity.sum(), abs=0.25)
    assert found["information"] == pytest.approx(capacity.sum(), abs=0.3)
    # What its units tell together, less what each of them tells, is their correlation's.
    assert 0.5 * capacity.sum() < found["kl"].sum() < found["rate"] + 0.05
    if isinstance(code, FullNormal):
        assert sum(found["activity"] > 0.01) >= 2
    assert posterior.provenance.failure == ""
    assert check(vae, posterior).verdict == "pass"


def test_a_unit_that_is_not_needed_switches_off() -> None:
    # Only directions of more variance than the noise are worth a unit: two of the four.
    vae = VAE((4,), 3, Normal(0.6), Dense(()))
    found = fitted(vae, steps=5000, rate=optax.exponential_decay(5e-2, 1000, 0.5)).findings["code"]
    assert sum(found["activity"][0] > 0.01) == 2
    assert found["kl"][0][found["activity"][0] <= 0.01].max() < 0.02


def test_a_collapse_is_told_by_the_fit_and_by_the_report() -> None:
    noise = ppbdl.Data(None, RNG.normal(size=(300, 4)))
    vae = VAE((4,), 2, Normal(1.0), Dense((16,)))
    posterior = fitted(vae, noise, steps=1500, temperature=3.0)
    assert "The code is unused" in posterior.provenance.failure
    assert "linear_schedule" in posterior.provenance.failure
    found = check(vae, posterior, noise)
    assert found.verdict == "fail"
    assert found.value == 0
    tree = ppbdl.to_datatree(1, vae, posterior, noise, guide=vae.guide)
    assert "0 of 2 units of the code are active" in report(tree).html


def test_a_conditional_code_that_only_follows_x_is_unused() -> None:
    x = RNG.normal(size=(400, 1))
    data = ppbdl.Data(x, x * np.ones(3) + 0.3 * RNG.normal(size=(400, 3)))
    cvae = CVAE((3,), 2, Normal(0.3), Dense((16,)), given=(1,))
    posterior = fitted(cvae, data)
    assert posterior.findings["code"]["rate"][0] < 0.1
    assert "information" not in posterior.findings["code"]
    assert check(cvae, posterior, data).verdict in ("warn", "fail")


def test_findings_are_saved_and_loaded(tmp_path) -> None:
    posterior = fitted(VAE((4,), 2, Normal(0.5), Dense(())), steps=50)
    again = ppbdl.load(ppbdl.save(posterior, tmp_path / "fit"))
    for name, value in posterior.findings["code"].items():
        np.testing.assert_array_equal(again.findings["code"][name], value)


def test_one_collapsed_member_of_an_ensemble_is_named() -> None:
    vae = VAE((4,), 2, Normal(0.5), Dense(()))
    svi = ppbdl.SVI(vae.guide, optax.adam(1e-2), steps=500, draws=2)
    posterior = ppbdl.fit(0, vae, DATA, ppbdl.Ensemble(svi, 2), progress=False)
    assert posterior.provenance.failure == ""
    off = jax.tree.map(lambda a: a.at[1].set(0.0), posterior.params["encoder$params"])
    params = {**posterior.params, "encoder$params": off}
    found = vae.examine(jax.random.key(0), replace(posterior, params=params), DATA)
    assert "unused in chain 1" in found.provenance.failure


@dataclass(frozen=True)
class Channel:
    """A code that is y in some unit, with noise of a tenth of y's spread."""

    unit: float

    def _read(self, x, y):
        return None

    def _encode(self, y, x):
        return dist.Normal(self.unit * y, 0.1 * self.unit).to_event(1)

    def _prior(self, x):
        return dist.Normal(0.0, self.unit).expand([2]).to_event(1)


def test_the_unit_of_a_code_is_no_matter() -> None:
    """A learned prior leaves it free."""
    y, fit = RNG.normal(size=(200, 2)), fitted(VAE((4,), 2, Normal(0.5), Dense(())), steps=2)
    data, key = ppbdl.Data(None, y), jax.random.key(0)
    each = [examined(key, Channel(u), fit, data).findings["code"] for u in (1.0, 0.02)]
    for name, value in each[0].items():
        np.testing.assert_allclose(value, each[1][name], rtol=1e-3)
    assert each[0]["activity"][0] == pytest.approx(y.var(0), rel=1e-3)


def test_methods_are_compared_on_a_model_of_codes() -> None:
    vae = VAE((4,), 2, Normal(0.5), Dense(()))
    svi = ppbdl.SVI(vae.guide, optax.adam(1e-2), steps=300, draws=3)
    methods = {"SVI": svi, "Ensemble": ppbdl.Ensemble(svi, 2)}
    tree = ppbdl.fit_all(0, vae, DATA, methods, progress=False)
    for name, chains in (("SVI", 1), ("Ensemble", 2)):
        assert tree[name]["code"]["activity"].shape == (chains, 2)
        assert tree[name]["log_likelihood"]["y"].shape == (chains, 3, 600)
        assert use_of_code(tree[name]).verdict == "pass"
