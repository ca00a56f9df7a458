"""The upper half of a digit from the lower: a semi-conditional autoencoder, by two priors.

The sensors are the 392 pixels below; the encoder sees whole digits, the decoder the code and the
sensors (Gundersen et al. 2021, section 4.1).  With p(z) = N(0, I) the code must be what the lower
half leaves open; p(z | x) may lean on it.  One run (3,000 steps of 100, 500 test digits; two
minutes) got 91.7 % of the upper pixels right with p(z) and 92.7 % with p(z | x), where white paper
has 88.6 %; -log p of the digit, by 100 importance samples, was 49.7 and 53.1 nats.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import optax

import ppbdl
from ppbdl.datasets import fetch_images
from ppbdl.models import SCVAE, Dense, StandardNormal

SENSORS = tuple((i, j) for i in range(14, 28) for j in range(28))
UPPER = np.arange(28)[:, None, None] < 14


def main(out="out", folder=None, steps=3000, rows=60_000, units=500, tests=1000):
    """Fit to `rows` binary digits with either prior; rebuild `tests` others from their half."""
    train, test = fetch_images("mnist", folder and Path(folder))
    y, new = ((x > 0.5).astype(np.int32) for x in (train.x[:rows], test.x[:tests]))
    adam = optax.adam(optax.cosine_decay_schedule(1e-3, steps))
    warm, shown, found = optax.linear_schedule(0.0, 1.0, steps // 4), 8, {}
    panels = [("given", np.where(UPPER, 0.35, new[:shown]))]
    panels.append(("truth", new[:shown]))
    for name, prior in (("p(z)", StandardNormal()), ("p(z | x)", None)):
        nets = Dense((units, units))
        model = SCVAE((28, 28, 1), 50, networks=nets, prior=prior, sensors=SENSORS)
        svi = ppbdl.SVI(model.guide, adam, steps, batch_size=100, draws=1, temperature=warm)
        posterior = ppbdl.fit(0, model, ppbdl.Data(model.measure(y), y), svi)
        x = model.measure(new)
        draws = np.asarray(model.sample(1, posterior, x, draws=50), float)
        mean = draws.mean(0)
        found[f"{name}: pixels right"] = float(np.mean((mean > 0.5) == new, where=UPPER))
        # Of the lower pixels too, which are given and all but certain.
        log_p, _ = model.log_marginal(2, posterior, new, x, samples=100)
        found[f"{name}: -log p"] = -float(log_p.mean())
        found[f"{name}: rate"] = float(posterior.findings["code"]["rate"][0])
        panels += [(f"{name}: draw", d[:shown]) for d in draws[:2]]
        panels += [("mean", mean[:shown]), ("sd", draws.std(0)[:shown])]
    figure, axes = plt.subplots(len(panels), shown, figsize=(6, 8), layout="constrained")
    for row, (title, images) in zip(axes, panels, strict=True):
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", size=9)
    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "22_half_digits.png", dpi=130)
    plt.close(figure)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="holds MNIST's four .gz files; without it, downloaded")
    for name, value in main(folder=parser.parse_args().folder).items():
        print(f"{name:24} {value:.3f}")
