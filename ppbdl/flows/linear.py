"""Linear maps of the last axis: an LU-parameterised matrix, and the reversal of an order.

On the channels of an image the LU map is the invertible 1x1 convolution of Kingma and Dhariwal
(2018), *Glow*, section 3.2: its log determinant counts once for each pixel.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from ..errors import InputError
from ..types import Array, Key
from .bijection import Bijection


class Reverse(Bijection):
    """The last axis in the opposite order.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Reverse()(jnp.arange(3.0)).tolist()
    [2.0, 1.0, 0.0]
    """

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        return jnp.flip(x, -1), jnp.zeros(x.shape[:-1], x.dtype)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        return self.forward_and_log_det(y)


class LU(Bijection):
    """y = (x L U)[order], with unit lower triangular L and upper triangular U.

    Parameters
    ----------
    lower, upper
        (features, features); only the strict triangles count.
    log_diagonal
        (features,): of U's diagonal, which is positive.
    order
        A fixed permutation of the features; the identity if None.

    Examples
    --------
    >>> import jax
    >>> weights = LU.start(jax.random.key(0), 3)
    >>> LU(**weights, order=(2, 0, 1))(jax.numpy.array([1.0, 2.0, 3.0])).shape
    (3,)
    """

    arrays = ("lower", "upper", "log_diagonal")

    def __init__(
        self,
        lower: Array,
        upper: Array,
        log_diagonal: Array,
        order: tuple[int, ...] | None = None,
    ):
        features = jnp.shape(log_diagonal)[-1]
        order = tuple(range(features)) if order is None else tuple(int(i) for i in order)
        if sorted(order) != list(range(features)):
            raise InputError(
                "order",
                expected=f"a permutation of 0 to {features - 1}",
                got=str(order),
                remedy="Name every feature once.",
            )
        self.lower, self.upper, self.log_diagonal, self.order = lower, upper, log_diagonal, order

    @staticmethod
    def start(key: Key, features: int, scale: float = 0.0) -> dict[str, Array]:
        """Draw weights: the identity, with triangles of standard deviation `scale`."""
        lower, upper = scale * jax.random.normal(key, (2, features, features))
        return {"lower": lower, "upper": upper, "log_diagonal": jnp.zeros(features)}

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        lower, upper = self._factors()
        y = (x @ (lower @ upper))[..., np.array(self.order)]
        return y, jnp.broadcast_to(self.log_diagonal.sum(-1), x.shape[:-1])

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        lower, upper = self._factors()
        eye = jnp.eye(lower.shape[-1], dtype=lower.dtype)
        # (L U)^-1 once, of two triangular solves, then one product for every row.
        inverse = solve_triangular(upper, solve_triangular(lower, eye, lower=True))
        x = y[..., np.argsort(self.order)] @ inverse
        return x, jnp.broadcast_to(-self.log_diagonal.sum(-1), x.shape[:-1])

    def _factors(self) -> tuple[Array, Array]:
        diagonal = jnp.exp(self.log_diagonal)
        eye = jnp.eye(diagonal.shape[-1], dtype=diagonal.dtype)
        return jnp.tril(self.lower, -1) + eye, jnp.triu(self.upper, 1) + diagonal * eye
