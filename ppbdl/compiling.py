"""Compiled programs, kept by the model and settings they serve, with their cost on record."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# What makes a model's programs is decorated with this.  Few are kept: each takes memory maps, of
# which Linux allows a process 65,530, and one that has no more ends in a segmentation fault.
remembered = functools.lru_cache(maxsize=16)


class Program:
    """A function compiled once for each combination of its arguments' shapes and dtypes.

    Parameters
    ----------
    fn
        A function of arrays.

    Attributes
    ----------
    seconds
        Seconds spent compiling so far.
    peak_bytes
        Bytes of arguments, results and temporaries, of the largest program so far.
    """

    def __init__(self, fn: Callable[..., Any]):
        self._jitted = jax.jit(fn)
        self._compiled: dict[Any, Any] = {}
        self.seconds = 0.0
        self.peak_bytes = 0

    def __call__(self, *args: Any) -> Any:
        args = jax.tree.map(_concrete, args)
        leaves, treedef = jax.tree.flatten(args)
        shapes = (treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if shapes not in self._compiled:
            start = time.perf_counter()
            self._compiled[shapes] = self._jitted.lower(*args).compile()
            self.seconds += time.perf_counter() - start
            used: Any = self._compiled[shapes].memory_analysis()
            held = used.argument_size_in_bytes + used.output_size_in_bytes
            self.peak_bytes = max(self.peak_bytes, held + used.temp_size_in_bytes)
        return self._compiled[shapes](*args)

    def uses(self, primitive: str, *args: Any) -> bool:
        """Tell whether JAX's primitive of this name is among the program's."""
        # The trace is kept by JAX, so that compiling need not repeat it.
        jaxpr = self._jitted.trace(*jax.tree.map(_concrete, args)).jaxpr
        return f" {primitive}[" in str(jaxpr)

    def text(self, *args: Any) -> str:
        """The program before the compiler's optimisations, to be compared between processes."""
        return self._jitted.lower(*jax.tree.map(_concrete, args)).as_text()


def _concrete(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def strong(tree: Any) -> Any:
    """Make every dtype strong: a weak one in a carried state would compile the next call anew."""
    arrays = jax.tree.map(jnp.asarray, tree)
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), arrays)
