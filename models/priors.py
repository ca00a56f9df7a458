"""Priors of a network's weights, beside NumPyro's distributions and `fan_in_normal`.

`ScaleMixture` and `ScaleInvariant` are distributions of one weight.  `LayerScale` and `Horseshoe`
are callables ``(name, shape) -> distribution``, which sample scales of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.kl import kl_divergence
from numpyro.distributions.util import promote_shapes

from ppbdl.errors import require_positive
from ppbdl.types import Array


class ScaleMixture(dist.Distribution):
    """w ~ pi N(0, wide^2) + (1 - pi) N(0, narrow^2): most weights small, some free.

    Blundell et al. (2015), *Weight Uncertainty in Neural Networks*, equation (7).  It has no
    closed-form divergence from a normal: its term of the bound is sampled.  NumPyro's
    ``MixtureSameFamily`` of two normals has the same density at eight times the cost.

    Parameters
    ----------
    pi
        Probability of the wide component.
    wide, narrow
        The components' standard deviations.

    Examples
    --------
    >>> prior = ScaleMixture(0.25, wide=1.0, narrow=0.01)
    >>> round(float(prior.log_prob(0.0)), 3)
    3.402
    """

    arg_constraints = {  # noqa: RUF012  as NumPyro declares it
        "pi": constraints.unit_interval,
        "wide": constraints.positive,
        "narrow": constraints.positive,
    }
    support: Any = constraints.real
    pytree_data_fields = ("pi", "wide", "narrow")

    def __init__(
        self,
        pi: Any = 0.5,
        wide: Any = 1.0,
        narrow: Any = math.exp(-6),  # noqa: B008  a number
        *,
        validate_args: bool | None = None,
    ):
        promoted: Any = promote_shapes(pi, wide, narrow)
        self.pi, self.wide, self.narrow = promoted
        shape = jnp.broadcast_shapes(jnp.shape(pi), jnp.shape(wide), jnp.shape(narrow))
        super().__init__(batch_shape=shape, validate_args=validate_args)

    def log_prob(self, value: Any) -> Array:
        """Give the log density, safe from overflow however far out the value lies."""
        wide = jnp.log(self.pi) + dist.Normal(0.0, self.wide).log_prob(value)
        narrow = jnp.log1p(-self.pi) + dist.Normal(0.0, self.narrow).log_prob(value)
        return jnp.logaddexp(wide, narrow)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw a component for each weight, and the weight from it."""
        which, noise = jax.random.split(key)
        shape = sample_shape + self.batch_shape
        wide = jax.random.bernoulli(which, self.pi, shape)
        return jnp.where(wide, self.wide, self.narrow) * jax.random.normal(noise, shape)

    @property
    def mean(self) -> Array:
        """Zero."""
        return jnp.zeros(self.batch_shape)

    @property
    def variance(self) -> Array:
        """The components' variances, averaged."""
        variance = self.pi * self.wide**2 + (1 - self.pi) * self.narrow**2
        return jnp.broadcast_to(variance, self.batch_shape)


class ScaleInvariant(dist.Distribution):
    """p(w) proportional to 1 / |w|: every order of magnitude is as probable; improper.

    The prior under which Gaussian variational dropout is variational inference (Kingma et al.
    2015, section 3.2).  The divergence of a normal from it depends on alpha = sd^2 / mean^2
    alone, and prunes weights, alpha to infinity (Molchanov et al. 2017, *Variational Dropout
    Sparsifies Deep Neural Networks*).

    It can be neither sampled nor normalised, and the density is infinite at 0, so that there is
    no posterior in the strict sense (Hron et al. 2018): it is an objective for ``SVI(AutoNormal)``
    with the default loss, which needs only the divergence, and not for NUTS or MAP.

    Examples
    --------
    >>> round(float(ScaleInvariant().log_prob(0.5) - ScaleInvariant().log_prob(1.0)), 4)
    0.6931
    """

    arg_constraints = {}  # noqa: RUF012  as NumPyro declares it
    support: Any = constraints.real

    def log_prob(self, value: Any) -> Array:
        """Give -log |w|, the log density up to a constant that does not exist."""
        return -jnp.log(jnp.abs(value))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        """Raise: an improper distribution has no draws."""
        raise NotImplementedError(
            "ScaleInvariant is improper and cannot be sampled: there are no draws from a model "
            "with this prior before it is fitted. For those, choose a proper prior such as "
            "ScaleMixture()."
        )


@kl_divergence.register(dist.Normal, ScaleInvariant)
def _kl_normal_scale_invariant(q: dist.Normal, p: ScaleInvariant) -> Array:
    """Approximate KL(N(mean, sd^2) || 1 / |w|) to within 0.01 nats at any alpha.

    Molchanov et al. (2017), equation (14).  Its constant is exact where the mean is 0: there
    E log |w| = log sd - (gamma + log 2) / 2, gamma being Euler's.
    """
    loc, scale = jnp.asarray(q.loc), jnp.asarray(q.scale)
    # The floor keeps the gradient at a mean of 0 finite, and 0 as it should be.
    least = jnp.finfo(loc.dtype).tiny
    log_alpha = 2 * (jnp.log(scale) - jnp.log(jnp.maximum(jnp.abs(loc), least)))
    gain = 0.63576 * jax.nn.sigmoid(-(1.87320 + 1.48695 * log_alpha))
    return gain + 0.5 * jax.nn.softplus(-log_alpha) + _KL_AT_ZERO


_KL_AT_ZERO = -0.5 * (math.log(2 * math.pi * math.e) + 0.5772156649015329 + math.log(2))


@dataclass(frozen=True)
class LayerScale:
    """w ~ N(0, scale^2 / fan_in), with one scale for each array of weights, learned.

    The data choose how large a layer's weights are (Neal 1996, *Bayesian Learning for Neural
    Networks*).  The scale of the array ``linear_0.w`` is the site ``linear_0.w.scale``, with the
    network's name in front.  A vector, such as a bias, has the prior N(0, 1): a single number
    says little of its scale, and the two make a funnel.

    Parameters
    ----------
    scale_prior
        Distribution of each scale, on the positive numbers.

    Examples
    --------
    >>> import haiku as hk, numpy as np, ppbdl, ppbdl.models
    >>> model = ppbdl.models.BNN(lambda x: hk.nets.MLP([5, 1])(x), prior=LayerScale())
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> svi = ppbdl.SVI(steps=20, draws=4)
    >>> posterior = ppbdl.fit(0, model, ppbdl.Data(x, x[:, 0] ** 2), svi, progress=False)
    >>> posterior.draws["net.linear_0.w.scale"].shape
    (1, 4)
    """

    scale_prior: dist.Distribution = dist.HalfNormal(1.0)

    def __call__(self, name: str, shape: tuple[int, ...]) -> dist.Distribution:
        """Give the prior of one array, given its scale."""
        if len(shape) < 2:
            return dist.Normal(0.0, 1.0)
        scale: Any = numpyro.sample(f"{name}.scale", self.scale_prior)
        return dist.Normal(0.0, scale / math.sqrt(math.prod(shape[:-1])))


@dataclass(frozen=True)
class Horseshoe:
    """w_ij ~ N(0, (tau lambda_i)^2): input units that say nothing are shrunk away with their rows.

        lambda_i ~ HalfCauchy(1) for each input unit i,    tau ~ HalfCauchy(scale) for the layer

    Carvalho et al. (2009); for the units of a network Louizos et al. (2017) and Ghosh et al.
    (2018).  The input units are the last axis but one, as in Haiku's weights and kernels.  Of the
    array ``linear_0.w`` the sites are ``linear_0.w.tau`` () and ``linear_0.w.lambda`` (inputs,),
    with the network's name in front.  A vector, such as a bias, has no inputs to be rid of: its
    prior is N(0, 1).

    The weights are centred, so that they are sites of their own.  For `AutoNormal` that is the
    better form too: a product of factors for tau, lambda and z = w / (tau lambda) has no way to
    say that the data know only tau lambda z.  NUTS meets a funnel at each irrelevant input and
    reports divergences; ``numpyro.handlers.reparam(model, config={"net.linear_0.w":
    LocScaleReparam(0)})``, fitted at ``target_accept=0.95``, has few.

    Parameters
    ----------
    scale
        Scale of tau: the fewer inputs matter, the smaller.  For k of p inputs of a regression on
        n rows, Piironen and Vehtari (2017) propose k / (p - k) * noise / sqrt(n).

    Examples
    --------
    >>> import haiku as hk, numpy as np, ppbdl, ppbdl.models
    >>> model = ppbdl.models.BNN(lambda x: hk.nets.MLP([5, 1])(x), prior=Horseshoe(0.1))
    >>> x = np.stack([np.linspace(-1, 1, 20), np.ones(20)], axis=1)
    >>> svi = ppbdl.SVI(steps=20, draws=4)
    >>> posterior = ppbdl.fit(0, model, ppbdl.Data(x, x[:, 0] ** 2), svi, progress=False)
    >>> posterior.draws["net.linear_0.w.lambda"].shape
    (1, 4, 2)
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        require_positive(scale=self.scale)

    def __call__(self, name: str, shape: tuple[int, ...]) -> dist.Distribution:
        """Give the prior of one array, given its scales."""
        if len(shape) < 2:
            return dist.Normal(0.0, 1.0)
        tau: Any = numpyro.sample(f"{name}.tau", dist.HalfCauchy(self.scale))
        units = dist.HalfCauchy(1.0).expand([shape[-2]]).to_event(1)
        each: Any = numpyro.sample(f"{name}.lambda", units)
        return dist.Normal(0.0, jnp.broadcast_to(tau * each[:, None], shape))
