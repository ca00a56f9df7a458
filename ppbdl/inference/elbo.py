"""The evidence lower bound, E_q[log p(y, z)] - E_q[log q(z)], summed in trace order.

Where a latent's posterior and prior have a closed-form Kullback-Leibler divergence, it takes the
place of its sampled estimate (Kingma and Welling 2014, equation 3: the second estimator).  That
is unbiased when the guide draws its sites in the model's order, so that whatever a site depends
on is drawn before it; where the orders differ every term is sampled.

NumPyro's `Trace_ELBO` sums over a set of site names, so that its compiled program differs from
process to process and the persistent compilation cache misses; the trace's order does not.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.kl import kl_divergence
from numpyro.distributions.util import scale_and_mask
from numpyro.handlers import replay, seed, substitute, trace
from numpyro.infer import elbo

from ..types import Array, Guide, Key, Model


class AnalyticELBO(elbo.ELBO):
    """NumPyro's objective interface, with closed-form divergences where there are any.

    Parameters
    ----------
    num_particles
        Draws from the guide that the estimate averages.
    """

    def __init__(self, num_particles: int = 1):
        super().__init__(num_particles=num_particles)

    def loss_with_mutable_state(
        self,
        rng_key: Key,
        param_map: dict[str, Any],
        model: Model,
        guide: Guide,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Estimate minus the bound, and the state that the model and the guide leave behind."""

        def particle(key: Key) -> tuple[Array, dict[str, Any]]:
            model_key, guide_key = jax.random.split(key)
            q = trace(seed(substitute(guide, data=param_map), guide_key)).get_trace(*args, **kwargs)
            p = trace(seed(replay(substitute(model, data=param_map), q), model_key)).get_trace(
                *args, **kwargs
            )
            mutables = {
                name: site["value"] for name, site in (q | p).items() if site["type"] == "mutable"
            }
            return -_bound(p, q), mutables

        if self.num_particles == 1:
            loss, mutables = particle(rng_key)
        else:
            losses, states = jax.vmap(particle)(jax.random.split(rng_key, self.num_particles))
            # The last particle's running statistics are as good as any.
            loss, mutables = jnp.mean(losses), jax.tree.map(lambda state: state[-1], states)
        return {"loss": loss, "mutable_state": mutables or None}


def _bound(p: dict[str, Any], q: dict[str, Any]) -> Array:
    shared = [name for name, site in p.items() if site["type"] == "sample" and name in q]
    in_order = shared == [name for name in q if name in p and q[name]["type"] == "sample"]
    bound = jnp.zeros(())
    for name, site in p.items():
        if site["type"] != "sample":
            continue
        divergence = _divergence(q[name], site) if in_order and name in q else None
        if divergence is not None:
            bound -= divergence
        else:
            bound += log_density(site)
            if name in q:
                bound -= log_density(q[name])
    for name, site in q.items():
        if site["type"] == "sample" and not site["is_observed"] and name not in p:
            bound -= log_density(site)
    return bound


def log_density(site: dict[str, Any]) -> Array:
    """Sum a traced site's log density, scaled and masked, at its value."""
    value, intermediates = site["value"], site["intermediates"]
    log_prob = site["fn"].log_prob(value, *((intermediates,) if intermediates else ()))
    return jnp.sum(scale_and_mask(log_prob, site["scale"]))


def _divergence(q: dict[str, Any], p: dict[str, Any]) -> Array | None:
    fn_q, fn_p = _elementwise(q["fn"]), _elementwise(p["fn"])
    if isinstance(fn_q, dist.Delta):
        return None
    try:
        kl = kl_divergence(fn_q, fn_p)
    except NotImplementedError:
        return None
    shape = jnp.broadcast_shapes(fn_q.batch_shape, fn_p.batch_shape)
    return jnp.sum(scale_and_mask(jnp.broadcast_to(kl, shape), p["scale"]))


def _elementwise(fn: dist.Distribution) -> dist.Distribution:
    while isinstance(fn, dist.Independent):
        fn = fn.base_dist
    return fn
