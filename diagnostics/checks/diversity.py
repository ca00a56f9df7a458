"""Do the members of an ensemble differ, and do the draws of a chain move?"""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..diversity import Diversity, diversity_of, parameters_by_chain
from ..predictive import function_draws
from ..reading import evenly, kind_of
from ..verdict import Check

REFERENCE = "Fort et al. 2019, arXiv:1912.02757; Clarke and Barron 1990, doi:10.1109/18.54897"
# Of five members of an exact posterior of two parameters, once in 16,000 ensembles has less than
# a tenth of a parameter; of more parameters or members, hardly ever.
_LITTLE, _NONE_LEFT, _COPIES = 0.1, 0.01, 1e-4
_THRESHOLD = "at least 0.1 parameters' worth"


def ensemble_diversity(fit: xr.DataTree) -> Check:
    """Parameters' worth of uncertainty that the members' differences hold.

    See `ppbdl.diagnostics.diversity_of`. It warns under a tenth of one parameter, since the
    predictions may be good all the same, and fails where the members are copies, under 0.0001; it
    does not apply to draws of one chain, which `spread_of_draws` judges.

    Examples
    --------
    >>> ensemble_diversity(xr.DataTree()).verdict
    'does not apply'
    """
    name, found = "diversity of members", diversity_of(fit) if _members(fit) else None
    if found is None:
        sentence = "Only an ensemble has members (chains of one draw, with predictions)."
        return Check(name, None, _THRESHOLD, "does not apply", sentence, REFERENCE)
    if found.parameters is None:
        sentence = "It needs the number of training rows, and predictions that are finite."
        return Check(name, None, _THRESHOLD, "does not apply", sentence, REFERENCE)
    value, told = found.parameters, _told(found)
    if value >= _LITTLE:
        sentence = f"The {found.members} members differ: {told}."
        return Check(name, value, _THRESHOLD, "pass", sentence, REFERENCE)
    sentence = (
        f"The {found.members} members have collapsed to nearly one function: {told}. Start them "
        "from different points with different orders of the rows or, if the loss has one minimum "
        "only, anchor each at a draw of the prior; else read epistemic uncertainty as unknown."
    )
    verdict = "warn" if value >= _COPIES else "fail"
    return Check(name, value, _THRESHOLD, verdict, sentence, REFERENCE)


def spread_of_draws(fit: xr.DataTree) -> Check:
    """Parameters' worth of uncertainty within the typical chain (the median of the chains).

    Stochastic-gradient MCMC whose step or temperature is too small ends where an optimiser
    would: its draws hardly differ, and chains that started together agree all the while. It
    warns under a tenth of one parameter, fails under a hundredth.
    """
    name = "spread of draws"
    worth = None if _members(fit) else parameters_by_chain(fit)
    if worth is None:
        sentence = "It needs chains of draws of the predictions, and the number of training rows."
        return Check(name, None, _THRESHOLD, "does not apply", sentence, REFERENCE)
    value, sampled = float(np.median(worth)), kind_of(fit) == "mcmc"
    if value < 1e-12 and not sampled:
        sentence = "All draws are one: a point estimate, which states no epistemic uncertainty."
        return Check(name, None, _THRESHOLD, "does not apply", sentence, REFERENCE)
    if value >= _LITTLE:
        sentence = f"The draws hold the uncertainty of about {_few(value)} parameters."
        return Check(name, value, _THRESHOLD, "pass", sentence, REFERENCE)
    remedy = (
        "Raise the step size, or check the temperature and the scaling of the minibatch gradient."
        if sampled
        else "Check the guide's scales, or read its epistemic uncertainty as unknown."
    )
    sentence = (
        f"The draws have collapsed: they hold the uncertainty of {_few(value)} parameters, where "
        f"even a mean has 1. {remedy}"
    )
    verdict = "warn" if value >= _NONE_LEFT else "fail"
    return Check(name, value, _THRESHOLD, verdict, sentence, REFERENCE)


def stuck_chains(fit: xr.DataTree) -> Check:
    """Variance of the predictions within the chain that moves least, over the other chains'.

    The median over rows. Between chains worth ten independent draws each (`effective_draws`
    fails those worth less) a ratio under 0.1 comes about once in 3,000 comparisons.
    """
    name, threshold = "stuck chains", "at least 0.1 of the other chains' variance"
    reference = "F distribution of two variances; Vehtari et al. 2021, doi:10.1214/20-BA1221"
    found = function_draws(fit) if kind_of(fit) == "mcmc" else None
    if found is None or found[1].shape[0] < 2 or found[1].shape[1] < 10:
        sentence = "It needs at least two Markov chains of ten draws each."
        return Check(name, None, threshold, "does not apply", sentence, reference)
    what, array = found
    within = array[..., evenly(array.shape[-1], 500)].var(axis=1, ddof=1)
    if not np.isfinite(within).all() or not within.any():
        sentence = "No chain moves, or some draws are not finite: see the other checks."
        return Check(name, None, threshold, "does not apply", sentence, reference)
    ratios = np.array([_ratio(within, chain) for chain in range(len(within))])
    least, which = float(ratios.min()), int(ratios.argmin())
    if least >= 0.1:
        sentence = f"Every chain moves: the least has {least:.0%} of the others' variance."
        return Check(name, least, threshold, "pass", sentence, reference)
    sentence = (
        f"Chain {which + 1} of {len(within)} is stuck: {what} varies {least:.1%} as much as in "
        "the others. Drop it only if you know why; else start it elsewhere, or warm up longer."
    )
    return Check(name, least, threshold, "warn" if least >= 0.01 else "fail", sentence, reference)


def _ratio(within: np.ndarray, chain: int) -> float:
    others = np.median(np.delete(within, chain, axis=0), axis=0)
    moving = others > 0
    # Where the others stand still too, this one cannot be behind them.
    return float(np.median(within[chain, moving] / others[moving])) if moving.any() else 1.0


def _members(fit: xr.DataTree) -> bool:
    sizes = fit["predictions"].sizes if "predictions" in fit.children else {}
    return sizes.get("draw", 0) == 1 and sizes.get("chain", 0) > 1


def _told(found: Diversity) -> str:
    told = []
    if found.disagreement is not None:
        told.append(f"two name different classes in {found.disagreement:.1%} of held-out rows")
    if found.spread is not None:
        told.append(f"their means spread over {found.spread:.1%} of their error")
    if found.error_correlation is not None:
        told.append(f"their errors correlate by {found.error_correlation:.2f}")
    return ", ".join([*told, f"{_few(found.parameters)} parameters' worth of uncertainty"])


def _few(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1g}"
