"""Regression: a Bayesian neural network by NUTS and by SVI, and its two uncertainties.

A logger noted a day's temperature every few minutes, but was out of order from 9 to 14 o'clock.
Noise is the same all day (aleatoric); what is not known about the gap is epistemic, and only
more data would take it away. NUTS finds the gap; a mean-field approximation, which may not let
weights depend on each other, does not (Foong et al. 2020, *On the Expressiveness of Approximate
Inference in Bayesian Neural Networks*).
"""

from pathlib import Path

import haiku as hk
import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist

import ppbdl
from ppbdl.models import BNN, Normal


def simulate(rows: int = 150) -> ppbdl.Data:
    """Hours of the day and degrees Celsius, in these units."""
    rng = np.random.default_rng(1)
    hour = np.sort(rng.uniform(0, 24, rows))
    hour = hour[(hour < 9) | (hour > 14)]
    degrees = 15 - 6 * np.cos(2 * np.pi * (hour - 3) / 24) + rng.normal(0, 0.7, len(hour))
    return ppbdl.Data(
        hour[:, None], degrees, feature_names=("hour",), target_name="degrees", name="a day"
    )


def net(x):
    """A network of one hidden layer, from hours to degrees."""
    return hk.nets.MLP([30, 1], activation=jax.nn.tanh)(x)


def main(out="out", steps: int = 3000, draws: int = 500) -> dict[str, float]:
    """Fit, predict and draw; give each method's RMSE and the growth of its ignorance."""
    # Data and model. The fit runs in standard units; predictions come back in degrees.
    train, test = simulate().split(jax.random.key(0), test_size=0.2)
    # The first layer's prior says how fast a day may change; that of the others, how much.
    prior = {"linear_0.*": dist.Normal(0, 3), "*": dist.Normal(0, 0.3)}
    model = BNN(net, prior, Normal())  # the noise is learned

    # One verb, two methods, one form of result: draws with (chain, draw) in front.
    methods = {
        "NUTS": ppbdl.NUTS(draws=draws, warmup=draws, chains=2),
        "SVI AutoNormal": ppbdl.SVI(ppbdl.AutoNormal(init_scale=0.01), steps=steps),
    }
    posteriors = {
        name: ppbdl.fit(1, model, train.standardized(), method) for name, method in methods.items()
    }

    # Predictions, on rows kept back and along the day.
    hours = np.linspace(0, 24, 145)[:, None]
    missing = (hours[:, 0] > 9) & (hours[:, 0] < 14)
    results = {}
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for (name, posterior), axis in zip(posteriors.items(), axes, strict=True):
        held_out = ppbdl.predict(2, model, posterior, test.x)
        along = ppbdl.predict(3, model, posterior, hours)
        results[f"{name} rmse"] = float(np.sqrt(np.mean((held_out.mean - test.y) ** 2)))
        results[f"{name} gap"] = float(
            np.sqrt(along.epistemic[missing].mean() / along.epistemic[~missing].mean())
        )
        band(axis, hours[:, 0], along)
        axis.plot(train.x[:, 0], train.y, "k.", markersize=3)
        axis.set(title=name, xlabel="hour")
    axes[0].set_ylabel("degrees Celsius")
    axes[0].legend(loc="upper left", fontsize=8)

    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "01_regression.png", dpi=120)
    plt.close(figure)
    return results


def band(axis, hours, prediction) -> None:
    """Two standard deviations: of what is not known, and of that and the noise."""
    epistemic, total = 2 * np.sqrt(prediction.epistemic), 2 * prediction.sd
    mean = prediction.mean
    axis.fill_between(hours, mean - total, mean + total, alpha=0.25, label="and aleatoric")
    axis.fill_between(hours, mean - epistemic, mean + epistemic, alpha=0.4, label="epistemic")
    axis.plot(hours, mean)


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name:20} {value:.2f}")
