"""Many steps of an optimisation: one compiled loop, or a call for every step.

A loop that is compiled whole costs no call for a step, and vectorised members share their
operations: right for small networks, and for accelerators.  XLA's CPU compiler, however, brings
convolutions into the layout of its fast kernels in a program's entry only, not in a loop's body,
where a convolution's gradient takes five to twenty times as long; and it runs batched products
of large matrices no faster than one after the other.  There each step is a call, and members take
turns with one program.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..compiling import Program, strong
from ..types import Array

BUFFER = 1000  # steps in one call of the loop, at most
LARGE = 50_000  # a member's parameters, from which vectorised members gain nothing on a CPU


class Loop:
    """``(state, x, y, n) -> (state, losses, good)``; `good` tells whether all is finite.

    Parameters
    ----------
    step
        From a member's ``(state, x, y)`` to ``(state, loss)``.
    members
        Number of members, whose states have it in front; None for a single state.
    """

    def __init__(self, step: Callable[[Any, Any, Any], tuple[Any, Array]], members: int | None):
        self._members = members
        self._whole = Program(_loop_of(step, members))
        self._step = Program(functools.partial(_counted, step))
        self._split = Program(
            lambda state: [jax.tree.map(lambda a, m=m: a[m], state) for m in range(members or 0)]
        )
        self._join = Program(lambda states: jax.tree.map(lambda *a: jnp.stack(a), *states))
        self._good = Program(_all_finite)
        self._by_call: bool | None = None

    @property
    def seconds(self) -> float:
        """Seconds spent compiling."""
        programs = (self._whole, self._step, self._split, self._join, self._good)
        return sum(program.seconds for program in programs)

    def __call__(self, state: Any, x: Any, y: Any, n: int) -> tuple[Any, Array, Array]:
        """Make n steps."""
        if self._by_call is None:
            self._by_call = jax.default_backend() == "cpu" and (
                (self._members is not None and self._is_large(state))
                or self._whole.uses("conv_general_dilated", state, x, y, np.int32(n))
            )
        if not self._by_call:
            return self._whole(state, x, y, np.int32(n))
        states = self._split(state) if self._members else [state]
        losses = [jnp.zeros(BUFFER)] * len(states)
        for i in range(n):
            for m, member in enumerate(states):
                states[m], losses[m] = self._step(member, losses[m], np.int32(i), x, y)
        if self._members:
            state, steps = self._join(states), jnp.stack(losses, axis=1)
        else:
            [state], [steps] = states, losses
        return state, steps, self._good((steps, state.params))

    def text(self, *args: Any) -> str:
        """The compiled loop before the compiler's optimisations."""
        return self._whole.text(*args)

    def _is_large(self, state: Any) -> bool:
        sizes = (math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(state.params))
        return sum(sizes) > LARGE


def _loop_of(step: Any, members: int | None) -> Callable[..., Any]:
    lead = (members,) if members else ()
    steps = jax.vmap(step, in_axes=(0, None, None)) if members else step

    def loop(state: Any, x: Any, y: Any, n: Array) -> tuple[Any, Array, Array]:
        def body(i: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
            state, losses = carry
            state, loss = steps(state, x, y)
            return strong(state), losses.at[i].set(loss)

        state, losses = jax.lax.fori_loop(0, n, body, (state, jnp.zeros((BUFFER, *lead))))
        # Checking every step would cost a tenth of a small network's step.
        return state, losses, _all_finite((losses, state.params))

    return loop


def _counted(step: Any, state: Any, losses: Array, i: Array, x: Any, y: Any) -> tuple[Any, Array]:
    state, loss = step(state, x, y)
    return strong(state), losses.at[i].set(loss)


def _all_finite(tree: Any) -> Array:
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, finite)
