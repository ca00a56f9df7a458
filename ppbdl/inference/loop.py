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
        self._good = Program(_all_finite)
        self._turns = Turns(self._by_itself, members or 0)
        self._convolves: bool | None = None

    @property
    def seconds(self) -> float:
        """Seconds spent compiling."""
        return sum(program.seconds for program in self._programs) + self._turns.seconds

    @property
    def peak_bytes(self) -> int:
        """Bytes that the largest of the programs holds."""
        return max(program.peak_bytes for program in self._programs)

    @property
    def _programs(self) -> set[Program]:
        return {self._together, self._alone, self._step, self._good}

    def __call__(self, state: Any, x: Any, y: Any, n: int) -> tuple[Any, Array, Array]:
        """Make n steps."""
        on_cpu = jax.default_backend() == "cpu"
        if self._convolves is None:
            uses = self._together.uses
            self._convolves = on_cpu and uses("conv_general_dilated", state, x, y, np.int32(n))
        if not self._members:
            return self._by_itself(state, x, y, np.int32(n))
        if not self._convolves and not (on_cpu and self._is_large(state)):
            return self._together(state, x, y, np.int32(n))
        state, losses, good = self._turns(state, x, y, np.int32(n))
        return state, losses.T, good.all()

    def _by_itself(self, state: Any, x: Any, y: Any, n: Any) -> tuple[Any, Array, Array]:
        if not self._convolves:
            return self._alone(state, x, y, n)
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


class Turns:
    """A member's function, run for one after the other: compiled once, whatever their number.

    Parameters
    ----------
    run
        Of a member's first argument, and of others that all members share.
    members
        Number of members; the results have it in front.
    split
        From the first argument and a member's number to that member's; by default its entry.
    """

    def __init__(
        self, run: Callable[..., Any], members: int, split: Callable[..., Any] | None = None
    ):
        self._run, self._members = run, members
        self._split = Program(split or (lambda tree, m: jax.tree.map(lambda a: a[m], tree)))
        self._join = Program(lambda *each: jax.tree.map(lambda *a: jnp.stack(a), *each))
        self._programs = {self._split, self._join} | ({run} if isinstance(run, Program) else set())

    @property
    def seconds(self) -> float:
        """Seconds spent compiling."""
        return sum(program.seconds for program in self._programs)

    @property
    def peak_bytes(self) -> int:
        """Bytes that the largest of the programs holds."""
        return max(program.peak_bytes for program in self._programs)

    def __call__(self, first: Any, *shared: Any) -> Any:
        """Run each member."""
        firsts = (self._split(first, np.int32(m)) for m in range(self._members))
        return self._join(*(self._run(member, *shared) for member in firsts))


def _loop_of(step: Any, members: int | None) -> Callable[..., Any]:
    lead = (members,) if members else ()
    steps = functools.partial(_side_by_side, step) if members else step

    def loop(state: Any, x: Any, y: Any, n: Array) -> tuple[Any, Array, Array]:
        def body(i: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
            state, losses = carry
            state, loss = steps(state, x, y)
            return strong(state), losses.at[i].set(loss)

        state, losses = jax.lax.fori_loop(0, n, body, (state, jnp.zeros((BUFFER, *lead))))
        # Checking every step would cost a tenth of a small network's step.
        return state, losses, _all_finite((losses, state.params))

    return loop


def _side_by_side(step: Any, state: Any, x: Any, y: Any) -> tuple[Any, Array]:
    # One count of steps for all: of a count for each, `vmap` would make a shuffle at every step
    # of the one that begins an epoch.
    axes = jax.tree.map(lambda _: 0, state)._replace(step=None)
    count = state.step[0]
    after, losses = jax.vmap(step, (axes, None, None), (axes, 0))(state._replace(step=count), x, y)
    return after._replace(step=jnp.broadcast_to(after.step, state.step.shape)), losses


def _counted(step: Any, state: Any, losses: Array, i: Array, x: Any, y: Any) -> tuple[Any, Array]:
    state, loss = step(state, x, y)
    return strong(state), losses.at[i].set(loss)


def _all_finite(tree: Any) -> Array:
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, finite)
