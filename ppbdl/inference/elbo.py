"""The evidence lower bound, E_q[log p(y, z)] - E_q[log q(z)], summed in trace order.

Where a latent's posterior and prior have a closed-form Kullback-Leibler divergence, it takes the
place of its sampled estimate (Kingma and Welling 2014, equation 3: the second estimator).  That
is unbiased when the guide draws its sites in the model's order, so that whatever a site depends
on is drawn before it; where the orders differ every term is sampled.

NumPyro's `Trace_ELBO` sums over a set of site names, so that its compiled program differs from
process to process and the persistent compilation cache misses; the trace's order does not.
"""

from __future__ import annotations

from numbers import Number
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist
from numpyro.distributions.kl import kl_divergence
from numpyro.distributions.util import scale_and_mask
from numpyro.handlers import replay, seed, substitute, trace
from numpyro.infer import elbo

from ..errors import ModelError
from ..structure import LARGE
from ..types import Array, Estimator, Guide, Key, Model


class AnalyticELBO(elbo.ELBO):
    """NumPyro's objective interface, with closed-form divergences where there are any.

    Parameters
    ----------
    num_particles
        Draws from the guide that the estimate averages.
    estimator
        How the model is run at a draw: `numpyro.handlers.replay`, one draw for all rows, or a
        handler of `ppbdl.handlers` that gives each row a draw of its own.
    """

    def __init__(self, num_particles: int = 1, estimator: Estimator = replay):
        super().__init__(num_particles=num_particles)
        self.estimator = estimator

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
            programs = (substitute(program, data=param_map) for program in (model, guide))
            p, q, mutables = at_a_draw(key, *programs, self.estimator, *args, **kwargs)
            return -bound(p, q), mutables

        if self.num_particles == 1:
            loss, mutables = particle(rng_key)
        else:
            losses, states = jax.vmap(particle)(jax.random.split(rng_key, self.num_particles))
            # The last particle's running statistics are as good as any.
            loss, mutables = jnp.mean(losses), jax.tree.map(lambda state: state[-1], states)
        return {"loss": loss, "mutable_state": mutables or None}


def at_a_draw(
    key: Key, model: Model, guide: Guide, estimator: Estimator, *args: Any, **kwargs: Any
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Trace the model at a draw from its guide: their traces, and the state they leave behind."""
    # Folding, not splitting: where the model draws nothing, its key costs nothing.  By 2, since
    # 0 and 1 would be the keys into which the guide's own handler splits it.
    model_key = jax.random.fold_in(key, 2)
    q = trace(seed(guide, key)).get_trace(*args, **kwargs)
    p = trace(seed(estimator(model, q), model_key)).get_trace(*args, **kwargs)
    sites = (q | p).items()
    return p, q, {name: site["value"] for name, site in sites if site["type"] == "mutable"}


def bound(p: dict[str, Any], q: dict[str, Any]) -> Array:
    """Estimate the sum of p's log densities less q's, with closed-form divergences."""
    shared = [name for name, site in p.items() if site["type"] == "sample" and name in q]
    in_order = shared == [name for name in q if name in p and q[name]["type"] == "sample"]
    terms: list[Array] = []
    normals: dict[int, tuple[Any, list[Any]]] = {}  # by their scale: none, or the temperature
    for name, site in p.items():
        if site["type"] != "sample":
            continue
        closed = in_order and name in q
        if closed and np.size(site["value"]) <= LARGE and _both_normal(q[name], site):
            _, alike = normals.setdefault(id(site["scale"]), (site["scale"], []))
            alike.append((_elementwise(q[name]["fn"]), _elementwise(site["fn"])))
        elif closed and (divergence := _divergence(q[name], site)) is not None:
            terms.append(-divergence)
        else:
            terms.append(log_density(site))
            if name in q:
                terms.append(-log_density(q[name]))
    for name, site in q.items():
        if site["type"] == "sample" and not site["is_observed"] and name not in p:
            terms.append(-log_density(site))
    for scale, alike in normals.values():
        # The sites of a mean-field guide are parts of one vector; joined again, the divergences
        # of all small ones are a few operations on it, whatever their number.
        divergence = kl_divergence(*map(_joined, zip(*alike, strict=True)))
        terms.append(scale_and_mask(-divergence, scale))
    return total(terms)


def _both_normal(q: dict[str, Any], p: dict[str, Any]) -> bool:
    as_one = p["scale"] is q["scale"] and np.ndim(p["scale"]) == 0
    same = _elementwise(q["fn"]).batch_shape == _elementwise(p["fn"]).batch_shape
    return as_one and same and _is_normal(q["fn"]) and _is_normal(p["fn"])


def _is_normal(fn: dist.Distribution) -> bool:
    fn = _elementwise(fn)
    return type(fn.base_dist if isinstance(fn, dist.ExpandedDistribution) else fn) is dist.Normal


def _joined(fns: tuple[dist.Distribution, ...]) -> dist.Normal:
    def flat(name: str) -> Array:
        return jnp.concatenate([_spread(fn, name).ravel() for fn in fns])

    return dist.Normal(flat("loc"), flat("scale"))


def _spread(fn: Any, name: str) -> Array:
    base = fn.base_dist if isinstance(fn, dist.ExpandedDistribution) else fn
    return jnp.broadcast_to(getattr(base, name), fn.batch_shape)


def total(terms: list[Array]) -> Array:
    """Sum all entries of all terms at once: a sum for each term would be a kernel for each."""
    return jnp.sum(jnp.concatenate([jnp.zeros(1), *(jnp.ravel(term) for term in terms)]))


def joint_density(sites: list[dict[str, Any]]) -> Array:
    """Sum the log densities of traced sites, all unscaled normal ones in one go."""
    normal = [s for s in sites if s["scale"] is None and _is_normal(s["fn"])]
    terms = [log_density(site) for site in sites if not any(site is n for n in normal)]
    if normal:
        values = jnp.concatenate([jnp.ravel(site["value"]) for site in normal])
        terms.append(_joined(tuple(_elementwise(s["fn"]) for s in normal)).log_prob(values))
    return total(terms)


def log_density(site: dict[str, Any]) -> Array:
    """Give a traced site's log density at its value, scaled and masked, not yet summed."""
    value, intermediates, scale = site["value"], site["intermediates"], site["scale"]
    point: Any = site["fn"]
    if isinstance(site["fn"], dist.Delta) and value is point.v:
        # Where it was drawn: comparing all weights with themselves is a tenth of a step.
        log_prob = jnp.broadcast_to(point.log_density, point.batch_shape)
    elif intermediates or np.ndim(scale) > 0:
        log_prob = site["fn"].log_prob(value, *((intermediates,) if intermediates else ()))
    else:
        fn: Any = _elementwise(site["fn"])
        if not site["is_observed"] and _is_normal(fn):
            # A latent is on the line; NumPyro's look whether it is costs as much as the density.
            fn = dist.Normal(*(_spread(fn, name) for name in ("loc", "scale")), validate_args=False)
        log_prob = fn.log_prob(value)
    return jnp.asarray(scale_and_mask(log_prob, scale))


def _divergence(q: dict[str, Any], p: dict[str, Any]) -> Array | None:
    fn_q, fn_p = _elementwise(q["fn"]), _elementwise(p["fn"])
    if isinstance(fn_q, dist.Delta) or np.ndim(p["scale"]) > 0:
        return None
    try:
        kl = kl_divergence(fn_q, fn_p)
    except NotImplementedError:
        return None
    shape = jnp.broadcast_shapes(fn_q.batch_shape, fn_p.batch_shape)
    return scale_and_mask(jnp.broadcast_to(kl, shape), p["scale"])


def _elementwise(fn: dist.Distribution) -> dist.Distribution:
    while isinstance(fn, dist.Independent):
        fn = fn.base_dist
    return fn


def by_row(sites: dict[str, Any], rows: int) -> Array:
    """Sum each row's log likelihood, not yet weighed by N / M."""
    scores = {name: log_density(site | {"scale": None}) for name, site in sites.items()}
    for name, score in scores.items():
        if score.shape[:1] != (rows,):
            raise ModelError(
                "model",
                expected=f"a likelihood {name!r} with the {rows} rows as its first batch axis",
                got=f"batch shape {score.shape}",
                remedy="Observe in a plate of the rows; to_event only axes within a row.",
            )
    return sum((score.reshape(rows, -1).sum(-1) for score in scores.values()), jnp.zeros(rows))


def weight_of(sites: dict[str, Any]) -> Any:
    """Give the scale of the rows, which counts them and does not temper their likelihood."""
    first, *others = (site["scale"] for site in sites.values())
    alike = all(s is first or (isinstance(s, Number) and s == first) for s in others)
    if not alike or np.ndim(first) > 0:
        raise ModelError(
            "model",
            expected=f"one number as the scale of the observed sites {list(sites)}",
            got="scales that differ between sites or within them",
            remedy="Drop numpyro.handlers.scale from the model, or leave the loss out.",
        )
    return jnp.asarray(1.0 if first is None else first)
