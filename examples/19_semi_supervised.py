"""Digits from few labels: what thousands of images without a label add to a hundred with one.

One run (10,000 images of 14 x 14 pixels, 40 epochs; 6 CPU minutes) got these right with 100, 600,
1,000 and 3,000 labels: a network of them alone .683 .815 .832 .887; M1 .713 .861 .885 .923; M2 .788
.856 .868 .908; M1+M2 .792 .867 .893 .930.  28 x 28 pixels want a longer fit: M2 .56 with 100.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
import optax

import ppbdl
from ppbdl.datasets import fetch_images
from ppbdl.models import BNN, M2, VAE, Bernoulli, Categorical, Dense, HeteroscedasticNormal

LABELS = (100, 600, 1000, 3000)
PUBLISHED = {  # of 28 x 28 pixels, with 50,000 images: Pyro's tutorial, variant 3 and the baseline
    "M2": (0.932, 0.944, 0.949, 0.958),
    "network": (0.771, 0.872, 0.886, 0.911),
}
COLOURS = {"M1+M2": "#7b5ea7", "M2": "#c8502f", "M1": "#e0a030", "network": "#8a8a8a"}


def main(out="out", folder=None, labels=LABELS, rows=10_000, side=14, epochs=40, units=200):
    """Fit to `rows` images of few labels, of side x side pixels; score all 10,000 test images."""
    train, test = fetch_images("mnist", folder)
    blocks = (-1, side, 28 // side, side, 28 // side, 1)
    images, new = (1.0 * (x.reshape(blocks).mean((2, 4)) > 0.3) for x in (train.x[:rows], test.x))
    digits, networks = train.y[:rows], Dense((units,), jax.nn.softplus)

    def fit(model, data):
        steps = epochs * data.rows // 100
        adam = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
        return ppbdl.fit(0, model, data, ppbdl.SVI(model.guide, adam, steps, 100, draws=1))

    def network(inputs, known, new):
        model = BNN(networks.encoder(10), dist.Normal(0, 1), Categorical(10))
        data = ppbdl.Data(inputs[known], digits[known])
        posterior = ppbdl.fit(0, model, data, ppbdl.MAP(optax.adam(3e-3), 400))
        return ppbdl.predict(1, model, posterior, new).mean

    def m2(inputs, known, new, likelihood):
        # Every label some times over, so that of each batch a tenth have one.
        others, times = np.setdiff1d(np.arange(rows), known), max(1, rows // (10 * len(known)))
        every = np.concatenate([others, *[known] * times])
        x = np.where(np.arange(len(every)) < len(others), -1, digits[every])
        weight = 10 * len(x) / (x >= 0).sum()
        model = M2(inputs.shape[1:], 10, likelihood, networks, classes=10, supervision=weight)
        posterior = fit(model, ppbdl.Data(x, inputs[every]))
        return model.classify(posterior, new), model, posterior

    vae = VAE((side, side, 1), 20, networks=networks)
    posterior = fit(vae, ppbdl.Data(None, images))
    codes, new_codes = (np.asarray(vae.encode(posterior, y).mean) for y in (images, new))
    found, fitted = {}, []
    for number in labels:
        known = np.concatenate([np.flatnonzero(digits == c)[: number // 10] for c in range(10)])
        fitted.append(m2(images, known, new, Bernoulli()))
        both, *_ = m2(codes, known, new_codes, HeteroscedasticNormal())
        alone = network(codes, known, new_codes), network(images, known, new)
        for name, probs in zip(COLOURS, (both, fitted[-1][0], *alone), strict=True):
            found[f"{name}, {number}"] = float((np.argmax(probs, axis=1) == test.y).mean())
    plt.rc("axes.spines", top=False, right=False)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name, colour in COLOURS.items():
        left.plot(labels, [found[f"{name}, {n}"] for n in labels], "o-", color=colour, label=name)
        if name in PUBLISHED:
            left.plot(LABELS, PUBLISHED[name], "o", color=colour, mfc="none", label="published")
    left.set(xscale="log", xlabel="images with a label", ylabel="accuracy on 10,000 test images")
    left.set_xticks(LABELS, [f"{number:,}" for number in LABELS])
    left.minorticks_off()
    left.legend(frameon=False, loc="lower right")
    left.set_title(f"{rows:,} images, few of them with a label", loc="left")
    q, model, posterior = fitted[-1]
    z = model.encode(posterior, new[:6], q[:6].argmax(1)).mean
    carried = model.decode(posterior, np.repeat(z, 10, axis=0), np.tile(np.arange(10), 6)).mean
    strip = np.hstack([new[:6, None], 0 * new[:6, None], carried.reshape(6, 10, side, side, 1)])
    right.imshow(strip[..., 0].transpose(0, 2, 1, 3).reshape(6 * side, -1), cmap="gray_r")
    right.set_title("A test digit, and each label in its style", loc="left")
    right.set_axis_off()
    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "19_semi_supervised.png", dpi=130)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="where MNIST lies; without it, downloaded")
    parser.add_argument("--full", action="store_true", help="all 60,000, 28 x 28: some days")
    given = parser.parse_args()
    full = partial(main, rows=60_000, side=28, epochs=200, units=500)
    for name, value in (full if given.full else main)(folder=given.folder).items():
        print(f"{name:16} {value:.3f}")
