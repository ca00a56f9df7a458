"""What the prior says of the data, and how much it decides."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr

from ..reading import attribute, draws, missing, observed_name, row_dims, task_of, training
from ..verdict import Check
from .convergence import is_network
from .replication import two_sided

_SENSITIVE, _SCALED = 0.05, ("prior", "likelihood")


def prior_predictive(fit: xr.DataTree) -> Check:
    """Two-sided p-value of the data's mean and standard deviation under the prior predictive.

    The less likely of the two. Under 0.005 the prior hardly allows data like the observed; data
    drawn from the prior itself are flagged at most once in a hundred times.

    Examples
    --------
    >>> prior_predictive(xr.DataTree()).verdict
    'does not apply'
    """
    name, threshold = "prior predictive", "p at least 0.005 each"
    reference = "Gabry et al. 2019, arXiv:1709.01449, section 3; Box 1980, doi:10.2307/2982063"
    y, sampled = training(fit), draws(fit, "prior_predictive", observed_name(fit))
    numbers = task_of(fit) in ("regression", "count")
    few = sampled is None or sampled.shape[0] * sampled.shape[1] < 400
    if y is None or not len(y) or sampled is None or few or not numbers:
        sentence = "It needs observed numbers, and 400 draws of y from the prior: prior_predictive."
        return Check(name, None, threshold, "does not apply", sentence, reference)
    if lack := missing(y):
        return Check(name, None, threshold, "does not apply", lack, reference)
    if not np.isfinite(sampled).all():
        sentence = "Some draws from the prior are not finite: narrow its scales."
        return Check(name, None, threshold, "does not apply", sentence, reference)
    sampled = sampled.reshape(-1, sampled.shape[-1]).astype(float)
    found = {
        "mean": (float(y.mean()), sampled.mean(axis=1)),
        "standard deviation": (float(y.std()), sampled.std(axis=1)),
    }
    p = {what: two_sided(*pair) for what, pair in found.items()}
    what = min(p, key=lambda one: p[one])
    observed, simulated = found[what]
    low, high = np.quantile(simulated, [0.05, 0.95])
    told = (
        f"The observed {what} is {observed:.3g}; 90% of data sets from the prior have "
        f"{low:.3g} to {high:.3g}"
    )
    if p[what] >= 0.005:
        return Check(name, p[what], threshold, "pass", f"{told}: it allows them.", reference)
    sentence = f"{told}: the prior hardly allows data like yours. Widen or move it, or scale y."
    return Check(name, p[what], threshold, "warn", sentence, reference)


def prior_sensitivity(fit: xr.DataTree) -> Check:
    """How much the posterior moves as the prior is raised to a power near 1 (power-scaling).

    The value is the largest sensitivity to the prior among up to 100 parameters, by ArviZ; 0.05
    is the threshold that Kallioinen et al. propose. A posterior that is sensitive to the prior
    and to the likelihood is torn between them; to the prior alone, the data say little. Of a tree
    that holds a sample of the rows, whose attribute ``training_rows`` tells how many there were,
    the likelihood of all is taken as the sample's times the ratio of the numbers: the sensitivity
    to the likelihood is then an estimate, of the right size, and the one to the prior is exact.
    """
    name, threshold = "prior sensitivity", "at most 0.05"
    reference = "Kallioinen et al. 2024, doi:10.1007/s11222-023-10366-5"
    needed = {"posterior", "log_prior", "log_likelihood"}
    if "posterior" in fit.children and is_network(fit):
        sentence = "A network's weights have no meaning one by one: judge its prior by predictions."
        return Check(name, None, threshold, "does not apply", sentence, reference)
    if not needed <= set(fit.children) or _scalars(fit) > 100 or _draws(fit) < 100:
        sentence = (
            "It needs the groups posterior (at most 100 numbers, at least 100 draws), log_prior "
            "and log_likelihood."
        )
        return Check(name, None, threshold, "does not apply", sentence, reference)
    import arviz as az

    with warnings.catch_warnings():
        # Of draws that take a few values only, as dropout's: they have no tail to smooth.
        warnings.simplefilter("ignore")
        try:
            whole = _of_all_rows(fit)
            by_prior, by_likelihood = (_flat(az.psense(whole, group=g)) for g in _SCALED)
        except ValueError:
            by_prior = by_likelihood = {}
    if not by_prior or not np.isfinite(list(by_prior.values())).all():
        sentence = "The sensitivities are not finite: too few draws, or they do not move."
        return Check(name, None, threshold, "does not apply", sentence, reference)
    worst = max(by_prior, key=lambda one: by_prior[one])
    value, likelihood = by_prior[worst], by_likelihood[worst]
    if value <= _SENSITIVE:
        sentence = f"The data decide: no parameter is sensitive to the prior ({worst} most)."
        return Check(name, value, threshold, "pass", sentence, reference)
    told = f"{worst} moves with the prior ({value:.2f}; with the likelihood {likelihood:.2f})"
    sentence = (
        f"{told}: prior and data conflict. Check the prior's location and scale, and y's units."
        if likelihood >= _SENSITIVE
        else f"{told}: the data say little of it. Justify the prior, and report it."
    )
    return Check(name, value, threshold, "warn", sentence, reference)


def _of_all_rows(fit: xr.DataTree) -> xr.DataTree:
    """Return the tree with the likelihood summed over rows, those that were left out counted."""
    rows, dims = int(attribute(fit, "training_rows", 0)), row_dims(fit, ("log_likelihood",))
    summed = {}
    for name, array in fit["log_likelihood"].data_vars.items():
        kept = [array.sizes[dim] for dim in array.dims if dim in dims]
        total = array.sum([dim for dim in array.dims if dim not in ("chain", "draw")])
        summed[name] = total * (rows / kept[0] if rows and kept else 1.0)
    groups = {f"/{name}": fit[name].to_dataset() for name in ("posterior", "log_prior")}
    return xr.DataTree.from_dict(groups | {"/log_likelihood": xr.Dataset(summed)})


def _draws(fit: xr.DataTree) -> int:
    sizes = fit["posterior"].sizes
    return sizes.get("chain", 1) * sizes.get("draw", 0)


def _scalars(fit: xr.DataTree) -> int:
    variables = fit["posterior"].data_vars.values()
    sizes = [a.size // (a.sizes.get("chain", 1) * a.sizes.get("draw", 1)) for a in variables]
    return sum(sizes)


def _flat(sensitivity: xr.Dataset) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, array in sensitivity.data_vars.items():
        flat = np.asarray(array.values, dtype=float).ravel()
        found |= {
            f"{name}[{i}]" if len(flat) > 1 else str(name): float(v) for i, v in enumerate(flat)
        }
    return found
