"""Variational autoencoders of digits and clothes, scored as the published ones are.

Grey pixels are probabilities: each step sees a new binary draw of them, and 1,000 test images are
drawn once.  A normal code of 50, two layers of 200 tanh units: the one-layer network of Burda et
al. (2016), whose -log p(digits) are 86.8 (VAE) and 84.8 (IWAE, 50 draws), after 3,280 epochs.
The quick setting (10 epochs, the IWAE 1; 1,000 test images, 500 samples; 280 CPU seconds) gave
digits 102.4 +- 0.9, clothes 241.6 +- 2.3, and the IWAE's digits 134.2 +- 1.1: an early fit of it.
400 epochs (20 CPU minutes) gave 87.2 +- 0.7 of 1,000 digits, by 5,000 samples each.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import optax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

import ppbdl
from ppbdl.datasets import fetch_images
from ppbdl.models import VAE, Binarized, pictures

SHAPE, BATCH = (28, 28, 1), 100
FULL: dict[str, Any] = {"epochs": 400, "iwae": (100, 50), "samples": 5000, "tests": 10_000}


def fitted(vae, grey, epochs, **loss):
    """Fit an autoencoder to `epochs` of batches, each of which is binarised anew."""
    model, steps = Binarized(vae), round(epochs * len(grey) / BATCH)
    adam = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    svi = ppbdl.SVI(model.guide, adam, steps, batch_size=BATCH, draws=1, **loss)
    return ppbdl.fit(0, model, ppbdl.Data(None, grey), svi)


def pixels(figure, title, height, width=5.2):
    """Draw a figure of some inches under a title, as an array."""
    figure.suptitle(title, x=0.02, ha="left", size=11)
    figure.set(size_inches=(width, height), dpi=110)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def main(out="out", folder=None, epochs=10, iwae=(1, 50), samples=500, tests=1000, rows=60_000):
    """Fit `rows` of each set, and score `tests` images by `samples` draws; iwae: epochs, draws."""
    deep, flat, found = VAE(SHAPE, latent=50), VAE(SHAPE, latent=2), {}
    rng, columns = np.random.default_rng(0), []

    def score(name, posterior):
        log_p, _ = deep.log_marginal(1, posterior, binary, samples=samples)
        found[f"{name}: -log p"] = float(-log_p.mean())
        found[f"{name}: -log p, ±"] = float(log_p.std() / np.sqrt(tests))

    for name in ("fashion-mnist", "mnist"):
        place = folder and Path(folder) / name.replace("-", "_")
        train, test = fetch_images(name, place)
        test = test.take(rng.permutation(test.rows)[:tests])
        grey, binary = train.x[:rows], (rng.uniform(size=test.x.shape) < test.x).astype(int)
        posterior = fitted(deep, grey, epochs)
        score(f"VAE, {name}", posterior)
        drawn = pictures.prior_samples(2, deep, posterior, 49)
        again = pictures.reconstructions(3, deep, posterior, binary[:7])
        right = [pixels(drawn, f"{name}: images of a code drawn from the prior", 5.2)]
        right.append(pixels(again, f"{name}: given, and how sure they are rebuilt", 2.7))
        columns.append(np.vstack(right))
    score("IWAE, mnist", fitted(deep, grey, iwae[0], loss=ppbdl.IWAE(iwae[1])))

    plane = fitted(flat, grey, epochs)
    scatter = pictures.latent_scatter(flat, plane, binary, test.y)
    left = pixels(scatter, "mnist: a code of two numbers, by digit", 5.2)
    right = pixels(pictures.manifold(flat, plane), "mnist: what such codes decode to", 5.2)
    Path(out).mkdir(parents=True, exist_ok=True)
    whole = np.vstack([np.hstack([left, right]), np.hstack(columns)])
    Image.fromarray(whole).save(Path(out) / "16_vae.png")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="holds fashion_mnist and mnist; without it, downloaded")
    parser.add_argument("--full", action="store_true", help="the published protocol: many hours")
    given = parser.parse_args()
    for name, value in main(folder=given.folder, **(FULL if given.full else {})).items():
        print(f"{name:28} {value:.2f}")
