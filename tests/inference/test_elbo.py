"""AnalyticELBO against NumPyro's estimator and against divergences in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Trace_ELBO

import ppbdl
import ppbdl.models
from ppbdl.inference.batches import scale_rows
from ppbdl.structure import inspect_model, shapes_of

DATA = ppbdl.Data(np.linspace(-1, 1, 6)[:, None], np.linspace(0.0, 2.0, 6))
KEYS = 4000


def hierarchical(x, y=None):
    """A scale over a vector and a scalar: no closed form for the first site, one for the others."""
    scale = numpyro.sample("scale", dist.Gamma(3.0, 2.0))
    weights = numpyro.sample("weights", dist.Normal(0.0, scale).expand([2]).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        code = numpyro.sample("code", dist.Normal(weights[1], scale))
        numpyro.sample("y", dist.Normal(weights[0] * x[:, 0] + 0.1 * code, 1.0), obs=y)


def guide_sites(order):
    """A mean-field guide that draws its sites in the given order; the code hangs on the scale."""

    def guide(x, y=None):
        drawn = {}
        for name in order:
            if name == "scale":
                drawn[name] = numpyro.sample("scale", dist.LogNormal(0.1, 0.4))
            if name == "weights":
                loc = 0.5 * drawn.get("scale", 1.0) * jnp.array([1.0, -1.0])
                drawn[name] = numpyro.sample("weights", dist.Normal(loc, 0.7).to_event(1))
            if name == "code":
                with numpyro.plate("data", x.shape[0]):
                    numpyro.sample("code", dist.Normal(0.2 * y, drawn.get("scale", 0.6)))

    return guide


def chain(x, y=None):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("b", dist.Normal(a, 1.0))
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


def backwards(x, y=None):
    """b's divergence from N(a, 1), at an a that hangs on b, would be off by a nat:
    E (b - a)^2 / 2 is 1/8, but with a and b drawn apart it is 9/8."""
    b = numpyro.sample("b", dist.Normal(0.5, 1.0))
    numpyro.sample("a", dist.Normal(b, 0.5))


def conjugate(x, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def conjugate_guide(x, y=None):
    numpyro.sample("mean", dist.Normal(0.6, 0.3))


def mismatched_batch(x, y=None):
    """The guide's normal is shared where the prior's is one for each of three."""
    w = numpyro.sample("w", dist.Normal(jnp.zeros(3), jnp.array([1.0, 2.0, 3.0])).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(w.sum(), 1.0), obs=y)


def mismatched_guide(x, y=None):
    numpyro.sample("w", dist.Normal(0.3, 0.5).expand([3]).to_event(1))


def masked(x, y=None):
    with numpyro.handlers.mask(mask=jnp.array([True, False])):
        w = numpyro.sample("w", dist.Normal(jnp.zeros(2), 1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(w.sum(), 1.0), obs=y)


def masked_guide(x, y=None):
    with numpyro.handlers.mask(mask=jnp.array([True, False])):
        numpyro.sample("w", dist.Normal(jnp.array([0.3, 0.4]), 0.5))


def with_deterministic_auxiliary(x, y=None):
    numpyro.sample("hidden", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
    conjugate_guide(x, y)


CASES = {
    "in the model's order": (hierarchical, guide_sites(["scale", "weights", "code"])),
    "in another order": (hierarchical, guide_sites(["code", "weights", "scale"])),
    "backwards": (chain, backwards),
    "conjugate": (conjugate, conjugate_guide),
    "another batch shape": (mismatched_batch, mismatched_guide),
    "masked": (masked, masked_guide),
    "an auxiliary site": (conjugate, with_deterministic_auxiliary),
}


FIRST = next(iter(CASES))


def estimates(loss, model, guide, params=None, keys=KEYS):
    one = jax.jit(jax.vmap(lambda key: -loss.loss(key, params or {}, model, guide, DATA.x, DATA.y)))
    return np.float64(one(jax.random.split(jax.random.key(0), keys)))


@pytest.mark.parametrize(("case", "scale"), [*((case, 1.0) for case in CASES), (FIRST, 2.5)])
def test_the_expectation_is_that_of_numpyros_estimator(case, scale):
    """Over 4,000 keys each, |z| < 4.5 for the difference: 8 tests, 1 false alarm in 10,000."""
    model, guide = CASES[case]
    structure = inspect_model(model, shapes_of(DATA))
    model, guide = (scale_rows(program, structure, scale) for program in (model, guide))
    ours = estimates(ppbdl.AnalyticELBO(), model, guide)
    theirs = estimates(Trace_ELBO(), model, guide)
    error = np.sqrt((ours.var() + theirs.var()) / KEYS)
    assert error < 0.3 * scale  # so that a wrong term of one nat is seen
    assert abs(ours.mean() - theirs.mean()) < 4.5 * error


def test_the_auto_guide_of_ours_has_the_expectation_of_numpyros_estimator():
    """|z| < 4.5: 7 false alarms in 10^6."""
    model = ppbdl.models.LinearRegression()
    structure = inspect_model(model, shapes_of(DATA))
    guide = ppbdl.AutoNormal().bind(model, structure)
    params = {"auto_loc": jnp.array([0.3, -0.2]), "auto_scale": jnp.array([0.5, 0.2])}
    ours = estimates(ppbdl.AnalyticELBO(), model, guide, params)
    theirs = estimates(Trace_ELBO(), model, guide, params)
    error = np.sqrt((ours.var() + theirs.var()) / KEYS)
    assert abs(ours.mean() - theirs.mean()) < 4.5 * error


def test_the_divergence_is_exact():
    """Draw by draw: log p(y | z) - KL(N(m, s^2) || N(0, 4)), with z the guide's draw."""
    m, s = 0.6, 0.3
    kl = np.log(2 / s) + (s**2 + m**2) / 8 - 0.5
    ours = estimates(ppbdl.AnalyticELBO(), conjugate, conjugate_guide, keys=20_000)
    y = np.float64(DATA.y)
    expected = -0.5 * (((y - m) ** 2).sum() + 6 * s**2) - 3 * np.log(2 * np.pi) - kl
    assert abs(ours.mean() - expected) < 4.5 * ours.std() / np.sqrt(20_000)


def prior_guide(x, y=None):
    numpyro.sample("mean", dist.Normal(0.0, 2.0))


def silent(x, y=None):
    """The likelihood does not see the latent."""
    numpyro.sample("mean", dist.Normal(0.0, 2.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


def test_without_a_likelihood_there_is_no_variance():
    """Where the divergence is all there is; near a posterior that the guide can match it is the
    sampled estimate that has none (Roeder et al. 2017)."""
    expected = dist.Normal().log_prob(DATA.y).sum()
    for guide, kl in ((prior_guide, 0.0), (conjugate_guide, None)):
        ours = estimates(ppbdl.AnalyticELBO(), silent, guide, keys=50)
        assert ours.std() < 1e-5
        if kl is not None:
            np.testing.assert_allclose(ours.mean(), expected - kl, rtol=1e-5)
    assert estimates(Trace_ELBO(), silent, conjugate_guide, keys=50).std() > 0.1


def test_particles_average():
    """Four particles: the same expectation (|z| < 4.5) and a quarter of the variance (the ratio
    of variances of 4,000 draws has a relative sd of about 0.03; 0.2 is 6 of them)."""
    one = estimates(ppbdl.AnalyticELBO(), conjugate, conjugate_guide)
    four = estimates(ppbdl.AnalyticELBO(num_particles=4), conjugate, conjugate_guide)
    assert abs(one.mean() - four.mean()) < 4.5 * np.sqrt((one.var() + four.var()) / KEYS)
    assert abs(4 * four.var() / one.var() - 1) < 0.2


def test_the_model_and_the_guide_draw_apart():
    """A latent that only the model draws does not repeat the guide's noise: their correlation
    over 4,000 keys is 0 to 4.5/sqrt(4000)."""

    def model(x, y=None):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        own = numpyro.sample("own", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Delta(z * own, log_density=z * own), obs=z * own)

    def guide(x, y=None):
        numpyro.sample("z", dist.Normal(0.0, 1.0))

    product = estimates(ppbdl.AnalyticELBO(), model, guide)
    # log p(own) - its mean is -1/2 - log(2 pi)/2, with variance 1/2, beside the product's own.
    expected = -0.5 - 0.5 * np.log(2 * np.pi)
    assert abs(product.mean() - expected) < 4.5 * product.std() / np.sqrt(KEYS)
