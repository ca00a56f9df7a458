"""Fidelity: how far every method's predictions lie from those of long NUTS runs, at what cost.

One run (R-hat of NUTS's predictions at most 1.004; 9 minutes, 7 of CPU, on two cores that had other
work too).  Mean difference, yacht, and total variation, moons: HMC and MCLMC .02, .001;
SGHMC .06, .001; SGLD, stuck at such small steps, 1.2, .002; ensemble .09, .013; MAP .13, .013;
full rank .15, .04; IAF .16, .09; MC dropout 1.1, .08; Laplace 1e7 and .34, linearised .19, .014.
"""

from functools import partial
from pathlib import Path

import haiku as hk
import jax
import numpyro.distributions as dist
import optax
import pandas as pd
from numpyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal
from sklearn.datasets import make_moons

import ppbdl
from ppbdl import HMC, MAP, MCLMC, NUTS, SGHMC, SGLD, SVI, SWAG, Ensemble
from ppbdl import diagnostics as dx
from ppbdl.datasets import load
from ppbdl.models import BNN, Categorical, Normal


def net(outputs: int):
    """A network of one hidden layer of ten units."""
    return lambda x: hk.nets.MLP([10, outputs], activation=jax.nn.tanh)(x)


def methods(rows: int, step: float, steps: int, draws: int) -> dict:
    """Every method, alike for both data sets but for the step of those that descend with noise."""
    rate = optax.cosine_decay_schedule(5e-3, steps, alpha=0.01)
    adam = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(rate))
    chains, svi = (draws, draws, 4), partial(SVI, optimizer=adam, steps=steps, draws=4 * draws)
    noisy: dict = {"draws": draws, "warmup": steps, "thinning": max(steps // 200, 1)}
    # SWAG's spread is the batches' noise; its rate moves the weights as SGLD's step would.
    swag = partial(SWAG, MAP(adam, steps, 32), optax.sgd(step * rows / 2), max(steps // 4, 200))
    return {
        "NUTS": NUTS(*chains),
        "HMC": HMC(*chains),
        "MCLMC": MCLMC(draws, steps, 4, 20),
        "SGLD": SGLD(step, **noisy),
        "SGHMC": SGHMC(step, **noisy),
        "cyclical SGLD": SGLD(2 * step, cycles=5, **noisy),
        "MAP": MAP(adam, steps),
        "ensemble": Ensemble(MAP(adam, steps), 10),
        "SWAG": swag(draws=4 * draws),
        "MultiSWAG": Ensemble(swag(draws=-(-4 * draws // 10)), 10),
        "MC dropout": svi(ppbdl.MCDropout(0.05)),
        "AutoNormal": svi(ppbdl.AutoNormal(0.01)),
        "full rank": svi(partial(AutoMultivariateNormal, init_scale=0.01)),
        "IAF": svi(partial(AutoIAFNormal, num_flows=2)),
        "MNF": svi(ppbdl.MNF(init_scale=0.01)),
        "Laplace": ppbdl.Laplace("full", adam, steps, draws=4 * draws),
    }


def main(out="out", steps=20_000, draws=750, only=None) -> dict[str, float]:
    """Fit all (or `only` some, by name), compare with NUTS and draw; give the distances."""
    x, y = make_moons(500, noise=0.3, random_state=0)
    moons = ppbdl.Data(x, y, classes=("upper", "lower")).split(jax.random.key(0), test_size=300)
    yacht = BNN(net(1), likelihood=Normal(floor=0.1))  # a smaller noise takes NUTS for longer
    classifier = BNN(net(2), dist.Normal(0, 1), Categorical(2))
    results, measures = {}, {}
    for name, model, (train, test), step, distance, own in (
        ("UCI yacht", yacht, load("yacht"), 2e-6, "wasserstein_sd", ["coverage_90"]),
        ("two moons", classifier, moons, 1e-3, "total_variation", ["accuracy", "ece"]),
    ):
        train, every = train.standardized(), methods(train.rows, step, steps, draws)
        some = {method: every[method] for method in only or every if method != "Laplace"}
        tree = ppbdl.fit_all(0, model, train, some, test=test)
        # Anchors are another model's; a Laplace fit is predicted from by two models.
        anchors, anchored = {"anchored ensemble": every["ensemble"]}, ppbdl.anchored(model)
        tree.update(ppbdl.fit_all(1, anchored, train, anchors, test=test).children)
        laplace = ppbdl.fit(2, model, train, every["Laplace"])
        for label, program in (("", model), (", linear", ppbdl.linearized(model, laplace))):
            tree[f"Laplace{label}"] = ppbdl.to_datatree(3, program, laplace, train, test=test)

        fits = tree.children
        far = {method: dx.distance(fit, fits["NUTS"]) for method, fit in fits.items()}
        own = ["elpd", *own, "epistemic_share", "rhat", "seconds_compiling", "seconds_running"]
        table = pd.DataFrame(far).T.join(dx.compare(tree)[own])
        print(f"\n{name}\n{table.to_string(float_format='{:.4g}'.format, na_rep='-')}")
        results |= {f"{name}: {m}, {k}": v for m, row in far.items() for k, v in row.items()}
        measures[f"{name}: {distance}"] = dict(table[distance])
        measures[f"{name}: seconds"] = dict(table["seconds_compiling"] + table["seconds_running"])

    Path(out).mkdir(parents=True, exist_ok=True)
    dx.plot_fidelity(measures).savefig(Path(out) / "10_fidelity.png", dpi=120, transparent=False)
    return results


if __name__ == "__main__":
    main()
