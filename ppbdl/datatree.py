"""To ArviZ: the core's only door.

One fit becomes an `xarray.DataTree` in ArviZ's schema.  Beside ArviZ's groups there are three of
ours: ``optimization`` (the objective by step), ``uncertainty`` (the split of each held-out row's
predictive uncertainty) and ``predictions_log_likelihood``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpyro.handlers import seed, trace

from .data import Data
from .posterior import Posterior
from .prediction import Prediction, look, predict, replicate, scaling_of
from .scoring import log_likelihood, log_prior
from .structure import inspect_model, shapes_of
from .types import Key, Model, as_key

if TYPE_CHECKING:
    import xarray as xr

_WEIGHTS_KEPT = 1000  # more scalars than this are weights nobody reads one by one


def to_datatree(
    key: Key | int,
    model: Model,
    posterior: Posterior,
    data: Data,
    *,
    test: Data | None = None,
    prior: int = 0,
    weights: bool | None = None,
    guide: Any = None,
) -> xr.DataTree:
    """Give a fit to ArviZ.

    Parameters
    ----------
    key
        A JAX random key or an integer seed, for the predictive draws.
    model, posterior, data
        What was fitted, what came of it, and on what.
    test
        Held-out rows, in the user's units; they make the groups ``predictions`` and
        ``uncertainty``.
    prior
        Number of draws from the prior and the prior predictive; none by default.
    weights
        Whether to keep the latents' draws; by default if they are at most 1,000 numbers.
    guide
        The guide of latents of a row, as for `log_likelihood`.

    Returns
    -------
    xarray.DataTree
        A tree with posterior, sample_stats, log_prior, log_likelihood, posterior_predictive,
        observed_data and constant_data, and what was asked for; method, settings, seed, versions,
        seconds and device are its attributes.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.SVI(steps=300), progress=False)
    >>> tree = to_datatree(1, model, posterior, data)
    >>> tree["log_likelihood"]["y"].dims
    ('chain', 'draw', 'row')
    """
    import xarray as xr

    keys = jax.random.split(as_key(key), 6)
    raw, site = _in_user_units(data), posterior.observed[0]
    coords = _coords(data)
    if weights is None:
        weights = _size(posterior) <= _WEIGHTS_KEPT
    scores = log_likelihood(keys[0], model, posterior, data, guide=guide)
    replicated = {
        name: replicate(keys[1], model, posterior, raw.x, name) for name in posterior.observed
    }
    draw, row, held_out = ("chain", "draw"), ("row",), ("test_row",)
    groups = {
        "posterior": _dataset(posterior.draws if weights else {}, draw, coords),
        "sample_stats": _dataset(_stats(posterior, scores), draw, coords),
        "log_prior": _dataset(log_prior(model, posterior, data) if weights else {}, draw, coords),
        "log_likelihood": _dataset(scores, draw + row, coords),
        "posterior_predictive": _dataset(replicated, draw + row, coords),
        "observed_data": _dataset(_named(raw.y, site), row, coords),
        "constant_data": _dataset(_named(raw.x, "x"), row, coords),
    }
    if posterior.losses is not None:
        groups["optimization"] = _dataset({"loss": posterior.losses}, ("chain", "step"), coords)
    if posterior.kept_losses:
        looks = {"kept_loss": posterior.kept_losses["loss"]}
        kept = _dataset(looks, ("chain", "look"), {"look": posterior.kept_losses["step"]})
        groups["optimization"] = groups["optimization"].merge(kept)
    if posterior.iterates:
        groups["optimization"] = groups["optimization"].merge(_iterates(posterior.iterates))
    groups |= {name: _dataset(g, ("chain",), {}) for name, g in posterior.findings.items()}
    if prior:
        latents, generated = _from_prior(keys[2], model, data, posterior, prior)
        groups["prior"] = _dataset(latents if weights else {}, draw, coords)
        groups["prior_predictive"] = _dataset(generated, draw + row, coords)
    if test is not None:
        test = _in_user_units(test)
        predicted = predict(keys[3], model, posterior, test.x, site=site, draws=True)
        each = {f"{site}_{name}".removesuffix("_y"): a for name, a in predicted.draws.items()}
        scores = log_likelihood(keys[4], model, posterior, test, guide=guide)
        groups |= {
            "predictions": _dataset(each, draw + held_out, coords),
            "predictions_log_likelihood": _dataset(scores, draw + held_out, coords),
            "predictions_observed_data": _dataset(_named(test.y, site), held_out, coords),
            "predictions_constant_data": _dataset(_named(test.x, "x"), held_out, coords),
            "uncertainty": _dataset(_uncertainty(predicted), held_out, coords),
        }
    tree = xr.DataTree.from_dict({name: group for name, group in groups.items() if group})
    tree.attrs.update(_attributes(model, posterior, data))
    return tree


def _dataset(group: Mapping[str, Any], lead: tuple[str, ...], coords: dict[str, Any]) -> xr.Dataset:
    """Name the axes: `lead` in front, then features or classes where they fit, then numbers."""
    import xarray as xr

    variables: dict[str, Any] = {}
    for name, array in group.items():
        array = np.asarray(array)
        if array.dtype.name == "bfloat16":  # netCDF has none
            array = array.astype(np.float32)
        rest = [f"{name}_dim_{i}" for i in range(array.ndim - len(lead))]
        if name == "x" and array.shape[len(lead) :] == (len(coords.get("feature", [None])),):
            rest = ["feature"]
        elif name.endswith("probs") or name.startswith("kwon"):
            rest = ["class"]
        variables[name] = ((*lead, *rest), array)
    dims = {dim for axes, _ in variables.values() for dim in axes}
    sizes = {dim: n for axes, a in variables.values() for dim, n in zip(axes, a.shape, strict=True)}
    named = {dim: labels for dim, labels in coords.items() if dim in dims}
    counted = {d: np.arange(sizes[d]) for d in (*lead, "class") if d in dims and d not in named}
    return xr.Dataset(variables, coords=counted | named)


def _iterates(iterates: Mapping[str, Any]) -> xr.Dataset:
    named = {name: each for name, each in iterates.items() if name != "step"}
    values, scales = (
        np.stack([each[part] for each in named.values()], axis=-1) for part in ("value", "scale")
    )
    lead = ("chain", "kept_step", "parameter")
    group = _dataset({"iterate": values}, lead, {"kept_step": iterates["step"]})
    return group.assign_coords(parameter=list(named)).assign(
        iterate_scale=(("chain", "parameter"), scales)
    )


def _coords(data: Data) -> dict[str, Any]:
    coords: dict[str, Any] = {}
    if data.feature_names:
        coords["feature"] = list(data.feature_names)
    if data.classes:
        coords["class"] = [str(label) for label in data.classes]
    return coords


def _named(value: Any, name: str) -> dict[str, Any]:
    return value if isinstance(value, dict) else {name: value}


def _stats(posterior: Posterior, scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    stats = {name: np.asarray(a) for name, a in posterior.stats.items()}
    if "log_prior" in stats:
        # log p(y | theta) + log p(theta), up to the constant of y's units.
        likelihood = sum(np.float64(a).sum(-1) for a in scores.values())
        stats["log_p"] = stats.pop("log_prior") + likelihood
    return stats


def _uncertainty(predicted: Prediction) -> dict[str, np.ndarray]:
    split = {name: getattr(predicted, name) for name in ("aleatoric", "epistemic", "total")}
    if predicted.kwon is None:
        return {"mean": predicted.mean, **split}
    aleatoric, epistemic = predicted.kwon
    return {
        "probs": predicted.mean,
        **split,
        "kwon_aleatoric": aleatoric,
        "kwon_epistemic": epistemic,
    }


def _from_prior(key: Key, model: Model, data: Data, posterior: Posterior, draws: int) -> Any:
    def one(key: Key) -> Any:
        sites = trace(seed(model, key)).get_trace(data.x, None)
        samples = {n: s["value"] for n, s in sites.items() if s["type"] == "sample"}
        return {n: v for n, v in samples.items() if n in posterior.draws}, {
            name: samples[name] for name in posterior.observed
        }

    latents, generated = jax.jit(jax.vmap(one))(jax.random.split(key, draws))
    back = scaling_of(posterior, posterior.observed[0])
    generated[posterior.observed[0]] = back.mean(generated[posterior.observed[0]])
    return jax.tree.map(lambda a: a[None], (latents, generated))


def _in_user_units(data: Data) -> Data:
    if data.scaling is None:
        return data
    x, y = data.x, data.y
    if data.scaling.x_mean is not None:
        x = x * data.scaling.x_sd + data.scaling.x_mean
    return replace(data, x=x, y=data.scaling.mean(y), scaling=None)


def _size(posterior: Posterior) -> int:
    return sum(int(np.prod(a.shape[2:])) for a in posterior.draws.values())


def _attributes(model: Model, posterior: Posterior, data: Data) -> dict[str, Any]:
    # Attributes are text and numbers: netCDF stores no dict, None or bool.
    source = posterior.provenance
    structure = inspect_model(model, shapes_of(data))
    site = look(model, posterior, data.x, None)[posterior.observed[0]]
    learned = sum(int(np.size(leaf[0])) for leaf in jax.tree.leaves(posterior.params))
    return {
        "creation_library": "ppbdl",
        "method": source.method,
        "settings": json.dumps(dict(source.settings)),
        "seed": " ".join(map(str, source.seed)),
        "versions": json.dumps(dict(source.versions)),
        "device": source.device,
        "kind": source.kind,
        "failure": source.failure,
        "seconds_compiling": source.seconds_compiling,
        "seconds_running": source.seconds_running,
        "peak_bytes": source.peak_bytes,
        "gradients": source.gradients,
        "n_parameters": structure.size or learned,
        "n_train": data.rows,
        "observed": posterior.observed[0],
        "target": data.target_name or posterior.observed[0],
        "data_name": data.name,
        "task": _task(site, data),
        "likelihood": site["likelihood"],
    }


def _task(site: dict[str, Any], data: Data) -> str:
    if site["kind"] == "classes":
        return "classification"
    if not jax.tree.leaves(data.x)[0].size:
        return "density"
    return "count" if site["fn"].support.is_discrete else "regression"
