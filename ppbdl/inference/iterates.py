"""What the parameters of an optimisation went through: a few of them, at a few of the steps.

At a constant rate an optimiser does not come to rest: its iterates become a stationary process
about the optimum, whose convergence is judged as that of a Markov chain (Dhaka et al. 2020,
arXiv:2009.00666).  The compiled loop writes the chosen entries after each step into a ring; between
its chunks the ring is read, and evenly spaced steps are kept, whatever the chunks' lengths.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..structure import Structure
from ..types import Array
from .loop import BUFFER

_SCALARS, _STEPS = 50, 1000
# The ring keeps one in so many steps: XLA's CPU compiler would hand a write into a larger ring to
# a pool of threads, at a fifth of a small network's step.
_EVERY = 4


def empty_ring(params: Any) -> Array:
    """Make one member's ring, (step, parameter)."""
    # One row more than a chunk fills, since the chunk may begin within a row's steps.
    return jnp.zeros((BUFFER // _EVERY + 1, sum(map(len, _chosen(params)))))


def written(ring: Array, step: Array, params: Any) -> Array:
    """Write what a step, counted from 0, made of the chosen entries."""
    leaves = zip(jax.tree.leaves(params), _chosen(params), strict=True)
    row = [jnp.ravel(leaf)[at] for leaf, at in leaves if len(at)]
    return ring.at[step // _EVERY % len(ring)].set(jnp.concatenate(row)) if row else ring


class Iterates:
    """Keeps at most 1,000 evenly spaced steps of what rings hold.

    Parameters
    ----------
    steps
        Steps of the whole optimisation.
    """

    def __init__(self, steps: int):
        self._stride = _EVERY * math.ceil(steps / (_EVERY * _STEPS))
        self._steps: list[int] = []
        self._rows: list[np.ndarray] = []

    def read(self, ring: Array, done: int, n: int) -> None:
        """Read the last n, at most as many as a ring holds, of the `done` steps."""
        steps = [step for step in range(done - n + 1, done + 1) if step % self._stride == 0]
        if steps and ring.size:
            at = [(step - 1) // _EVERY % ring.shape[-2] for step in steps]
            rows = np.asarray(ring)[..., at, :]
            self._steps += steps
            self._rows.append(rows.reshape(-1, *rows.shape[-2:]))

    def record(
        self, params: Any, learned: Mapping[str, Any], structure: Structure
    ) -> dict[str, Any]:
        """Tell the steps, (kept step,), and of each parameter, by name, ``value`` and ``scale``.

        The value is (chain, kept step), unconstrained.  The scale, (chain,), is in the value's own
        units what matters to the posterior: for a mean the standard deviation that the guide
        learned about it, for such a deviation, whose value is close to its logarithm, 1; and NaN
        where it is not known.

        Parameters
        ----------
        params
            One member's unconstrained parameters, of which the shapes count.
        learned
            The parameters on their own supports, with (chain,) in front.
        """
        if not self._rows:
            return {}
        values = np.moveaxis(np.concatenate(self._rows, axis=1), -1, 0)
        leaves = jax.tree_util.tree_leaves_with_path(params)
        chains, names, scales = values.shape[1], [], []
        for (path, leaf), at in zip(leaves, _chosen(params), strict=True):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            names += _names(name, leaf.shape, structure, at)
            scale = _scale(name, (chains, *leaf.shape), learned).reshape(chains, -1)
            scales += list(scale[:, at].T)
        each = zip(names, values, scales, strict=True)
        return {
            "step": np.array(self._steps),
            **{name: {"value": value, "scale": scale} for name, value, scale in each},
        }


def _scale(name: str, shape: tuple[int, ...], learned: Mapping[str, Any]) -> np.ndarray:
    # Only the last word tells what it is: a site's own name may hold the others.
    part = re.split("[._]", name)[-1]
    site = name.removesuffix(part)
    if part == "loc":
        spread = learned.get(f"{site}scale", ())
        if np.shape(spread) == shape:
            return np.asarray(spread)
        factor = learned.get(f"{site}scale_tril", ())
        if np.shape(factor) == (*shape, *shape[-1:]):
            return np.linalg.norm(np.asarray(factor), axis=-1)
    about = learned.get(f"{site}loc", ()) if part == "scale" else ()
    return np.full(shape, 1.0 if np.shape(about) == shape else np.nan)


def _chosen(params: Any) -> list[np.ndarray]:
    """Choose evenly spaced entries of all leaves in a row: of each leaf, its flat indices."""
    sizes = [math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(params)]
    starts = [0, *itertools.accumulate(sizes)]
    among = np.linspace(0, starts[-1] - 1, min(starts[-1], _SCALARS)).round().astype(int)
    each = itertools.pairwise(starts)
    return [among[(among >= start) & (among < stop)] - start for start, stop in each]


def _names(name: str, shape: tuple[int, ...], structure: Structure, at: np.ndarray) -> list[str]:
    if shape != (structure.size,):
        return [_entry(name, shape, i) for i in at]
    # One vector of all the latents' coordinates: named by the latents.
    stops = list(itertools.accumulate(math.prod(s) for s in structure.latents.values()))
    found = []
    for i in at:
        site = int(np.searchsorted(stops, i, side="right"))
        latent = list(structure.latents)[site]
        first = stops[site - 1] if site else 0
        found.append(_entry(f"{name}.{latent}", structure.latents[latent], i - first))
    return found


def _entry(name: str, shape: tuple[int, ...], i: int) -> str:
    where = ", ".join(map(str, np.unravel_index(int(i), shape)))
    return f"{name}[{where}]" if where else name
