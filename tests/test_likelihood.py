"""Fisher information against its definition, summed or integrated over y."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import ppbdl
from ppbdl.fisher import fisher_root
from ppbdl.likelihood import likelihood_of

# Values of y with the weights of a sum, or of a trapezoidal rule that goes far into the tails.
GRID = np.linspace(-16, 16, 20_001)
REAL = np.sinh(GRID), np.cosh(GRID) * (GRID[1] - GRID[0])
POSITIVE = np.exp(2 * GRID), 2 * np.exp(2 * GRID) * (GRID[1] - GRID[0])
COUNTS = np.arange(3000), np.ones(3000)


def values_up_to(count):
    return COUNTS[0][:count], COUNTS[1][:count]


LOGITS = jnp.array([0.1, 0.5, 1.0])


def expected(likelihood, varying, values):
    """E[score score'], over all values with the weights of their step."""
    flat, rebuild = jax.flatten_util.ravel_pytree({n: likelihood.params[n] for n in varying})

    def log_prob(flat, y):
        params = likelihood.params | rebuild(flat)
        return likelihood.family(**params, validate_args=False).log_prob(y)

    y, steps = values
    scores = jax.vmap(jax.grad(log_prob), (None, 0))(flat, y)
    probability = steps * jnp.exp(jax.vmap(log_prob, (None, 0))(flat, y))
    inside = probability > 1e-30  # beyond, scores overflow
    scores = jnp.where(inside[:, None], scores, 0)
    return jnp.einsum("n,ni,nj", probability, scores, scores)


@pytest.mark.parametrize(
    ("fn", "varying", "values", "rtol"),
    [
        (dist.Normal(1.0, 2.0), ("loc", "scale"), REAL, 1e-6),
        (dist.StudentT(5.0, 1.0, 2.0), ("df", "loc", "scale"), REAL, 1e-6),
        (dist.Laplace(0.0, 2.0), ("loc", "scale"), REAL, 1e-3),
        (dist.Cauchy(0.5, 2.0), ("loc", "scale"), REAL, 1e-6),
        (dist.Logistic(0.0, 2.0), ("loc", "scale"), REAL, 1e-6),
        (dist.Gumbel(0.0, 2.0), ("loc", "scale"), REAL, 1e-6),
        (dist.Gamma(3.0, 2.0), ("concentration", "rate"), POSITIVE, 1e-6),
        (dist.Exponential(2.0), ("rate",), POSITIVE, 1e-6),
        (dist.Poisson(2.0), ("rate",), COUNTS, 1e-6),
        (dist.Binomial(10, logits=0.3), ("logits",), values_up_to(11), 1e-6),
        (dist.Binomial(10, probs=0.3), ("probs",), values_up_to(11), 1e-6),
        (dist.GammaPoisson(2.0, 0.05), ("concentration", "rate"), COUNTS, 1e-6),
        (dist.NegativeBinomial2(0.3, 2.0), ("concentration", "rate"), COUNTS, 1e-6),
        (dist.NegativeBinomial2(80.0, 40.0), ("concentration", "rate"), COUNTS, 1e-6),
        (dist.Bernoulli(probs=0.3), ("probs",), values_up_to(2), 1e-6),
        (dist.Categorical(logits=LOGITS), ("logits",), values_up_to(3), 1e-6),
        (dist.OrderedLogistic(0.3, LOGITS), ("cutpoints", "predictor"), values_up_to(4), 1e-6),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, dist.Distribution) else "",
)
def test_the_information_is_the_scores_covariance(fn, varying, values, rtol, x64):
    # Made again, in double precision.
    likelihood = likelihood_of("y", jax.tree.map(lambda a: jnp.asarray(a, float), fn))
    (root,) = fisher_root(likelihood, varying)
    truth = expected(likelihood, varying, values)
    np.testing.assert_allclose(root @ root.T, truth, rtol=rtol, atol=rtol * abs(truth).max())


def test_a_part_of_the_parameters_has_a_part_of_the_information():
    fn = dist.StudentT(5.0, 1.0, 2.0)
    whole, part = (
        fisher_root(likelihood_of("y", fn), names)[0]
        for names in (("df", "loc", "scale"), ("df", "scale"))
    )
    np.testing.assert_allclose((whole @ whole.T)[::2, ::2], part @ part.T, atol=1e-6)


NORMAL = dist.Normal(jnp.arange(6.0).reshape(3, 2), 2.0)


@pytest.mark.parametrize(
    ("fn", "weights"),
    [
        (NORMAL, [1, 1, 1, 1, 1, 1]),
        (NORMAL.to_event(1), [1, 1, 1, 1, 1, 1]),
        (NORMAL.to_event(1).mask(jnp.array([True, False, True])), [1, 1, 0, 0, 1, 1]),
        (dist.Normal(jnp.zeros(2), 2.0).to_event(1).expand([3]), [1, 1, 1, 1, 1, 1]),
        (dist.LogNormal(jnp.zeros((3, 2)), 2.0).to_event(1), [1, 1, 1, 1, 1, 1]),
        (dist.Normal(0.0, 2.0).expand([3, 2]), [1, 1, 1, 1, 1, 1]),
    ],
)
def test_cells_are_found_within_wrappers_and_put_back(fn, weights):
    likelihood = likelihood_of("y", fn, scale=9.0)
    assert likelihood.cells == (3, 2)
    np.testing.assert_allclose(fisher_root(likelihood, ("loc",))[:, 0, 0] ** 2 * 4 / 9, weights)
    again = likelihood.at({})
    assert (again.batch_shape, again.event_shape) == (fn.batch_shape, fn.event_shape)
    value = jnp.full((3, 2), 0.5)
    np.testing.assert_allclose(again.log_prob(value), fn.log_prob(value), rtol=1e-6)


@pytest.mark.parametrize(
    "fn",
    [
        dist.MixtureSameFamily(dist.Categorical(probs=jnp.ones(2) / 2), dist.Normal(LOGITS[:2], 1)),
        dist.Weibull(1.0, 2.0),
    ],
)
def test_an_unknown_likelihood_is_refused_by_name(fn):
    with pytest.raises(ppbdl.ModelError, match=r"'counts'.*Poisson"):
        fisher_root(likelihood_of("counts", fn), tuple(type(fn).arg_constraints))


def test_certain_classes_have_no_information_and_no_nan():
    for logits in ([0.0, 300.0, 0.0], [300.0, 0.0, 0.0], [0.0, 0.0, 300.0]):
        (root,) = fisher_root(
            likelihood_of("y", dist.Categorical(logits=jnp.array(logits))), ("logits",)
        )
        np.testing.assert_allclose(root, 0, atol=1e-18)
