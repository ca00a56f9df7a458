"""A novel class: what four networks of one declaration say of sneakers, which they never saw.

Fashion-MNIST without its sneakers trains the network at its mode, by variational inference with
flipout, by MC dropout, and as an ensemble, for equally many epochs.  One run gave, in this order,
on known classes accuracy 0.914, 0.910, 0.911, 0.922 and NLL 0.256, 0.257, 0.246, 0.226; best AUROC
of the 1,000 sneakers, most of which pass for sandals, 0.57, 0.69, 0.65, 0.63; and of 1,000 digits
of MNIST, a far set, 0.85, 0.95, 0.96, 0.95.  It took 7 minutes on two CPU cores.
"""

import argparse
from pathlib import Path

import haiku as hk
import jax
import numpy as np
import numpyro.distributions as dist
import optax

import ppbdl
from ppbdl import MAP, SVI, Ensemble
from ppbdl import diagnostics as dx
from ppbdl.datasets import fetch_images
from ppbdl.models import BNN, Categorical

SNEAKER = 7


def net(x):
    """A small convolutional network; strides in place of pooling, which costs a CPU more."""
    x = jax.nn.relu(hk.Conv2D(16, 5, stride=2)(x - 0.3))
    x = jax.nn.relu(hk.Conv2D(32, 3, stride=2)(x))
    return hk.nets.MLP([128, 9])(hk.Flatten()(x))


def methods(steps: int, draws: int) -> dict[str, MAP | SVI | Ensemble]:
    """Four ways to fit one model."""
    common = (optax.adam(optax.cosine_decay_schedule(2e-3, steps)), steps, 64)
    # At temperature 1 the weights' noise is too wide, after so few epochs, to fit the data well.
    vi = SVI(ppbdl.AutoNormal(0.1), *common, draws, estimator=ppbdl.flipout, temperature=0.3)
    dropout = SVI(ppbdl.MCDropout(0.1), *common, draws, estimator=ppbdl.masks_per_example)
    return {"MAP": MAP(*common), "VI": vi, "dropout": dropout, "ensemble": Ensemble(MAP(*common))}


def without_sneakers(data: ppbdl.Data) -> ppbdl.Data:
    """The nine other classes, numbered anew."""
    kept = data.take(np.flatnonzero(data.y != SNEAKER))
    return ppbdl.Data(kept.x, kept.y - (kept.y > SNEAKER))


def main(out="out", epochs: float = 8, draws: int = 50, folder=None) -> dict[str, float]:
    """Fit all four, and compare; the folder, if any, holds fashion_mnist and mnist."""
    fashion, mnist = (folder and Path(folder) / name for name in ("fashion_mnist", "mnist"))
    train, test = fetch_images("fashion-mnist", fashion)
    train, known, sneakers = *map(without_sneakers, (train, test)), test.x[test.y == SNEAKER]
    digits = fetch_images("mnist", mnist)[1].x[: len(sneakers)]
    x, ends = np.concatenate([known.x, sneakers, digits]), (known.rows, known.rows + len(sneakers))
    shown = [np.flatnonzero(known.y == 8)[0], known.rows]  # the first boot and the first sneaker
    classes = np.delete(np.array(test.classes), SNEAKER).tolist()
    model = BNN(net, dist.Normal(0.0, 0.5), Categorical(len(classes)))
    found, each_draw, informations, curves = {}, {}, {}, {}
    for name, method in methods(int(epochs * train.rows / 64), draws).items():
        posterior = ppbdl.fit(0, model, train, method)
        prediction = ppbdl.predict(1, model, posterior, x)
        probs = ppbdl.predict(2, model, posterior, x[shown], draws=True).draws["probs"]
        each_draw[name] = np.concatenate(probs)  # the chains, one after the other
        mean = prediction.mean[: known.rows]
        on_known = {f.__name__: f(known.y, mean) for f in (dx.accuracy, dx.nll, dx.ece)}
        ran = posterior.provenance.seconds_running
        print(f"\n{name}, {ran:.0f} s:", *(f"{k} {v:.4f} " for k, v in on_known.items()))
        print("  sneakers by            AUROC   AUPR  FPR95  rejected   digits: AUROC")
        # The mode is a single draw, and has no mutual information.
        scores = dx.novelty_scores(prediction.mean, None if name == "MAP" else prediction.epistemic)
        found |= {f"{name}: {score}": value for score, value in on_known.items()}
        for score, values in scores.items():
            inside, near, away = np.split(values, ends)
            s, far = dx.separation(inside, near), dx.separation(inside, away).auroc
            row = (s.auroc, s.aupr, s.fpr95, s.detected, far)
            print(f"  {score:21}" + "{:7.3f}{:7.3f}{:7.3f}{:10.3f}{:16.3f}".format(*row))
            found |= {f"{name}: AUROC by {score}": s.auroc, f"{name}: digits by {score}": far}
        if "mutual information" in scores:
            informations[name] = np.split(scores["mutual information"], ends)[:2]
        right = np.append(mean.argmax(axis=1) == known.y, [False] * len(sneakers))
        curves[name] = dx.rejection_curve(right, scores["entropy"][: ends[1]])

    Path(out).mkdir(parents=True, exist_ok=True)
    picture = dx.plot_class_draws(each_draw, ["an ankle boot", "a sneaker"], classes)
    picture.savefig(Path(out) / "06_novel_class.png", dpi=120)
    picture = dx.plot_scores(informations, "mutual information, nats")
    picture.savefig(Path(out) / "06_novel_class_scores.png", dpi=120)
    dx.plot_rejection(curves).savefig(Path(out) / "06_novel_class_rejection.png", dpi=120)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="holds fashion_mnist and mnist; without it, downloaded")
    parser.add_argument("--full", action="store_true", help="40 epochs and 200 draws: for a GPU")
    asked = parser.parse_args()
    main("out", *((40, 200) if asked.full else ()), folder=asked.folder)
