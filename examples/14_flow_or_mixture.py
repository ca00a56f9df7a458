"""Where mixtures break down, and where a density is in doubt.

Pairs of two moons side by side: modes double with each pair.  KL from the truth, measured in nats a
dimension in 2, 4, 8 and 16 dimensions: 2 Gaussians .37, .42, .43, .46; 16 Gaussians .003, .18, .35,
.43; flow .010, .04, .09, .16.  Then an ensemble on few points: members agree where there are some.
"""

from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
from scipy.special import logsumexp

import ppbdl
from ppbdl.flows import rational_quadratic
from ppbdl.models import MAF, GaussianMixture

ANGLES = np.pi * (np.arange(200) + 0.5) / 200
ARC = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
POINTS, NOISE = 2 * np.concatenate([ARC, (1, 0.5) - ARC]) - (1, 0.5), 0.2
MODELS = {
    "2 Gaussians": partial(GaussianMixture, components=2),
    "16 Gaussians": partial(GaussianMixture, components=16),
    "flow": partial(MAF, layers=4, transformer=rational_quadratic()),
}


def moons(rows: int, pairs: int, seed: int) -> ppbdl.Data:
    """Draw noise about points on two arcs, so many times side by side."""
    rng = np.random.default_rng(seed)
    centres = POINTS[rng.integers(0, len(POINTS), (rows, pairs))]
    return ppbdl.Data(None, rng.normal(centres, NOISE).reshape(rows, 2 * pairs))


def log_density(y: np.ndarray) -> np.ndarray:
    """Give the exact log density of `moons`."""
    squared = ((y.reshape(len(y), -1, 1, 2) - POINTS) ** 2).sum(axis=-1) / NOISE**2
    each = logsumexp(-squared / 2, axis=-1) - np.log(len(POINTS) * 2 * np.pi * NOISE**2)
    return each.sum(axis=1)


def main(out="out", steps=1500, rows=5000, few=100, pairs=(1, 2, 4, 8)) -> dict[str, float]:
    """Fit and score; give the nats a dimension by which the truth is better, and the doubt."""
    rate = optax.cosine_decay_schedule(5e-3, steps, alpha=0.01)
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    stopping = ppbdl.EarlyStopping(0.1)
    results = {}
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for name, make in MODELS.items():
        drawn = []
        for n in pairs:
            model, train, test = make(2 * n), moons(rows, n, 0).standardized(), moons(2000, n, 1)
            posterior = ppbdl.fit(0, model, train, ppbdl.MAP(adam, steps, 128, stopping))
            score = ppbdl.log_likelihood(1, model, posterior, test)["y"][0, 0]
            excess = (log_density(test.y) - score) / (2 * n)
            drawn.append((excess.mean(), excess.std() / np.sqrt(test.rows)))
            results[f"{name}, {2 * n} dimensions"] = float(excess.mean())
            results[f"{name}, {2 * n} dimensions, ±"] = float(drawn[-1][1])
        left.errorbar([2 * n for n in pairs], *zip(*drawn, strict=True), fmt="o-", label=name)
    left.set(xscale="log", xlabel="dimensions", xticks=[2 * n for n in pairs], ylim=(0, None))
    left.set(xticklabels=[2 * n for n in pairs], ylabel="KL from the truth, nats a dimension")
    left.set(title=f"pairs of moons, {rows} rows")
    left.minorticks_off()
    left.legend()

    model, train = MODELS["flow"](2), moons(few, 1, 2)
    method = ppbdl.Ensemble(ppbdl.MAP(adam, steps // 3, stopping=stopping), 10)
    posterior = ppbdl.fit(3, model, train.standardized(), method)
    axis = np.linspace(-4, 4, 100)
    grid = ppbdl.Data(None, np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
    members = ppbdl.log_likelihood(4, model, posterior, grid)["y"][:, 0]
    mean, spread = logsumexp(members, axis=0) - np.log(len(members)), members.std(axis=0)
    dense = log_density(grid.y) > -5
    results |= {"spread at the moons": float(spread[dense].mean())}
    results |= {"spread elsewhere": float(spread[~dense].mean())}
    panels = {
        "an ensemble's log density, nats": (middle, mean, {"vmin": -9}),
        "spread of its members, nats": (right, spread, {"cmap": "magma", "vmin": 0, "vmax": 5}),
    }
    for title, (panel, values, colours) in panels.items():
        shown = panel.pcolormesh(axis, axis, values.reshape(100, 100), rasterized=True, **colours)
        panel.plot(*train.y.T, "w.", markersize=3)
        panel.set(title=title, aspect="equal", xlabel="$y_1$", ylabel="$y_2$")
        figure.colorbar(shown, ax=panel, shrink=0.8)

    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "14_flow_or_mixture.png", dpi=120)
    plt.close(figure)
    return results


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name:36} {value:.3f}")
