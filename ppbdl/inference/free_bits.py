"""The evidence lower bound with free bits: a code may say so much at no cost.

    sum_n (N/M) [E_q log p(y_n | z)] - N sum_j max(free, mean over n of KL(q(z_nj | y_n) || p(z_j)))

Kingma et al. (2016), *Improved Variational Inference with Inverse Autoregressive Flow*, appendix
C.8: below `free` nats a dimension has no gradient towards its prior, so that a decoder that could
do without the code at first does not drive it out.  Above, it is the bound itself.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro import distributions as dist
from numpyro.distributions.kl import kl_divergence
from numpyro.handlers import replay, substitute
from numpyro.infer import elbo

from ..errors import ModelError, require_positive
from ..types import Array, Guide, Key, Model
from .elbo import at_a_draw, bound, weight_of


class FreeBits(elbo.ELBO):
    """Minus the bound with free bits, for latents of the rows that are normal a priori and in q.

    Parameters
    ----------
    free
        Nats for each dimension of each latent of a row.

    Raises
    ------
    ModelError
        When run: if the model has no such latent, or one with another distribution.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> from ppbdl.models import VAE, Dense, Normal
    >>> data = ppbdl.Data(None, np.random.default_rng(0).normal(size=(60, 3)))
    >>> vae = VAE((3,), likelihood=Normal(1.0), networks=Dense((8,)))
    >>> svi = ppbdl.SVI(vae.guide, loss=FreeBits(0.1), steps=50, draws=10)
    >>> ppbdl.fit(0, vae, data, svi, progress=False).provenance.settings["loss"]
    'FreeBits(0.1)'
    """

    def __init__(self, free: float = 0.1):
        require_positive(free=free)
        super().__init__()
        self.free = free

    def __repr__(self) -> str:
        return f"FreeBits({self.free})"

    def loss_with_mutable_state(
        self,
        rng_key: Key,
        param_map: dict[str, Any],
        model: Model,
        guide: Guide,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Estimate the objective, and the state that the model and the guide leave behind."""
        programs = (substitute(program, data=param_map) for program in (model, guide))
        p, q, mutables = at_a_draw(rng_key, *programs, replay, *args, **kwargs)
        rows = jax.tree.leaves(args)[0].shape[0]
        codes = [name for name, site in q.items() if _is_of_rows(site, rows) and name in p]
        if not codes:
            raise ModelError(
                "loss",
                expected="a latent in the plate of the rows",
                got=f"sites {[n for n, s in q.items() if s['type'] == 'sample']}",
                remedy="Leave the loss out: free bits are for codes, as a VAE's.",
            )
        others = [{n: s for n, s in trace.items() if n not in codes} for trace in (p, q)]
        loss = -bound(*others)
        for name in codes:
            divergence = _by_dimension(p[name], q[name], name).mean(0)
            loss += weight_of({name: p[name]}) * rows * jnp.maximum(divergence, self.free).sum()
        return {"loss": loss, "mutable_state": mutables or None}


def _is_of_rows(site: dict[str, Any], rows: int) -> bool:
    frames = site.get("cond_indep_stack", ())
    return site["type"] == "sample" and any(frame.size == rows for frame in frames)


def _by_dimension(p: dict[str, Any], q: dict[str, Any], name: str) -> Array:
    """Give the divergence of each dimension of each row, (rows, dimensions)."""
    each = []
    for fn in (q["fn"], p["fn"]):
        while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
            fn = fn.base_dist
        if not isinstance(fn, dist.Normal):
            raise ModelError(
                "loss",
                expected=f"independent normals for {name!r}, in the model and in the guide",
                got=type(fn).__name__,
                remedy="Take DiagonalNormal and StandardNormal, or anneal: SVI(temperature=...).",
            )
        each.append(fn)
    divergence = kl_divergence(*each)
    return jnp.broadcast_to(divergence, q["value"].shape).reshape(len(q["value"]), -1)
