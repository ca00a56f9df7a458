"""Our models' densities, and NUTS, against the reference draws of posteriordb.

Two tests that between them leave little room.  Stein's identities hold our density, with its
Jacobian, against the reference draws without any sampling of ours: for draws from p,

    E[d_i log p(u)] = 0   and   E[(u_i - E u_i) d_i log p(u)] = -1

on the unconstrained space.  Then NUTS's means and centred second moments are compared with the
reference's.  Every z score is below the Bonferroni cut for a family rate of 1e-3 over the 72
parameters of the 13 posteriors and both moments: under 1 false alarm in 1,000 runs of each test.
"""

from dataclasses import replace

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to
from numpyro.handlers import scale, seed, substitute, trace
from scipy.stats import norm

import ppbdl
from ppbdl.potential import potential
from ppbdl.structure import inspect_model, shapes_of

from .models import POSTERIORS, latents_of, parameters, read

CUT = norm.isf(1e-3 / (2 * 2 * 72))
DRAWS = 10_000  # behind the reference's moments


@pytest.fixture(params=POSTERIORS)
def posterior(request, shared_data, x64):
    return read(shared_data, request.param)


def unconstrained(model, structure, latents, x, y):
    """Take one draw's latents to the flat unconstrained space, each by its site's bijection."""
    sites = trace(substitute(seed(model, 0), data=latents)).get_trace(x, y)
    inverses = {name: biject_to(sites[name]["fn"].support).inv for name in structure.latents}
    return structure.flatten({name: inverses[name](latents[name]) for name in inverses})


def stein(model, data, latents):
    """Give u and the gradient of the log density at every draw."""
    structure = inspect_model(model, shapes_of(data))
    energy = potential(model, structure)

    @jax.jit
    @jax.vmap
    def at(latents):
        flat = unconstrained(model, structure, latents, data.x, data.y)
        return flat, -jax.grad(energy)(flat, data.x, data.y)

    return at({name: latents[name] for name in structure.latents})


def stein_scores(model, data, latents):
    """The z scores of both identities; the kept draws are 100 transitions apart: independent."""
    u, gradient = map(np.asarray, stein(model, data, latents))
    scores = []
    for statistic, truth in ((gradient, 0), ((u - u.mean(0)) * gradient, -1)):
        error = statistic.std(0, ddof=1) / np.sqrt(len(u))
        scores.append((statistic.mean(0) - truth) / error)
    return np.concatenate(scores)


def test_the_density_is_that_of_the_reference_draws(posterior):
    model, data, reference = posterior
    assert abs(stein_scores(model, data, latents_of(reference))).max() < CUT


def sd_for_variance(x, y=None):
    """The Gaussian process as its parameter's name suggests, sigma a standard deviation."""
    rho = numpyro.sample("rho", dist.Gamma(25, 4))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    kernel = alpha**2 * jnp.exp(-0.5 * ((x - x.T) / rho) ** 2)
    covariance = kernel + sigma**2 * jnp.eye(x.shape[0])
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(x.shape[0]), covariance), obs=y)


def without(site, log_density):
    """Take a term of one site's log density off again, by a factor."""

    def change(model):
        def other(x, y=None):
            value = trace(model).get_trace(x, y)[site]["value"]
            numpyro.factor("missing", -log_density(value))

        return other

    return change


SCHOOLS = "eight_schools-eight_schools_noncentered"
WRONG = {
    "sd for variance": ("gp_pois_regr-gp_regr", lambda _: sd_for_variance),
    "likelihood x 0.8": ("nes1980-nes", lambda model: scale(model, 0.8)),
    "no Jacobian": (SCHOOLS, without("tau", jnp.log)),
    "a prior left out": (SCHOOLS, without("mu", dist.Normal(0, 5).log_prob)),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_density_is_seen(case, shared_data, x64):
    name, change = WRONG[case]
    model, data, reference = read(shared_data, name)
    assert abs(stein_scores(change(model), data, latents_of(reference))).max() > CUT


def z_scores(posterior, reference):
    """The z scores of the means and of the second moments about the reference's means.

    Both sides' Monte Carlo errors count: ours by ArviZ's effective sample size, the reference's by
    that of its means.
    """
    draws = parameters(posterior.draws, reference.names)
    kept = (reference.draws - reference.mean) ** 2
    variance = reference.sd**2 * (DRAWS - 1) / DRAWS
    scores = []
    for statistic, truth, error in (
        (draws, reference.mean, reference.mcse_mean),
        (
            (draws - reference.mean) ** 2,
            variance,
            kept.std(0) * reference.mcse_mean / reference.sd,
        ),
    ):
        ours = [az.mcse(each, method="mean") for each in np.moveaxis(statistic, -1, 0)]
        scores.append((statistic.mean((0, 1)) - truth) / np.hypot(ours, error))
    return np.concatenate(scores)


NUTS = ppbdl.NUTS(draws=1500, warmup=1000, chains=2, target_accept=0.9)


def test_nuts_agrees_with_the_reference(posterior):
    """At about 1,000 effective draws: a potential times 0.8 is seen, times 0.9 not yet."""
    agrees(posterior, NUTS)


@pytest.mark.slow
def test_long_runs_of_nuts_agree_with_the_reference(posterior):
    """At about 10,000 effective draws: a potential times 0.9 is seen."""
    agrees(posterior, replace(NUTS, draws=10_000, chains=4))


def agrees(posterior, nuts):
    model, data, reference = posterior
    fitted = ppbdl.fit(1, model, data, nuts, progress=False)
    # A chain that is stuck has Monte Carlo errors that any mean is within.
    for draws in np.moveaxis(parameters(fitted.draws, reference.names), -1, 0):
        assert az.rhat(draws) < 1.05
        assert az.ess(draws) > 200
    assert abs(z_scores(fitted, reference)).max() < CUT
