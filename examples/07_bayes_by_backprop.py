"""Bayes by Backprop on MNIST: the test errors of four networks, beside the published ones.

An ordinary network, dropout, and a Gaussian over every weight under two priors: the rows of
Blundell et al. (2015), *Weight Uncertainty in Neural Networks*, Table 1.  The quick setting stops
after 5 epochs, the published networks after 600; for those, ``--full``.  Measured with the quick
setting: 2.1, 3.9, 2.2 and 2.0 %.  Dropout, of half of the pixels too, learns slowest.
"""

import argparse
from pathlib import Path

import haiku as hk
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
import optax

import ppbdl
from ppbdl.datasets import fetch_images
from ppbdl.models import BNN, Categorical, ScaleMixture

# Test error in percent after 600 epochs, by the units in each of two hidden layers.
PUBLISHED = {
    "ordinary": {400: 1.83, 800: 1.84, 1200: 1.88},
    "dropout": {400: 1.51, 800: 1.33, 1200: 1.36},
    "BBB, Gaussian": {400: 1.82, 800: 1.99, 1200: 2.04},
    "BBB, scale mixture": {400: 1.36, 800: 1.34, 1200: 1.32},
}


def main(out="out", folder=None, widths=(400,), epochs=5, rows=50_000) -> dict[str, float]:
    """Fit, predict and draw; give the test errors in percent.

    The files of MNIST are read from `folder`, or downloaded once.
    """
    train, test = fetch_images("mnist", folder)
    train = train.take(np.arange(rows))  # the paper keeps the last 10,000 of 60,000 to choose by
    adam, batch = optax.adam(1e-3), 128
    settings = {"optimizer": adam, "steps": epochs * rows // batch, "batch_size": batch}

    # The Gaussians start narrow: wide ones' noise drowns what the first epochs have to teach.
    narrow = ppbdl.AutoNormal(init_scale=0.05)
    bbb = ppbdl.SVI(narrow, draws=20, estimator=ppbdl.local_reparameterization, **settings)
    half = ppbdl.MCDropout(0.5)
    dropout = ppbdl.SVI(half, draws=20, estimator=ppbdl.masks_per_example, **settings)
    # Without a prior a weight is a point estimate, and its MAP is maximum likelihood.
    methods = {
        "ordinary": (None, ppbdl.MAP(**settings)),
        "dropout": (dist.Normal(0, 1), dropout),
        "BBB, Gaussian": (dist.Normal(0, np.exp(-1)), bbb),
        "BBB, scale mixture": (ScaleMixture(0.5, wide=1, narrow=np.exp(-6)), bbb),
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    results = {}
    for width in widths:

        def net(x, width=width):
            return hk.nets.MLP([width, width, 10])(hk.Flatten()(x) * (255 / 126))

        for name, (prior, method) in methods.items():
            model = BNN(net, prior, Categorical(10))
            posterior = ppbdl.fit(1, model, train, method)
            probs = ppbdl.predict(2, model, posterior, test).mean
            error = results[f"{name}, {width}"] = 100 * float(np.mean(probs.argmax(1) != test.y))
            row = f"{name}, {width} units"
            left.plot(error, row, "o", c="C0", label=f"here, {epochs} epochs")
            published = PUBLISHED[name].get(width, np.nan)
            left.plot(published, row, "D", c="C1", mfc="none", label="published, 600 epochs")
            if width == widths[0]:  # one draw of the weights; of dropout's those that are kept
                weights = {**posterior.params, **posterior.draws}["net.linear_1.w"]
                one = np.asarray(weights).reshape(-1, width**2)[0]
                right.hist(one[one != 0], np.linspace(-0.3, 0.3, 121), density=True,
                           histtype="step", label=name)  # fmt: skip
    left.invert_yaxis()
    left.set(xlabel="test error, percent", xlim=(0, None))
    left.legend(handles=[left.lines[0], left.lines[1]])
    right.set(xlabel=f"weight of the second layer of {widths[0]} units, in one draw")
    right.set(ylabel="density", yscale="log", ylim=(2e-3, None))
    right.legend()

    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "07_bayes_by_backprop.png", dpi=120)
    plt.close(figure)
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the files of MNIST lie")
    parser.add_argument("--full", action="store_true", help="three widths, 600 epochs")
    args = parser.parse_args()
    full = {"widths": (400, 800, 1200), "epochs": 600} if args.full else {}
    for name, value in main(folder=args.folder, **full).items():
        method, _, width = name.rpartition(", ")
        published = f"{PUBLISHED[method][int(width)]:.2f} %"
        print(f"{name:24} {value:5.2f} %    published, after 600 epochs: {published}")
