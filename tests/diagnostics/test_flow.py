"""The check of a flow: a sound one passes, and each way of being unsound has its sentence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro import distributions as dist

import ppbdl
from ppbdl import flows
from ppbdl.diagnostics.checks import soundness_of_flow
from ppbdl.diagnostics.verdict import Check

BASE = dist.Normal(0.0, 1.0).expand([3]).to_event(1)
SPLINE = np.random.default_rng(1).normal(size=(3, 14))


def examined(flow: flows.Flow, y: np.ndarray, seed: int = 0) -> Check:
    return soundness_of_flow(xr.DataTree.from_dict({"/flow": flows.examine(seed, flow, y)}))


def bent(spline: type = flows.RationalQuadraticSpline) -> flows.Flow:
    return flows.Flow(BASE, [spline(SPLINE, 2.5), flows.Affine(1.0, 0.5)])


def data(rows: int = 1000, seed: int = 5) -> np.ndarray:
    return np.asarray(bent().sample(jax.random.key(seed), (rows,)))


@pytest.mark.parametrize("seed", range(3))
def test_the_flow_that_made_the_data_passes(seed: int) -> None:
    """A false alarm has a chance of 0.002."""
    found = examined(bent(), data(seed=seed), seed)
    assert found.verdict == "pass", found.sentence


def test_chance_puts_no_more_samples_beyond_the_data_than_stated() -> None:
    """With samples and data of one law, its p falls under 0.05 in at most 5 % of cases: in 31 or
    more of 300 once in 10,000 times (a binomial's tail)."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(300):
        samples = rng.permuted(np.repeat([[True], [False]], 200, 0).repeat(3, 1), axis=0)
        below, above = (np.cumprod(samples[::way], axis=0).sum(0) for way in (1, -1))
        group = {
            "z": (("row", "dim"), np.zeros((200, 3))),
            "pit": (("row", "dim"), ((np.arange(200) + 0.5) / 200)[:, None].repeat(3, 1)),
            "round_trip_error": ("row", np.zeros(200)),
            "log_det_error": ("probe", np.zeros(8)),
            "below": ("dim", below),
            "above": ("dim", above),
        }
        found = soundness_of_flow(xr.DataTree.from_dict({"/flow": xr.Dataset(group)}))
        assert found.value is not None
        alarms += found.value < 0.05
    assert 0 < alarms < 31


class WrongSign(flows.RationalQuadraticSpline):
    def inverse_and_log_det(self, y):
        x, log_det = super().inverse_and_log_det(y)
        return x, -log_det


class Lossy(flows.RationalQuadraticSpline):
    """It forgets in its inverse what lies in the upper half of the box."""

    def inverse_and_log_det(self, y):
        x, log_det = super().inverse_and_log_det(y)
        return jnp.minimum(x, 1.0), log_det


@pytest.mark.parametrize(
    ("spline", "sentence"), [(WrongSign, "log determinant is"), (Lossy, "There and back misses")]
)
def test_a_broken_bijection_fails(spline: type, sentence: str) -> None:
    found = examined(bent(spline), data())
    assert found.verdict == "fail"
    assert sentence in found.sentence


def test_an_underfitted_flow_has_a_z_that_is_not_normal() -> None:
    found = examined(flows.Flow(BASE, [flows.Affine(1.0, 0.5)]), data())
    assert found.verdict == "fail"
    assert "z does not follow the base" in found.sentence
    assert "Fit it longer" in found.sentence


def test_no_p_of_a_flow_is_zero() -> None:
    found = examined(bent(), data() * 40.0)
    assert found.verdict == "fail"
    assert "p under 1e-16" in found.sentence
    assert "p 0" not in found.sentence


def test_a_leak_beyond_the_data_s_box_is_found() -> None:
    """A twentieth of the flow's mass lies where there are no data, in one of three dimensions."""
    uniform = dist.Uniform(-1.0, 1.0).expand([3]).to_event(1)
    y = np.random.default_rng(0).uniform(-1, [1, 0.9, 1], size=(1000, 3))
    found = examined(flows.Flow(uniform, [flows.Affine(0.0, 0.0)]), y)
    assert found.verdict == "fail"
    assert "% of samples lie above all of the data in dimension 1" in found.sentence


def test_rows_outside_of_the_support_fail() -> None:
    flow = flows.Flow(BASE, [dist.transforms.ExpTransform()])
    y = np.exp(np.random.default_rng(0).normal(size=(100, 3)))
    y[3, 1] = -1.0
    found = examined(flow, y)
    assert found.verdict == "fail"
    assert "1 of 100 rows" in found.sentence


def test_a_conditional_flow_is_examined_with_its_contexts() -> None:
    context = np.random.default_rng(0).normal(size=(400, 1))
    base = dist.Normal(0.0, 1.0).expand([400, 2]).to_event(1)
    flow = flows.Flow(base, [flows.Affine(context, 0.2 * context)])
    y = flow.sample(jax.random.key(0))
    found = examined(flow, np.asarray(y))
    assert found.verdict == "pass", found.sentence
    shifted = examined(flows.Flow(base, [flows.Affine(context, 0.0)]), np.asarray(3 * y))
    assert "z does not follow the base" in shifted.sentence


def test_a_base_without_a_distribution_function_is_refused() -> None:
    base = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    with pytest.raises(ppbdl.InputError, match="independent dimensions"):
        flows.examine(0, flows.Flow(base, [flows.Affine(0.0, 0.0)]), np.zeros((10, 2)))


def test_it_does_not_apply_without_a_flow() -> None:
    assert soundness_of_flow(xr.DataTree()).verdict == "does not apply"
