"""Can leave-one-out cross-validation be relied on, row by row?"""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..cross_validation import CrossValidation, loo
from ..verdict import Check

REFERENCE = (
    "Vehtari, Gelman and Gabry 2017, doi:10.1007/s11222-016-9696-4; "
    "Vehtari et al. 2024, arXiv:1507.02646"
)


def loo_reliability(fit: xr.DataTree, found: CrossValidation | None = None) -> Check:
    """Share of training rows whose Pareto k is too large.

    It warns and never fails: what cannot be relied on is LOO, not the fit. Of an approximation
    far from the posterior (see `importance_khat`) nearly every row is flagged. `found` is the
    fit's LOO where it was estimated already.

    Examples
    --------
    >>> fit = xr.DataTree(dataset=xr.Dataset(attrs={"kind": "implicit"}))
    >>> loo_reliability(fit).verdict
    'does not apply'
    """
    name = "LOO reliability"
    found = loo(fit) if found is None else found
    if found.elpd is None:
        threshold = "Pareto k at most 0.7 in every row"
        return Check(name, None, threshold, "does not apply", found.reason, REFERENCE)
    threshold = f"Pareto k at most {found.good_k:.2f} in every row"
    # A NaN, of weights that overflow, is no good one.
    pareto_k = np.nan_to_num(found.pareto_k, nan=np.inf)
    bad = pareto_k > found.good_k
    share, highest = float(bad.mean()), float(pareto_k.max())
    if not share:
        sentence = f"Every row's Pareto k is at most {highest:.2f}: LOO can be relied on."
        return Check(name, share, threshold, "pass", sentence, REFERENCE)
    told = (
        f"{int(bad.sum())} of {bad.size} rows have a Pareto k above {found.good_k:.2f} (highest "
        f"{highest:.2f}, row {found.rows[np.argmax(pareto_k)]})"
    )
    if share > 0.5:
        sentence = (
            f"{told}: LOO of this fit means nothing, as of an approximation far from the "
            "posterior. Use the held-out score, and a richer guide or NUTS."
        )
    else:
        sentence = (
            f"{told}: LOO is uncertain there. Prefer the held-out score, or leave those rows out "
            "exactly, by fitting without each."
        )
    return Check(name, share, threshold, "warn", sentence, REFERENCE)
