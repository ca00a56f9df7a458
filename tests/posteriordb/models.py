"""Thirteen posteriors of posteriordb (Magnusson et al. 2024) as NumPyro programs.

Sites bear the names of the Stan programs' parameters, so that ``beta[2]`` is entry 1 of the site
``beta``.  `POSTERIORS` makes of each data file a model and its `ppbdl.Data`; a regression's inputs
are its design matrix, intercept included.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

import ppbdl


def flat(support, *shape):
    """An improper prior: Stan's, where a program states none."""
    return dist.ImproperUniform(support, (), shape)


def half_cauchy(scale):
    return lambda: dist.HalfCauchy(scale)


def half_normal(scale):
    return lambda: dist.HalfNormal(scale)


def flat_positive():
    return flat(constraints.positive)


@dataclass(frozen=True)
class Linear:
    """y ~ N(X beta, sigma^2), beta flat unless it has a scale."""

    sigma: Any = flat_positive
    scale: float | None = None

    def __call__(self, x, y=None):
        k = x.shape[1]
        prior = dist.Normal(0, self.scale).expand([k]).to_event(1) if self.scale else None
        beta = numpyro.sample("beta", prior or flat(constraints.real_vector, k))
        sigma = numpyro.sample("sigma", self.sigma())
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def autoregression(x, y=None):
    alpha = numpyro.sample("alpha", dist.Normal(0, 10))
    beta = numpyro.sample("beta", dist.Normal(0, 10).expand([x.shape[1]]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(alpha + x @ beta, sigma), obs=y)


def kilpisjarvi(x, y=None, *, alpha, beta):
    alpha = numpyro.sample("alpha", dist.Normal(*alpha))
    beta = numpyro.sample("beta", dist.Normal(*beta))
    sigma = numpyro.sample("sigma", flat_positive())
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(alpha + beta * x[:, 0], sigma), obs=y)


def eight_schools(x, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", x.shape[0]):
        theta_trans = numpyro.sample("theta_trans", dist.Normal(0, 1))
        theta = numpyro.deterministic("theta", mu + tau * theta_trans)
        numpyro.sample("y", dist.Normal(theta, x[:, 0]), obs=y)


def gaussian_process(x, y=None):
    rho = numpyro.sample("rho", dist.Gamma(25, 4))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))  # a variance, whatever its name
    kernel = alpha**2 * jnp.exp(-0.5 * ((x - x.T) / rho) ** 2)
    covariance = kernel + sigma * jnp.eye(x.shape[0])
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(x.shape[0]), covariance), obs=y)


def start(*values):
    """Hint where a chain starts: of uniform starts 1 to 3 in 100 would end, and stay, in a minor
    mode of the mixture's or the Markov chain's, 60 nats or more below."""
    return {"init": lambda site: jnp.array(values)}


def mixture(x, y=None):
    mu = numpyro.sample("mu", flat(constraints.ordered_vector, 2), infer=start(-3.0, 3.0))
    numpyro.factor("mu_prior", dist.Normal(0, 2).log_prob(mu).sum())
    sigma = numpyro.sample("sigma", dist.HalfNormal(2).expand([2]).to_event(1))
    theta = numpyro.sample("theta", dist.Beta(5, 5))
    weights = dist.Categorical(probs=jnp.stack([theta, 1 - theta]))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.MixtureSameFamily(weights, dist.Normal(mu, sigma)), obs=y)


class HiddenMarkov(dist.Distribution):
    """Rows of exponential variables, their rates those of a hidden Markov chain's states.

    The first step adds no initial-state term, as in the Stan program.
    """

    support = constraints.real_matrix

    def __init__(self, transitions, rates, rows):
        self.transitions, self.rates = transitions, rates  # (from, to), (state, column)
        super().__init__((), (rows, rates.shape[1]))

    def log_prob(self, value):
        rows = dist.Exponential(self.rates).log_prob(value[:, None, :]).sum(-1)

        def forward(before, row):
            to = jax.nn.logsumexp(before[:, None] + jnp.log(self.transitions), axis=0)
            return to + row, None

        last, _ = jax.lax.scan(forward, rows[0], rows[1:])
        return jax.nn.logsumexp(last)


def drive(x, y=None, *, alpha):
    theta = [numpyro.sample(f"theta{k + 1}", dist.Dirichlet(jnp.array(alpha[k]))) for k in range(2)]
    rates = []
    for name in ("phi", "lambda"):
        support = constraints.positive_ordered_vector
        rate = numpyro.sample(name, flat(support, 2), infer=start(1.0, 3.0))
        prior = dist.Normal(jnp.array([0.0, 3.0]), 1)
        numpyro.factor(f"{name}_prior", prior.log_prob(rate).sum())
        rates.append(rate)
    model = HiddenMarkov(jnp.stack(theta), jnp.stack(rates, axis=1), x.shape[0])
    numpyro.sample("y", model, obs=y)


def columns(*features):
    """Stack columns behind an intercept."""
    return np.stack(np.broadcast_arrays(1.0, *map(np.float64, features)), axis=1)


def linear(features, target, **priors):
    return lambda d: (Linear(**priors), ppbdl.Data(features(d), np.float64(target(d))))


def lags(d):
    y, k = np.float64(d["y"]), d["K"]
    return autoregression, ppbdl.Data(np.stack([y[k - i : -i] for i in range(1, k + 1)], 1), y[k:])


def shrubs(d):
    d1, d2, height = (np.float64(d[name]) for name in ("diam1", "diam2", "canopy_height"))
    area, shape = np.log(d1 * d2), np.log(d1 / d2)
    total = np.log(d["total_height"])
    return columns(np.log(d1 * d2 * height), area, shape, total, d["group"])


def voters(d):
    ages = [np.int32(d["age_discrete"]) == level for level in (2, 3, 4)]
    rest = (d[name] for name in ("educ1", "gender", "income"))
    return columns(d["real_ideo"], d["race_adj"], *ages, *rest)


def lake(d):
    alpha, beta = ((d[f"pmu{name}"], d[f"ps{name}"]) for name in ("alpha", "beta"))
    model = partial(kilpisjarvi, alpha=alpha, beta=beta)
    return model, ppbdl.Data(np.float64(d["x"])[:, None], np.float64(d["y"]))


def basketball(d):
    alpha = tuple(tuple(map(float, row)) for row in d["alpha"])
    return partial(drive, alpha=alpha), ppbdl.Data(None, np.stack([d["u"], d["v"]], axis=1))


POSTERIORS = {
    "arK-arK": lags,
    "bball_drive_event_0-hmm_drive_0": basketball,
    "earnings-earn_height": linear(lambda d: columns(d["height"]), lambda d: d["earn"]),
    "earnings-logearn_height": linear(lambda d: columns(d["height"]), lambda d: np.log(d["earn"])),
    "eight_schools-eight_schools_noncentered": lambda d: (
        eight_schools,
        ppbdl.Data(np.float64(d["sigma"])[:, None], np.float64(d["y"])),
    ),
    "gp_pois_regr-gp_regr": lambda d: (
        gaussian_process,
        ppbdl.Data(np.float64(d["x"])[:, None], np.float64(d["y"])),
    ),
    "kidiq-kidscore_momhsiq": linear(
        lambda d: columns(d["mom_hs"], d["mom_iq"]),
        lambda d: d["kid_score"],
        sigma=half_cauchy(2.5),
    ),
    "kidiq-kidscore_momiq": linear(
        lambda d: columns(d["mom_iq"]), lambda d: d["kid_score"], sigma=half_cauchy(2.5)
    ),
    "kilpisjarvi_mod-kilpisjarvi": lake,
    "low_dim_gauss_mix-low_dim_gauss_mix": lambda d: (
        mixture,
        ppbdl.Data(None, np.float64(d["y"])),
    ),
    "mesquite-logmesquite_logvash": linear(shrubs, lambda d: np.log(d["weight"])),
    "nes1980-nes": linear(voters, lambda d: d["partyid7"]),
    "sblrc-blr": linear(
        lambda d: np.float64(d["X"]), lambda d: d["y"], sigma=half_normal(10), scale=10
    ),
}


@dataclass(frozen=True)
class Reference:
    """The reference's moments over 10,000 draws, and the 1,000 draws that are kept."""

    names: list[str]
    mean: np.ndarray
    sd: np.ndarray
    mcse_mean: np.ndarray
    draws: np.ndarray


def read(shared: Path, name: str):
    """Read a posterior's model, its data, and its reference."""
    folder = shared / "posteriordb" / name
    model, data = POSTERIORS[name](json.loads((folder / "data.json").read_text()))
    with np.load(folder / "reference.npz") as file:
        names = [str(each) for each in file["names"]]
        numbers = {key: file[key] for key in ("mean", "sd", "mcse_mean", "draws")}
    return model, data, Reference(names, **numbers)


def latents_of(reference: Reference) -> dict[str, np.ndarray]:
    """Give the reference's draws by site, (draw, ...), with what the programs draw instead."""
    sites: dict[str, Any] = {}
    for name, column in zip(reference.names, reference.draws.T, strict=True):
        site, _, _ = name.partition("[")
        sites.setdefault(site, []).append(column)
    values = {
        site: np.stack(parts, axis=1) if f"{site}[1]" in reference.names else parts[0]
        for site, parts in sites.items()
    }
    if "tau" in values:
        theta, mu, tau = (values[name] for name in ("theta", "mu", "tau"))
        values["theta_trans"] = (theta - mu[:, None]) / tau[:, None]
    return values


def parameters(draws, names):
    """Pick the reference's parameters from a fit's draws: (chain, draw, parameter), in float64."""

    def pick(name):
        site, _, index = name.partition("[")
        values = np.asarray(draws[site], np.float64)
        return values[..., int(index.rstrip("]")) - 1] if index else values

    return np.stack([pick(name) for name in names], axis=-1)
