"""Planar, radial and Sylvester maps: the identity and a bounded bump, kept invertible.

Rezende and Mohamed (2015), *Variational Inference with Normalizing Flows*; van den Berg et al.
(2018), *Sylvester Normalizing Flows*.  Forward they cost one pass.  The inverse is closed for
the radial map; for the others it is a search along the few directions of the bump.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..errors import InputError
from ..types import Array, Key
from .bijection import Bijection
from .roots import triangular_root


class Planar(Bijection):
    """y = x + u tanh(w' x + b), with w' u > -1 (Rezende and Mohamed 2015, equation 10).

    u is `shift` and a multiple of `direction`, w, that makes it invertible (their appendix A.1, but
    with w' u = log(1 + (e - 1) exp(w' shift)) - 1, which is 0 at 0: u stays finite as w vanishes).
    The inverse solves a = w' y - w' u tanh(a + b) for the one number a = w' x.

    Parameters
    ----------
    direction, shift
        (features,) or (..., features).
    bias
        () or (...).

    Examples
    --------
    >>> import jax
    >>> Planar(**Planar.start(jax.random.key(0), 2))(jax.numpy.ones(2)).shape
    (2,)
    """

    arrays = ("direction", "shift", "bias")

    def __init__(self, direction: Array, shift: Array, bias: Array):
        self.direction, self.shift, self.bias = direction, shift, bias

    @staticmethod
    def start(key: Key, features: int) -> dict[str, Array]:
        """Draw weights of a map that is near the identity."""
        direction, shift = jax.random.normal(key, (2, features)) / jnp.sqrt(features)
        return {"direction": direction, "shift": 0.1 * shift, "bias": jnp.zeros(())}

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        u, wu = self._constrained()
        bump = jnp.tanh((self.direction * x).sum(-1) + self.bias)
        return x + u * bump[..., None], jnp.log1p(wu * (1 - bump**2))

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        u, wu = self._constrained()
        wy = (self.direction * y).sum(-1)
        bias = jnp.broadcast_to(self.bias, wy.shape)[..., None]
        a = triangular_root(lambda a: a + wu[..., None] * jnp.tanh(a + bias), wy[..., None])[..., 0]
        bump = jnp.tanh(a + self.bias)
        return y - u * bump[..., None], -jnp.log1p(wu * (1 - bump**2))

    def _constrained(self) -> tuple[Array, Array]:
        """u, and w' u > -1."""
        w, free = self.direction, (self.direction * self.shift).sum(-1)
        wu = jax.nn.softplus(free + jnp.log(jnp.e - 1)) - 1
        along = (wu - free) / jnp.maximum((w**2).sum(-1), 1e-8)
        return self.shift + along[..., None] * w, wu


class Radial(Bijection):
    """y = x + beta (x - centre) / (alpha + r), r = |x - centre| (Rezende and Mohamed 2015, 14).

    alpha = exp(log_alpha) > 0 and beta = softplus(raw) - alpha > -alpha (their appendix A.2).  The
    radius R of y solves r^2 + (alpha + beta - R) r - alpha R = 0.

    Parameters
    ----------
    centre
        (features,) or (..., features).
    log_alpha, raw
        () or (...).

    Examples
    --------
    >>> import jax
    >>> Radial(**Radial.start(jax.random.key(0), 2))(jax.numpy.ones(2)).shape
    (2,)
    """

    arrays = ("centre", "log_alpha", "raw")

    def __init__(self, centre: Array, log_alpha: Array, raw: Array):
        self.centre, self.log_alpha, self.raw = centre, log_alpha, raw

    @staticmethod
    def start(key: Key, features: int) -> dict[str, Array]:
        """Draw weights of the identity: beta = 0."""
        centre = jax.random.normal(key, (features,))
        return {
            "centre": centre,
            "log_alpha": jnp.zeros(()),
            "raw": jnp.log(jnp.expm1(jnp.ones(()))),
        }

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        away = x - self.centre
        stretch, log_det = self._at(_norm(away), x.shape[-1])
        return self.centre + away * stretch[..., None], log_det

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        alpha, slack = jnp.exp(self.log_alpha), jax.nn.softplus(self.raw)  # slack = alpha + beta
        away = y - self.centre
        outer = _norm(away)
        half = (outer - slack) / 2
        root = jnp.sqrt(half**2 + alpha * outer)
        # Of the two forms of the positive root, the one that adds numbers of one sign.
        apart = jnp.where(half > 0, 1.0, root - half)
        r = jnp.where(half > 0, half + root, alpha * outer / apart)
        stretch, log_det = self._at(r, y.shape[-1])
        return self.centre + away / stretch[..., None], -log_det

    def _at(self, r: Array, features: int) -> tuple[Array, Array]:
        """The factor by which radius r grows, and log |det|."""
        alpha, slack = jnp.exp(self.log_alpha), jax.nn.softplus(self.raw)
        stretch = (slack + r) / (alpha + r)
        along = (r * (r + 2 * alpha) + alpha * slack) / (alpha + r) ** 2
        return stretch, (features - 1) * jnp.log(stretch) + jnp.log(along)


class Sylvester(Bijection):
    """y = x + Q R tanh(S Q' x + b), with orthonormal Q and upper triangular R and S.

    van den Berg et al. (2018), equation 11: the diagonals of R and S lie in (-1, 1), through tanh,
    which makes it invertible (their theorem 2); Q is a product of Householder reflections.
    The inverse solves v + R tanh(S v + b) = Q' y for v = Q' x, from the last row to the first.

    Parameters
    ----------
    reflections
        (..., number, features) vectors, none of them zero.
    outer, inner
        (..., rank, rank), R and S before tanh is taken of their diagonals; rank <= features.
    bias
        (..., rank).

    Examples
    --------
    >>> import jax
    >>> Sylvester(**Sylvester.start(jax.random.key(0), 4, rank=2))(jax.numpy.ones(4)).shape
    (4,)
    """

    arrays = ("reflections", "outer", "inner", "bias")

    def __init__(self, reflections: Array, outer: Array, inner: Array, bias: Array):
        rank, features = jnp.shape(bias)[-1], jnp.shape(reflections)[-1]
        if not 1 <= rank <= features:
            raise InputError(
                "bias",
                expected=f"from 1 to {features} numbers, the rank",
                got=str(rank),
                remedy="Lower the rank.",
            )
        self.reflections, self.outer, self.inner, self.bias = reflections, outer, inner, bias

    @staticmethod
    def start(key: Key, features: int, rank: int, scale: float = 0.1) -> dict[str, Array]:
        """Draw weights of a map that is near the identity."""
        keys = jax.random.split(key)
        outer, inner = scale * jax.random.normal(keys[0], (2, rank, rank))
        reflections = jax.random.normal(keys[1], (rank, features))
        return {
            "reflections": reflections,
            "outer": outer,
            "inner": inner,
            "bias": jnp.zeros(rank),
        }

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        q, r, s = self._factors()
        bump = jnp.tanh(_times(s, _times(_transposed(q), x)) + self.bias)
        return x + _times(q, _times(r, bump)), _log_det(r, s, bump)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        q, r, s = self._factors()

        def bump(v: Array) -> Array:
            return jnp.tanh(_times(s, v) + self.bias)

        bumped = bump(
            triangular_root(
                lambda v: v + _times(r, bump(v)), _times(_transposed(q), y), lower=False
            )
        )
        return y - _times(q, _times(r, bumped)), -_log_det(r, s, bumped)

    def _factors(self) -> tuple[Array, Array, Array]:
        q = jnp.eye(self.reflections.shape[-1], self.bias.shape[-1], dtype=self.reflections.dtype)
        for v in jnp.moveaxis(self.reflections, -2, 0):
            along = _times(_transposed(q), v) / (v**2).sum(-1, keepdims=True)
            q = q - 2 * v[..., :, None] * along[..., None, :]

        def triangle(raw: Array) -> Array:
            return jnp.triu(raw, 1) + jnp.tanh(raw) * jnp.eye(raw.shape[-1])

        return q, triangle(self.outer), triangle(self.inner)


def _log_det(r: Array, s: Array, bump: Array) -> Array:
    diagonal = jnp.diagonal(r, axis1=-2, axis2=-1) * jnp.diagonal(s, axis1=-2, axis2=-1)
    return jnp.log1p((1 - bump**2) * diagonal).sum(-1)


def _times(matrix: Array, vector: Array) -> Array:
    return (matrix @ vector[..., None])[..., 0]


def _transposed(matrix: Array) -> Array:
    return jnp.swapaxes(matrix, -1, -2)


def _norm(x: Array) -> Array:
    """The length, with gradient zero at the origin."""
    squared = (x**2).sum(-1)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
