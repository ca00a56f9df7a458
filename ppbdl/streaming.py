"""Work over every draw and every row, in blocks that fit a byte budget.

Draws times rows times classes is an array that need not exist when its moments will do: each
block is reduced where it is computed, and blocks are joined on the host in double precision.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .compiling import Program
from .posterior import Posterior
from .types import Array, Key

BUDGET = 2**28  # bytes


class Stream:
    """All draws of a posterior on all rows of some inputs, in blocks that fit a byte budget.

    Parameters
    ----------
    whole
        Whether the rows must stay together, because the latents are theirs.
    """

    def __init__(self, posterior: Posterior, inputs: Any, budget: int, whole: bool):
        self.posterior, self.inputs, self.budget, self.whole = posterior, inputs, budget, whole
        self.rows = jax.tree.leaves(inputs)[0].shape[0]
        self.draws = posterior.shape[0] * posterior.shape[1]

    def run(self, key: Key, one: Callable[..., Any], keep: bool) -> Iterator[tuple]:
        """Yield (rows, draws, outputs) block by block.

        `one(key, values, learned, inputs)` gives a tree of arrays with the rows in front.
        """
        learned = (self.posterior.params, self.posterior.mutables)
        at_once, rows_at_once = self._blocks(one, key, learned)
        program = _block_program(one, self.posterior.shape, at_once, keep)
        for start in range(0, self.rows, rows_at_once):
            rows = slice(start, min(start + rows_at_once, self.rows))
            block = jax.tree.map(functools.partial(_padded, rows, rows_at_once), self.inputs)
            real = slice(rows.stop - rows.start)
            for first in range(0, self.draws, at_once):
                draws = slice(first, min(first + at_once, self.draws))
                out = program(
                    key, np.int32(start), np.int32(first), self.posterior.draws, learned, block
                )
                out["mean"], out["squares"] = _cut((out["mean"], out["squares"]), real)
                if keep:
                    out["draws"] = _cut(out["draws"], slice(draws.stop - first), real)
                yield rows, draws, out

    def assemble(self, kept: list[tuple]) -> dict[str, np.ndarray]:
        """Join kept blocks into arrays (chain, draw, row, ...)."""
        whole: dict[str, np.ndarray] = {}
        for rows, draws, out in kept:
            for name, a in out.items():
                if name not in whole:
                    whole[name] = np.empty((self.draws, self.rows, *a.shape[2:]), a.dtype)
                whole[name][draws, rows] = a
        return {name: a.reshape(*self.posterior.shape, *a.shape[1:]) for name, a in whole.items()}

    def _blocks(self, one: Callable[..., Any], key: Key, learned: Any) -> tuple[int, int]:
        jaxpr = jax.make_jaxpr(one)(
            key,
            jax.tree.map(lambda a: _struct(a.shape[2:], a.dtype), dict(self.posterior.draws)),
            jax.tree.map(lambda a: _struct(a.shape[1:], a.dtype), learned),
            jax.tree.map(lambda a: _struct(a.shape, a.dtype), self.inputs),
        )
        # A few arrays of the largest size live at a time.
        per_draw = 4 * _largest(jaxpr.jaxpr)
        rows = self.rows
        if not self.whole:
            rows = int(np.clip(self.budget * self.rows // per_draw, 1, self.rows))
        at_once = self.budget * self.rows // (per_draw * rows)
        return int(np.clip(at_once, 1, self.draws)), rows


def _padded(rows: slice, size: int, a: np.ndarray) -> np.ndarray:
    # Padding with the last row keeps the shapes, and so the compiled program.
    return a[np.minimum(np.arange(rows.start, rows.start + size), rows.stop - 1)]


def _cut(tree: Any, *slices: slice) -> Any:
    return jax.tree.map(lambda a: np.asarray(a)[slices], tree)


def _struct(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _largest(jaxpr: Any) -> int:
    """Bytes of the largest array that a traced function makes."""
    largest = 1
    for eqn in jaxpr.eqns:
        for out in eqn.outvars:
            largest = max(largest, out.aval.size * getattr(out.aval.dtype, "itemsize", 8))
        for inner in eqn.params.values():
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                largest = max(largest, _largest(inner))
    return largest


@functools.lru_cache(maxsize=64)
def _block_program(
    one: Callable[..., Any], shape: tuple[int, int], at_once: int, keep: bool
) -> Program:
    chains, draws = shape

    def block(key: Key, start: Array, first: Array, values: Any, learned: Any, inputs: Any) -> Any:
        t = jnp.minimum(first + jnp.arange(at_once), chains * draws - 1)
        real = first + jnp.arange(at_once) < chains * draws
        block_key = jax.random.fold_in(key, start)

        def of_draw(t: Array) -> Any:
            chain, draw = t // draws, t % draws
            return one(
                jax.random.fold_in(block_key, t),
                jax.tree.map(lambda a: a[chain, draw], values),
                jax.tree.map(lambda a: a[chain], learned),
                inputs,
            )

        each = jax.vmap(of_draw)(t)
        weigh = jax.tree.map(lambda a: real.reshape(-1, *(1,) * (a.ndim - 1)) / real.sum(), each)
        mean = jax.tree.map(lambda a, w: (a * w).sum(0), each, weigh)
        squares = jax.tree.map(
            lambda a, w, m: ((a - m) ** 2 * w).sum(0) * real.sum(), each, weigh, mean
        )
        return {"mean": mean, "squares": squares} | ({"draws": each} if keep else {})

    return Program(block)


class Moments:
    """Running mean and variance over draws, block by block (Chan et al. 1983)."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, int], tuple[int, Any, Any]] = {}

    def add(self, rows: slice, count: int, mean: Any, squares: Any) -> None:
        mean, squares = (jax.tree.map(np.float64, tree) for tree in (mean, squares))
        at = (rows.start, rows.stop)
        if at in self._blocks:
            n, old_mean, old_squares = self._blocks[at]
            total = n + count
            delta = jax.tree.map(np.subtract, mean, old_mean)
            mean = jax.tree.map(lambda m, d: m + d * count / total, old_mean, delta)
            squares = jax.tree.map(
                lambda a, b, d: a + b + d**2 * n * count / total, old_squares, squares, delta
            )
            count = total
        self._blocks[at] = (count, mean, squares)

    def result(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Give the means and variances of all the rows."""
        blocks = [self._blocks[at] for at in sorted(self._blocks)]
        means = [mean for _, mean, _ in blocks]
        variances = [jax.tree.map(functools.partial(np.multiply, 1 / n), q) for n, _, q in blocks]
        return _joined(means), _joined(variances)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
