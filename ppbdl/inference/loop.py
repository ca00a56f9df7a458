"""Many steps of an optimisation: one compiled loop, or a call for every step.

A loop that is compiled whole costs no call for a step, and vectorised members share their
operations: right for small networks, and for accelerators.  XLA's CPU compiler, however, brings
convolutions into the layout of its fast kernels in a program's entry only, not in a loop's body,
where a convolution's gradient takes five to twenty times as long: there each step is a call.  And
it runs batched products of large matrices no faster than one after the other: there members take
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
        self._together = Program(_loop_of(step, members))
        self._alone = Program(_loop_of(step, None)) if members else self._together
        self._step = Program(functools.partial(_counted, step))
        self._split = Program(
            lambda state: [jax.tree.map(lambda a, m=m: a[m], state) for m in range(members or 0)]
        )
        self._join = Program(lambda states: jax.tree.map(lambda *a: jnp.stack(a), *states))
        self._good = Program(_all_finite)
        self._convolves: bool | None = None

    @property
    def seconds(self) -> float:
        """Seconds spent compiling."""
        return sum(program.seconds for program in self._programs)

    @property
    def peak_bytes(self) -> int:
        """Bytes that the largest of the programs holds."""
        return max(program.peak_bytes for program in self._programs)

    @property
    def _programs(self) -> set[Program]:
        return {self._together, self._alone, self._step, self._split, self._join, self._good}

    def __call__(self, state: Any, x: Any, y: Any, n: int) -> tuple[Any, Array, Array]:
        """Make n steps."""
        on_cpu = jax.default_backend() == "cpu"
        if self._convolves is None:
            uses = self._together.uses
            self._convolves = on_cpu and uses("conv_general_dilated", state, x, y, np.int32(n))
        run = self._by_call if self._convolves else self._alone
        if not self._members:
            return run(state, x, y, np.int32(n))
        if not self._convolves and not (on_cpu and self._is_large(state)):
            return self._together(state, x, y, np.int32(n))
        ran = [run(member, x, y, np.int32(n)) for member in self._split(state)]
        states, losses, good = zip(*ran, strict=True)
        return self._join(states), jnp.stack(losses, axis=1), jnp.all(jnp.array(good))

    def _by_call(self, state: Any, x: Any, y: Any, n: Any) -> tuple[Any, Array, Array]:
        losses = jnp.zeros(BUFFER)
        for i in range(n):
            state, losses = self._step(state, losses, np.int32(i), x, y)
        return state, losses, self._good((losses, state.params))

    def text(self, *args: Any) -> str:
        """The compiled loop before the compiler's optimisations."""
        return self._together.text(*args)

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
