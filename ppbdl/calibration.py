"""Simulation-based calibration: does a method find the parameters that made the data?

    theta ~ p(theta),  y ~ p(y | theta),  theta_1 ... theta_L ~ q(theta | y)

If q is the posterior, the rank of f(theta) among the f(theta_l) is uniform on 0 ... L, for every
function f of theta and y (Talts et al. 2018, *Validating Bayesian Inference Algorithms with
Simulation-Based Calibration*, theorem 1).  The draws are assumed independent: a chain's are thinned
to L of them, and want an effective sample size of L or more.  Functions of y as well, such as the
log likelihood, see errors that parameters alone do not (Modrak et al. 2023).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpyro.handlers import seed, trace
from tqdm.auto import tqdm

from .data import Data
from .errors import FitError, InputError, ModelError, require_whole
from .fitting import fit
from .posterior import Posterior
from .prediction import predict
from .scoring import log_likelihood
from .structure import Structure, inspect_model, shapes_of
from .types import Inference, Key, Model, as_key

if TYPE_CHECKING:
    import xarray as xr


def sbc(
    key: Key | int,
    model: Model,
    data: Data,
    method: Inference,
    *,
    simulations: int = 512,
    draws: int = 63,
    progress: bool = True,
) -> xr.DataTree:
    """Fit data that the model simulates, and rank the truth among the draws.

    Parameters
    ----------
    key
        A JAX random key or an integer seed.
    model
        A model with a prior for everything: no learned parameters, one observed site.
    data
        Its x is that of each simulation; of its y only the shape and dtype count.
    method
        The inference method to calibrate.  For Markov chains choose several times `draws`.
    simulations
        Number of simulated data sets, each fitted once.
    draws
        Number L of evenly spaced draws that the truth is ranked among.
    progress
        Whether to show progress.  Ctrl-C ends early and keeps what was done.

    Returns
    -------
    xarray.DataTree
        Its group ``prior_sbc`` has, for each entry of each site, for the data's ``log_likelihood``
        and for the ``prediction`` of the first row (its mean, or its last class's probability),
        the ranks as numbers (rank + u) / (L + 1) in (0, 1) with u uniform: uniform themselves, if
        the method is calibrated.  ``arviz.plot_ecdf_pit`` draws them with simultaneous bands, and
        ``ppbdl.diagnostics.checks.simulated_calibration`` judges them.

    Raises
    ------
    ModelError, InputError
        If the model has learned parameters, state or several observed sites, or the method gives
        fewer draws.
    FitError
        If every fit failed.

    Warns
    -----
    UserWarning
        If fits failed: the ranks are then of the others alone.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> model = ppbdl.models.LinearRegression(noise=0.5)
    >>> data = ppbdl.Data(np.linspace(-1, 1, 5)[:, None], np.zeros(5))
    >>> nuts = ppbdl.NUTS(draws=70, warmup=50, chains=1)
    >>> tree = sbc(0, model, data, nuts, simulations=2, progress=False)
    >>> sorted(tree["prior_sbc"].data_vars)
    ['intercept', 'log_likelihood', 'prediction', 'weights']
    """
    require_whole(simulations=simulations, draws=draws)
    key, structure = as_key(key), inspect_model(model, shapes_of(data))
    _refuse(structure, data)
    simulate = jax.jit(lambda key: _simulated(model, key, data.x))
    found: list[dict[str, np.ndarray]] = []
    failed: list[FitError] = []
    try:
        for s in tqdm(
            range(simulations), desc=f"SBC of {type(method).__name__}", disable=not progress
        ):
            truth_key, fit_key, score_key, tie_key = jax.random.split(jax.random.fold_in(key, s), 4)
            truth = simulate(truth_key)
            simulated = replace(data, y=np.asarray(truth[structure.observed[0]], data.y.dtype))
            try:
                posterior = fit(fit_key, model, simulated, method, progress=False)
            except FitError as error:
                failed.append(error)
                continue
            both = _truth_first(truth, posterior, draws)
            rng = np.random.default_rng(np.asarray(jax.random.key_data(tie_key)))
            quantities = _quantities(score_key, model, both, simulated)
            found.append({name: _uniform(rng, a) for name, a in quantities.items()})
    except KeyboardInterrupt:
        if not found:
            raise
    if not found:
        raise failed[-1]
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(failed) + len(found)} fits failed, the last with: {failed[-1]} "
            "The ranks are of the others alone, and may look calibrated where the method is not.",
            stacklevel=2,
        )
    tree = _tree(found)
    tree.attrs.update(
        {"method": type(method).__name__, "ranked_among": draws, "failed": len(failed)}
    )
    return tree


def _simulated(model: Model, key: Key, x: Any) -> dict[str, Any]:
    sites = trace(seed(model, key)).get_trace(x, None)
    return {n: s["value"] for n, s in sites.items() if s["type"] in ("sample", "deterministic")}


def _truth_first(truth: Mapping[str, Any], posterior: Posterior, draws: int) -> Posterior:
    """Give evenly spaced draws of a posterior, pooled in one chain, behind the truth."""
    given = posterior.shape[0] * posterior.shape[1]
    if given < draws:
        raise InputError(
            "draws",
            expected=f"at most the {given} draws that the method gives",
            got=str(draws),
            remedy="Ask the method for more draws, or sbc for fewer.",
        )
    kept = np.linspace(0, given - 1, draws).round().astype(int)

    def behind(name: str, values: Any) -> np.ndarray:
        pooled = np.asarray(values).reshape(given, *values.shape[2:])[kept]
        return np.concatenate([np.asarray(truth[name])[None], pooled])[None]

    behind_truth: dict[str, Any] = {n: behind(n, a) for n, a in posterior.draws.items()}
    return replace(posterior, draws=behind_truth, params={}, stats={}, shape=(1, 1 + draws))


def _quantities(key: Key, model: Model, both: Posterior, data: Data) -> dict[str, np.ndarray]:
    """Evaluate what is ranked at the truth and at the draws, (1 + draws, ...)."""
    found = {name: np.asarray(values)[0] for name, values in both.draws.items()}
    scores = log_likelihood(key, model, both, data)
    found["log_likelihood"] = sum(score[0].sum(-1) for score in scores.values())
    each = predict(key, model, both, data, draws=True).draws
    if not {"mean", "probs"} & each.keys():
        return found
    summary = each["probs"][..., -1] if "probs" in each else each["mean"]
    return found | {"prediction": summary[0, :, 0]}


def _uniform(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """Rank the first among the others, equals in random order, as a number in (0, 1)."""
    truth, others = values[0], values[1:]
    below, equal = (others < truth).sum(0), (others == truth).sum(0)
    rank = below + rng.integers(0, equal + 1)
    return (rank + rng.random(rank.shape)) / (len(others) + 1)


def _refuse(structure: Structure, data: Data) -> None:
    problems = (
        (structure.params, "no learned parameters, which have no prior to be drawn from"),
        (structure.mutables, "no mutable state, which the truth does not have"),
        (structure.observed[1:], "one observed site"),
    )
    for sites, expected in problems:
        if sites:
            raise ModelError(
                "model",
                expected=f"for simulation-based calibration, {expected}",
                got=str(list(sites)),
                remedy="Calibrate a model with a prior for everything, and one y.",
            )
    if isinstance(data.y, dict):
        raise InputError(
            "data",
            expected="a y that is one array",
            got=f"a dict with {sorted(data.y)}",
            remedy="Let the model observe y itself.",
        )


def _tree(found: list[dict[str, np.ndarray]]) -> xr.DataTree:
    import xarray as xr

    variables: dict[str, Any] = {}
    for name in found[0]:
        values = np.stack([each[name] for each in found])[None]
        rest = [f"{name}_dim_{i}" for i in range(values.ndim - 2)]
        variables[name] = (("chain", "draw", *rest), values)
    ranks = xr.Dataset(variables)
    # ArviZ's plots want a coordinate for every dimension.
    ranks = ranks.assign_coords({str(dim): np.arange(n) for dim, n in ranks.sizes.items()})
    return xr.DataTree.from_dict({"prior_sbc": ranks})
