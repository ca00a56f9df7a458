"""The data's rows, and sums over them in compiled blocks that fit a byte budget."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...compiling import Program
from ...data import Data
from ...streaming import BUDGET, largest_bytes
from ...structure import Structure, inspect_model, shapes_of
from ...types import Model


class Sum:
    """A compiled function of rows, ``(x, y, *args) -> tree``, added up over blocks of them.

    Parameters
    ----------
    fn
        Called as ``fn(*args, x, y)``.
    """

    def __init__(self, fn: Callable[..., Any]):
        self._jitted = jax.jit(fn)  # whose trace is kept, to be measured and compiled
        self.program = Program(lambda *args: self._jitted(*args))

    def __call__(self, rows: Rows, *args: Any) -> Any:
        """Add up over the rows: in equal blocks within the budget, if they may be cut."""
        blocks = 1
        if not rows.whole:
            largest = largest_bytes(jax.make_jaxpr(self._jitted)(*args, rows.x, rows.y).jaxpr)
            blocks = min(-(-4 * largest // BUDGET), rows.count)  # a few such arrays live at a time
        sums = None
        stops = [rows.count * b // blocks for b in range(blocks + 1)]
        for start, stop in itertools.pairwise(stops):
            x, y = (rows.x, rows.y) if blocks == 1 else rows.block(start, stop)
            out = self.program(*args, x, y)
            sums = out if sums is None else jax.tree.map(jnp.add, sums, out)
        return sums


class Rows(NamedTuple):
    """The data's rows, and whether they must stay together."""

    x: Any
    y: Any
    whole: bool

    @property
    def count(self) -> int:
        return jax.tree.leaves(self.x)[0].shape[0]

    def block(self, start: int, stop: int) -> tuple[Any, Any]:
        return jax.tree.map(lambda a: a[start:stop], (self.x, self.y))


def rows_of(model: Model, structure: Structure, data: Data) -> Rows:
    """Put the data on the device, and find whether their rows may be cut."""
    x, y = jax.device_put((data.x, data.y))
    return Rows(x, y, whole=_must_stay_together(model, structure, data))


def _must_stay_together(model: Model, structure: Structure, data: Data) -> bool:
    """Tell whether a block of rows has other latents than all of them."""
    if data.rows == 1:
        return True
    try:
        block = inspect_model(model, shapes_of(data), data.rows - 1)
    except (TypeError, ValueError):  # the model takes all its rows, and no others
        return True
    return block.latents != structure.latents
