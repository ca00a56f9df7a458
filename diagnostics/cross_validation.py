"""Leave-one-out cross-validation by the route that each kind of draws allows.

Draws of a Markov chain: PSIS-LOO (Vehtari, Gelman and Gabry 2017, doi:10.1007/s11222-016-9696-4).
Draws of an approximation with a known density: the same with the ratio of densities as well
(Magnusson et al. 2019, arXiv:1904.10679); without that correction LOO is wrong, and how wrong
cannot be seen. Draws without a density (dropout, ensembles, MAP): it does not apply.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from .reading import draws, evenly, kind_of, observed_name

_TOO_FEW = 25
_ROWS = 50


@dataclass(frozen=True)
class CrossValidation:
    """LOO of one fit, or the reason why there is none.

    Parameters
    ----------
    elpd, se
        Expected log pointwise predictive density and its standard error, in nats; None where
        LOO does not apply.
    pareto_k
        Each training row's Pareto k, ``(row,)``; empty where LOO does not apply.
    good_k
        The k up to which a row's estimate can be relied on.
    route
        ``"loo"``, ``"loo_approximate_posterior"`` or ``"does not apply"``.
    reason
        Why it does not apply; empty where it does.
    details
        ArviZ's own result, for its plots.
    """

    elpd: float | None
    se: float | None
    pareto_k: np.ndarray
    good_k: float
    route: str
    reason: str
    details: Any = None


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
    return _estimate(fit, kind == "density")


def _estimate(fit: xr.DataTree, approximate: bool) -> CrossValidation:
    import arviz as az

    name = observed_name(fit)
    with warnings.catch_warnings():
        # ArviZ warns of large Pareto k; the check loo_reliability says so in the report.
        warnings.simplefilter("ignore")
        if approximate:
            stats = fit["sample_stats"]
            found: Any = az.loo_approximate_posterior(
                fit, stats["log_p"], stats["log_q"], pointwise=True, var_name=name
            )
        else:
            found = az.loo(fit, pointwise=True, var_name=name, reff=_relative_efficiency(fit))
    if not np.isfinite(found.elpd) or found.pareto_k is None:
        return _none("Pareto smoothing failed: the importance weights are all equal or infinite.")
    return CrossValidation(
        elpd=float(found.elpd),
        se=float(found.se),
        pareto_k=np.asarray(found.pareto_k).ravel(),
        good_k=float(found.good_k),
        route="loo_approximate_posterior" if approximate else "loo",
        reason="",
        details=found,
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
