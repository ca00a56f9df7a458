"""Labels that are summed out: all of them at once, each with its weight.

A label is the weights w of all classes: one 1, or q(c | y).  Every log density here is linear in w,
sum_c w_c log p_c, so that its value at q(c | y) is its expectation, and a gradient goes through.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro import distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.kl import kl_divergence

from ppbdl.types import Array, Key


class Label(dist.Distribution):
    """A label, log p(w) = sum_c w_c log p_c: drawn, it is one 1; summed out, its probabilities."""

    support: Any = constraints.simplex

    def __init__(self, probs: Array, summed_out: bool = False):
        self.probs, self.summed_out = probs, summed_out
        super().__init__(probs.shape[:-1], probs.shape[-1:], validate_args=False)

    def log_prob(self, value: Array) -> Array:
        least = jnp.finfo(self.probs.dtype).tiny  # w log w is 0 at 0, and so is its gradient
        return (value * jnp.log(jnp.maximum(self.probs, least))).sum(-1)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Array:
        if self.summed_out:
            return jnp.broadcast_to(self.probs, self.shape(sample_shape))
        drawn = jax.random.categorical(
            key, jnp.log(self.probs), shape=self.shape(sample_shape)[:-1]
        )
        return jax.nn.one_hot(drawn, self.probs.shape[-1])


class EachLabel(dist.Distribution):
    """A value for each label, of `fn` of all pairs of a row and a label, weighed by w.

        log p(v) = sum_c w_c log p(v_c | c)

    Where w is one label it is the density of that label's value; what the others' are is nothing
    to the model, which has p(v_c | c) in the guide too: their divergence is 0.
    """

    shared = False

    def __init__(self, fn: Any, weights: Array):
        self.fn, self.weights = fn, weights
        shape = fn.event_shape if self.shared else (*weights.shape[1:], *fn.event_shape)
        super().__init__(weights.shape[:1], shape, validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.independent(self.fn.support, 1)

    def log_prob(self, value: Array) -> Array:
        return self.weigh(self.fn.log_prob(value.reshape(-1, *self.fn.event_shape)))

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Array:
        drawn = self.fn.sample(key, sample_shape)
        return drawn.reshape(*sample_shape, *self.weights.shape, *self.fn.event_shape)

    def weigh(self, each: Array) -> Array:
        """Average numbers of the pairs over the labels, (rows,)."""
        # A label of no weight does not count, be its density 0.
        each = jnp.where(self.weights > 0, each.reshape(self.weights.shape), 0.0)
        return (self.weights * each).sum(-1)


class ItsLabel(EachLabel):
    """One value, of whichever label it is."""

    shared = True

    @property
    def support(self) -> Any:
        return self.fn.support

    def log_prob(self, value: Array) -> Array:
        return self.weigh(self.fn.log_prob(jnp.repeat(value, self.weights.shape[1], axis=0)))

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Array:
        keys, inner = jax.random.split(key), len(self.fn.event_shape)
        label = Label(self.weights).sample(keys[0], sample_shape)
        each = super().sample(keys[1], sample_shape)
        picked = label.reshape(*label.shape, *[1] * inner).astype(each.dtype)
        return (picked * each).sum(-1 - inner)


@kl_divergence.register(EachLabel, EachLabel)
def _kl_each_label(q: EachLabel, p: EachLabel) -> Array:
    return q.weigh(kl_divergence(q.fn, p.fn))
