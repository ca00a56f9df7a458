"""Maps of single numbers: affine (activation normalisation too), power, and the scaled logit."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from numpyro import distributions as dist

from ..errors import InputError
from ..types import Array
from .bijection import REAL, Bijection


class Affine(Bijection):
    """y = loc + x exp(log_scale), for each element; loc and log_scale broadcast against x.

    With `actnorm_start` it is the activation normalisation of Kingma and Dhariwal (2018), *Glow*,
    section 3.1.  NumPyro's `AffineTransform` takes scales of any sign.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Affine(jnp.ones(2), jnp.zeros(2))(jnp.array([1.0, 2.0])).tolist()
    [2.0, 3.0]
    """

    arrays = ("loc", "log_scale")
    domain = codomain = REAL

    def __init__(self, loc: ArrayLike, log_scale: ArrayLike):
        self.loc, self.log_scale = loc, log_scale

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y = x * jnp.exp(self.log_scale) + self.loc
        return y, jnp.broadcast_to(self.log_scale, y.shape)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        x = (y - self.loc) * jnp.exp(-jnp.asarray(self.log_scale))
        return x, -jnp.broadcast_to(self.log_scale, x.shape)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return jnp.broadcast_shapes(shape, jnp.shape(self.loc), jnp.shape(self.log_scale))

    inverse_shape = forward_shape


def actnorm_start(batch: Array) -> dict[str, Array]:
    """Give the `loc` and `log_scale` by which `Affine` makes `batch` of standardised numbers.

    Parameters
    ----------
    batch
        (..., channels): the first batch, as it arrives at the layer on its way from the data.

    Returns
    -------
    Mean and log standard deviation of each channel; a constant channel keeps its scale.

    Examples
    --------
    In a model, ``norm = numpyro.param("norm", lambda key: actnorm_start(batch))``, then
    ``Affine(**norm)``.

    >>> import jax.numpy as jnp
    >>> actnorm_start(jnp.array([[0.0], [4.0]]))["loc"].tolist()
    [2.0]
    """
    axes = tuple(range(batch.ndim - 1))
    scale = batch.std(axes)
    return {"loc": batch.mean(axes), "log_scale": jnp.log(jnp.where(scale > 0, scale, 1.0))}


class Power(Bijection):
    """y = x ** exponent on 0 < x < upper.

    Examples
    --------
    The density of z ** 2 for z uniform on (0, 2), which is 1 / (4 sqrt(x)):

    >>> import numpyro.distributions as dist
    >>> from ppbdl.flows import Flow
    >>> flow = Flow(dist.Uniform(0.0, 2.0), [Power(2.0, upper=2.0)])
    >>> flow.support, round(float(jnp.exp(flow.log_prob(0.25))), 6)
    (OpenInterval(lower_bound=0.0, upper_bound=4.0), 0.5)
    """

    def __init__(self, exponent: float, upper: float = math.inf):
        if not (math.isfinite(exponent) and exponent != 0):
            raise InputError(
                "exponent",
                expected="a finite number other than 0",
                got=repr(exponent),
                remedy="Pass 2.0 for the square.",
            )
        if not upper > 0:
            raise InputError(
                "upper",
                expected="a positive number",
                got=repr(upper),
                remedy="The domain is 0 < x < upper.",
            )
        self.exponent, self.upper = float(exponent), float(upper)

    @property
    def domain(self) -> Any:
        return _between(0.0, self.upper)

    @property
    def codomain(self) -> Any:
        end = self.upper**self.exponent
        return _between(0.0, end) if self.exponent > 0 else _between(end, math.inf)

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        return self._raise(x, self.exponent)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        return self._raise(y, 1 / self.exponent)

    @staticmethod
    def _raise(x: Array, exponent: float) -> tuple[Array, Array]:
        return x**exponent, math.log(abs(exponent)) + (exponent - 1) * jnp.log(x)


class Logit(Bijection):
    """y = logit(lam + (1 - 2 lam) x), which takes 0 <= x <= 1 to a bounded interval.

    Dinh et al. (2017), *Density Estimation using Real NVP*, section 4.1: pixels become real
    numbers.  The whole real line is the image of an interval that is wider than [0, 1] by
    lam / (1 - 2 lam) on both sides; a flow for pixels ends with ``Logit(lam).inv``.

    Parameters
    ----------
    lam
        From 0, the plain logit, to below 1/2.

    Examples
    --------
    >>> float(Logit(0.05)(0.5))
    0.0
    """

    codomain = REAL

    def __init__(self, lam: float = 0.0):
        if not 0 <= lam < 0.5:
            raise InputError(
                "lam", expected="0 <= lam < 1/2", got=repr(lam), remedy="Try 1e-6 or 0.05."
            )
        self.lam = float(lam)

    @property
    def domain(self) -> Any:
        margin = self.lam / (1 - 2 * self.lam)
        return dist.constraints.open_interval(-margin, 1 + margin)

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        slope = 1 - 2 * self.lam
        # 1 - p from 1 - x: near 1 the difference from p itself would be rounded away.
        p, q = self.lam + slope * x, self.lam + slope * (1 - x)
        log_p, log_q = jnp.log(p), jnp.log(q)
        return log_p - log_q, math.log(slope) - log_p - log_q

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        slope = 1 - 2 * self.lam
        log_det = -jax.nn.softplus(y) - jax.nn.softplus(-y) - math.log(slope)
        return (jax.nn.sigmoid(y) - self.lam) / slope, log_det


def _between(low: float, high: float) -> Any:
    if math.isinf(high):
        return dist.constraints.positive if low == 0 else dist.constraints.greater_than(low)
    return dist.constraints.open_interval(low, high)
