"""Is a normalizing flow sound? It inverts, its densities are right, and it fits its data."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..reading import evenly
from ..verdict import Check, Verdict
from .calibration import told

REFERENCE = "Behrmann et al. 2021, arXiv:2006.09347; Tesso and Vehtari 2026, arXiv:2603.02928"

# Each takes ArviZ's test, about 1 ms for 1,000 rows.
_DIMS, _ROWS = 100, 1000


def soundness_of_flow(fit: xr.DataTree) -> Check:
    """Round trip, log determinant, normality of z and mass outside of the data's box, in turn.

    It reads the group ``flow``, which `ppbdl.flows.examine` makes, and tells what is wrong; the
    fit to the data, the last two, where the flow itself is right. Errors warn above 0.001
    (standard deviations; nats a dimension) and fail above 100 and 10 times that. z is tested for up
    to 100 dimensions and 1,000 rows by the uniformity of its PIT under the base. The samples in
    each dimension beyond all of as many rows have a known law if both have one density: with n of
    each, an end has k samples beyond it or more with probability C(2n - k, n) / C(2n, n). Both
    tests count the dimensions (Bonferroni); each warns under p 0.001 and fails under 0.000005, so
    that of sound flows 1 in 500 is flagged.

    Examples
    --------
    >>> soundness_of_flow(xr.DataTree()).verdict
    'does not apply'
    """
    name, threshold = "soundness of the flow", "errors at most 0.001, p at least 0.001"
    if "flow" not in fit.children:
        sentence = "The tree holds no flow: put ppbdl.flows.examine(key, flow, y) in a group flow."
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    numbers = {key: array.values for key, array in fit["flow"].data_vars.items()}
    for look in (_lost, _round_trip, _log_det, _misfit):
        value, verdict, sentence = look(numbers)
        if verdict != "pass":
            break
    return Check(name, value, threshold, verdict, sentence, REFERENCE)


_Found = tuple[float, Verdict, str]


def _lost(flow: dict) -> _Found:
    lost = int((~np.isfinite(flow["z"])).any(axis=1).sum())
    sentence = (
        f"{lost} of {len(flow['z'])} rows have no finite z: they lie outside of the flow's "
        "support. End the flow with a bijection onto the data's range."
    )
    return float(lost), "fail" if lost else "pass", sentence


def _round_trip(flow: dict) -> _Found:
    error = float(flow["round_trip_error"].max())
    sentence = (
        f"There and back misses by {error:.2g} standard deviations at worst: the flow hardly "
        "inverts. Use double precision, fewer layers, or a tighter bound on their scales."
    )
    return error, _judge(error, 1e-3, 0.1), sentence


def _log_det(flow: dict) -> _Found:
    error = float(flow["log_det_error"].max())
    sentence = (
        f"Its log determinant is {error:.2g} nats a dimension off the Jacobian's: log_prob is not "
        "a density. Mend the bijection at fault, or use double precision, before any score."
    )
    return error, _judge(error, 1e-3, 1e-2), sentence


def _misfit(flow: dict) -> _Found:
    p, verdict, sentence = _normality(flow)
    q, other, leak = _mass(flow)
    if verdict == other == "pass":
        sentence = (
            f"It inverts, its densities are right, z follows its base on {len(flow['z'])} rows, "
            "and its samples keep to where the data lie."
        )
        return min(p, q), "pass", sentence
    wrong = [text for text, each in ((sentence, verdict), (leak, other)) if each != "pass"]
    return min(p, q), "fail" if "fail" in (verdict, other) else "warn", " ".join(wrong)


def _normality(flow: dict) -> _Found:
    from arviz_stats.base.array import array_stats

    pit = flow["pit"]
    looked, rows = evenly(pit.shape[1], _DIMS), evenly(pit.shape[0], _ROWS)
    each = np.array(
        [array_stats.uniformity_test(pit[rows, dim], method="pot_c")[0] for dim in looked]
    )
    worst = looked[each.argmin()]
    p = float(np.clip(each.min() * len(looked), 0.0, 1.0))
    z = flow["z"][:, worst]
    sentence = (
        f"z does not follow the base ({told(p, '.1g')} over {len(looked)} dimensions; "
        f"dimension {worst} has mean {z.mean():.2g} and sd {z.std():.2g}): the flow misses the "
        "data's shape. Fit it longer, or add layers; if only on held-out rows, it overfits: stop "
        "early."
    )
    return p, _judge(-p, -1e-3, -5e-6), sentence


def _mass(flow: dict) -> _Found:
    rows, dims = flow["z"].shape
    beyond = np.stack([flow["below"], flow["above"]])
    end, worst = np.unravel_index(beyond.argmax(), beyond.shape)
    most = int(beyond[end, worst])
    p = min(1.0, 2 * dims * _all_beyond(most, rows))
    sentence = (
        f"{most / rows:.1%} of samples lie {('below', 'above')[end]} all of the data in dimension "
        f"{worst} ({told(p, '.1g')}): the flow leaks mass. End it with a bijection onto the "
        "data's range, or give it more layers there."
    )
    return p, _judge(-p, -1e-3, -5e-6), sentence


def _all_beyond(k: int, n: int) -> float:
    """Return the probability that the k largest of n samples and n rows together are samples."""
    return float(np.prod((n - np.arange(k)) / (2 * n - np.arange(k))))


def _judge(error: float, warns: float, fails: float) -> Verdict:
    # A NaN, of an inverse that found nothing, fails.
    return "pass" if error <= warns else "warn" if error <= fails else "fail"
