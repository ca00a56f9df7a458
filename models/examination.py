"""Is the code used?  Rows that all have one and the same posterior code tell that it has collapsed.

    activity_d = Var_y(E q(z_d | y) - E p(z_d)) / Var p(z_d),    rate = E_y KL(q(z | y) || p(z)),
    information = E_y E_q(z | y) [log q(z | y) - log q(z)],    q(z) = E_y q(z | y)

A unit is active above 0.01 (Burda et al. 2016, section 5.2, for p = N(0, I)).  The information, of
the rows about their codes, is what of the rate is not spent on q(z) missing p(z) (Hoffman and
Johnson 2016, *ELBO Surgery*, equation 13).  Why codes collapse: Lucas et al. (2019), *Don't Blame
the ELBO!*.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppbdl.compiling import remembered
from ppbdl.data import Data
from ppbdl.posterior import Posterior, at_draw, one_draw
from ppbdl.types import Array, Key

from .codes import moments

ACTIVE, _LITTLE = 0.01, 0.1  # the second in nats
_ROWS = 256  # whose codes are compared, each with all

_COLLAPSED = (
    "The code is unused{where}: every row has the same one, and the decoder generates without it. "
    "Warm the divergence up with SVI(temperature=optax.linear_schedule(0.0, 1.0, steps)), spare it "
    "with loss=FreeBits(...), or take a weaker decoder or a lower learning rate."
)


def examined(key: Key, model: Any, posterior: Posterior, data: Data) -> Posterior:
    """Add to a fit how it uses its code, under ``findings["code"]``, and the failure if it doesn't.

    ``activity`` (chain, dim), ``rate`` (chain,) in nats; ``information`` (chain,) where one prior
    serves all rows: of 256 rows, whose logarithm it cannot exceed; and ``kl`` (chain, dim), each
    unit's divergence if q and p are normal, else that of normals with their means and variances.
    """
    part = some_rows(key, data)
    y = jnp.asarray(part.y)
    x = model._read(part.x, y)
    use, key = _use(model), jax.random.fold_in(key, 1)
    each = [use(one_draw(posterior, c), key, y, x) for c in range(posterior.shape[0])]
    found = {name: np.stack([np.asarray(e[name]) for e in each]) for name in each[0]}
    provenance = posterior.provenance
    unused = (found["activity"] <= ACTIVE).all(axis=1) & (found["rate"] < _LITTLE)
    if unused.any() and not provenance.failure:
        where = f" in chain {unused.argmax()}" if len(unused) > 1 else ""
        provenance = replace(provenance, failure=_COLLAPSED.format(where=where))
    findings = {**posterior.findings, "code": found}
    return replace(posterior, findings=findings, provenance=provenance)


def some_rows(key: Key, data: Data) -> Data:
    """Take as many rows as an examination looks at."""
    return data.take(np.asarray(jax.random.permutation(key, data.rows)[:_ROWS]))


@remembered
def _use(model: Any) -> Any:
    """Make the program that looks at one chain."""
    return jax.jit(functools.partial(_used, model))


def _used(model: Any, drawn: Any, key: Key, y: Array, x: Any) -> dict[str, Array]:
    q, p = at_draw(model._encode, drawn)(y, x), at_draw(model._prior, drawn)(x)
    (mean_q, var_q), (mean_p, var_p) = moments(q), moments(p)
    apart = mean_q - mean_p
    each = 0.5 * ((var_q + apart**2) / var_p - 1 - jnp.log(var_q / var_p))
    z = q.sample(key)
    found = {
        "kl": each.mean(0),
        "activity": (apart / jnp.sqrt(var_p)).var(0),
        "rate": (q.log_prob(z) - p.log_prob(z)).mean(),
    }
    if not p.batch_shape:
        pairs = q.log_prob(z[:, None])  # of code i under the posterior of row j
        mixed = jax.nn.logsumexp(pairs, axis=1) - jnp.log(len(z))
        found["information"] = (jnp.diagonal(pairs) - mixed).mean()
    return found
