"""Figures for the pages of the checks where the report has none. Each is of one fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.stats import binom

from ppbdl.diagnostics.canvas import COLOURS, EPISTEMIC, FAINT, INK, QUIET, SURPRISE, house_style

SIZE = (4.0, 2.6)


def on_axes(draw: Callable) -> Callable[[xr.DataTree], Figure]:
    """Make of a function that draws a fit on axes one that returns a figure."""

    @wraps(draw)
    def figure_of(fit: xr.DataTree) -> Figure:
        with house_style():
            figure = Figure(figsize=SIZE)
            draw(figure.subplots(), fit)
        return figure

    return figure_of


@on_axes
def traces(axes, fit):
    """The predicted mean of one held-out row by draw, a line a chain."""
    for chain in fit["predictions"]["y_mean"].values[..., 0]:
        axes.plot(chain, linewidth=0.7)
    axes.set(xlabel="draw", ylabel="predicted mean of row 0")


@on_axes
def parameter(axes, fit):
    """The first parameter by draw, a line a chain."""
    array = next(iter(fit["posterior"].data_vars.values()))
    for chain in array.values.reshape(*array.shape[:2], -1)[..., 0]:
        axes.plot(chain, linewidth=0.7)
    axes.set(xlabel="draw", ylabel=str(array.name))


@on_axes
def autocorrelation(axes, fit):
    """The autocorrelation of one row's predicted mean by lag, a line a chain."""
    for chain in fit["predictions"]["y_mean"].values[..., 0]:
        z = (chain - chain.mean()) / chain.std()
        axes.plot([np.mean(z[: len(z) - lag] * z[lag:]) for lag in range(60)])
    axes.axhline(0, color=QUIET, linewidth=0.7)
    axes.set(xlabel="lag, draws", ylabel="autocorrelation", ylim=(-0.35, 1.05))


@on_axes
def neck(axes, fit):
    """The scale tau by one school's effect; orange crosses are draws that diverged."""
    tau, theta = (fit["posterior"][name].values for name in ("tau", "theta"))
    diverging, theta = fit["sample_stats"]["diverging"].values, theta[..., 0]
    axes.scatter(theta, tau, 4, EPISTEMIC, alpha=0.35, linewidth=0)
    axes.scatter(theta[diverging], tau[diverging], 26, SURPRISE, "x", linewidth=1.2)
    axes.set(yscale="log", xlabel="effect of the first school", ylabel="tau",
             xlim=(-25, 45), ylim=(0.2, 60))  # fmt: skip


@on_axes
def energies(axes, fit):
    """The energy of the draws, filled, and its changes from draw to draw, a line."""
    levels = fit["sample_stats"]["energy"].values
    middle, change = (levels - levels.mean()).ravel(), np.diff(levels, axis=1).ravel()
    bins = np.linspace(-3.5 * middle.std(), 3.5 * middle.std(), 36)
    axes.hist(middle, bins, density=True, color=FAINT)
    axes.hist(change, bins, density=True, histtype="step", color=COLOURS[1], linewidth=1.4)
    axes.set(xlabel="energy (filled), and its change in one step (line)", yticks=[])


@on_axes
def depths(axes, fit):
    """How many draws came from trees of each depth; the limit is dashed."""
    depth = fit["sample_stats"]["tree_depth"].values.ravel()
    axes.hist(depth, np.arange(0.5, 11.5), color=EPISTEMIC, rwidth=0.85)
    axes.axvline(10, color=SURPRISE, linestyle=(0, (4, 3)))
    axes.set(xlabel="tree depth", ylabel="draws", xticks=range(1, 11))


@on_axes
def superchains(axes, fit):
    """The chains' means of one row, and the draws behind them, superchain by superchain."""
    means, groups = fit["predictions"]["y_mean"].values[..., 0], fit.attrs["superchains"]
    for chain, draws in enumerate(means):
        colour = COLOURS[chain * groups // len(means)]
        axes.scatter(np.full(draws.shape, chain), draws, 4, colour, alpha=0.25, linewidth=0)
        axes.scatter(chain, draws.mean(), 16, colour, zorder=3)
    axes.set(xlabel="chain, coloured by superchain", ylabel="predicted mean of row 0", xticks=[])


@on_axes
def iterates(axes, fit):
    """Each parameter, in units of its scale, by kept step; the quarters compared are shaded."""
    group = fit["optimization"]
    path = (group["iterate"] / group["iterate_scale"]).values[0]
    kept = len(path)
    axes.axvspan(kept / 2, 3 * kept / 4, color=FAINT, alpha=0.35, linewidth=0)
    axes.axvspan(3 * kept / 4, kept, color=FAINT, alpha=0.7, linewidth=0)
    axes.plot(path, linewidth=0.8)
    axes.set(xlabel="kept step", ylabel="parameter, in its scales", xlim=(0, kept))


@on_axes
def weights(axes, fit):
    """The importance weights of the draws, the largest first, as shares of their sum."""
    stats = fit["sample_stats"]
    log = np.sort((stats["log_p"] - stats["log_q"]).values.ravel())[::-1]
    share = np.exp(log - log[0])
    axes.plot(np.arange(1, len(log) + 1), share / share.sum(), color=COLOURS[0])
    axes.axhline(1 / len(log), color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(xscale="log", yscale="log", xlabel="draw, by weight", ylabel="share of all weight",
             ylim=(1e-6, 1))  # fmt: skip


@on_axes
def base(axes, fit):
    """z of the data in one dimension, filled, and the base's density, a line."""
    z, at = fit["flow"]["z"].values[:, 0], np.linspace(-4, 4, 200)
    axes.hist(z, np.linspace(-4, 4, 41), density=True, color=FAINT)
    axes.plot(at, np.exp(-0.5 * at**2) / np.sqrt(2 * np.pi), color=COLOURS[1])
    axes.set(xlabel="z of the data (filled), and the base's density (line)", yticks=[])


@on_axes
def activity(axes, fit):
    """The activity of each unit of the code; the dashed line is the least of an active one."""
    units = np.maximum(fit["code"]["activity"].values[0], 1e-5)
    axes.bar(np.arange(len(units)), units, color=EPISTEMIC, width=0.7)
    axes.axhline(0.01, color=SURPRISE, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(yscale="log", xlabel="unit of the code", ylabel="activity", xticks=range(len(units)),
             ylim=(1e-5, 3))  # fmt: skip


@on_axes
def against_predictions(axes, fit):
    """The held-out observations by their predicted means; on the line both are equal."""
    mean = fit["predictions"]["y_mean"].mean(("chain", "draw")).values
    y = fit["predictions_observed_data"]["y"].values
    ends = min(mean.min(), y.min()), max(mean.max(), y.max())
    axes.plot(ends, ends, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.axhline(y.mean(), color=FAINT)
    axes.scatter(mean, y, 12, EPISTEMIC)
    axes.set(xlabel="predicted mean", ylabel="observed")


@on_axes
def prior_means(axes, fit):
    """The means of data sets drawn from the prior, filled, and the observed one, a line."""
    means = fit["prior_predictive"]["y"].mean("row").values.ravel()
    axes.hist(means, 40, color=FAINT)
    axes.axvline(fit["observed_data"]["y"].values.mean(), color=SURPRISE, linewidth=1.6)
    axes.set(xlabel="mean of a data set from the prior; the line is observed", yticks=[])


@on_axes
def prior_and_posterior(axes, fit):
    """The draws of the posterior, filled, under the prior and the likelihood, lines."""
    draws = fit["posterior"]["mu"].values.ravel()
    log_prior, log_p = fit["log_prior"]["mu"].values.ravel(), fit["log_likelihood"]["y"]
    # Both are parabolas of mu, which the draws determine.
    curves = {"prior": log_prior, "likelihood": log_p.sum("row").values.ravel()}
    fitted = {name: np.polyfit(draws, values, 2) for name, values in curves.items()}
    centres = {name: -b / (2 * a) for name, (a, b, _) in fitted.items()}
    widths = {name: 1 / np.sqrt(-2 * a) for name, (a, _, _) in fitted.items()}
    reach = [centres[n] + s * 2.5 * min(widths[n], 1.5) for n in curves for s in (-1, 1)]
    at = np.linspace(min(reach), max(reach), 300)
    axes.hist(draws, 40, density=True, color=FAINT)
    for name, colour in zip(curves, (COLOURS[1], COLOURS[0]), strict=True):
        density = np.exp(-0.5 * ((at - centres[name]) / widths[name]) ** 2)
        axes.plot(at, density / (widths[name] * np.sqrt(2 * np.pi)), color=colour, label=name)
    axes.legend(fontsize=8)
    axes.set(xlabel="mu; posterior filled", yticks=[])


@on_axes
def simulated_ranks(axes, fit):
    """How often the truth had each rank among the draws; the band holds 99% of calibrated bins."""
    ranks = fit["prior_sbc"]["mu"].values.ravel()
    low, high = binom.interval(0.99, len(ranks), 1 / 20)
    axes.axhspan(low, high, color=FAINT, alpha=0.7, linewidth=0)
    axes.hist(ranks, np.linspace(0, 1, 21), color=EPISTEMIC, rwidth=0.9)
    axes.set(xlabel="rank of the truth among the draws, of mu", ylabel="simulations")


@on_axes
def label_chances(axes, fit):
    """The probability that the fit gave each held-out row's label, the least first."""
    probs = fit["predictions"]["y_probs"].mean(("chain", "draw")).values
    own = np.sort(probs[np.arange(len(probs)), fit["predictions_observed_data"]["y"].values])
    colours = [SURPRISE if one <= 0.01 else EPISTEMIC for one in own]
    axes.scatter(np.arange(len(own)), own, 9, colours, linewidth=0)
    axes.axhline(0.01, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(yscale="log", xlabel="held-out rows", ylabel="probability of the label")


@on_axes
def counted(axes, fit):
    """How many observations have each count, dots, and how many replicates on average, a line."""
    y, replicates = fit["observed_data"]["y"].values, fit["posterior_predictive"]["y"].values
    at = np.arange(int(y.max()) + 2)
    expected = [(replicates == one).mean() * len(y) for one in at]
    axes.bar(at, expected, color=FAINT, width=0.9)
    axes.scatter(at, [(y == one).sum() for one in at], 14, SURPRISE, zorder=3)
    axes.set(xlabel="count; bars are the replicates' mean, dots observed", ylabel="rows")
    axes.axhline(0, color=INK, linewidth=0.7)
