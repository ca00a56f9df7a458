"""Densities and generative models: a RealNVP flow and a VAE, by the same verbs as a regression.

Neither has inputs: y alone is modelled, and x is an array of width zero. The flow's weights are
parameters, so MAP is maximum likelihood; the VAE brings its own guide, the encoder.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
from scipy.special import logsumexp

import ppbdl
from ppbdl.models import VAE, Dense, RealNVP


def banana(rows: int, seed: int) -> ppbdl.Data:
    """Points along a bent band in the plane."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, 2))
    return ppbdl.Data(None, np.stack([z[:, 0], z[:, 0] ** 2 + 0.3 * z[:, 1]], axis=1))


def bars(rows: int, seed: int) -> ppbdl.Data:
    """Images of 6 by 6 black and white pixels: one bar, lying or standing, and a little noise."""
    rng = np.random.default_rng(seed)
    images = np.zeros((rows, 6, 6))
    images[np.arange(rows), rng.integers(0, 6, rows)] = 1
    turn = rng.uniform(size=rows) < 0.5
    images[turn] = images[turn].transpose(0, 2, 1)
    flipped = rng.uniform(size=images.shape) < 0.02
    return ppbdl.Data(None, np.abs(images - flipped).reshape(rows, 36))


def main(out="out", steps: int = 3000, rows: int = 1000, layers: int = 6) -> dict[str, float]:
    """Fit both, sample from them, and score rows that they have not seen."""
    # A density. Its exact log density: the noise of the band and a normal abscissa.
    train, test = banana(rows, 0), banana(rows, 1)
    flow = RealNVP(features=2, layers=layers, width=32)
    posterior = ppbdl.fit(0, flow, train, ppbdl.MAP(optax.adam(5e-3), steps, batch_size=200))
    points = ppbdl.predict(1, flow, posterior, test, draws=True).draws["y"][0, 0]
    score = ppbdl.log_likelihood(2, flow, posterior, test)["y"].mean()
    u, v = test.y[:, 0], test.y[:, 1] - test.y[:, 0] ** 2
    exact = np.mean(-np.log(2 * np.pi * 0.3) - u**2 / 2 - (v / 0.3) ** 2 / 2)

    # A variational autoencoder. Each draw weighs a code of each row: log p(y, z) - log q(z), so
    # that the log of the mean over draws bounds log p(y) from below, tighter with more draws.
    train, test_images = bars(rows, 2), bars(rows, 3)
    vae = VAE((36,), latent=4, networks=Dense((64,)))
    svi = ppbdl.SVI(vae.guide, optax.adam(5e-3), steps, batch_size=200, draws=64)
    fitted = ppbdl.fit(3, vae, train, svi)
    images = ppbdl.predict(4, vae, fitted, np.empty((16, 0)), draws=True).draws["mean"][0, 0]
    weighed = ppbdl.log_likelihood(5, vae, fitted, test_images, guide=vae.guide)["y"][0]
    bound = float(np.mean(logsumexp(weighed, axis=0) - np.log(len(weighed))))

    figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    axes[0].plot(*test.y.T, "k.", markersize=2)
    axes[0].set(title="held-out points")
    axes[1].plot(*points.T, "C0.", markersize=2)
    axes[1].set(title="drawn from the flow", xlim=axes[0].get_xlim(), ylim=axes[0].get_ylim())
    framed = np.pad(images.reshape(16, 6, 6), ((0, 0), (1, 1), (1, 1)), constant_values=0.5)
    axes[2].imshow(framed.reshape(2, 8, 8, 8).swapaxes(1, 2).reshape(16, 64), cmap="gray")
    axes[2].set(title="drawn from the VAE", xticks=[], yticks=[])

    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "05_density_and_vae.png", dpi=120)
    plt.close(figure)
    return {"flow": float(score), "flow, exact": float(exact), "VAE": bound}


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name:12} {value:.2f} nats a row")
