"""The importance-weighted bound, for models whose latents are all of the rows, as a VAE's code.

    L_K = sum_n (N/M) E log 1/K sum_k w_nk,    w_nk = p(y_n, z_nk) / q(z_nk | y_n),  z_nk ~ q

Burda et al. (2016), *Importance Weighted Autoencoders*: the evidence lower bound at K = 1, and
log p(y) as K grows.  The gradient of q's parameters through the weights drowns in noise as K grows
(Rainforth et al. 2018); the doubly reparameterised one (Tucker et al. 2019, equation 10),

    sum_k v_nk^2 (d log w_nk / d z_nk) (d z_nk / d q),    v_nk = w_nk / sum_j w_nj,

has the same mean, and does not.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from numpyro.handlers import seed, substitute, trace
from numpyro.infer import elbo
from numpyro.primitives import Messenger

from ..errors import ModelError, require_whole
from ..types import Array, Guide, Key, Model
from .elbo import by_row, weight_of


class IWAE(elbo.ELBO):
    """Minus the importance-weighted bound.

    Parameters
    ----------
    num_particles
        K, the draws of each row's latents at each step.
    doubly_reparameterized
        Whether the guide's gradient is that of Tucker et al.; the draws must be differentiable in
        the guide's parameters.

    Raises
    ------
    ModelError
        When run: if some latent is not in the rows' plate.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> from ppbdl.models import VAE, Dense, Normal
    >>> data = ppbdl.Data(None, np.random.default_rng(0).normal(size=(60, 3)))
    >>> vae = VAE((3,), likelihood=Normal(1.0), networks=Dense((8,)))
    >>> svi = ppbdl.SVI(vae.guide, loss=IWAE(20), steps=50, draws=10, batch_size=20)
    >>> ppbdl.fit(0, vae, data, svi, progress=False).provenance.settings["loss"]
    'IWAE(num_particles=20, doubly_reparameterized=True)'
    """

    def __init__(self, num_particles: int = 50, doubly_reparameterized: bool = True):
        require_whole(num_particles=num_particles)
        super().__init__(num_particles=num_particles)
        self.doubly_reparameterized = doubly_reparameterized

    def __repr__(self) -> str:
        return (
            f"IWAE(num_particles={self.num_particles}, "
            f"doubly_reparameterized={self.doubly_reparameterized})"
        )

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
        model, guide = (substitute(program, data=param_map) for program in (model, guide))
        rows = jax.tree.leaves(args)[0].shape[0]
        keys = jax.random.split(rng_key, self.num_particles)

        def drawn(key: Key) -> dict[str, Array]:
            q = trace(seed(guide, key)).get_trace(*args, **kwargs)
            return {n: s["value"] for n, s in q.items() if s["type"] == "sample"}

        def weigh(key: Key, z: dict[str, Array]) -> tuple[Array, Any, dict[str, Any]]:
            density = _Fixed(guide) if self.doubly_reparameterized else guide
            q = trace(seed(substitute(density, data=z), key)).get_trace(*args, **kwargs)
            p = trace(seed(substitute(model, data=z), key)).get_trace(*args, **kwargs)
            of_p, of_q = _of_rows(p, rows), _of_rows(q, rows)
            state = {n: s["value"] for n, s in (q | p).items() if s["type"] == "mutable"}
            return by_row(of_p, rows) - by_row(of_q, rows), weight_of(of_p), state

        z = jax.vmap(drawn)(keys)
        if self.doubly_reparameterized:
            log_w = jax.lax.stop_gradient(jax.vmap(weigh)(keys, z)[0])
            share = jax.nn.softmax(log_w, axis=0)
            z = jax.tree.map(
                lambda a: _slowed(a, share.reshape(*share.shape, *[1] * (a.ndim - 2))), z
            )
        log_w, weights, states = jax.vmap(weigh)(keys, z)
        loss = -weights[0] * jnp.sum(logsumexp(log_w, axis=0) - jnp.log(self.num_particles))
        # The last particle's running statistics are as good as any.
        return {"loss": loss, "mutable_state": jax.tree.map(lambda a: a[-1], states) or None}


class _Fixed(Messenger):
    """Holds a program's parameters as constants."""

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "param":
            msg["value"] = jax.lax.stop_gradient(msg["value"])


@jax.custom_vjp
def _slowed(z: Array, share: Array) -> Array:
    """Give z, whose gradient counts by `share` only.

    It is z itself, so that what is computed of z twice is compiled once.
    """
    return z


_slowed.defvjp(lambda z, share: (z, share), lambda share, g: (g * share, None))


def _of_rows(sites: dict[str, Any], rows: int) -> dict[str, Any]:
    samples = {name: site for name, site in sites.items() if site["type"] == "sample"}
    shared = [
        name
        for name, site in samples.items()
        if not any(frame.size == rows for frame in site["cond_indep_stack"])
    ]
    if shared:
        raise ModelError(
            "loss",
            expected="a model and a guide whose sites all lie in the plate of the rows",
            got=f"{shared} outside of it",
            remedy="Leave the loss out, or choose ppbdl.AlphaELBO where the rows share latents.",
        )
    return samples
