"""Classification: a deep ensemble and MC dropout, where there are data and where there are none.

The entropy of the predicted class splits in two: the mean entropy of the draws, aleatoric, is
high where the classes overlap; the mutual information, epistemic, where the draws disagree.
"""

from pathlib import Path

import haiku as hk
import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
import optax

import ppbdl
from ppbdl.models import BNN, Categorical


def simulate(rows: int = 200) -> ppbdl.Data:
    """Two interleaved half circles, with noise."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, rows)
    angle = np.pi * (rng.uniform(size=rows) - y)
    x = np.stack([np.cos(angle) + y, np.sin(angle) + 0.5 * y], axis=1)
    x += rng.normal(0, 0.15, x.shape)
    return ppbdl.Data(x, y, feature_names=("across", "up"), classes=("upper", "lower"))


def net(x):
    """A network of two hidden layers, from the plane to two logits."""
    return hk.nets.MLP([50, 50, 2])(x)


def main(out="out", steps: int = 2000) -> dict[str, float]:
    """Fit, predict and draw; give the accuracies and the mutual information near and far."""
    data = simulate()
    train, test = data.split(jax.random.key(0), test_size=0.25)
    model = BNN(net, dist.Normal(0, 1), Categorical(2))
    adam = optax.adam(1e-2)

    methods = {
        "Ensemble": ppbdl.Ensemble(ppbdl.MAP(adam, steps), members=10),
        "MC dropout": ppbdl.SVI(ppbdl.MCDropout(0.1), adam, steps, draws=200),
    }
    posteriors = {
        name: ppbdl.fit(1, model, train.standardized(), method) for name, method in methods.items()
    }

    # A grid about the data: for classes `mean` holds the probabilities, `epistemic` the mutual
    # information in nats (at most log 2 here).
    across, up = np.meshgrid(np.linspace(-5, 6, 60), np.linspace(-5, 5.5, 60))
    grid = np.stack([across.ravel(), up.ravel()], axis=1)
    far = np.linalg.norm(grid - data.x.mean(axis=0), axis=1) > 4
    results = {}
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for (name, posterior), axis in zip(posteriors.items(), axes, strict=True):
        held_out = ppbdl.predict(2, model, posterior, test)
        elsewhere = ppbdl.predict(3, model, posterior, grid)
        results[f"{name} accuracy"] = float(np.mean(held_out.mean.argmax(axis=1) == test.y))
        results[f"{name} near"] = float(held_out.epistemic.mean())
        results[f"{name} far"] = float(elsewhere.epistemic[far].mean())
        shown = axis.contourf(
            across, up, elsewhere.epistemic.reshape(across.shape), np.linspace(0, np.log(2), 15)
        )
        axis.contour(across, up, elsewhere.mean[:, 1].reshape(across.shape), [0.5], colors="w")
        axis.scatter(*data.x.T, c=data.y, s=8, cmap="coolwarm")
        axis.set(title=name, xlabel="across")
    axes[0].set_ylabel("up")
    figure.colorbar(shown, ax=axes, label="mutual information in nats")

    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "02_classification.png", dpi=120)
    plt.close(figure)
    return results


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name:20} {value:.3f}")
