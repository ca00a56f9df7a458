"""Do the chains agree, on what the weights do first and on the weights second?

Rank-normalised split R-hat, bulk and tail effective sample sizes (Vehtari et al. 2021,
doi:10.1214/20-BA1221). A network's weights are not identified: permuting hidden units gives
another mode with the same predictions, so their R-hat is information, not a verdict.
"""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr

from ..predictive import function_draws
from ..reading import evenly, kind_of
from ..verdict import Check

REFERENCE = "Vehtari et al. 2021, doi:10.1214/20-BA1221, sections 4 and 5"

# ArviZ takes about 2 ms a scalar.
_SCALARS = 100
_PAIR = ("chain", "draw")
_PART = {"bulk": "bulk", "tail": "tails"}


def agreement_of_chains(fit: xr.DataTree) -> Check:
    """R-hat of the predictions, of the worst row; does not apply to one chain or one draw.

    Examples
    --------
    >>> one_chain = np.random.default_rng(0).normal(size=(1, 100, 3))
    >>> means = xr.Dataset({"y_mean": (("chain", "draw", "test_row"), one_chain)})
    >>> agreement_of_chains(xr.DataTree.from_dict({"/predictions": means})).verdict
    'does not apply'
    """
    name = "R-hat of predictions"
    what, array, refusal = _functionals(fit)
    if array is None:
        return Check(name, None, "at most 1.01", "does not apply", refusal, REFERENCE)
    worst, where = _worst_rhat(array)
    limit = _rhat_limit(array)
    threshold = f"at most {limit:.3g}"
    of = f"R-hat of {what} is {worst:.3f} at worst (row {where})"
    if worst <= limit:
        verdict, sentence = "pass", f"{of}: the chains agree."
    elif worst <= max(1.05, limit):
        verdict, sentence = "warn", f"{of}: the chains nearly agree. Run them longer."
    else:
        verdict, sentence = "fail", f"{of}: the chains disagree. Run them longer, or warm up more."
    return Check(name, worst, threshold, verdict, sentence, REFERENCE)


def effective_draws(fit: xr.DataTree) -> Check:
    """Effective sample size of the predictions, in bulk and in the tails, of the worst row.

    The lesser of the two decides: bulk is what means rest on, tails are what the ends of 90%
    intervals rest on, and chains that mix well in the middle may seldom visit them. A hundred a
    chain make the estimate itself reliable; under ten a chain nothing is.
    """
    name = "ESS of predictions"
    what, array, refusal = _functionals(fit)
    if array is None:
        return Check(name, None, "at least 100 a chain", "does not apply", refusal, REFERENCE)
    chains = array.shape[0]
    sizes = {where: _least_ess(array, where) for where in ("bulk", "tail")}
    worst = min(sizes, key=lambda where: sizes[where])
    least = sizes[worst]
    least = least if np.isfinite(least) else float(chains * array.shape[1])
    threshold = f"at least {100 * chains} (100 a chain)"
    of = f"The {chains} chains are worth {least:.0f} independent draws in the {_PART[worst]} of "
    of += f"{what} (worst row)"
    if least >= 100 * chains:
        verdict, sentence = "pass", f"{of}: enough."
    elif least >= 10 * chains:
        noisy = "means and quantiles are" if worst == "bulk" else "the ends of intervals are"
        verdict, sentence = "warn", f"{of}: {noisy} noisy. Draw longer."
    else:
        verdict, sentence = "fail", f"{of}: too few for any estimate. Draw much longer."
    return Check(name, least, threshold, verdict, sentence, REFERENCE)


def convergence_of_weights(fit: xr.DataTree) -> Check:
    """R-hat of up to 100 scalars of the posterior: information for networks, else a check.

    The scalars are evenly spaced among all, and only they are read. Of a network whose tree keeps
    no predictions nor log likelihoods the weights are all there is to judge by.
    """
    name, threshold = "R-hat of parameters", "at most 1.01 where they are identified"
    scalars, total = _parameters(fit)
    if scalars is None:
        refusal = "The tree keeps no parameters. Predictions are the better thing to diagnose."
        return Check(name, None, threshold, "does not apply", refusal, REFERENCE)
    refusal = _refusal(scalars, kind_of(fit))
    if refusal:
        return Check(name, None, threshold, "does not apply", refusal, REFERENCE)
    worst, _ = _worst_rhat(scalars)
    limit = _rhat_limit(scalars)
    of = f"R-hat of {scalars.shape[2]} of {total} scalars"
    if worst <= limit:
        return Check(name, worst, threshold, "pass", f"{of} is {worst:.3f} at worst.", REFERENCE)
    if function_draws(fit) is not None and is_network(fit):
        sentence = (
            f"{of} is {worst:.2f} at worst. A network's weights are not identifiable (swapped "
            "units predict the same): judge by the predictions, and don't interpret weights."
        )
        return Check(name, worst, threshold, "does not apply", sentence, REFERENCE)
    sentence = f"{of} is {worst:.2f} at worst: run longer, or reparameterise."
    verdict = "warn" if worst <= max(1.05, limit) else "fail"
    return Check(name, worst, threshold, verdict, sentence, REFERENCE)


def _parameters(fit: xr.DataTree) -> tuple[np.ndarray | None, int]:
    """Return up to 100 of the posterior's scalars, ``(chain, draw, scalar)``, and their number."""
    variables = fit["posterior"].data_vars.values() if "posterior" in fit.children else ()
    arrays = [a.transpose(..., *_PAIR) for a in variables if set(_PAIR) <= set(a.dims)]
    stops = np.cumsum([int(np.prod(a.shape[:-2])) for a in arrays])
    total = int(stops[-1]) if arrays else 0
    series = []
    for i in evenly(total, _SCALARS) if total else ():
        which = int(np.searchsorted(stops, i, side="right"))
        array, shape = arrays[which], arrays[which].shape[:-2]
        place = np.unravel_index(int(i - stops[which] + np.prod(shape)), shape) if shape else ()
        # One by one, since a file is read by slices: a stored array may not fit into memory.
        series.append(np.asarray(array[tuple(map(int, place))].values, dtype=float))
    return (np.stack(series, axis=-1) if series else None), total


def _functionals(fit: xr.DataTree) -> tuple[str, np.ndarray | None, str]:
    found = function_draws(fit)
    if found is None:
        return "", None, "The tree keeps no draws of predictions or log likelihoods to compare."
    what, array = found
    refusal = _refusal(array, kind_of(fit))
    return what, (None if refusal else array), refusal


def _refusal(array: np.ndarray, kind: str) -> str:
    chains, length = array.shape[:2]
    if length < 4:
        return f"Chains of {length} draw{'s' * (length > 1)} have no R-hat: members are compared."
    if kind != "mcmc" and chains == 1:
        return "Draws of an approximation are independent: there are no chains to agree."
    if chains == 1:
        return "One chain cannot show that it converged. Run at least 4."
    if not np.isfinite(array).all():
        return "Some draws are not finite: see whether the fit ended."
    if not np.ptp(array, axis=(0, 1)).any():
        return "All draws are the same: there is nothing to compare."
    return ""


def _moving(array: np.ndarray) -> np.ndarray:
    """Return up to 100 evenly spaced rows among those whose draws are not all equal."""
    moving = np.flatnonzero(np.ptp(array, axis=(0, 1)) > 0)
    return moving[evenly(len(moving), _SCALARS)] if len(moving) else moving


def _least_ess(array: np.ndarray, method: str) -> float:
    """Return the least effective sample size of the rows that move, infinite where none has one."""
    import arviz as az

    ends = (0.05, 0.95) if method == "tail" else None
    sizes = [float(az.ess(array[..., row], method=method, prob=ends)) for row in _moving(array)]
    # A quantile that all draws share, as of a count, has none.
    return float(np.nanmin(sizes, initial=np.inf)) if sizes else np.inf


def _worst_rhat(array: np.ndarray) -> tuple[float, int]:
    import arviz as az

    worst, where = 1.0, 0
    for row in _moving(array):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # Chains that all stand still divide by zero: infinity, which is the answer.
            warnings.simplefilter("ignore")
            rhat = float(az.rhat(array[..., row], method="rank"))
        rhat = rhat if np.isfinite(rhat) else np.inf
        if rhat > worst:
            worst, where = rhat, int(row)
    return worst, where


def _rhat_limit(array: np.ndarray) -> float:
    """Return 1.01, or more where chains so short give the worst of so many rows more by chance.

    Split R-hat of independent draws is sqrt((n - 1 + F) / n) with F an F-distributed ratio of
    variances; with bulk and folded R-hat of each row, chance exceeds the limit once in a hundred.
    """
    from scipy.stats import f

    halves, length = 2 * array.shape[0], array.shape[1] // 2
    looks = 2 * max(1, min(array.shape[2], _SCALARS))
    ratio = f.isf(0.01 / looks, halves - 1, halves * (length - 1))
    return max(1.01, float(np.sqrt((length - 1 + ratio) / length)))


def is_network(fit: xr.DataTree) -> bool:
    """Tell whether the parameters are a network's, of which a large one keeps no draws."""
    names = fit["posterior"].data_vars if "posterior" in fit.children else {}
    # Haiku's modules become dotted sites; hand-written models name theirs plainly.
    return not names or any("." in str(key) for key in names)
