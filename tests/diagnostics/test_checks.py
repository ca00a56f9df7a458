"""Good fits pass; each known-bad fit is flagged by the right check with the right words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import arviz as az
import numpy as np
import pytest
import xarray as xr
from xarray.backends import BackendArray
from xarray.core.indexing import IndexingSupport, LazilyIndexedArray, explicit_indexing_adapter

from ppbdl import diagnostics as d
from ppbdl.diagnostics import checks

Make = Callable[..., xr.DataTree]
Loss = Callable[..., np.ndarray]
PAIR = ("chain", "draw")
APPROXIMATE = {"chains": 1, "draws": 1000, "kind": "density"}


def with_loss(fit: xr.DataTree, loss: np.ndarray) -> xr.DataTree:
    fit = fit.copy()
    fit["optimization"] = xr.DataTree(xr.Dataset({"loss": (("chain", "step"), loss)}))
    return fit


def test_exact_posteriors_pass(make_fit: Make) -> None:
    """Each of some ten checks warns wrongly once in a hundred; of eight fits two may."""
    kinds = [{}, APPROXIMATE, {"chains": 1, "draws": 1000, "kind": "implicit"}]
    fits = [make_fit(seed=seed, **kinds[seed % 3]) for seed in range(8)]
    flagged = [d.worst(d.check(fit)) for fit in fits]
    assert all(outcome.verdict != "fail" for outcome in flagged)
    assert sum(outcome.verdict == "warn" for outcome in flagged) <= 2


def test_every_number_is_finite_or_does_not_apply(make_fit: Make) -> None:
    for fit in (make_fit(), make_fit(chains=5, draws=1, kind="implicit"), make_fit(**APPROXIMATE)):
        for outcome in d.check(fit):
            assert outcome.value is None or np.isfinite(outcome.value)
            assert outcome.sentence.endswith(".")


@pytest.mark.parametrize(("chains", "draws"), [(1, 100), (5, 1)])
def test_one_chain_or_one_draw_has_no_rhat(make_fit: Make, chains: int, draws: int) -> None:
    fit = make_fit(chains=chains, draws=draws)
    for check in (checks.agreement_of_chains, checks.effective_draws):
        assert check(fit).verdict == "does not apply"
        assert check(fit).value is None


def test_a_stuck_chain_fails(make_fit: Make) -> None:
    outcome = checks.agreement_of_chains(make_fit(shift=np.array([0.0, 0.0, 0.0, 1.0])))
    assert outcome.verdict == "fail"
    assert "disagree" in outcome.sentence


def test_chains_that_all_stand_still_fail(make_fit: Make) -> None:
    fit = make_fit(spread=0.0, shift=np.arange(4.0))
    assert checks.agreement_of_chains(fit).verdict == "fail"


def test_disagreeing_weights_of_a_network_are_information(make_fit: Make) -> None:
    outcome = checks.convergence_of_weights(make_fit(shift=np.arange(4.0)))
    assert outcome.verdict == "does not apply"
    assert "not identifiable" in outcome.sentence


@pytest.mark.parametrize(
    ("noise", "verdict", "words"),
    [(0.5, "pass", "chance"), (0.2, "fail", "overconfident"), (2.0, "warn", "underconfident")],
)
def test_coverage_tells_the_noise_scale(
    make_fit: Make, noise: float, verdict: str, words: str
) -> None:
    outcome = checks.coverage_of_intervals(make_fit(noise=noise))
    assert outcome.verdict == verdict
    assert words in outcome.sentence


def test_an_ensemble_of_five_is_not_overconfident_for_want_of_draws(make_fit: Make) -> None:
    fit = make_fit(chains=5, draws=1, kind="implicit")
    assert checks.coverage_of_intervals(fit).verdict == "pass"


def test_coverage_of_counts_is_exact(counts: xr.DataTree) -> None:
    assert checks.coverage_of_intervals(counts).verdict == "pass"


def test_sharpened_classes_are_overconfident(make_classes: Make) -> None:
    assert checks.class_calibration(make_classes()).verdict == "pass"
    outcome = checks.class_calibration(make_classes(sharpen=4.0))
    assert outcome.verdict == "fail"
    assert "overconfident" in outcome.sentence


def test_khat_knows_the_exact_posterior_from_a_narrow_one(make_fit: Make) -> None:
    assert checks.importance_khat(make_fit(**APPROXIMATE)).verdict == "pass"
    wide = checks.importance_khat(make_fit(**APPROXIMATE, spread=1.3))
    assert wide.verdict == "pass"
    narrow = checks.importance_khat(make_fit(**APPROXIMATE, spread=0.4))
    assert narrow.verdict == "warn"
    assert "not the posterior" in narrow.sentence


def seeds(make_fit: Make, spreads: list[float]) -> xr.DataTree:
    """A chain a seed, each of an approximation whose spread is its own."""
    each = [make_fit(**APPROXIMATE, spread=s, seed=i) for i, s in enumerate(spreads)]
    together = xr.concat([fit["sample_stats"].to_dataset() for fit in each], dim="chain")
    fit = xr.DataTree.from_dict({"/sample_stats": together})
    fit.attrs["kind"] = "implicit"
    return fit


def test_the_worst_seed_decides_khat(make_fit: Make) -> None:
    good = checks.importance_khat(seeds(make_fit, [1.0, 1.1, 1.2]))
    assert good.verdict == "pass"
    assert "over 3 seeds: the approximation is close" in good.sentence
    one = checks.importance_khat(make_fit(**APPROXIMATE, spread=0.4, seed=1))
    mixed = checks.importance_khat(seeds(make_fit, [1.0, 0.4, 1.1]))
    assert (mixed.verdict, mixed.value) == ("warn", pytest.approx(one.value))
    assert "(2 of them within the limit)" in mixed.sentence
    few = seeds(make_fit, [1.0, 1.0]).isel(draw=slice(20))
    assert checks.importance_khat(few).verdict == "does not apply"


def test_a_level_loss_passes_a_falling_one_fails(make_fit: Make, make_loss: Loss) -> None:
    fit = make_fit(**APPROXIMATE)
    assert checks.elbo_convergence(fit).verdict == "pass"
    falling = checks.elbo_convergence(with_loss(fit, make_loss(1, 0, rate=800.0)))
    assert falling.verdict == "fail"
    assert "not converged" in falling.sentence
    rising = checks.elbo_convergence(with_loss(fit, make_loss(1, 0) + np.linspace(0, 100, 2000)))
    assert rising.verdict == "fail"
    assert "diverges" in rising.sentence


def test_spikes_do_not_hide_that_a_loss_is_level(make_fit: Make, make_loss: Loss) -> None:
    spiky = make_loss(1, 0)
    spiky[:, 1700::60] += 1e4
    assert checks.elbo_convergence(with_loss(make_fit(**APPROXIMATE), spiky)).verdict == "pass"


def test_a_nan_loss_fails_and_names_the_step(make_fit: Make) -> None:
    loss = np.ones((1, 500))
    loss[:, 321:] = np.nan
    outcome = checks.elbo_convergence(with_loss(make_fit(**APPROXIMATE), loss))
    assert outcome.verdict == "fail"
    assert "step 321" in outcome.sentence


def test_a_failed_fit_says_so(make_fit: Make) -> None:
    fit = make_fit()
    fit.attrs["failure"] = "NaN at step 7, site net.linear_0.w."
    assert d.worst(d.check(fit)).sentence == ("The fit failed: NaN at step 7, site net.linear_0.w.")


def test_predictions_that_are_not_finite_fail(make_fit: Make) -> None:
    fit = make_fit()
    fit["predictions"]["y_mean"][:, 3, 2] = np.nan
    outcome = d.worst(d.check(fit))
    assert (outcome.name, outcome.verdict) == ("the fit ended", "fail")


def test_a_tree_that_shows_nothing_has_not_passed() -> None:
    empty = xr.DataTree.from_dict({"/posterior": xr.Dataset({"mu": (PAIR, np.zeros((4, 100)))})})
    outcome = checks.completion(empty)
    assert (outcome.value, outcome.verdict) == (None, "does not apply")
    assert "no predictions or log likelihoods" in outcome.sentence


def test_what_is_not_finite_outside_of_the_sample_counts(make_fit: Make) -> None:
    fit = make_fit()
    fit.attrs["not_finite"] = 0
    assert checks.completion(fit).verdict == "pass"
    fit.attrs["not_finite"] = 3
    outcome = checks.completion(fit)
    assert (outcome.value, outcome.verdict) == (3.0, "fail")
    assert "3 in all rows" in outcome.sentence


def posterior_only(apart: float, site: str = "mu") -> xr.DataTree:
    draws = np.random.default_rng(0).normal(size=(4, 500)) + apart * np.arange(4)[:, None]
    return xr.DataTree.from_dict({"/posterior": xr.Dataset({site: (PAIR, draws)})})


@pytest.mark.parametrize(("apart", "verdict"), [(0.0, "pass"), (0.2, "warn"), (3.0, "fail")])
@pytest.mark.parametrize("site", ["mu", "net.linear.w"])
def test_parameters_that_disagree_fail_where_they_are_all_there_is(
    apart: float, verdict: str, site: str
) -> None:
    assert checks.convergence_of_weights(posterior_only(apart, site)).verdict == verdict


def test_identified_parameters_fail_beside_predictions(make_fit: Make) -> None:
    fit = make_fit(shift=np.arange(4.0))
    fit["posterior"] = fit["posterior"].to_dataset().rename({"net.linear_0.w": "slope"})
    assert checks.convergence_of_weights(fit).verdict == "fail"


def test_of_a_large_posterior_only_a_hundred_scalars_are_read() -> None:
    """The stored array refuses to be read whole; one scalar in a hundred stands out."""
    read: list[int] = []

    class Stored(BackendArray):
        shape, dtype = (4, 50, 30, 1000), np.dtype(float)

        def __getitem__(self, key: Any) -> Any:
            return explicit_indexing_adapter(key, self.shape, IndexingSupport.BASIC, self._read)

        def _read(self, key: tuple) -> np.ndarray:
            sizes = [len(range(*k.indices(n))) if isinstance(k, slice) else 1
                     for k, n in zip(key, self.shape, strict=True)]  # fmt: skip
            read.append(int(np.prod(sizes)))
            kept = [n for n, k in zip(sizes, key, strict=True) if isinstance(k, slice)]
            return np.random.default_rng(len(read)).normal(size=kept)

    group = xr.Dataset(
        {
            "table": ((*PAIR, "a", "b"), LazilyIndexedArray(Stored())),
            "mu": (PAIR, np.random.default_rng(0).normal(size=(4, 50)) + np.arange(4)[:, None]),
            "without_draws": ("c", np.zeros(3)),
        }
    )
    outcome = checks.convergence_of_weights(xr.DataTree.from_dict({"/posterior": group}))
    assert outcome.verdict == "fail"  # of mu, the last
    assert "R-hat of 100 of 30001 scalars" in outcome.sentence
    assert read == [4 * 50] * 99


def test_a_posterior_without_draws_has_no_rhat() -> None:
    group = xr.Dataset({"mode": ("a", np.zeros(3))})
    outcome = checks.convergence_of_weights(xr.DataTree.from_dict({"/posterior": group}))
    assert (outcome.value, outcome.verdict) == (None, "does not apply")


def test_hamiltonian_trouble(make_fit: Make) -> None:
    fit = make_fit()
    fit["sample_stats"]["diverging"][:, :20] = True
    fit["sample_stats"]["energy"][:] = np.random.default_rng(0).normal(size=(4, 250)).cumsum(axis=1)
    fit["sample_stats"]["tree_depth"][:] = 10
    names = ("divergences", "energy", "tree_depth")
    found = {name: getattr(checks, name)(fit).verdict for name in names}
    assert found == {"divergences": "fail", "energy": "fail", "tree_depth": "warn"}


def test_a_tree_of_another_library_is_checked() -> None:
    found = {outcome.name: outcome for outcome in d.check(az.load_arviz_data("centered_eight"))}
    assert found["divergences"].verdict == "warn"
    assert found["LOO reliability"].verdict == "pass"
    assert found["coverage of intervals"].verdict == "does not apply"
    assert found["R-hat of parameters"].verdict == "warn"


def predicting(means: np.ndarray) -> xr.DataTree:
    group = xr.Dataset({"y_mean": (("chain", "draw", "test_row"), means)})
    fit = xr.DataTree.from_dict({"/predictions": group})
    fit.attrs["observed"] = "y"
    return fit


def rare_visits(seed: int = 0) -> np.ndarray:
    """Independent draws in the bulk, whose upper tail comes in runs: 4 chains of 1,000."""
    rng = np.random.default_rng(seed)
    z = np.abs(rng.normal(size=(4, 1000)))
    sign = np.where(rng.normal(size=(4, 1000)) > 0, 1.0, -1.0)
    quiet = np.where(z > 1.6, 0.5, z) * sign
    loud = np.repeat(rng.uniform(size=(4, 25)) < 0.16, 40, axis=1)
    return np.where(loud, np.maximum(z, 1.6) * sign, quiet)


def test_the_lesser_of_bulk_and_tail_decides() -> None:
    array = rare_visits()
    outcome = checks.effective_draws(predicting(array[..., None]))
    bulk = float(az.ess(array, method="bulk"))
    tail = float(az.ess(array, method="tail", prob=(0.05, 0.95)))
    assert tail < 400 < bulk
    assert (outcome.verdict, outcome.value) == ("warn", pytest.approx(tail))
    assert "in the tails of" in outcome.sentence
    outcome = checks.effective_draws(predicting(slow(0.98)[..., None]))
    assert outcome.value == pytest.approx(float(az.ess(slow(0.98), method="bulk")))
    assert "in the bulk of" in outcome.sentence


def slow(rho: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    array = rng.normal(size=(4, 1000))
    for t in range(1, 1000):
        array[:, t] = rho * array[:, t - 1] + np.sqrt(1 - rho**2) * array[:, t]
    return array


def test_exact_draws_are_seldom_found_too_few() -> None:
    """Of 40 fits of 60 rows, 4 chains of 250 independent draws each: none."""
    found = []
    for seed in range(40):
        array = np.random.default_rng(seed).normal(size=(4, 250, 60))
        found.append(checks.effective_draws(predicting(array)))
    assert all(outcome.verdict == "pass" for outcome in found)
