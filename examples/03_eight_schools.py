"""Eight schools: a hierarchical model of plain NumPyro, no network, by the same verbs.

Eight schools coached pupils for a test; each effect is known with a standard error (Rubin 1981;
Gelman et al. 2013, *Bayesian Data Analysis*, section 5.5). Any NumPyro program ``(x, y=None)`` is
a model: here x holds the standard errors and y the estimated effects.
"""

from pathlib import Path

import arviz as az
import matplotlib
import numpyro
import numpyro.distributions as dist

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax

import ppbdl
from ppbdl.diagnostics import loo

SCHOOLS = ppbdl.Data(
    np.array([[15.0], [10.0], [16.0], [11.0], [9.0], [11.0], [10.0], [18.0]]),
    np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    feature_names=("standard error",),
    target_name="effect",
    name="eight schools",
)


def eight_schools(x, y=None):
    """Give each school an effect of its own, drawn about a common mean (non-centred)."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("effect", dist.Normal(mu + tau * z, x[:, 0]), obs=y)


def main(out="out", steps: int = 5000, draws: int = 1000) -> dict[str, float]:
    """Fit by both methods, summarise, cross-validate and draw."""
    methods = {
        "NUTS": ppbdl.NUTS(draws=draws, warmup=draws, chains=4, target_accept=0.95),
        "SVI": ppbdl.SVI(ppbdl.AutoNormal, optax.adam(1e-2), steps, draws=4 * draws),
    }
    results = {}
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for (name, method), axis in zip(methods.items(), axes, strict=True):
        posterior = ppbdl.fit(0, eight_schools, SCHOOLS, method)
        tree = ppbdl.to_datatree(1, eight_schools, posterior, SCHOOLS)

        # From here on it is ArviZ's: a DataTree that its functions take as it is.
        print(f"\n{name}\n{az.summary(tree, var_names=['mu', 'tau'])}")
        # Draws of an approximation need the ratio of densities as well; `loo` knows which is which.
        found = loo(tree)
        print(f"{found.route}: elpd {found.elpd:.1f}, largest Pareto k {found.pareto_k.max():.2f}")

        # A draw of each school's true effect is mu + tau z.
        sites = {site: np.asarray(values) for site, values in posterior.draws.items()}
        effects = sites["mu"][..., None] + sites["tau"][..., None] * sites["z"]
        low, middle, high = np.quantile(effects, [0.05, 0.5, 0.95], axis=(0, 1))
        rows = np.arange(SCHOOLS.rows)
        axis.errorbar(middle, rows, xerr=[middle - low, high - middle], fmt="o", label="posterior")
        axis.plot(SCHOOLS.y, rows, "kx", label="estimate")
        axis.set(title=name, xlabel="effect, with 90% intervals")
        results[f"{name} mu"] = float(sites["mu"].mean())
        results[f"{name} tau"] = float(sites["tau"].mean())
        results[f"{name} elpd"] = float("nan") if found.elpd is None else found.elpd
    axes[0].set(ylabel="school", yticks=range(8), yticklabels="ABCDEFGH")
    axes[0].legend()

    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "03_eight_schools.png", dpi=120)
    plt.close(figure)
    return results


if __name__ == "__main__":
    main()
