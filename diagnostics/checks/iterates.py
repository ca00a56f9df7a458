"""Have the optimiser's iterates settled, as a Markov chain would have?

At a constant rate they never come to rest, but become a stationary process about the optimum
(Dhaka et al. 2020). Judged is the last half of them, in units of what matters to the posterior
(Welandawe et al. 2022): the guide's standard deviation for a mean, 1 for the logarithm of one::

    drift = | mean of the last quarter - mean of the third |     R-hat of the two quarters
    MCSE = sd(block means) / sqrt(20)                            of 20 blocks of the last half
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..verdict import Check
from .convergence import is_network

REFERENCE = "Dhaka et al. 2020, arXiv:2009.00666; Welandawe et al. 2022, arXiv:2203.15945"
_BLOCKS = 10
_RHAT, _MCSE = 1.1, 0.1
_DRIFTS, _FAR = 0.5, 1.0


def convergence_of_iterates(fit: xr.DataTree) -> Check:
    """R-hat, drift and Monte Carlo error of the last half of an optimisation's iterates.

    A parameter drifts if its R-hat is over 1.1 and over what chance gives, and it moved by more
    than half of its scale from the third quarter of the steps to the last. It warns of any that
    drifts, or whose MCSE is over a tenth of its scale, and fails if one moved by more than its
    whole scale. Of several members each is judged by itself, and the worst decides. It needs
    ``iterate`` (chain, kept_step, parameter) and ``iterate_scale`` (chain, parameter) in the
    group ``optimization``, as `ppbdl.SVI` keeps them; parameters without a scale are left out.

    Of 600 simulated fits of 50 stationary parameters, with 500 iterates each whose standard
    deviation is a quarter of the scale, none was flagged at an autocorrelation of 0.8 between
    neighbours, 2 at 0.9, and 95 at 0.95: the last half is then worth 6 independent iterates.

    Examples
    --------
    >>> rng, dims = np.random.default_rng(0), ("chain", "kept_step", "parameter")
    >>> group = xr.Dataset(
    ...     {
    ...         "iterate": (dims, 0.1 * rng.normal(size=(1, 500, 4))),
    ...         "iterate_scale": (("chain", "parameter"), np.ones((1, 4))),
    ...     }
    ... )
    >>> convergence_of_iterates(xr.DataTree.from_dict({"/optimization": group})).verdict
    'pass'
    """
    name = "convergence of the iterates"
    threshold = "R-hat at most 1.1 or a drift under half a scale, MCSE at most 0.1 scales"
    has = "optimization" in fit.children
    group = fit["optimization"].to_dataset() if has else xr.Dataset()
    refusal = _refusal(group)
    if refusal:
        return Check(name, None, threshold, "does not apply", refusal, REFERENCE)
    iterate = group["iterate"].transpose("chain", "kept_step", "parameter")
    scale = group["iterate_scale"].transpose("chain", "parameter").values
    known = np.flatnonzero(np.isfinite(scale).all(axis=0))
    labels = [str(iterate["parameter"].values[i]) if "parameter" in iterate.coords else f"{i}"
              for i in known]  # fmt: skip
    rhat, limit, drift, mcse = _judged(iterate.values[..., known].astype(float), scale[:, known])
    drifts = (rhat > np.maximum(_RHAT, limit)) & (drift > _DRIFTS)
    by = drift * drifts if drifts.any() else mcse if (mcse > _MCSE).any() else rhat
    member, worst = np.unravel_index(int(np.argmax(by)), by.shape)
    value, moved = float(rhat[member, worst]), float(drift[member, worst])
    error = float(mcse[member, worst])
    which = labels[worst] + f" (run {member + 1} of {len(scale)})" * (len(scale) > 1)
    if not drifts.any() and (mcse <= _MCSE).all():
        sentence = (
            f"The iterates have settled: of {len(labels)} parameters none drifts by more than "
            f"{drift.max():.2g} of its scale, and their means are known to {mcse.max():.2g} of it."
        )
        return Check(name, value, threshold, "pass", sentence, REFERENCE)
    if is_network(fit):
        sentence = (
            f"{int(drifts.sum())} of {drifts.size} parameters drift ({which} most). A network's "
            "weights may wander where its predictions do not: judge by the loss."
        )
        return Check(name, value, threshold, "does not apply", sentence, REFERENCE)
    if not drifts.any():
        sentence = (
            f"The iterates wander: the mean of {which} is known to {error:.2g} of its scale only. "
            "Lower the learning rate towards the end, or take larger batches or more particles."
        )
        return Check(name, value, threshold, "warn", sentence, REFERENCE)
    sentence = (
        f"The iterates still drift: {int(drifts.sum())} of {drifts.size} parameters, most {which}, "
        f"by {moved:.2g} of its scale in the last quarter of the steps (R-hat {value:.2f}). Take "
        "more steps, or a higher learning rate at first and a lower one at last."
    )
    verdict = "fail" if moved > _FAR else "warn"
    return Check(name, value, threshold, verdict, sentence, REFERENCE)


def _refusal(group: xr.Dataset) -> str:
    if "iterate" not in group or "iterate_scale" not in group:
        return "Nothing was optimised, or the tree keeps no iterates."
    if "kept_loss" in group:
        return "Rows kept back chose the state, not the last iterates: see the loss."
    if not np.isfinite(group["iterate"].values).all():
        return "Some iterates are not finite: see whether the fit ended."
    if not np.isfinite(group["iterate_scale"].values).all(axis=0).any():
        return "How far the parameters may move is not known of this guide: see the loss."
    if group["iterate"].sizes["kept_step"] < 4 * _BLOCKS:
        return f"It needs {4 * _BLOCKS} iterates, kept one in four: 160 steps."
    return ""


def _judged(iterate: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return each member's and parameter's R-hat, its limit by chance, drift and MCSE."""
    from scipy.stats import t

    members, kept, parameters = iterate.shape
    length = kept // (4 * _BLOCKS) * _BLOCKS
    quarters = iterate[:, -2 * length :].reshape(members, 2, length, parameters)
    blocks = quarters.reshape(members, 2, _BLOCKS, -1, parameters).mean(axis=3)
    # Blocks carry the autocorrelation that a standard error of single iterates would miss.
    error = np.sqrt(blocks.var(axis=2, ddof=1).sum(axis=1) / _BLOCKS)
    mcse = np.sqrt(blocks.reshape(members, -1, parameters).var(axis=1, ddof=1) / (2 * _BLOCKS))
    drift = np.abs(np.diff(quarters.mean(axis=2), axis=1)[:, 0])
    within = quarters.var(axis=2, ddof=1).mean(axis=1)
    chance = t.isf(0.0025 / drift.size, 2 * (_BLOCKS - 1)) * error

    def rhat(drift: np.ndarray) -> np.ndarray:
        # Of two quarters, whose means have the variance drift^2 / 2.
        ratio = np.divide(drift**2, 2 * within, out=np.zeros_like(within), where=within > 0)
        return np.sqrt((length - 1) / length + ratio)

    return rhat(drift), rhat(chance), drift / scale, mcse / scale
