"""Leave-one-out cross-validation by the route that each kind of draws allows.

Draws of a Markov chain: PSIS-LOO (Vehtari, Gelman and Gabry 2017, doi:10.1007/s11222-016-9696-4).
Draws of an approximation with a known density: the same with the ratio of densities as well
(Magnusson et al. 2019, arXiv:1904.10679); without that correction LOO is wrong, and how wrong
cannot be seen. Draws without a density (dropout, ensembles, MAP): it does not apply.

Of more than 5,000 rows a random 2,000 are left out, and how far their densities fall is carried
over to the rest (the same paper, section 2.2); the error of that is stated apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from .branches import fits_of
from .metrics import log_score
from .reading import (
    TRAINING_GROUPS,
    draws,
    evenly,
    kind_of,
    likelihood_name,
    observed_name,
    row_labels,
)
from .thinning import blocks_of, thinned

_TOO_FEW = 25
_ROWS = 50
_MANY, _SUBSAMPLE = 5_000, 2_000


@dataclass(frozen=True)
class CrossValidation:
    """LOO of one fit, or the reason why there is none.

    Parameters
    ----------
    elpd, se
        Expected log pointwise predictive density and its standard error, in nats; None where
        LOO does not apply.
    pareto_k
        Pareto k of each of `rows`, ``(row,)``; empty where LOO does not apply.
    good_k
        The k up to which a row's estimate can be relied on.
    route
        ``"loo"``, ``"loo_approximate_posterior"``, ``"loo_subsample"`` or ``"does not apply"``.
    reason
        Why it does not apply; empty where it does.
    details
        ArviZ's own result, for its plots.
    rows
        The training rows that were left out, each once: their coordinate's labels, else places.
    subsampling_se
        What estimating from a subsample adds to the standard error, in nats (it is not part of
        `se`); 0 where every row was left out.
    """

    elpd: float | None
    se: float | None
    pareto_k: np.ndarray
    good_k: float
    route: str
    reason: str
    details: Any = None
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    subsampling_se: float = 0.0


def loo(fit: xr.DataTree) -> CrossValidation:
    """Return leave-one-out cross-validation of one fit by the right route.

    Parameters
    ----------
    fit
        One fit's DataTree with ``log_likelihood``; approximations also need ``log_p`` and
        ``log_q`` in ``sample_stats``. Plain LOO is never used on an approximation.

    Examples
    --------
    >>> log_p = xr.Dataset({"y": (("chain", "draw", "row"), np.zeros((1, 1, 3)))})
    >>> fit = xr.DataTree.from_dict({"/log_likelihood": log_p})
    >>> fit.attrs["kind"] = "implicit"
    >>> loo(fit).route
    'does not apply'
    """
    kind, name = kind_of(fit), likelihood_name(fit, "log_likelihood")
    log_p, log_q = (draws(fit, "sample_stats", which) for which in ("log_p", "log_q"))
    if kind == "implicit":
        return _none("The draws have no density (dropout, ensembles, MAP): use held-out data.")
    if "log_likelihood" not in fit.children or name not in fit["log_likelihood"].data_vars:
        return _none("The tree has no log_likelihood group: store it when fitting.")
    array = fit["log_likelihood"].dataset[name]
    if array.sizes.get("chain", 1) * array.sizes.get("draw", 1) < _TOO_FEW:
        return _none(f"Fewer than {_TOO_FEW} draws: take more.")
    if kind == "density" and (log_p is None or log_q is None):
        return _none("The approximation's log_p and log_q are missing from sample_stats.")
    rows = [str(dim) for dim in array.dims if dim not in ("chain", "draw")]
    if len(rows) == 1 and array.sizes[rows[0]] > _MANY:
        return _from_subsample(fit, array, rows[0])
    pointwise = draws(fit, "log_likelihood", name)
    if pointwise is None or not np.isfinite(pointwise).all():
        return _none("The log likelihood is not finite everywhere: the fit failed.")
    return _estimate(fit)


def stacking_weights(tree: xr.DataTree) -> dict[str, float]:
    """Return the weights of a mixture of fits that predicts left-out rows best.

    Stacking of predictive distributions (Yao et al. 2018, arXiv:1704.02030), by ArviZ, over the
    fits whose LOO applies and can be relied on in most rows. They add to 1; empty where there are
    fewer than two, or they are of different rows.

    Raises
    ------
    DiagnosticsError
        If the tree is empty or no DataTree.

    Examples
    --------
    >>> fit = xr.DataTree.from_dict({"/observed_data": xr.Dataset({"y": ("row", [1.0])})})
    >>> stacking_weights(xr.DataTree.from_dict({"/NUTS": fit, "/SVI": fit}))
    {}
    """
    return weights_of({name: loo(fit) for name, fit in fits_of(tree).items()})


def weights_of(found: Mapping[str, CrossValidation]) -> dict[str, float]:
    """Return the stacking weights of fits whose LOO was estimated already."""
    able = {name: each.details for name, each in found.items() if each.details is not None
            and (each.pareto_k <= each.good_k).mean() > 0.5}  # fmt: skip
    if len(able) < 2 or len({details.elpd_i.size for details in able.values()}) > 1:
        return {}
    import arviz as az

    with warnings.catch_warnings():
        # Of large Pareto k and few rows, which loo_reliability and the standard errors tell.
        warnings.simplefilter("ignore")
        table = az.compare(able, method="stacking", round_to="none")
    return {name: float(table.loc[name, "weight"]) for name in able}


def _estimate(fit: xr.DataTree) -> CrossValidation:
    import arviz as az

    name = likelihood_name(fit, "log_likelihood")
    settings: dict[str, Any] = {"pointwise": True, "var_name": name}
    approximate = kind_of(fit) == "density"
    with warnings.catch_warnings():
        # ArviZ warns of large Pareto k; the check loo_reliability says so in the report.
        warnings.simplefilter("ignore")
        try:
            if approximate:
                densities = {name: fit["sample_stats"][name] for name in ("log_p", "log_q")}
                found: Any = az.loo_approximate_posterior(fit, **densities, **settings)
            else:
                found = az.loo(fit, reff=_relative_efficiency(fit), **settings)
        except ValueError as error:  # of draws that do not move
            return _none(f"Pareto smoothing failed: {error}.")
    if not np.isfinite(found.elpd) or found.pareto_k is None:
        return _none("Pareto smoothing failed: the importance weights are all equal or infinite.")
    pareto_k = np.asarray(found.pareto_k).ravel()
    return CrossValidation(
        elpd=float(found.elpd),
        se=float(found.se),
        pareto_k=pareto_k,
        good_k=float(found.good_k),
        route="loo_approximate_posterior" if approximate else "loo",
        reason="",
        details=found,
        rows=row_labels(fit, TRAINING_GROUPS, len(pareto_k)),
    )


def _from_subsample(fit: xr.DataTree, array: xr.DataArray, dim: str) -> CrossValidation:
    """Leave out some of many rows, and carry the difference over to all (ArviZ's estimator).

    ArviZ's own `loo_subsample` holds all the rows in memory, several times over.
    """
    densities = [log_score(block.reshape(-1, block.shape[-1])) for block in blocks_of(array, dim)]
    every = np.concatenate(densities)
    if not np.isfinite(every).all():
        return _none("The log likelihood is not finite everywhere: the fit failed.")
    groups = {"log_likelihood": array.to_dataset(name=observed_name(fit))}
    if "sample_stats" in fit.children:
        groups["sample_stats"] = fit["sample_stats"].to_dataset()
    few = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    few.attrs = fit.attrs | {"kind": kind_of(fit), "observed": observed_name(fit)}
    few = thinned(few, _SUBSAMPLE)
    found = _estimate(few)
    if found.elpd is None:
        return found
    known = log_score(_flat(few))
    elpd, subsampling_se, se = found.details.elpd_i.azstats.diff_srs_estimator(
        lpd_approx_sample=found.details.elpd_i.copy(data=known),
        lpd_approx_all=xr.DataArray(every, dims=dim),
        n_data_points=len(every),
    )
    return replace(
        found,
        elpd=float(elpd),
        se=float(se),
        subsampling_se=float(subsampling_se),
        route="loo_subsample",
    )


def _flat(fit: xr.DataTree) -> np.ndarray:
    pointwise = draws(fit, "log_likelihood", observed_name(fit))
    assert pointwise is not None
    return pointwise.reshape(-1, pointwise.shape[-1])


def _relative_efficiency(fit: xr.DataTree) -> float:
    """Return the effective share of the draws for the likelihoods of up to 50 rows.

    ArviZ would take it from the weights: they may be absent, mix far worse than what they
    predict, and cost 2 ms each.
    """
    import arviz as az

    pointwise = draws(fit, "log_likelihood", observed_name(fit))
    assert pointwise is not None
    some = pointwise[..., evenly(pointwise.shape[-1], _ROWS)]
    likelihood = np.exp(some - some.max(axis=(0, 1)))
    sizes = [float(az.ess(row, method="mean")) for row in np.moveaxis(likelihood, -1, 0)]
    share = float(np.nanmean(sizes)) / (likelihood.shape[0] * likelihood.shape[1])
    return min(share, 1.0)


def _none(reason: str) -> CrossValidation:
    return CrossValidation(None, None, np.empty(0), 0.7, "does not apply", reason)
