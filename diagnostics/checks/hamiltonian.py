"""Did Hamiltonian Monte Carlo move as its theory asks? (Betancourt 2017, arXiv:1701.02434.)"""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..reading import draws, settings_of
from ..verdict import Check

REFERENCE = "Betancourt 2017, arXiv:1701.02434, section 6"
_ABSENT = "Only Hamiltonian Monte Carlo reports it; sample_stats has no {}."


def divergences(fit: xr.DataTree) -> Check:
    """Share of divergent transitions: any warns, more than one in a hundred fail.

    Examples
    --------
    >>> stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros((4, 100), bool))})
    >>> divergences(xr.DataTree.from_dict({"/sample_stats": stats})).verdict
    'pass'
    """
    name, threshold = "divergences", "none"
    diverging = draws(fit, "sample_stats", "diverging")
    if diverging is None:
        sentence = _ABSENT.format("diverging")
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    count, share = int(diverging.sum()), float(diverging.mean())
    if not count:
        return Check(name, 0.0, threshold, "pass", "No transition diverged.", REFERENCE)
    sentence = (
        f"{count} of {diverging.size} transitions diverged: some region of the posterior is "
        "missed. Raise the target acceptance rate, or reparameterise (non-centred)."
    )
    verdict = "fail" if share > 0.01 else "warn"
    return Check(name, float(count), threshold, verdict, sentence, REFERENCE)


def energy(fit: xr.DataTree) -> Check:
    """E-BFMI of the worst chain: under 0.3 the momentum cannot follow the energy."""
    name, threshold = "E-BFMI", "at least 0.3 in every chain"
    levels = draws(fit, "sample_stats", "energy")
    if levels is None or levels.shape[1] < 4:
        return Check(name, None, threshold, "does not apply", _ABSENT.format("energy"), REFERENCE)
    import arviz as az

    with np.errstate(all="ignore"):
        # A chain that stands still divides by zero: it explores no energy at all.
        chains = np.nan_to_num(np.asarray(az.bfmi(fit)["energy"].values), nan=0.0)
    least = float(chains.min())
    if least >= 0.3:
        sentence = f"E-BFMI is at least {least:.2f}: energies are explored well."
        return Check(name, least, threshold, "pass", sentence, REFERENCE)
    sentence = (
        f"E-BFMI is {least:.2f} in the worst chain: heavy tails or a funnel are explored "
        "slowly. Reparameterise, or draw longer."
    )
    return Check(name, least, threshold, "warn" if least >= 0.1 else "fail", sentence, REFERENCE)


def tree_depth(fit: xr.DataTree) -> Check:
    """Share of trajectories cut off at the greatest tree depth: costly, not biased."""
    name, threshold = "tree depth", "at most 5% of draws at the limit"
    capped = draws(fit, "sample_stats", "reached_max_treedepth")
    if capped is None:
        depth = draws(fit, "sample_stats", "tree_depth")
        if depth is None:
            sentence = _ABSENT.format("tree_depth")
            return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
        capped = depth >= int(settings_of(fit).get("max_tree_depth", 10))
    share = float(np.mean(capped))
    if share <= 0.05:
        sentence = f"{share:.0%} of the trajectories were cut off at the greatest depth."
        return Check(name, share, threshold, "pass", sentence, REFERENCE)
    sentence = (
        f"{share:.0%} of the trajectories were cut off at the greatest depth: the draws are "
        "valid but correlated. Warm up longer, rescale, or raise max_tree_depth."
    )
    return Check(name, share, threshold, "warn", sentence, REFERENCE)
