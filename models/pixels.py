"""Likelihoods of pixels: of grey values between 0 and 1, and of levels 0, 1, ..."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import distributions as dist
from numpyro.distributions import constraints

from ppbdl.errors import require_whole
from ppbdl.types import Array

from .likelihoods import Likelihood


@dataclass(frozen=True)
class ContinuousBernoulli(Likelihood):
    """y in [0, 1] with density C(p) p^y (1 - p)^(1 - y), p = logit^-1(f); one output.

    Loaiza-Ganem and Cunningham (2019), *The continuous Bernoulli*: `Bernoulli` is no density of
    grey values, and scores of it are none.
    """

    def distribution(self, outputs: Array) -> Any:
        return _ContinuousBernoulli(outputs[..., 0])


@dataclass(frozen=True)
class DiscretizedLogistic(Likelihood):
    """y in 0 ... levels - 1: the mass of a logistic distribution in y's cell; two outputs.

    The outermost cells take what lies beyond (Salimans et al. 2017, *PixelCNN++*, equation 2).
    The first output is the location, 0 in the middle and -1 and 1 at the ends; the second is the
    log of the scale, relative to a quarter of the range.

    Parameters
    ----------
    levels
        Number of values of an entry.
    """

    levels: int = 256
    outputs = 2

    def __post_init__(self) -> None:
        require_whole(levels=self.levels)

    def distribution(self, outputs: Array) -> Any:
        log_scale = jnp.clip(outputs[..., 1] - jnp.log(4.0), -7.0, 7.0)
        return _DiscretizedLogistic(outputs[..., 0], log_scale, self.levels)


class _ContinuousBernoulli(dist.Distribution):
    """With logit f: density exp(f y) f / (exp(f) - 1) on [0, 1], uniform at f = 0."""

    support: Any = constraints.unit_interval
    pytree_data_fields = ("logits",)

    def __init__(self, logits: Array):
        self.logits = logits
        super().__init__(batch_shape=jnp.shape(logits))

    def log_prob(self, value: Array) -> Array:
        # f / (exp(f) - 1) = exp(-f / 2) (f / 2) / sinh(f / 2), and exp(f y - f / 2) never overflows
        # where |f| / 2 is taken out of log sinh.
        f, apart = self._apart()
        half = jnp.abs(f) / 2
        log_sinh_ratio = half + jnp.log(-jnp.expm1(-2 * half) / (2 * half))
        series = self.logits**2 / 24 - self.logits**4 / 2880
        return self.logits * (value - 0.5) - jnp.where(apart, log_sinh_ratio, series)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        u = jax.random.uniform(key, (*sample_shape, *self.batch_shape))
        # The inverse of (exp(f y) - 1) / (exp(f) - 1), for f < 0; for f > 0 mirrored.
        size = -jnp.maximum(jnp.abs(self.logits), 1e-6)
        y = jnp.log1p(u * jnp.expm1(size)) / size
        return jnp.clip(jnp.where(self.logits < 0, y, 1 - y), 0.0, 1.0)

    @property
    def mean(self) -> Array:
        f, apart = self._apart()
        return jnp.where(apart, 0.5 + 0.5 / jnp.tanh(f / 2) - 1 / f, 0.5 + self.logits / 12)

    @property
    def variance(self) -> Array:
        f, apart = self._apart()
        exact = 1 / f**2 - 0.25 / jnp.sinh(jnp.clip(f / 2, -40, 40)) ** 2
        return jnp.where(apart, exact, 1 / 12 - self.logits**2 / 240)

    def _apart(self) -> tuple[Array, Array]:
        """The logit, kept from 0, and where it is."""
        apart = jnp.abs(self.logits) > 0.1
        return jnp.where(apart, self.logits, 1.0), apart


class _DiscretizedLogistic(dist.Distribution):
    pytree_data_fields = ("loc", "log_scale")
    pytree_aux_fields = ("levels",)

    def __init__(self, loc: Array, log_scale: Array, levels: int):
        self.loc, self.log_scale, self.levels = loc, log_scale, levels
        super().__init__(batch_shape=jnp.shape(loc))

    @property
    def support(self) -> Any:
        return constraints.integer_interval(0, self.levels - 1)

    def log_prob(self, value: Array) -> Array:
        low, high = self._ends(value)
        # log (sigmoid(high) - sigmoid(low)), of numbers that do not cancel.
        inner = jnp.where(high > low, high - low, 1.0)
        between = jax.nn.log_sigmoid(high) + jax.nn.log_sigmoid(-low) + jnp.log(-jnp.expm1(-inner))
        first, last = value <= 0, value >= self.levels - 1
        ends = jnp.where(first, jax.nn.log_sigmoid(high), jax.nn.log_sigmoid(-low))
        return jnp.where(first | last, ends, between)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        noise = jax.random.logistic(key, (*sample_shape, *self.batch_shape))
        at = (self.loc + jnp.exp(self.log_scale) * noise + 1) / 2 * (self.levels - 1)
        return jnp.clip(jnp.round(at), 0, self.levels - 1).astype(int)

    @property
    def mean(self) -> Array:
        values, probs = self._table()
        return (values * probs).sum(-1)

    @property
    def variance(self) -> Array:
        values, probs = self._table()
        return ((values - self.mean[..., None]) ** 2 * probs).sum(-1)

    def _table(self) -> tuple[Array, Array]:
        values = jnp.arange(self.levels, dtype=self.loc.dtype)
        each = _DiscretizedLogistic(self.loc[..., None], self.log_scale[..., None], self.levels)
        return values, jnp.exp(each.log_prob(values))

    def _ends(self, value: Array) -> tuple[Array, Array]:
        unit = 2 / (self.levels - 1)
        at = unit * jnp.asarray(value, self.loc.dtype) - 1 - self.loc
        narrow = jnp.exp(-self.log_scale)
        return (at - unit / 2) * narrow, (at + unit / 2) * narrow
