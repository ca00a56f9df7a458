"""ArviZ's figures of one fit, drawn from plain arrays so that any tree's names will do."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .canvas import COLOURS, FAINT, INK, Picture, encode, house_style
from .comparison import Assessment
from .metrics import pit
from .predictive import function_draws, predictive_draws, predictive_probs
from .reading import (
    attribute,
    draws,
    evenly,
    held_out,
    kind_of,
    observed_name,
    task_of,
    training,
)

_SIZE = (4.0, 2.5)
_MOST_ROWS = 400
_MOST_DRAWS = 1000
_MOST_EVENTS = 1500
_SHOWN = 40


def predictive_check(each: Assessment) -> Picture | None:
    """Draws of y over the observed y: densities, or a rootogram for counts.

    From training rows where the tree kept such draws, else from held-out rows; None for classes
    and where it kept neither.
    """
    y, sampled = training(each.fit), draws(each.fit, "posterior_predictive", _site(each))
    rows = "training"
    if y is None or sampled is None:
        rows, y, flat = "held-out", held_out(each.fit), predictive_draws(each.fit)
        sampled = None if flat is None else flat[None]
    if y is None or sampled is None or sampled.shape[-1] != len(y):
        return None
    source = _over_observed(each, y, sampled)
    return Picture(
        f"{each.name} · {rows} rows",
        f"Draws of {_target(each)} from {each.name} over the observed values of {rows} rows.",
        source,
    )


def class_events(each: Assessment) -> Picture | None:
    """Shares of classes that came true against their stated probabilities, by isotonic regression.

    Every class of every held-out row is an event (of two classes only the second, of many rows
    a random sample).
    """
    import arviz as az

    y, probs = held_out(each.fit), predictive_probs(each.fit)
    if y is None or probs is None or not np.isfinite(probs).all():
        return None
    true = y[:, None] == np.arange(probs.shape[1])
    first = 1 if probs.shape[1] == 2 else 0
    stated, came_true = (array[:, first:].ravel() for array in (probs, true))
    # At random: in even steps a sorted test set would give some classes' events only.
    keep = np.random.default_rng(0).permutation(len(stated))[:_MOST_EVENTS]
    stated = stated[keep]
    # ArviZ takes the probability of an event from its draws: strata give it to a thousandth.
    strata = np.tile((np.arange(_MOST_DRAWS) + 0.5) / _MOST_DRAWS, (len(stated), 1))
    drawn = np.random.default_rng(0).permuted(strata, axis=1) < stated[:, None]
    tree = az.from_dict(
        {
            "posterior_predictive": {"y": drawn.T[None].astype(int)},
            "observed_data": {"y": came_true[keep].astype(int)},
        }
    )
    with house_style():
        visuals: Any = {"title": False, "lines": {"color": COLOURS[0]},
                        "credible_interval": {"color": FAINT, "alpha": 0.7}}  # fmt: skip
        plot = az.plot_ppc_pava(tree, ci_prob=0.95, visuals=visuals, **_canvas())
        axes = _axes(plot)[0]
        axes.set(xlabel="stated probability", ylabel="share that came true",
                 xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))  # fmt: skip
        source = encode(_figure(plot))
    text = f"Classes that came true against their probabilities under {each.name}."
    return Picture(each.name, text, source)


def prior_check(each: Assessment) -> Picture | None:
    """Draws of y from the prior over the observed y; None with fewer than 20."""
    y, sampled = training(each.fit), draws(each.fit, "prior_predictive", _site(each))
    if y is None or sampled is None or sampled.shape[-1] != len(y) or sampled[..., 0].size < 20:
        return None
    source = _over_observed(each, y, sampled)
    text = f"Draws of {_target(each)} from the prior over the observed values."
    return Picture("The prior · training rows", text, source)


def pit_curve(each: Assessment) -> Picture | None:
    """The PIT's difference from uniform: of held-out rows, else leave-one-out where LOO applies."""
    import arviz as az

    if task_of(each.fit) == "classification":
        return None
    y, sampled = held_out(each.fit), predictive_draws(each.fit)
    if y is not None and sampled is not None and np.isfinite(sampled).all():
        values, name = pit(y, sampled), "PIT of held-out rows"
    else:
        values, name = _loo_pit(each), "LOO-PIT of training rows"
    if values is None:
        return None
    values = np.clip(values, 1e-6, 1 - 1e-6)  # rounding puts some weighted ones past the ends
    tree = xr.DataTree.from_dict({"/pit": xr.Dataset({"y": ("sample", values)})})
    with house_style():
        plot = az.plot_ecdf_pit(
            tree, group="pit", sample_dims=["sample"], method="pot_c", envelope_prob=0.998,
            visuals={"title": False}, **_canvas(),
        )  # fmt: skip
        axes = _axes(plot)[0]
        axes.set(xlabel=name, ylabel="ECDF − uniform")
        source = encode(_figure(plot))
    text = f"{name} for {each.name}: its ECDF minus a uniform's, and the test of uniformity."
    return Picture(each.name, text, source)


def ranks(each: Assessment) -> Picture | None:
    """Density and rank of three functionals by chain; None with fewer than two long chains."""
    import arviz as az

    found = function_draws(each.fit)
    if found is None or min(found[1].shape[:2]) < 2 or not np.isfinite(found[1]).all():
        return None
    what, array = found
    rows = evenly(array.shape[-1], 3)
    tree = az.from_dict({"posterior": {f"row {row}": array[..., row] for row in rows}})
    with house_style():
        size = {"figsize": (8.4, 1.55 * len(rows)), "layout": "constrained"}
        plot = az.plot_rank_dist(tree, backend="matplotlib", figure_kwargs=size)
        source = encode(_figure(plot))
    text = f"Density and rank of {what} for three rows of {each.name}, a line a chain."
    return Picture(f"{each.name} · {what}", text, source, wide=True)


def pareto_k(each: Assessment) -> Picture | None:
    """Pareto k of each training row in LOO; None where LOO does not apply."""
    import arviz as az

    if each.loo.elpd is None or len(each.loo.pareto_k) > 20_000:
        return None
    with house_style():
        visuals: Any = {"title": False, "khat": {"alpha": 0.6, "s": 9}}
        plot = az.plot_khat(each.loo.details, visuals=visuals, **_canvas())
        axes = _axes(plot)[0]
        axes.axhline(each.loo.good_k, color=COLOURS[6], linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set(xlabel="training row", ylabel="Pareto k")
        source = encode(_figure(plot))
    text = f"Pareto k of {len(each.loo.pareto_k)} training rows for {each.name}."
    return Picture(each.name, text, source)


def forest(assessments: list[Assessment]) -> Picture | None:
    """Predictive intervals of five held-out rows, method beside method; None without draws."""
    import arviz as az

    sampled = {each.name: predictive_draws(each.fit) for each in assessments}
    known = {name: array for name, array in sampled.items() if array is not None}
    if not known:
        return None
    y = next(held_out(each.fit) for each in assessments if each.name in known)
    rows = evenly(min(array.shape[1] for array in known.values()), 5)
    # ArviZ aligns the methods by draw, so that all must have equally many.
    least = min(_MOST_DRAWS, *(len(array) for array in known.values()))
    trees = {
        name: az.from_dict(
            {"posterior": {f"row {row}": array[None, evenly(len(array), least), row]
                           for row in rows}}
        )
        for name, array in known.items()
    }  # fmt: skip
    height = 0.6 + len(rows) * (0.2 + 0.12 * len(known))
    with house_style():
        plot = az.plot_forest(
            trees, combined=True, ci_kind="eti", ci_probs=(0.5, 0.9), backend="matplotlib",
            figure_kwargs={"figsize": (8.4, height)},
        )  # fmt: skip
        labels, axes = _axes(plot)
        labels.set_axis_off()
        places = plot.get_aes_as_dataset("y")
        if y is not None:
            for row in rows:
                at = places[f"row {row}"].values
                axes.vlines(y[row], at.min() - 0.08, at.max() + 0.08, color=INK, linewidth=1.2)
        axes.set_xlabel(_target(assessments[0]))
        source = encode(_figure(plot))
    text = "Predictive intervals of five held-out rows (50% and 90%) for each method."
    return Picture("Five held-out rows", text, source, wide=True)


def _over_observed(each: Assessment, y: np.ndarray, sampled: np.ndarray) -> str:
    import arviz as az

    keep = evenly(len(y), _MOST_ROWS)
    flat = sampled.reshape(1, -1, sampled.shape[-1])[..., keep]
    flat = flat[:, evenly(flat.shape[1], 200)]
    tree = az.from_dict(
        {"posterior_predictive": {"y": flat}, "observed_data": {"y": y[keep].astype(flat.dtype)}}
    )
    with house_style():
        if task_of(each.fit) == "count":
            whole = tree.map_over_datasets(lambda group: group.astype(int))
            plot = az.plot_ppc_rootogram(whole, ci_prob=0.95, visuals={"title": False}, **_canvas())
        else:
            shown = min(_SHOWN, flat.shape[1])
            visuals: Any = {"title": False, "predictive_dist": {"alpha": 0.25, "width": 0.7},
                       "observed_dist": {"color": INK}}  # fmt: skip
            plot = az.plot_ppc_dist(tree, num_samples=shown, visuals=visuals, **_canvas())
            _axes(plot)[0].set_xlabel(_target(each))
        return encode(_figure(plot))


def _loo_pit(each: Assessment) -> np.ndarray | None:
    """Return LOO-PIT values by the weights of LOO, ``(row,)``; None for approximations."""
    import arviz as az

    y, sampled = training(each.fit), draws(each.fit, "posterior_predictive", _site(each))
    pointwise = draws(each.fit, "log_likelihood", _site(each))
    if kind_of(each.fit) != "mcmc" or each.loo.reason:
        return None
    if y is None or sampled is None or pointwise is None or sampled.shape != pointwise.shape:
        return None
    keep = evenly(len(y), _MOST_ROWS)
    tree = az.from_dict(
        {
            # ArviZ asks for parameters only to learn how the draws correlate.
            "posterior": {"total": pointwise.sum(axis=-1)},
            "posterior_predictive": {"y": sampled[..., keep]},
            "log_likelihood": {"y": pointwise[..., keep]},
            "observed_data": {"y": y[keep]},
        }
    )
    with house_style():
        return np.asarray(az.loo_pit(tree)["y"].values)


def _site(each: Assessment) -> str:
    return observed_name(each.fit)


def _target(each: Assessment) -> str:
    return str(attribute(each.fit, "target", _site(each)))


def _canvas() -> dict[str, Any]:
    return {"backend": "matplotlib", "figure_kwargs": {"figsize": _SIZE}}


def _figure(plot: Any) -> Any:
    return plot.viz["figure"].item()


def _axes(plot: Any) -> list[Any]:
    return _figure(plot).axes
