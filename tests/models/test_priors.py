"""Priors of weights: densities in closed form, divergences by quadrature, and what they shrink."""

import functools
import itertools
import math

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions.kl import kl_divergence
from numpyro.handlers import scope, seed, substitute, trace
from numpyro.infer.reparam import LocScaleReparam
from scipy import integrate, special, stats

import ppbdl
from ppbdl.models import BNN, Horseshoe, LayerScale, Normal, ScaleInvariant, ScaleMixture

PI, WIDE, NARROW = 0.25, 1.5, math.exp(-6)
MIXTURE = ScaleMixture(PI, WIDE, NARROW)


def test_the_mixture_is_a_density():
    """On a grid that is fine enough for the spike and wide enough for the rest."""
    half = np.concatenate([[0.0], np.geomspace(1e-6, 15.0, 20_001)])
    mass = 2 * integrate.trapezoid(np.exp(np.float64(MIXTURE.log_prob(half))), half)
    assert mass == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 1e-4, 0.003, 0.02, 0.5, 10.0, 1e4, 1e15])
def test_the_mixtures_density_and_gradient(value):
    """In single precision, from the spike to where a normal density's exponent would overflow."""
    each = stats.norm.logpdf(value, scale=[WIDE, NARROW]) + np.log([PI, 1 - PI])
    log_prob, grad = jax.value_and_grad(MIXTURE.log_prob)(value)
    assert float(log_prob) == pytest.approx(special.logsumexp(each), rel=1e-4)
    expected = -value * special.softmax(each) @ [WIDE**-2.0, NARROW**-2.0]
    assert float(grad) == pytest.approx(expected, rel=1e-3)
    assert float(jax.grad(MIXTURE.log_prob)(-value)) == -float(grad)


def test_the_mixtures_draws():
    """Kolmogorov and Smirnov's test at a level of 1e-6; a component's share, |z| < 5."""
    draws = np.float64(MIXTURE.expand([100_000]).sample(jax.random.key(0)))

    def cdf(w):
        return PI * stats.norm.cdf(w, scale=WIDE) + (1 - PI) * stats.norm.cdf(w, scale=NARROW)

    assert stats.kstest(draws, cdf).pvalue > 1e-6
    share = (abs(draws) > 5 * NARROW).mean()
    expected = 2 * cdf(-5 * NARROW)
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 100_000)
    assert float(MIXTURE.variance) == pytest.approx(PI * WIDE**2 + (1 - PI) * NARROW**2)
    assert float(MIXTURE.mean) == 0


def test_the_mixtures_parameters_broadcast():
    prior = ScaleMixture(jnp.array([0.2, 0.8]), wide=jnp.ones((3, 1)))
    assert prior.batch_shape == (3, 2)
    assert prior.sample(jax.random.key(0), (4,)).shape == (4, 3, 2)
    assert prior.variance.shape == prior.mean.shape == (3, 2)
    scalar = ScaleMixture(0.8, wide=1.0).log_prob(0.3)
    np.testing.assert_allclose(prior.log_prob(0.3)[:, 1], scalar, rtol=1e-6)


@pytest.mark.parametrize("wrong", [{"pi": 1.5}, {"wide": -1.0}, {"narrow": 0.0}])
def test_the_mixtures_parameters_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ScaleMixture(**wrong, validate_args=True)


def exact_divergence(mean, sd):
    """KL(N(mean, sd^2) || 1 / |w|) = -entropy + E log|w|, by quadrature on each side of 0."""
    t = abs(mean) / sd

    def integrand(noise):
        return stats.norm.pdf(noise) * np.log(abs(t + noise))

    limits = sorted({-12.0, max(-t, -12.0), 12.0})
    log_size = sum(
        integrate.quad(integrand, *piece, limit=400)[0] for piece in itertools.pairwise(limits)
    )
    return -0.5 * np.log(2 * np.pi * np.e) + log_size


@functools.cache
def exact_by_ratio():
    """Means over sd, from where alpha is 10^10 to where it is 10^-6, with the divergences."""
    ratios = np.concatenate([[0.0], np.geomspace(1e-5, 1e3, 161)])
    return ratios, np.array([exact_divergence(ratio, 1.0) for ratio in ratios])


@pytest.mark.parametrize("sd", [1e-4, 1.0, 30.0])
def test_the_divergence_from_the_scale_invariant_prior(sd):
    """Its greatest error over all alpha is 0.0094 nats, at alpha = 0.03."""
    ratios, exact = exact_by_ratio()
    means = ratios * sd * np.where(np.arange(len(ratios)) % 2, 1, -1)
    ours = kl_divergence(dist.Normal(means, sd), ScaleInvariant())
    assert ours.shape == ratios.shape
    assert abs(ours - exact).max() < 0.0095
    assert abs(ours[0] - exact[0]) < 1e-5


def test_the_gradient_of_that_divergence():
    """d/dt of E log|t + noise| is sqrt(2) times Dawson's function of t / sqrt(2)."""
    ratios, _ = exact_by_ratio()
    grad = jax.vmap(jax.grad(lambda t: kl_divergence(dist.Normal(t, 1.0), ScaleInvariant())))
    exact = np.sqrt(2) * special.dawsn(ratios / np.sqrt(2))
    assert abs(grad(jnp.asarray(ratios)) - exact).max() < 0.0125  # where it is at most 0.77
    assert grad(jnp.zeros(1)) == 0
    in_sd = jax.grad(lambda sd: kl_divergence(dist.Normal(0.0, sd), ScaleInvariant()))
    assert abs(in_sd(0.1)) < 1e-6  # of weights about 0 every spread is as good


def test_it_is_the_divergence_from_that_density():
    """Sampled with 100,000 draws: within 5 errors, and what the closed form is off by."""
    q, prior = dist.Normal(-0.4, 0.3), ScaleInvariant()
    draws = q.sample(jax.random.key(0), (100_000,))
    sampled = np.float64(q.log_prob(draws) - prior.log_prob(draws))
    error = sampled.std() / np.sqrt(len(sampled))
    assert abs(sampled.mean() - kl_divergence(q, prior)) < 5 * error + 0.0095
    assert error < 0.005


def test_the_scale_invariant_prior_has_no_draws():
    with pytest.raises(NotImplementedError, match=r"improper and cannot be sampled.*ScaleMixture"):
        ScaleInvariant().expand([3]).to_event(1).sample(jax.random.key(0))


def two_layers(x):
    return hk.nets.MLP([3, 1], activation=jax.nn.tanh)(x)


def test_the_bound_finds_the_divergence():
    """Where the likelihood does not see the weights, no key changes the bound: nothing is
    sampled, though the weights' prior is expanded and made an event."""

    def blind(x, y=None):
        ppbdl.random_haiku_module("net", two_layers, ScaleInvariant(), x)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    x, y = jnp.ones((4, 2)), jnp.arange(4.0)
    means = jnp.linspace(-1.0, 1.0, 13)

    def guide(x, y=None):
        at = iter(np.split(np.asarray(means), [3, 9, 10]))
        for name, shape in (("0.b", (3,)), ("0.w", (2, 3)), ("1.b", (1,)), ("1.w", (3, 1))):
            q = dist.Normal(next(at).reshape(shape), 0.2).to_event(len(shape))
            numpyro.sample(f"net.linear_{name}", q)

    loss = [
        ppbdl.AnalyticELBO().loss(jax.random.key(key), {}, blind, guide, x, y) for key in range(3)
    ]
    kl = kl_divergence(dist.Normal(means, 0.2), ScaleInvariant()).sum()
    expected = kl - dist.Normal().log_prob(y).sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def priors_of(prior, shape, **values):
    """The distributions of one array of weights and its scales, with some values put in place."""

    def program():
        numpyro.sample("weights", prior("array", shape))

    sites = trace(substitute(seed(program, 0), data=values)).get_trace()
    return {name: site["fn"] for name, site in sites.items()}


@pytest.mark.parametrize(("shape", "fan_in"), [((4, 3), 4), ((5, 5, 2, 3), 50)])
def test_a_layers_scale(shape, fan_in):
    sites = priors_of(LayerScale(dist.Gamma(2.0, 3.0)), shape, **{"array.scale": 2.0})
    assert isinstance(sites["array.scale"], dist.Gamma)
    assert sites["array.scale"].shape() == ()
    assert sites["weights"].scale == pytest.approx(2 / np.sqrt(fan_in))


@pytest.mark.parametrize("shape", [(4, 3), (5, 5, 4, 3)])
def test_the_horseshoe_has_a_scale_for_each_input(shape):
    each = jnp.arange(1.0, 5.0)
    sites = priors_of(Horseshoe(0.3), shape, **{"array.tau": 0.5, "array.lambda": each})
    assert sites["array.tau"].scale == 0.3
    assert sites["weights"].shape() == shape
    for i in range(4):
        np.testing.assert_allclose(sites["weights"].scale[..., i, :], 0.5 * (i + 1))
    log_prob = sites["array.lambda"].log_prob(each)
    assert float(log_prob) == pytest.approx(stats.halfcauchy.logpdf(each).sum(), rel=1e-5)


@pytest.mark.parametrize("prior", [LayerScale(), Horseshoe(0.1)])
def test_vectors_have_no_scale_of_their_own(prior):
    sites = priors_of(prior, (7,))
    assert list(sites) == ["weights"]
    assert sites["weights"].scale == 1


def test_scales_lie_within_the_networks_name():
    with scope(prefix="net", divider="."):
        assert set(trace(seed(LayerScale(), 0)).get_trace("w", (2, 2))) == {"net.w.scale"}


def test_a_horseshoes_scale_is_positive():
    with pytest.raises(ppbdl.InputError, match="scale: expected a positive number, got -1"):
        Horseshoe(-1.0)


def test_priors_are_values():
    scales = dist.HalfNormal(2.0)
    assert Horseshoe(0.1) == Horseshoe(0.1) != Horseshoe(0.2)
    assert hash(LayerScale(scales)) == hash(LayerScale(scales))


PRIORS = {
    "mixture": (ScaleMixture(), ()),
    "scale-invariant": (ScaleInvariant(), ()),
    "layer": (LayerScale(), ("w.scale",)),
    "horseshoe": (Horseshoe(0.1), ("w.tau", "w.lambda")),
}
GRID = np.linspace(-1, 1, 20)
SMALL = ppbdl.Data(np.stack([GRID, GRID**2], axis=1), np.sin(2 * GRID))


@pytest.mark.parametrize("name", PRIORS)
def test_any_of_them_fits_a_network(name):
    """And the same model once more, from another key, compiles nothing."""
    prior, scales = PRIORS[name]
    model = BNN(two_layers, prior, Normal(noise=0.1))
    svi = ppbdl.SVI(steps=300, draws=20)
    posterior = ppbdl.fit(0, model, SMALL, svi, progress=False)
    weights = {f"net.linear_{i}.{leaf}" for i in (0, 1) for leaf in ("w", "b")}
    own = {f"net.linear_{i}.{leaf}" for i in (0, 1) for leaf in scales}
    assert set(posterior.draws) == weights | own
    assert posterior.losses[0, -50:].mean() < posterior.losses[0, :50].mean()
    assert np.isfinite(ppbdl.predict(0, model, posterior, SMALL.x).sd).all()
    assert np.isfinite(posterior.stats["log_prior"]).all()
    again = ppbdl.fit(1, model, SMALL, svi, progress=False)
    assert again.provenance.seconds_compiling == 0


INPUTS, RELEVANT, NOISE = 20, 3, 0.5
RNG = np.random.default_rng(0)
COLUMNS = RNG.normal(size=(60, INPUTS))
COEFFICIENTS = np.array([2.0, -1.5, 1.0, *[0.0] * (INPUTS - RELEVANT)])
SPARSE = ppbdl.Data(COLUMNS, COLUMNS @ COEFFICIENTS + NOISE * RNG.normal(size=60))
FADING = optax.adam(optax.cosine_decay_schedule(0.05, 2000))
SVI = ppbdl.SVI(optimizer=FADING, steps=2000, draws=500)
NUTS = ppbdl.NUTS(draws=500, warmup=500, chains=2)


def linear(x):
    return hk.Linear(1)(x)


@functools.cache
def draws_of(prior, method, centred=True):
    model = BNN(linear, prior, Normal(noise=NOISE))
    if not centred:
        model = numpyro.handlers.reparam(model, config={"net.linear.w": LocScaleReparam(0)})
    posterior = ppbdl.fit(0, model, SPARSE, method, progress=False)
    weights = np.float64(posterior.draws["net.linear.w"]).reshape(-1, INPUTS)
    return weights, int(np.sum(posterior.stats.get("diverging", 0)))


STANDARD = dist.Normal(0.0, 1.0)
SHRINKING = {
    "horseshoe, SVI": (Horseshoe(0.1), SVI, True),
    "horseshoe, NUTS": (Horseshoe(0.1), NUTS, True),
    "horseshoe, NUTS, not centred": (
        Horseshoe(0.1),
        ppbdl.NUTS(draws=500, warmup=500, chains=2, target_accept=0.95),
        False,
    ),
    "scale-invariant, SVI": (ScaleInvariant(), SVI, True),
}


@pytest.mark.parametrize("case", SHRINKING)
def test_irrelevant_inputs_are_shrunk_and_the_others_kept(case):
    """Their root mean square is 0.53 to 0.65 of that under a normal prior; below 0.8 is ten
    Monte Carlo errors of 17 weights at an effective sample of 100 away."""
    prior, method, centred = SHRINKING[case]
    weights, _ = draws_of(prior, method, centred)
    normal, _ = draws_of(STANDARD, method)
    rms, under_normal = (np.sqrt((w[:, RELEVANT:] ** 2).mean()) for w in (weights, normal))
    assert rms < 0.8 * under_normal
    np.testing.assert_allclose(
        weights[:, :RELEVANT].mean(0), normal[:, :RELEVANT].mean(0), atol=0.15
    )


def test_without_centring_nuts_meets_fewer_funnels():
    (_, centred), (_, other) = (
        draws_of(*SHRINKING[case]) for case in ("horseshoe, NUTS", "horseshoe, NUTS, not centred")
    )
    assert other < 0.05 * 1000
    assert other < centred


def test_a_layers_scale_is_that_of_its_weights():
    """w_i ~ N(0, scale^2 / 20) for 20 weights, so that the scale is about the length of w.  The
    posterior's relative sd is 1/sqrt(40); of its median, at an effective sample of 100, 0.02."""
    model = BNN(linear, LayerScale(dist.HalfNormal(5.0)), Normal(noise=NOISE))
    posterior = ppbdl.fit(0, model, SPARSE, NUTS, progress=False)
    weights, scale = (np.asarray(posterior.draws[f"net.linear.w{leaf}"]) for leaf in ("", ".scale"))
    length = np.median(np.linalg.norm(weights, axis=(-2, -1)))
    assert abs(np.median(scale) / length - 1) < 0.15
    assert np.sum(posterior.stats["diverging"]) < 10


def test_the_mixture_keeps_weights_in_two_groups():
    """Under NUTS: the irrelevant inputs in the spike most of the time, the others never."""
    weights, _ = draws_of(ScaleMixture(), NUTS)
    inside = (abs(weights) < 4 * math.exp(-6)).mean(0)
    assert (inside[:RELEVANT] == 0).all()
    assert inside[RELEVANT:].mean() > 0.5
