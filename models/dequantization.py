"""Integers, such as pixels, under a continuous density: y = floor(levels v), v ~ p(v) on (0, 1).

    P(y) = integral of p(v) over the cell of y >= exp E_q(v | y)[log p(v) - log q(v | y)]

Theis et al. (2016), *A note on the evaluation of generative models*, for q uniform on the cell; Ho
et al. (2019), *Flow++*, section 3.1, for a flow.  v is a latent of the row: the ELBO is the
dequantised bound, and draws weighed by p / q bound log P(y) more tightly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.transforms import ReshapeTransform
from numpyro.handlers import scope

from ppbdl.errors import InputError, require_positive, require_whole
from ppbdl.flows import Affine, Flow, Logit, actnorm_start
from ppbdl.types import Array

from .density import fitted_flow


@dataclass(frozen=True, eq=False)
class Dequantized:
    """A flow's density for integers 0 ... levels - 1; fit it with ``SVI(model.guide)``.

    The flow is of the logits of v, standardised by channel at the start: ``norm$params`` (a vector
    counts as channels).  Score with ``log_likelihood(..., guide=model.guide)``: the log of the mean
    over draws of exp of its values bounds log P(y) from below, more tightly with more draws.

    Parameters
    ----------
    density
        A `FlowDensity` or a `Glow`, without a prior; for epistemic uncertainty fit an `Ensemble`.
    levels
        Number of values that an entry of y can take.
    noise
        None draws v uniformly from its cell.  A density of as many features as y has entries
        makes q a flow given y, such as ``RealNVP(features, layers=4)``.
    lam
        Of the logit: logit(lam + (1 - 2 lam) v).  A larger one tames the logits of black and white
        pixels, but the flow's mass between 0 and -lam / (1 - 2 lam), and beyond 1, is lost.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> from ppbdl.models import RealNVP
    >>> y = np.random.default_rng(0).binomial(7, 0.4, size=(200, 2))
    >>> model = Dequantized(RealNVP(features=2, layers=2, width=8), levels=8)
    >>> data = ppbdl.Data(None, y)
    >>> svi = ppbdl.SVI(model.guide, steps=100, draws=20)
    >>> posterior = ppbdl.fit(0, model, data, svi, progress=False)
    >>> scores = ppbdl.log_likelihood(1, model, posterior, data, guide=model.guide)["y"]
    >>> bits_per_dimension(scores, (2,)).shape
    (1, 20, 200)
    """

    density: Any
    levels: int = 256
    noise: Any = None
    lam: float = 1e-6

    def __post_init__(self) -> None:
        require_whole(levels=self.levels)
        require_positive(lam=self.lam)  # at 0 a v of exactly 0 has no logit
        Logit(self.lam)  # which looks at it too
        for name in ("density", "noise"):
            if getattr(getattr(self, name), "prior", None) is not None:
                raise InputError(
                    name,
                    expected="a flow without a prior, since the guide speaks of v alone",
                    got=repr(getattr(self, name)),
                    remedy="Leave out its prior, and fit an Ensemble for epistemic uncertainty.",
                )

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare the model: the flow, ``v`` of each row, and ``y``."""
        flow = self.flow(x, y)
        self._require(y, flow.event_shape)
        with numpyro.plate("data", x.shape[0]):
            # A latent that says nothing of other rows: it is drawn anew for each, never kept.
            v: Any = numpyro.sample("v", flow, infer={"local": True})
            numpyro.sample("y", _Floor(v, self.levels, len(flow.event_shape)), obs=y)

    def flow(self, x: Any, y: Any = None) -> Flow:
        """Declare the networks, inside a NumPyro program, and give the distribution of v."""
        flow, logit = self.density.flow(x), Logit(self.lam)

        def start(key: Any) -> dict[str, Array]:
            if y is None:
                return {part: jnp.zeros(flow.event_shape[-1:]) for part in ("loc", "log_scale")}
            # Of draws from the cells, not their midpoints: a pixel that is always black spreads.
            noise = jax.random.uniform(key, jnp.shape(y))
            return actnorm_start(logit((jnp.asarray(y) + noise) / self.levels))

        norm: Any = numpyro.param("norm$params", start)
        return Flow(flow.base_dist, [*flow.transforms, Affine(**norm), logit.inv])

    def guide(self, x: Any, y: Any = None) -> None:
        """Draw ``v`` from the cell of y."""
        cell = Affine(jnp.asarray(y) / self.levels, -math.log(self.levels))
        entries, event = math.prod(jnp.shape(y)[1:]), jnp.shape(y)[1:]
        if self.noise is None:
            q = Flow(dist.Uniform(0.0, 1.0).expand(jnp.shape(y)).to_event(len(event)), [cell])
        else:
            context = (2 * jnp.asarray(y).reshape(-1, entries) + 1) / self.levels - 1
            with scope(prefix="noise", divider="."):
                flow = self.noise.flow(context)
            shape = ReshapeTransform(event, (entries,))
            q = Flow(flow.base_dist, [*flow.transforms, Logit().inv, shape, cell])
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("v", q)

    fitted = fitted_flow

    def _require(self, y: Any, event: tuple[int, ...]) -> None:
        if y is not None and (jnp.shape(y)[1:] != event or jnp.result_type(y).kind not in "iu"):
            raise InputError(
                "y",
                expected=f"integers of shape (rows, {', '.join(map(str, event))})",
                got=f"{jnp.result_type(y)} of shape {jnp.shape(y)}",
                remedy="Pass the levels 0, 1, ... as integers, and make the flow for their shape.",
            )


def bits_per_dimension(log_prob: Any, shape: tuple[int, ...], levels: int | None = None) -> Any:
    """Turn log densities of events into bits for each of their dimensions.

    Parameters
    ----------
    log_prob
        In nats: log P(y) of integers, or the log density of continuous values; any shape.
    shape
        Of one event: (28, 28, 1) for MNIST.
    levels
        For a density of pixels scaled to [0, 1], the number of levels, of which each has the width
        1 / levels: log2(levels) is added.  None if log P(y) is of the integers, as it is from
        `Dequantized`, or if y was left as integers plus noise.

    Returns
    -------
    -log2 P / D: published figures of images are such, MNIST's and CIFAR-10's at 256 levels.  A log
    density of *logits* has another volume, and must be taken back to pixels first (Papamakarios et
    al. 2017, appendix D).

    Examples
    --------
    Uniform integers of 256 levels take eight bits:

    >>> float(bits_per_dimension(-784 * np.log(256), (28, 28)).round(6))
    8.0
    """
    if not shape:
        raise InputError(
            "shape", expected="an event's shape", got="()", remedy="Pass (1,) for a number."
        )
    require_whole(levels=levels)
    nats = np.asarray(log_prob) / math.prod(shape)
    return (math.log(levels or 1) - nats) / math.log(2)


class _Floor(dist.Distribution):
    """A point mass at floor(levels v)."""

    pytree_data_fields = ("v",)
    pytree_aux_fields = ("levels",)

    def __init__(self, v: Array, levels: int, event_dim: int):
        self.v, self.levels = v, levels
        cut = v.ndim - event_dim
        super().__init__(batch_shape=v.shape[:cut], event_shape=v.shape[cut:])

    @property
    def support(self) -> Any:
        return constraints.independent(
            constraints.integer_interval(0, self.levels - 1), self.event_dim
        )

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        y = jnp.clip(jnp.floor(self.levels * self.v), 0, self.levels - 1).astype(int)
        return jnp.broadcast_to(y, (*sample_shape, *y.shape))

    def log_prob(self, value: Array) -> Array:
        # A margin for a v that rounds to its cell's end.
        off = jnp.abs(self.levels * self.v - (value + 0.5)) > 0.5 + 1e-3
        return jnp.where(off.any(range(-self.event_dim, 0)), -jnp.inf, 0.0)

    @property
    def mean(self) -> Array:
        return jnp.asarray(self.sample(None), jnp.result_type(float))

    @property
    def variance(self) -> Array:
        return jnp.zeros_like(self.mean)
