"""Is the code used?  Rows that all have one and the same posterior code tell that it has collapsed.

    activity_d = Var_y(E q(z_d | y) - E p(z_d)),    rate = E_y KL(q(z | y) || p(z)),
    information = E_y E_q(z | y) [log q(z | y) - log q(z)],    q(z) = E_y q(z | y)

A unit is active above 0.01 (Burda et al. 2016, section 5.2).  The information, of the rows about
their codes, is what of the rate is not spent on q(z) missing p(z) (Hoffman and Johnson 2016,
*ELBO Surgery*, equation 13).  Lucas et al. (2019), *Don't Blame the ELBO!*, on why codes collapse.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppbdl.data import Data
from ppbdl.posterior import Posterior, at_draw, one_draw
from ppbdl.types import Array, Key

from .codes import moments

ACTIVE = 0.01
_ROWS = 256  # whose codes are compared, each with all

_COLLAPSED = (
    "The code is unused: every row has the same one, and the decoder generates without it. Warm "
    "the divergence up with SVI(temperature=optax.linear_schedule(0.0, 1.0, steps)), spare it with "
    "loss=FreeBits(...), or take a weaker decoder or a lower learning rate."
)


def examined(key: Key, model: Any, posterior: Posterior, data: Data) -> Posterior:
    """Add to a fit how it uses its code, under ``findings["code"]``, and the failure if it doesn't.

    ``kl`` and ``activity`` (chain, dim), ``rate`` (chain,), in nats; ``information`` (chain,) where
    one prior serves all rows: of 256 rows, whose logarithm it cannot exceed.
    """
    rows = np.asarray(jax.random.permutation(key, data.rows)[:_ROWS])
    part = data.take(rows)
    y = jnp.asarray(part.y)
    x = model._read(part.x, y)
    each = [_use(model, one_draw(posterior, c), key, y, x) for c in range(posterior.shape[0])]
    found = {name: np.stack([np.asarray(e[name]) for e in each]) for name in each[0]}
    provenance = posterior.provenance
    if not provenance.failure and (found["activity"] <= ACTIVE).all():
        provenance = replace(provenance, failure=_COLLAPSED)
    findings = {**posterior.findings, "code": found}
    return replace(posterior, findings=findings, provenance=provenance)


@functools.partial(jax.jit, static_argnums=0)
def _use(model: Any, drawn: Any, key: Key, y: Array, x: Any) -> dict[str, Array]:
    q, p = at_draw(model._encode, drawn)(y, x), at_draw(model._prior, drawn)(x)
    (mean_q, var_q), (mean_p, var_p) = moments(q), moments(p)
    apart = mean_q - mean_p
    each = 0.5 * ((var_q + apart**2) / var_p - 1 - jnp.log(var_q / var_p))
    z = q.sample(key)
    found = {
        "kl": each.mean(0),
        "activity": apart.var(0),
        "rate": (q.log_prob(z) - p.log_prob(z)).mean(),
    }
    if not p.batch_shape:
        pairs = q.log_prob(z[:, None])  # of code i under the posterior of row j
        mixed = jax.nn.logsumexp(pairs, axis=1) - jnp.log(len(z))
        found["information"] = (jnp.diagonal(pairs) - mixed).mean()
    return found
