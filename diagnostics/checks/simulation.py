"""Does the method find the parameters that made the data? Simulation-based calibration.

The rank of the truth among the draws, as a number p in (0, 1), is uniform if the method is
calibrated (Talts et al. 2018). A variational approximation seldom is, but even a too narrow one
may be unbiased: p then has the law of 1 - p (Yao et al. 2018), and its means can be
used where its intervals cannot.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..reading import attribute, evenly
from ..verdict import Check
from .calibration import told

REFERENCE = "Talts et al. 2018, arXiv:1804.06788; Yao et al. 2018, arXiv:1802.02538 (VSBC)"
_FEWEST, _SCALARS = 50, 100
_GROUP = "prior_sbc"
_FINEST = 100_000  # a grid so fine is as good as continuous


def simulated_calibration(fit: xr.DataTree) -> Check:
    """p-value of the least calibrated quantity: its ranks being uniform, and symmetric.

    It reads the group ``prior_sbc`` (chain, draw, ...), a draw a simulation, which `ppbdl.sbc`
    makes, of up to 100 scalars. Ranks on a grid k / L, as the share of L draws below the truth,
    become (k + u) / (L + 1) with u uniform, from a fixed seed: both tests are of continuous
    numbers. Uniformity is tested by ArviZ's POT-C; symmetry by the largest distance between the
    distribution functions of p and 1 - p, which of symmetric ones is that of a Brownian motion
    from 0 (Butler 1969): a two-sample test as in Yao et al. would take the two for independent,
    and alarm two to ten times as often as it says. Both tests and all quantities are counted
    (Bonferroni): it warns under 0.01, fails under 0.0001, so that of calibrated methods at most
    about 1 in 100 is flagged.

    Examples
    --------
    >>> ranks = np.random.default_rng(0).uniform(size=(1, 500))
    >>> group = xr.Dataset({"slope": (("chain", "draw"), ranks)})
    >>> simulated_calibration(xr.DataTree.from_dict({"/prior_sbc": group})).verdict
    'pass'
    """
    name, threshold = "simulation-based calibration", "p at least 0.01, of all quantities"
    found = _ranks(fit)
    if found is None or min(map(len, found.values()), default=0) < _FEWEST:
        sentence = f"It needs the ranks of {_FEWEST} simulations or more, which ppbdl.sbc makes."
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    uniform = {label: _uniformity(p) for label, p in found.items()}
    symmetric = {label: _symmetry(p) for label, p in found.items()}
    least = {label: min(uniform[label], symmetric[label]) for label in found}
    worst, tests = min(least, key=lambda label: least[label]), 2 * len(found)
    value, ranks = min(1.0, tests * least[worst]), found[worst]
    quantities = "quantity" if len(found) == 1 else "quantities"
    of = f"of {len(found)} {quantities} over {len(ranks)} simulations"
    if value >= 0.01:
        sentence = f"The truth falls anywhere among the draws, {of} ({told(value)})."
        return Check(name, value, threshold, "pass", sentence, REFERENCE)
    bad = sum(tests * p < 0.01 for p in least.values())
    what = _told(worst, ranks, tests * symmetric[worst])
    departs = "departs" if bad == 1 else "depart"
    sentence = f"{what} ({told(value, '.1g')}; {bad} {of} {departs})."
    verdict = "warn" if value >= 1e-4 else "fail"
    return Check(name, value, threshold, verdict, sentence, REFERENCE)


def _ranks(fit: xr.DataTree) -> dict[str, np.ndarray] | None:
    """Return each scalar's ranks by name, as numbers from 0 to 1, or None."""
    if _GROUP not in fit.children:
        return None
    found: dict[str, np.ndarray] = {}
    for key, array in fit[_GROUP].data_vars.items():
        if not {"chain", "draw"} <= set(array.dims):
            continue
        values = array.transpose("chain", "draw", ...).values
        shape = values.shape[2:]
        each = values.reshape(-1, int(np.prod(shape)))
        if not ((each >= 0) & (each <= 1)).all():
            return None
        for i in range(each.shape[1]):
            where = ", ".join(map(str, np.unravel_index(i, shape))) if shape else ""
            found[f"{key}[{where}]" if where else str(key)] = each[:, i]
    if not found:
        return None
    labels = list(found)
    found = {labels[i]: found[labels[i]] for i in evenly(len(labels), _SCALARS)}
    among = _grid(np.concatenate(list(found.values())), int(attribute(fit, "ranked_among", 0)))
    if not among:
        return found
    rng = np.random.default_rng(0)
    return {
        label: (np.rint(p * among) + rng.uniform(size=len(p))) / (among + 1)
        for label, p in found.items()
    }


def _grid(p: np.ndarray, named: int) -> int:
    """Return the L of ranks k / L: the one named, or a small multiple of 1 / the smallest gap."""
    distinct = np.unique(p)
    gap = np.diff(distinct).min(initial=1.0)
    # Few ranks may have no neighbours, and so no gap of 1 / L.
    for among in [named] if named else np.rint(np.arange(1, 11) / gap):
        if among <= _FINEST and np.abs(distinct * among - np.rint(distinct * among)).max() < 1e-3:
            return int(among)
    return 0


def _uniformity(p: np.ndarray) -> float:
    from arviz_stats.base.array import array_stats

    return float(np.clip(array_stats.uniformity_test(p, method="pot_c")[0], 0.0, 1.0))


def _symmetry(p: np.ndarray) -> float:
    """Return the p-value of p having the law of 1 - p (Butler 1969, doi:10.1214/aoms/1177697302).

    The reflection principle bounds the tail of the maximum of a Brownian motion's magnitude.
    """
    from scipy.stats import norm

    both = np.sort(np.concatenate([p, 1 - p]))
    below = np.searchsorted(np.sort(p), both, side="right")
    mirrored = np.searchsorted(np.sort(1 - p), both, side="right")
    distance = np.abs(below - mirrored).max() / np.sqrt(len(p))
    return float(min(1.0, 4 * norm.sf(distance)))


def _told(label: str, p: np.ndarray, asymmetry: float) -> str:
    """Return what departs most from uniform, in standard errors: the place or the width."""
    shift = float((p.mean() - 0.5) * np.sqrt(12 * len(p)))
    width = float((np.abs(p - 0.5).mean() - 0.25) * np.sqrt(48 * len(p)))
    place = f"{label} comes out too {'low' if shift > 0 else 'high'}"
    if abs(shift) > abs(width):
        how = "the truth lies " + ("above" if shift > 0 else "below") + " its draws too often"
        return f"{place}: {how}, a bias. Use a richer guide or NUTS, or judge by predictions"
    spread = "narrow" if width > 0 else "wide"
    how = "the truth falls " + ("outside" if width > 0 else "in the middle") + " of them too often"
    biased = f", and {place}" if asymmetry < 0.01 else ", but no bias is found"
    remedy = (
        "Read its intervals as too narrow, or use a richer guide or NUTS"
        if width > 0
        else "Run chains longer, or look for a temperature above 1"
    )
    return f"The draws of {label} are too {spread}: {how}{biased}. {remedy}"
