"""Continuous flows: x moves along a velocity field from time 0 to 1, and y is where it arrives.

    dx/dt = v(t, x),    d log|det dx(t)/dx(0)| / dt = tr(dv/dx)

Chen et al. (2018), *Neural Ordinary Differential Equations*, equation 8; Grathwohl et al. (2019),
*FFJORD*, whose estimator of the trace is Hutchinson's: e' (dv/dx) e for a random sign e in each
dimension, the same along the whole path.  Any v that is Lipschitz in x will do: no mask, no
triangle.  The inverse is the same path run backwards.  Diffrax solves the equations, with steps of
its own choice; log determinants and round trips are right to within its tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import InputError, require_positive
from ..noise import rademacher
from ..types import Array, Key
from .bijection import Bijection

_STEPS = 256  # of the solver, at most; beyond, the flow is NaN


class Continuous(Bijection):
    """A continuous flow of vectors; it needs Diffrax: ``pip install 'ppbdl[ode]'``.

    Both directions cost a solve, of some tens of passes through v.  Each event has step sizes of
    its own.

    Parameters
    ----------
    velocity
        v(t, x), from a time in [0, 1] and (features,) to (features,): a network smooth in x, such
        as with tanh.
    key
        Estimates the trace with these signs, in one pass whatever the number of features; the
        estimate is unbiased over keys, so pass a new one at each step.  None computes the trace,
        in a pass for each feature.
    tolerance
        The error that a step may make, relative and absolute.
    adjoint
        How Diffrax takes derivatives; by default in every mode and order.  For a fit, reverse mode
        is enough: ``diffrax.RecursiveCheckpointAdjoint()`` makes a step 2 to 9 times as fast.

    Raises
    ------
    InputError
        If Diffrax is not installed.

    Examples
    --------
    A rotation, and a growth by e:

    >>> import jax.numpy as jnp
    >>> turn = Continuous(lambda t, x: x + jnp.pi * jnp.array([-x[1], x[0]]))
    >>> y, log_det = turn.forward_and_log_det(jnp.array([1.0, 0.0]))
    >>> y.round(2).tolist(), round(float(log_det), 3)
    ([-2.7200000286102295, 0.0], 2.0)
    """

    def __init__(
        self,
        velocity: Callable[[Array, Array], Array],
        key: Key | None = None,
        tolerance: float = 1e-5,
        adjoint: Any = None,
    ):
        require_positive(tolerance=tolerance)
        _require_diffrax()
        self.velocity, self.key, self.tolerance = velocity, key, tolerance
        self.adjoint = adjoint

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        return self._solve(x, 0.0, 1.0)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        return self._solve(y, 1.0, 0.0)

    def _solve(self, x: Array, start: float, end: float) -> tuple[Array, Array]:
        diffrax = _require_diffrax()
        signs = jnp.ones(()) if self.key is None else rademacher(self.key, x.shape[-1:], x.dtype)

        def slopes(t: Array, state: tuple[Array, Array], _: Any) -> tuple[Array, Array]:
            def along(way: Array) -> tuple[Array, Array]:
                return jax.jvp(lambda x: self.velocity(t, x), (state[0],), (way,))

            if self.key is None:
                ways = jnp.eye(x.shape[-1], dtype=x.dtype)
                v, moved = jax.vmap(along, out_axes=(None, 0))(ways)
                return v, jnp.trace(moved)
            v, moved = along(signs)
            return v, signs @ moved

        def path(x: Array) -> tuple[Array, Array]:
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(slopes),
                diffrax.Tsit5(),
                start,
                end,
                None,
                (x, jnp.zeros((), x.dtype)),
                stepsize_controller=diffrax.PIDController(self.tolerance, self.tolerance),
                max_steps=_STEPS,
                adjoint=self.adjoint or diffrax.DirectAdjoint(),
                throw=False,
            )
            arrived = solution.result == diffrax.RESULTS.successful
            return jax.tree.map(lambda end: jnp.where(arrived, end[-1], jnp.nan), solution.ys)

        return jnp.vectorize(path, signature="(n)->(n),()")(x)


def _require_diffrax() -> Any:
    try:
        import diffrax
    except ImportError as error:
        raise InputError(
            "velocity",
            expected="Diffrax to be installed, which solves a continuous flow's equations",
            got=f"an ImportError: {error}",
            remedy="Run pip install 'ppbdl[ode]'.",
        ) from error
    return diffrax
