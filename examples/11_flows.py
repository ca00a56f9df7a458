"""Normalizing flows: a change of variables, and densities learned from points in the plane.

The square of a number uniform on (0, 2) has the density 1 / (4 sqrt x).  Four targets are known
exactly, as noise about points: KL is a mean over held-out draws.  RealNVP, MAF and NSF, in nats:
two moons .08, .03, .03; Gaussians .31, .30, .06; spirals .45, .31, .16; checkerboard .18, .23, .14.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
import optax
from scipy.special import logsumexp
from scipy.stats import norm, uniform

import ppbdl
from ppbdl.flows import Flow, Power
from ppbdl.models import MAF, NSF, RealNVP

T, EIGHT = (np.arange(200) + 0.5) / 200, np.exp(1j * np.pi * np.arange(8) / 4)
ARC, TURN = np.stack([np.cos(np.pi * T), np.sin(np.pi * T)], axis=1), 3 * np.pi * np.sqrt(T)
ARM = TURN[:, None] / 3 * np.stack([-np.cos(TURN), np.sin(TURN)], axis=1)
CELLS = np.array([(i, j) for i in (-3, -1, 1, 3) for j in (-3, -1, 1, 3) if (i + j) % 4])
TARGETS = {  # points, and the noise of each coordinate about them
    "two moons": (2 * np.concatenate([ARC, (1, 0.5) - ARC]) - (1, 0.5), norm(scale=0.2)),
    "eight Gaussians": (2.8 * np.stack([np.real(EIGHT), np.imag(EIGHT)], axis=1), norm(scale=0.3)),
    "spirals": (np.concatenate([ARM, -ARM]), norm(scale=0.15)),
    "checkerboard": (CELLS, uniform(-1, 2)),
}


def draw(target: str, rows: int, seed: int) -> np.ndarray:
    """Draw points of a target."""
    (points, noise), rng = TARGETS[target], np.random.default_rng(seed)
    centres = points[rng.integers(0, len(points), rows)]
    return centres + noise.rvs(centres.shape, random_state=rng)


def log_density(target: str, y: np.ndarray) -> np.ndarray:
    """Give the exact log density of `draw`: that of a mixture."""
    points, noise = TARGETS[target]
    return logsumexp(noise.logpdf(y[:, None] - points).sum(-1), axis=1) - np.log(len(points))


def main(out="out", steps=1500, rows=5000, layers=8) -> dict[str, float]:
    """Fit and draw; give the divergences from the truth, in nats, and their standard errors."""
    adam = optax.adam(optax.cosine_decay_schedule(5e-3, steps, alpha=0.01))
    clipped = optax.chain(optax.clip_by_global_norm(1.0), adam)
    method = ppbdl.MAP(clipped, steps, 256, ppbdl.EarlyStopping(0.1))
    flows = {"RealNVP": RealNVP(2, layers), "MAF": MAF(2, layers), "NSF": NSF(2, layers // 2)}
    grid = np.stack(np.meshgrid(*[np.linspace(-4, 4, 120)] * 2), axis=-1).reshape(-1, 2)
    results, image = {}, {"extent": (-4, 4) * 2, "origin": "lower", "vmin": -9, "vmax": -1.2}
    figure, panels = plt.subplots(4, 5, figsize=(11, 9.2), layout="constrained")
    for target, (truth, *middle, last) in zip(TARGETS, panels, strict=True):
        truth.imshow(np.maximum(log_density(target, grid), -9).reshape(120, 120), **image)
        train, test = (ppbdl.Data(None, draw(target, rows, seed)) for seed in (0, 1))
        for panel, (name, model) in zip(middle, flows.items(), strict=True):
            posterior = ppbdl.fit(0, model, train.standardized(), method)
            flow = model.fitted(posterior)
            excess = log_density(target, test.y) - flow.log_prob(test.y)
            mean, error = float(excess.mean()), float(excess.std() / np.sqrt(rows))
            results |= {f"{target}, {name}": mean, f"{target}, {name}, ±": error}
            shown = panel.imshow(flow.log_prob(grid).reshape(120, 120), **image)
            panel.set(xlabel=f"KL {mean:.3f} ± {error:.3f} nats")
        last.plot(*flow.sample(ppbdl.types.as_key(2), (rows,)).T, "C0.", markersize=1)
        last.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
        truth.set(ylabel=target)
    for panel, title in zip(panels[0], ("exact", *flows, "drawn from NSF"), strict=True):
        panel.set(title=title)
    plt.setp(panels, xticks=[], yticks=[])
    figure.colorbar(shown, ax=panels, shrink=0.4, fraction=0.03, label="log density, nats")

    square = Flow(dist.Uniform(0.0, 2.0), [Power(2.0, upper=2.0)])
    z, x = square.base_dist.sample(ppbdl.types.as_key(3), (10_000,)), np.linspace(0.01, 3.99, 400)
    change, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    edges = np.linspace(0, 2, 11)  # each slice keeps its probability, and changes its width
    for panel, values, bins in ((left, z, edges), (right, square.forward(z), edges**2)):
        panel.hist(values, bins, density=True, color="C0", alpha=0.4, edgecolor="w", label="draws")
    left.plot([0, 2], [0.5, 0.5], "k", label="1/2")
    right.plot(x, 1 / (4 * np.sqrt(x)), "k", label=r"$1 / (4 \sqrt{x})$")
    right.plot(x, np.exp(square.log_prob(x)), "C1--", label="the flow's density")
    left.set(xlabel="z, uniform on (0, 2)", ylabel="density", ylim=(0, 1.6))
    right.set(xlabel="$x = z^2$, of the same draws", ylim=(0, 1.6))
    right.legend()

    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "11_flows.png", dpi=120)
    change.savefig(Path(out) / "11_flows_change.png", dpi=120)
    plt.close("all")
    return results


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name:30} {value:.3f} nats")
