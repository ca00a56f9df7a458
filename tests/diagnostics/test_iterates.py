"""Iterates that have settled pass; those that drift, wander or are a network's are told apart."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest
import xarray as xr
from scipy.signal import lfilter

import ppbdl
import ppbdl.models
from ppbdl.diagnostics import checks
from ppbdl.inference import iterates, svi
from ppbdl.inference.loop import BUFFER
from ppbdl.structure import inspect_model, shapes_of

DIMS = ("chain", "kept_step", "parameter")


def stationary(
    rng: np.random.Generator, rho: float, kept: int = 500, parameters: int = 50, members: int = 1
) -> np.ndarray:
    noise = rng.normal(size=(members, kept + 500, parameters)) * np.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], noise, axis=1)[:, 500:]


def tree_of(iterate: np.ndarray, scale: float = 4.0, site: str = "mu") -> xr.DataTree:
    """A fit whose iterates have a standard deviation of a quarter of their scale."""
    members, _, parameters = iterate.shape
    scales = np.full((members, parameters), scale)
    group = xr.Dataset(
        {"iterate": (DIMS, iterate), "iterate_scale": (("chain", "parameter"), scales)},
        coords={"parameter": [f"loc[{i}]" for i in range(parameters)]},
    )
    draws = xr.Dataset({site: (("chain", "draw"), np.zeros((1, 4)))})
    return xr.DataTree.from_dict({"/optimization": group, "/posterior": draws})


def test_settled_iterates_pass_as_often_as_stated() -> None:
    """One of 300 fits in the long run: of 60, three or more come once in 1,000."""
    rng = np.random.default_rng(0)
    found = [checks.convergence_of_iterates(tree_of(stationary(rng, 0.9))) for _ in range(60)]
    assert sum(outcome.verdict != "pass" for outcome in found) <= 2
    # The plain rule, which takes iterates for independent, would flag every one.
    plain = [np.sqrt(1 + np.diff(a, axis=0)[0] ** 2 / 2) for a in _quarter_means(rng)]
    assert all((each > 1.1).any() for each in plain)


def _quarter_means(rng: np.random.Generator) -> list[np.ndarray]:
    return [stationary(rng, 0.9)[0, 250:].reshape(2, 125, 50).mean(axis=1) for _ in range(20)]


@pytest.mark.parametrize(("far", "verdict"), [(0.2, "pass"), (0.8, "warn"), (3.0, "fail")])
def test_a_drift_is_judged_by_the_scale(far: float, verdict: str) -> None:
    """The last quarter's mean lies `far` scales from the third's, less the noise of either."""
    iterate = stationary(np.random.default_rng(1), 0.3)
    iterate[..., 7] += 8 * far * np.linspace(-1, 1, 500)
    outcome = checks.convergence_of_iterates(tree_of(iterate))
    assert outcome.verdict == verdict
    if verdict != "pass":
        assert "most loc[7], by" in outcome.sentence
        told = float(outcome.sentence.split(", by ")[1].split(" of")[0])
        assert told == pytest.approx(far, abs=0.15)


def test_members_are_judged_one_by_one() -> None:
    """That two of them settled elsewhere is no drift; the third, which moves, is named."""
    iterate = stationary(np.random.default_rng(2), 0.3, members=3)
    iterate += 100 * np.arange(3)[:, None, None]
    assert checks.convergence_of_iterates(tree_of(iterate)).verdict == "pass"
    iterate[1, :, 3] += np.linspace(0, 40, 500)
    outcome = checks.convergence_of_iterates(tree_of(iterate))
    assert outcome.verdict == "fail"
    assert "loc[3] (run 2 of 3)" in outcome.sentence


def test_iterates_that_wander_far_are_told() -> None:
    outcome = checks.convergence_of_iterates(
        tree_of(stationary(np.random.default_rng(3), 0.0), 0.2)
    )
    assert outcome.verdict == "warn"
    assert "Lower the learning rate" in outcome.sentence


def test_a_networks_weights_may_drift() -> None:
    iterate = stationary(np.random.default_rng(4), 0.3) + np.linspace(0, 40, 500)[:, None]
    outcome = checks.convergence_of_iterates(tree_of(iterate, site="net.linear_0.w"))
    assert outcome.verdict == "does not apply"
    assert "50 of 50 parameters drift" in outcome.sentence


def test_without_iterates_or_their_scale_it_does_not_apply() -> None:
    iterate = stationary(np.random.default_rng(5), 0.3)
    for fit in (xr.DataTree(), tree_of(iterate, np.nan), tree_of(iterate[:, :39])):
        outcome = checks.convergence_of_iterates(fit)
        assert (outcome.verdict, outcome.value) == ("does not apply", None)


X = np.random.default_rng(6).normal(size=(60, 3))
DATA = ppbdl.Data(X, X @ [1.0, 2.0, -1.0] + 0.5 * np.random.default_rng(7).normal(size=60))
LINEAR = ppbdl.models.LinearRegression(noise=0.5)
ADAM = optax.adam(1e-2)


@pytest.mark.parametrize(("steps", "verdict"), [(400, "fail"), (4000, "pass")])
def test_svi_with_adam_at_a_constant_rate(steps: int, verdict: str) -> None:
    posterior = ppbdl.fit(0, LINEAR, DATA, ppbdl.SVI(optimizer=ADAM, steps=steps), progress=False)
    tree = ppbdl.to_datatree(0, LINEAR, posterior, DATA)
    assert checks.convergence_of_iterates(tree).verdict == verdict


def test_the_iterates_are_those_of_the_steps_whatever_the_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every eighth of 5,000 steps, unconstrained; a fit of so many steps ends at the same."""
    method = ppbdl.Ensemble(ppbdl.SVI(optimizer=ADAM, steps=5000, draws=2), members=2)
    found = ppbdl.fit(0, LINEAR, DATA, method, progress=False).iterates
    monkeypatch.setattr(svi, "_SECONDS", 1e-9)  # chunks of one step, after the first
    monkeypatch.setattr(svi, "BUFFER", 37)
    again = ppbdl.fit(0, LINEAR, DATA, method, progress=False).iterates
    jax.tree.map(np.testing.assert_array_equal, found, again)
    assert found["step"].tolist() == list(range(8, 5001, 8))
    brief = ppbdl.Ensemble(ppbdl.SVI(optimizer=ADAM, steps=2000, draws=2), members=2)
    ended = ppbdl.fit(0, LINEAR, DATA, brief, progress=False)
    for i in range(3):
        name = f"auto_loc.weights[{i}]"
        at_end = found[name]["value"][:, found["step"].tolist().index(2000)]
        np.testing.assert_array_equal(at_end, ended.params["auto_loc"][:, 1 + i])
        scale = ended.iterates[name]["scale"]
        np.testing.assert_array_equal(scale, ended.params["auto_scale"][:, 1 + i])


@pytest.mark.parametrize("begin", range(4))
def test_the_ring_holds_the_longest_chunk_wherever_it_begins(begin: int) -> None:
    ring, kept = iterates.empty_ring({"w": np.zeros(1)}), iterates.Iterates(2000)
    for step in range(begin + BUFFER):
        ring = ring.at[step // 4 % len(ring)].set(step + 1.0)
    np.testing.assert_array_equal(
        iterates.written(ring, begin + BUFFER - 1, {"w": np.full(1, begin + BUFFER)}), ring
    )
    kept.read(ring, begin + BUFFER, BUFFER)
    found = kept.record({"w": np.zeros(1)}, {}, inspect_model(LINEAR, shapes_of(DATA)))
    np.testing.assert_array_equal(found["w[0]"]["value"][0], found["step"])
    assert len(found["step"]) == BUFFER // 4


def test_evenly_spaced_entries_of_many_are_kept() -> None:
    data = ppbdl.Data(np.random.default_rng(8).normal(size=(30, 400)), DATA.y[:30])
    posterior = ppbdl.fit(0, LINEAR, data, ppbdl.SVI(steps=8, draws=2), progress=False)
    names = list(posterior.iterates)[1:]
    assert len(names) == 50
    assert (names[0], names[-1]) == ("auto_loc.intercept", "auto_scale.weights[399]")
    assert posterior.iterates["step"].tolist() == [4, 8]


def test_the_last_word_of_a_name_finds_the_scale() -> None:
    """Sites whose own names hold loc or scale, by underscores or dots."""
    learned = {}
    for i, site in enumerate(["b_loc", "b_scale", "location", "b", "scale_loc"]):
        learned |= {f"{site}_auto_loc": np.zeros((1, 2)), f"{site}_auto_scale": np.full((1, 2), i)}
    learned |= {"net.w.loc": np.zeros((1, 2)), "net.w.scale": np.full((1, 2), 9.0)}
    learned |= {"full_loc": np.zeros((1, 2)), "full_scale_tril": np.array([[[3.0, 0], [3.0, 4]]])}

    def scale(name: str) -> list[float]:
        return iterates._scale(name, (1, 2), learned)[0].tolist()

    for i, site in enumerate(["b_loc", "b_scale", "location", "b", "scale_loc"]):
        assert scale(f"{site}_auto_loc") == [i, i]
        assert scale(f"{site}_auto_scale") == [1.0, 1.0]
    assert (scale("net.w.loc"), scale("net.w.scale")) == ([9.0, 9.0], [1.0, 1.0])
    assert scale("full_loc") == [3.0, 5.0]
    assert np.isnan(scale("location")).all()
    assert np.isnan(scale("b_scale_auto_rate")).all()
