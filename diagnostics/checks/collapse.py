"""Is a variational autoencoder's code used, or has it collapsed?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..verdict import Check, Verdict

if TYPE_CHECKING:
    import xarray as xr

REFERENCE = "Lucas et al. 2019, arXiv:1911.02469; Burda et al. 2016, arXiv:1509.00519, section 5.2"
_ACTIVE, _NATS = 0.01, 0.1


def use_of_code(fit: xr.DataTree) -> Check:
    """Count the active units of the code, and look at how much it tells of a row.

    It reads the group ``code``: ``activity`` (chain, dim), the variance over rows of the posterior
    mean of each unit less its prior's, in units of the prior's sd, and ``rate`` (chain,), the mean
    divergence from the prior in nats; `ppbdl.fit` finds both for an autoencoder. A unit is active
    above 0.01 (Burda et al. 2016, section 5.2). It fails if in some chain none is and the rate is
    below 0.1 nats, and warns of either. Units that are not needed switch off: some inactive ones
    are no fault.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> code = xr.Dataset(
    ...     {"activity": (("chain", "dim"), np.array([[0.9, 0.001]])), "rate": ("chain", [2.1])}
    ... )
    >>> use_of_code(xr.DataTree.from_dict({"/code": code})).sentence
    '1 of 2 units of the code are active, and it differs from the prior by 2.1 nats a row.'
    """
    name, threshold = "use of the code", "an active unit, a rate of at least 0.1 nats"
    if "code" not in fit.children:
        sentence = "The tree holds no group code, which a fit of an autoencoder gives."
        return Check(name, None, threshold, "does not apply", sentence, REFERENCE)
    code = {key: array.values for key, array in fit["code"].data_vars.items()}
    activity, rates = code["activity"], code["rate"]
    counts = (activity > _ACTIVE).sum(axis=1)
    worst = rates.argmin()
    count, units, rate = int(counts[worst]), activity.shape[1], float(rates[worst])
    verdicts: tuple[Verdict, ...] = ("pass", "warn", "fail")
    verdict = verdicts[int(count == 0) + int(rate < _NATS)]
    use = f"{count} of {units} units of the code are active, and it differs from the prior by "
    sentence = f"{use}{rate:.2g} nats a row."
    if verdict != "pass":
        sentence += (
            " The decoder generates without it. Warm the divergence up (a schedule of the "
            "temperature), grant free bits, or take a weaker decoder."
        )
    return Check(name, float(count), threshold, verdict, sentence, REFERENCE)
