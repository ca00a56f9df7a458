"""Do many short chains agree? Nested R-hat (Margossian et al. 2024, doi:10.1214/24-BA1453).

Chains too short for R-hat are started in groups, each group at one point. K superchains of M
chains agree once what separates their means is no more than the chains within them explain::

    nested R-hat^2 = 1 + B / W       B variance between superchains' means, W within them
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..predictive import function_draws
from ..reading import attribute, evenly
from ..verdict import Check

REFERENCE = "Margossian et al. 2024, doi:10.1214/24-BA1453, equations 4 to 8"
_SCALARS = 100


def agreement_of_superchains(fit: xr.DataTree) -> Check:
    """Nested R-hat of the predictions, of the worst row.

    It applies where the tree says how many superchains its chains form: an attribute
    ``superchains``, the chains of each next to one another. The limit is 1.01, or what chance
    gives where chains are short: with S^2 the variance of chains' means within superchains,
    ``B / (S^2 / M)`` follows an F distribution, which exceeds the limit in some row of a
    converged fit at most once in a hundred times.

    Examples
    --------
    >>> agreement_of_superchains(xr.DataTree()).verdict
    'does not apply'
    """
    name, threshold = "nested R-hat of predictions", "at most 1.01, or chance"
    found, groups = function_draws(fit), int(attribute(fit, "superchains", 0))
    chains = 0 if found is None else found[1].shape[0]
    if found is None or groups < 2 or chains % groups or chains // groups < 2:
        sentence = (
            "It needs groups of at least two chains started at one point, and the attribute "
            "superchains with their number."
        )
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    what, array = found
    array = array[..., evenly(array.shape[-1], _SCALARS)]
    array = array[..., np.ptp(array, axis=(0, 1)) > 0]
    if not array.size or not np.isfinite(array).all():
        sentence = "The draws do not move, or some are not finite: see the other checks."
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    nested, limits = _nested(array, groups), _limits(array, groups)
    worst = int(np.argmax(nested / limits))
    value, limit = float(nested[worst]), float(limits[worst])
    threshold = f"at most {limit:.3g}"
    of = f"Nested R-hat of {what}, {groups} superchains of {chains // groups}, is {value:.3f}"
    if value <= limit:
        return Check(name, value, threshold, "pass", f"{of}: they agree.", REFERENCE)
    sentence = f"{of}: where a chain started still shows. Warm up longer."
    verdict = "warn" if value <= 1.05 * limit else "fail"
    return Check(name, value, threshold, verdict, sentence, REFERENCE)


def _nested(array: np.ndarray, groups: int) -> np.ndarray:
    import arviz as az

    which = np.repeat(np.arange(groups), len(array) // groups)
    rows = np.moveaxis(array, -1, 0)
    found = [float(az.rhat_nested(row, superchain_ids=which, method="identity")) for row in rows]
    return np.where(np.isfinite(found), found, np.inf)


def _limits(array: np.ndarray, groups: int) -> np.ndarray:
    from scipy.stats import f

    size = len(array) // groups
    means = array.mean(axis=1).reshape(groups, size, -1)
    between_chains = means.var(axis=1, ddof=1).mean(axis=0)
    if array.shape[1] > 1:
        within = between_chains + array.var(axis=1, ddof=1).mean(axis=0)
    else:
        within = between_chains
    quantile = f.isf(0.01 / array.shape[-1], groups - 1, groups * (size - 1))
    ratio = np.divide(between_chains, within, out=np.zeros_like(within), where=within > 0)
    return np.maximum(1.01, np.sqrt(1 + quantile * ratio / size))
