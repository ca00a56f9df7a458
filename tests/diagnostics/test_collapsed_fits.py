"""Two real fits that collapse: an ensemble of a model with one mode, and SGLD that was cooled."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import ppbdl
from ppbdl.diagnostics import checks
from ppbdl.inference.ensemble import Ensemble
from ppbdl.inference.sgld import SGLD
from ppbdl.models import LinearRegression

MODEL, WARMUP = LinearRegression(noise=0.5), 500


def data() -> tuple[ppbdl.Data, ppbdl.Data]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.5 * rng.normal(size=90)
    return ppbdl.Data(x[:60], y[:60]), ppbdl.Data(x[60:], y[60:])


def test_members_of_a_convex_loss_are_one_function() -> None:
    """Every member ends at the one maximum of the log joint: five fits bought nothing."""
    train, test = data()
    posterior = ppbdl.fit(0, MODEL, train, Ensemble(), progress=False)
    fit = ppbdl.to_datatree(1, MODEL, posterior, train, test=test)
    outcome = checks.ensemble_diversity(fit)
    assert outcome.verdict == "fail"
    assert "anchor each" in outcome.sentence


def test_sgld_at_a_step_near_zero_does_not_move() -> None:
    """The same chains with and without noise worth the name."""
    train, test = data()
    short = {"draws": 100, "warmup": WARMUP, "chains": 2}
    cooled = SGLD(lambda step: jnp.where(step < WARMUP, 1e-3, 1e-9), **short)
    with pytest.warns(RuntimeWarning, match="hardly moved"):
        still = ppbdl.fit(0, MODEL, train, cooled, progress=False)
    moving = ppbdl.fit(0, MODEL, train, SGLD(1e-3, **short), progress=False)
    trees = [ppbdl.to_datatree(1, MODEL, each, train, test=test) for each in (still, moving)]
    found = [checks.spread_of_draws(tree) for tree in trees]
    assert [outcome.verdict for outcome in found] == ["fail", "pass"]
    assert "Raise the step size" in found[0].sentence
