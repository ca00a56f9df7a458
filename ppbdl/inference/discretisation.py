"""What a step size does to the draws of stochastic-gradient MCMC: too wide, or not moved at all.

Along a direction of curvature lambda, of a Gaussian posterior, the chain of `stochastic` has the
variance

    (1 + n) / (lambda (1 - h lambda / (4 (2 - a))))

in place of 1 / lambda.  The part of the discretisation is exact.  That of the batches, n, is for
gradients of variance V in one batch.  In an epoch of K batches every row comes once, so the noise
of its gradients sums to zero, each pair of batches being correlated by -1/(K - 1): there are no
shuffled batches without it, and n is far below the h V / (4 a) of batches that are independent.
For a = 1 it is exact as well; for less it is the limit of a velocity that relaxes before u does.

The stiffest direction, in which all of this is largest, is found by the power method.
"""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np

from ..types import Key
from .langevin import Programs, State

_TOLERATED = 0.1  # excess of a variance, relative
_LEAST = 0.1  # of the posterior's sd, in the draws of a chain
_ROUNDS, _SAMPLES = 20, 10  # of the power method; then of batches in the direction found


def excess(
    step_size: float, friction: float, curvature: float, noise: float = 0.0, batches: int = 1
) -> float:
    """Tell by how much a chain's variance is too large, relatively; infinity if unstable.

    Parameters
    ----------
    step_size, friction
        The h and the a of the update.
    curvature
        Of the energy along the direction, after preconditioning.
    noise
        Variance V of a batch's gradient along the direction.
    batches
        Number K of batches in an epoch; noise is of one in more than one.

    Examples
    --------
    >>> round(excess(0.4, 1.0, 1.0), 3)  # 1 / (1 - 0.1) - 1
    0.111
    """
    discretised = step_size * curvature / (4 * (2 - friction))
    if discretised >= 1:
        return float("inf")
    return (1 + _of_batches(step_size / friction, curvature, noise, batches)) / (
        1 - discretised
    ) - 1


def _of_batches(step_size: float, curvature: float, noise: float, batches: int) -> float:
    """Give n, averaged over an epoch: u <- r u + e, the K e's of an epoch summing to zero."""
    r = 1 - step_size * curvature / 2
    if batches < 2:
        return 0.0
    if abs(r) >= 1:  # the limit does not hold
        return step_size * noise / 4
    powers = r ** np.arange(batches)
    # Variance after k steps of an epoch that began at zero, in units of one e's variance.
    grown = (batches * np.cumsum(powers**2) - np.cumsum(powers) ** 2) / (batches - 1)
    start = grown[-1] / (1 - r ** (2 * batches))
    mean = np.mean(start * r ** (2 * np.arange(1, batches + 1)) + grown)
    # Relative to the injected noise's own stationary variance, step_size / (1 - r^2).
    return float(mean * step_size * noise / 4 * (1 - r**2))


def warn(
    name: str,
    programs: Programs,
    states: list[State],
    flat: np.ndarray,
    step_size: float,
    friction: float,
    x: Any,
    y: Any,
) -> None:
    """Warn if the chains' draws (chain, draw, size) are too wide, or have not moved."""
    found = [
        _stiffest(programs, state, own, jax.random.key(c), x, y)
        for c, (state, own) in enumerate(zip(states, flat, strict=True))
    ]
    curvature, noise, spread = np.median(found, axis=0)
    if curvature <= 0:  # no Gaussian to speak of
        return
    batches = -(-programs.batches.rows // programs.batches.size)
    too_wide = excess(step_size, friction, curvature, noise, batches)
    discretised = excess(step_size, friction, curvature)
    if flat.shape[1] > 1 and spread < _LEAST:
        warnings.warn(
            f"{name}: the chains have hardly moved. In the stiffest direction the draws' standard "
            f"deviation is {spread:.2g} of the posterior's own; in others it is less. Raise "
            f"step_size (about {0.2 * (2 - friction) / curvature:.1g} would do), or thinning.",
            RuntimeWarning,
            stacklevel=6,
        )
    elif too_wide > _TOLERATED:
        size = _tolerable(step_size, friction, curvature, noise, batches)
        warnings.warn(
            f"{name}: in the stiffest direction the draws' variance is about {too_wide:.0%} too "
            f"large, {discretised:.0%} by the steps' size and the rest by the batches' noise. "
            f"Lower step_size to {size:.2g}, or take larger batches or a preconditioner.",
            RuntimeWarning,
            stacklevel=6,
        )


def _tolerable(step_size: float, *others: Any) -> float:
    """Halve a step size until it can be borne."""
    while excess(step_size, *others) > _TOLERATED:
        step_size /= 2
    return step_size


def _stiffest(
    programs: Programs, state: State, draws: np.ndarray, key: Key, x: Any, y: Any
) -> tuple[float, float, float]:
    """Find a chain's largest curvature, a batch's noise along it, and the draws' relative sd."""
    scale = np.asarray(programs.scale(state))
    v = np.asarray(jax.random.normal(key, scale.shape, scale.dtype))
    curvatures, slopes = [], []
    for i in range(_ROUNDS + _SAMPLES):
        v = v / np.linalg.norm(v)
        turned, slope = programs.look(state, v, jax.random.fold_in(key, i), x, y)
        if i < _ROUNDS:
            v = np.asarray(turned)
            continue
        # At batches that did not choose the direction, so that noise does not pass for curvature.
        curvatures.append(float(np.vdot(v, turned)))
        slopes.append(float(slope))
    curvature = np.mean(curvatures)
    spread = np.std(draws @ (v / scale)) * np.sqrt(max(curvature, 0.0))
    return float(curvature), float(np.var(slopes, ddof=1)), float(spread)
