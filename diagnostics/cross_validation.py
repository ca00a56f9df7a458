"""Leave-one-out cross-validation by the route that each kind of draws allows.

Draws of a Markov chain: PSIS-LOO (Vehtari, Gelman and Gabry 2017, doi:10.1007/s11222-016-9696-4).
Draws of an approximation with a known density: the same with the ratio of densities as well
(Magnusson et al. 2019, arXiv:1904.10679); without that correction LOO is wrong, and how wrong
cannot be seen. Draws without a density (dropout, ensembles, MAP): it does not apply.

Of more than 10,000 rows a random 2,000 are left out, and how far their densities fall is carried
over to the rest (the same paper, section 2.2); the error of that is stated apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from .reading import draws, evenly, fits_of, kind_of, observed_name

_TOO_FEW = 25
_ROWS = 50
_MANY, _SUBSAMPLE = 10_000, 2_000


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
        Indices of the training rows that were left out, each once: all, or a subsample.
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
    kind, name = kind_of(fit), observed_name(fit)
    pointwise = draws(fit, "log_likelihood", name)
    log_p, log_q = (draws(fit, "sample_stats", which) for which in ("log_p", "log_q"))
    if kind == "implicit":
        return _none("The draws have no density (dropout, ensembles, MAP): use held-out data.")
    if pointwise is None:
        return _none("The tree has no log_likelihood group: store it when fitting.")
    if pointwise.shape[0] * pointwise.shape[1] < _TOO_FEW:
        return _none(f"Fewer than {_TOO_FEW} draws: take more.")
    if not np.isfinite(pointwise).all():
        return _none("The log likelihood is not finite everywhere: the fit failed.")
    if kind == "density" and (log_p is None or log_q is None):
        return _none("The approximation's log_p and log_q are missing from sample_stats.")
    return _estimate(fit, kind == "density", pointwise.shape[-1])


def stacking_weights(tree: xr.DataTree) -> dict[str, float]:
    """Return the weights of a mixture of fits that predicts left-out rows best.

    Stacking of predictive distributions (Yao et al. 2018, arXiv:1704.02030), by ArviZ, over the
    fits whose LOO applies. They add to 1; empty where fewer than two fits have a LOO.

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
    able = {name: each.details for name, each in found.items() if each.details is not None}
    if len(able) < 2:
        return {}
    import arviz as az

    with warnings.catch_warnings():
        # Of large Pareto k and few rows, which loo_reliability and the standard errors tell.
        warnings.simplefilter("ignore")
        table = az.compare(able, method="stacking", round_to="none")
    return {name: float(table.loc[name, "weight"]) for name in able}


def _estimate(fit: xr.DataTree, approximate: bool, rows: int) -> CrossValidation:
    import arviz as az

    many, route = rows > _MANY, "loo_approximate_posterior" if approximate else "loo"
    settings: dict[str, Any] = {"pointwise": True, "var_name": observed_name(fit)}
    densities = {}
    if approximate:
        densities = {name: fit["sample_stats"][name] for name in ("log_p", "log_q")}
    with warnings.catch_warnings():
        # ArviZ warns of large Pareto k; the check loo_reliability says so in the report.
        warnings.simplefilter("ignore")
        if many:
            efficiency = 1.0 if approximate else _relative_efficiency(fit)
            found: Any = az.loo_subsample(
                fit, _SUBSAMPLE, seed=0, reff=efficiency, **densities, **settings
            )
            route = "loo_subsample"
        elif approximate:
            found = az.loo_approximate_posterior(fit, **densities, **settings)
        else:
            found = az.loo(fit, reff=_relative_efficiency(fit), **settings)
    if not np.isfinite(found.elpd) or found.pareto_k is None:
        return _none("Pareto smoothing failed: the importance weights are all equal or infinite.")
    pareto_k = np.asarray(found.pareto_k).ravel()
    # ArviZ marks the rows that it did not leave out by NaN.
    left_out = np.flatnonzero(np.isfinite(pareto_k)) if many else np.arange(len(pareto_k))
    return CrossValidation(
        elpd=float(found.elpd),
        se=float(found.se),
        pareto_k=pareto_k[left_out],
        good_k=float(found.good_k),
        route=route,
        reason="",
        details=found,
        rows=left_out,
        subsampling_se=float(found.subsampling_se) if many else 0.0,
    )


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
