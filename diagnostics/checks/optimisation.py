"""Has the optimiser stopped improving, by more than its own noise can tell?

The last quarter of the losses is compared with the quarter before. Each quarter is cut into ten
blocks; the blocks' medians resist spikes, and their spread is the Monte Carlo standard error of
an autocorrelated series (batch means; Flegal and Jones 2010, doi:10.1214/09-AOS735).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..reading import kept_losses, losses
from ..verdict import Check

REFERENCE = (
    "Batch means: Flegal and Jones 2010, doi:10.1214/09-AOS735; Dhaka et al. 2020, arXiv:2009.00666"
)
_BLOCKS = 10
# A difference of expected log density under 4 nats is small (Sivula et al. 2020,
# arXiv:2008.10296); under 1 it is nobody's concern, however surely it is there.
_MATTERS, _SERIOUS = 1.0, 4.0


def elbo_convergence(fit: xr.DataTree) -> Check:
    """Drop of the loss from the third quarter of the steps to the last, in standard errors.

    It warns where the worst chain still drops by more than its noise and 1 nat, fails where by
    over 4 nats, where the loss rises so, or where it is not finite. The loss is minus the ELBO
    (or the log joint) of all the data, in nats, one value a step. With early stopping the rows
    that were kept back decide: it warns if the last look at them was the best.

    Examples
    --------
    >>> falling = xr.Dataset({"loss": (("chain", "step"), -np.arange(400.0)[None])})
    >>> elbo_convergence(xr.DataTree.from_dict({"/optimization": falling})).verdict
    'fail'
    """
    name, threshold = "convergence of the loss", "a drop within its noise, or under 1 nat"
    loss = losses(fit)
    if loss is None:
        sentence = "Nothing was optimised, or the tree keeps no losses."
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    if not np.isfinite(loss).all():
        step = int(np.argmax(~np.isfinite(loss).all(axis=0)))
        sentence = f"The loss is not finite from step {step} on. Lower the learning rate."
        return Check(name, float("inf"), "finite", "fail", sentence, REFERENCE)
    if (kept := kept_losses(fit)) is not None:
        best = kept["look"].values[kept.values.argmin(axis=-1)]
        sentence = (
            f"Ended by the rows kept back: the state kept is that of step {_steps(best)}, "
            f"of {loss.shape[1]}. "
        )
        if (best < kept["look"].values[-1]).all():
            return Check(name, None, threshold, "pass", sentence + "It got no better.", REFERENCE)
        sentence += "They were still explained better at the last look. Take more steps."
        return Check(name, None, threshold, "warn", sentence, REFERENCE)
    if loss.shape[1] < 8 * _BLOCKS:
        sentence = f"{loss.shape[1]} steps are too few to tell a trend from noise."
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    drop, error = _last_drop(loss)
    z = drop / np.maximum(error, np.finfo(float).tiny)
    limit = _noise(len(drop))
    threshold = f"a drop of at most {limit:.1f} standard errors, or 1 nat"
    chain = int(np.argmax(np.where(np.abs(z) > limit, np.abs(drop), 0.0)))
    found, size = float(z[chain]), float(drop[chain])
    which = f" (run {chain + 1} of {len(drop)})" if len(drop) > 1 else ""
    if abs(found) <= limit or abs(size) <= _MATTERS:
        sentence = f"The loss has levelled off: {_moved(size)} in the last quarter of the steps."
        return Check(name, found, threshold, "pass", sentence, REFERENCE)
    if size < 0:
        sentence = f"The loss rose by {-size:.3g} nats in the last quarter{which}: it diverges."
        remedy = " Lower the learning rate."
        verdict = "fail" if -size > _SERIOUS else "warn"
        return Check(name, found, threshold, verdict, sentence + remedy, REFERENCE)
    sentence = (
        f"The loss still fell by {size:.3g} nats in the last quarter{which}: the fit is not "
        "converged. Take more steps, or a higher learning rate."
    )
    verdict = "fail" if size > _SERIOUS else "warn"
    return Check(name, found, threshold, verdict, sentence, REFERENCE)


def _steps(best: np.ndarray) -> str:
    low, high = int(best.min()), int(best.max())
    return str(low) if low == high else f"{low} to {high}"


def _last_drop(loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each chain's drop from the third to the last quarter, and its standard error."""
    length = loss.shape[1] // (4 * _BLOCKS) * _BLOCKS
    quarters = loss[:, -2 * length :].reshape(len(loss), 2, _BLOCKS, -1)
    medians = np.median(quarters, axis=-1)
    mean, variance = medians.mean(axis=-1), medians.var(axis=-1, ddof=1) / _BLOCKS
    return mean[:, 0] - mean[:, 1], np.sqrt(variance.sum(axis=1))


def _noise(chains: int) -> float:
    """Return the standard errors that the worst of so many level chains exceeds 1 in 200 times."""
    from scipy.stats import t

    return float(t.isf(0.0025 / chains, 2 * (_BLOCKS - 1)))


def _moved(drop: float) -> str:
    return f"{'down' if drop >= 0 else 'up'} {abs(drop):.2g} nats"
