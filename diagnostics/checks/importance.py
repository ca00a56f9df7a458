"""Is the approximation close to the posterior? Pareto k-hat of the ratio of their densities."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..reading import draws, kind_of
from ..verdict import Check

REFERENCE = "Yao et al. 2018, arXiv:1802.02538; Vehtari et al. 2024, arXiv:1507.02646"


def importance_khat(fit: xr.DataTree) -> Check:
    """k-hat of log_p - log_q over the draws; above 0.7 the two differ in their tails.

    Of several chains, each an approximation fitted from its own seed (``ppbdl.Ensemble(SVI())``),
    each has its own, and the worst decides: one seed alone may have been lucky. k-hat judges the
    whole joint density, hard on many parameters: an approximation of a network may fail it and
    still predict well. So it warns, and never fails a fit by itself.

    Examples
    --------
    >>> log_q = xr.Dataset({"log_q": (("chain", "draw"), np.zeros((1, 5)))})
    >>> importance_khat(xr.DataTree.from_dict({"/sample_stats": log_q})).verdict
    'does not apply'
    """
    name = "PSIS k-hat"
    log_p, log_q = (draws(fit, "sample_stats", which) for which in ("log_p", "log_q"))
    if log_p is None or log_q is None:
        sentence = (
            "Draws of a Markov chain need no importance weights."
            if kind_of(fit) == "mcmc"
            else "The draws have no density to compare with the posterior's."
        )
        return Check(name, None, "at most 0.7", "does not apply", sentence, REFERENCE)
    ratios = (log_p - log_q)[..., 0]
    seeds, number = ratios.shape
    if number < 25 or not np.isfinite(ratios).all():
        sentence = "It needs at least 25 draws of each chain with finite densities."
        return Check(name, None, "at most 0.7", "does not apply", sentence, REFERENCE)
    # k-hat above this needs more draws than were taken (Vehtari et al. 2024, section 3.2.4).
    limit = min(1.0 - 1.0 / np.log10(number), 0.7)
    threshold = f"at most {limit:.2f} ({number} draws{' of each seed' * (seeds > 1)})"
    khats = np.array([0.0 if np.ptp(chain) < 1e-6 else _khat(chain) for chain in ratios])
    worst = float(khats.max())
    if seeds > 1:
        low = int((khats <= limit).sum())
        told = f"k-hat is {khats.min():.2f} to {worst:.2f} over {seeds} seeds"
        told += f" ({low} of them within the limit)" * (0 < low < seeds)
    elif np.ptp(ratios) < 1e-6:
        sentence = "The approximation is the posterior: every importance weight is equal."
        return Check(name, worst, threshold, "pass", sentence, REFERENCE)
    else:
        halves = (_khat(ratios[0, ::2]), _khat(ratios[0, 1::2]))
        told = f"k-hat is {worst:.2f} (halves of the draws: {halves[0]:.2f}, {halves[1]:.2f})"
    if worst <= limit:
        sentence = f"{told}: the approximation is close enough to be corrected by weighting."
        return Check(name, worst, threshold, "pass", sentence, REFERENCE)
    sentence = (
        f"{told}: the approximation is not the posterior. Don't interpret its parameters; trust "
        "its predictions as far as held-out data bear them out, or use a richer guide or NUTS."
    )
    return Check(name, worst, threshold, "warn", sentence, REFERENCE)


def _khat(log_ratios: np.ndarray) -> float:
    from arviz_stats.base.array import array_stats

    # psislw negates its input.
    found = float(array_stats.psislw(-log_ratios)[1])
    return found if np.isfinite(found) else float("inf")
