"""What a step sees: which rows, with the weight N / M that makes them stand for all.

Every epoch is a fresh permutation of the rows.  Its last batch is topped up with rows from the
same epoch, so that each batch has M distinct rows, one compiled shape and one weight.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.primitives import Messenger

from ..data import Data
from ..errors import InputError
from ..structure import Structure
from ..types import Array, Key


def require_batch(batch_size: int | None, data: Data) -> None:
    """Raise `InputError` for a minibatch of more rows than there are."""
    if batch_size is not None and batch_size > data.rows:
        raise InputError(
            "batch_size",
            expected=f"at most the {data.rows} rows of the data",
            got=str(batch_size),
            remedy="Use a smaller batch, or None for all the rows.",
        )


class Batches(NamedTuple):
    """Which rows make up each step's minibatch."""

    rows: int
    batch_size: int | None

    @property
    def size(self) -> int:
        return self.batch_size or self.rows

    @property
    def no_order(self) -> Array:
        return jnp.zeros(0 if self.batch_size is None else self.rows, jnp.int32)

    @property
    def _per_epoch(self) -> int:
        return -(-self.rows // self.size)

    def head(self, x: Any, y: Any) -> Any:
        """Give a batch of the right shape, for work that does not depend on the rows."""
        return jax.tree.map(lambda a: a[: self.size], (x, y))

    def order(self, order: Array, key: Key, step: Array) -> Array:
        """Shuffle the rows if this step begins an epoch."""
        if self.batch_size is None:
            return order
        key = jax.random.fold_in(key, step // self._per_epoch)
        return jax.lax.cond(
            step % self._per_epoch == 0,
            lambda: jax.random.permutation(key, self.rows).astype(jnp.int32),
            lambda: order,
        )

    def take(self, order: Array, step: Array, x: Any, y: Any) -> Any:
        """Take this step's rows; an epoch's last batch is topped up from the epoch's first."""
        if self.batch_size is None:
            return x, y
        first = (step % self._per_epoch) * self.size
        index = order[(first + jnp.arange(self.size)) % self.rows]
        return jax.tree.map(lambda a: a[index], (x, y))


def scale_rows(fn: Any, structure: Structure, scale: float) -> Any:
    """Weigh each site of the data's rows by `scale` = N / M, so a minibatch stands for the data."""
    return fn if scale == 1.0 else _ScaleRows(fn, structure, scale)


class _ScaleRows(Messenger):
    def __init__(self, fn: Any, structure: Structure, scale: float):
        self.structure, self.scale = structure, scale
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample":
            return
        in_rows = any(f.name in self.structure.row_plates for f in msg["cond_indep_stack"])
        if in_rows or msg["name"] in self.structure.observed:
            msg["scale"] = self.scale if msg["scale"] is None else self.scale * msg["scale"]


def scale_latents(fn: Any, scale: Any) -> Any:
    """Weigh the log densities of all latents, in a model and its guide, by a temperature."""
    return _ScaleLatents(fn, scale)


class _ScaleLatents(Messenger):
    def __init__(self, fn: Any, scale: Any):
        self.scale = scale
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and not msg["is_observed"]:
            msg["scale"] = self.scale if msg["scale"] is None else self.scale * msg["scale"]
