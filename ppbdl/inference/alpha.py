"""Black-box alpha: an alpha-divergence for each row, between variational Bayes and likelihood.

    L_alpha = KL(q || p) - (1/alpha) sum_n (N/M) log (1/K) sum_k p(y_n | w_k)^alpha,   w_k ~ q

Hernandez-Lobato et al. (2016), *Black-Box alpha-Divergence Minimization*, in the reparameterised
form of Li and Gal (2017), *Dropout Inference in Bayesian Neural Networks with Alpha-Divergences*,
equation (9), in which alpha is small beside N.  As alpha goes to 0 it is minus the evidence lower
bound; at alpha = 1 each row's term is its log predictive density.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from numpyro import distributions as dist
from numpyro.handlers import replay, substitute
from numpyro.infer import elbo

from ..errors import InputError, ModelError, require_positive, require_whole
from ..types import Array, Guide, Key, Model
from .elbo import at_a_draw, bound, by_row, weight_of


class AlphaELBO(elbo.ELBO):
    """Minus the black-box alpha objective, for models whose rows share their latents.

    A larger alpha asks q to cover the weights that explain each row, where the evidence lower
    bound, alpha near 0, asks it to keep off those that explain a row badly: the posterior is
    wider, and predicts noise better that the likelihood does not have.

    Minibatches are unbiased: the rows' weight N/M stands outside the logarithm.  The logarithm of
    a mean over K draws is too low, on average and to first order by 1 / (2 K) times the squared
    relative sd of p(y_n | w)^alpha; so the objective is too high, by that over alpha for each
    row.  A small K makes it more like the evidence lower bound, which it is exactly at K = 1.

    Latents of a row are refused: their posterior has one row's likelihood in it, beside which
    alpha is not small.  `IWAE` is for them, and for them only.  (NumPyro's `RenyiELBO` takes
    both, but has one importance weight for all that the latents share: for the whole data, where
    weights are shared, with one draw that outweighs the others and a biased minibatch.)

    Parameters
    ----------
    alpha
        The divergence's order, above 0.
    num_particles
        K, the draws of all the latents at each step; each costs a pass.

    Raises
    ------
    InputError
        If alpha is not positive, or there is only one particle.
    ModelError
        When run: if the model has latents of a row, an observed site without the rows in front,
        several scales among its observed sites, or a plate that subsamples.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 40)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + np.cos(9 * x[:, 0]))
    >>> svi = ppbdl.SVI(loss=AlphaELBO(0.5), steps=50, draws=10, batch_size=20)
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> ppbdl.fit(0, model, data, svi, progress=False).provenance.settings["loss"]
    'AlphaELBO(alpha=0.5, num_particles=10)'
    """

    def __init__(self, alpha: float = 0.5, num_particles: int = 10):
        require_positive(alpha=alpha)
        require_whole(num_particles=num_particles)
        if num_particles == 1:
            raise InputError(
                "num_particles",
                expected="at least 2",
                got="1, with which every alpha is the evidence lower bound",
                remedy="Pass AlphaELBO(alpha, num_particles=10), or leave the loss out.",
            )
        super().__init__(num_particles=num_particles)
        self.alpha = alpha

    def __repr__(self) -> str:
        return f"AlphaELBO(alpha={self.alpha}, num_particles={self.num_particles})"

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
        programs = [substitute(program, data=param_map) for program in (model, guide)]
        rows = jax.tree.leaves(args)[0].shape[0]

        def particle(key: Key) -> tuple[Array, Array, Any, dict[str, Any]]:
            p, q, mutables = at_a_draw(key, *programs, replay, *args, **kwargs)
            of_rows = _sites_of_rows(p, rows)
            shared = {name: site for name, site in p.items() if name not in of_rows}
            return -bound(shared, q), by_row(of_rows, rows), weight_of(of_rows), mutables

        divergences, log_liks, weights, states = jax.vmap(particle)(
            jax.random.split(rng_key, self.num_particles)
        )
        log_means = logsumexp(self.alpha * log_liks, axis=0) - jnp.log(self.num_particles)
        loss = jnp.mean(divergences) - weights[0] * jnp.sum(log_means) / self.alpha
        # The last particle's running statistics are as good as any.
        return {"loss": loss, "mutable_state": jax.tree.map(lambda a: a[-1], states) or None}


def _sites_of_rows(p: dict[str, Any], rows: int) -> dict[str, Any]:
    """Find the sites that make up the rows' likelihood; a factor outside their plate is prior."""
    for site in p.values():
        if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]):
            raise ModelError(
                "model",
                expected="plates that take all of the rows they are given",
                got=f"the plate {site['name']!r}, which draws a subsample for each particle",
                remedy="Drop subsample_size; SVI(batch_size=...) draws and weighs minibatches.",
            )
    samples = {name: site for name, site in p.items() if site["type"] == "sample"}
    observed = {
        name
        for name, site in samples.items()
        if site["is_observed"] and not isinstance(site["fn"], dist.Unit)
    }
    frames = {f for name in observed for f in samples[name]["cond_indep_stack"] if f.size == rows}
    found = {
        name: site
        for name, site in samples.items()
        if name in observed or frames.intersection(site["cond_indep_stack"])
    }
    latents = [name for name, site in found.items() if not site["is_observed"]]
    if latents:
        raise ModelError(
            "loss",
            expected="a model whose latents are shared by the rows",
            got=f"{latents} in the plate of the rows",
            remedy="Where all latents are of rows choose ppbdl.IWAE; otherwise leave the loss out.",
        )
    return found
