"""Work over every draw and every row, in blocks that fit a byte budget.

Draws times rows times classes is an array that need not exist when its moments will do: each
block is reduced where it is computed, and blocks are joined on the host in double precision.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from .compiling import Program, remembered
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
        at_once, rows_at_once = self._blocks(one, key)
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

    def _blocks(self, one: Callable[..., Any], key: Key) -> tuple[int, int]:
        jaxpr = jax.make_jaxpr(one)(
            key, *one_draw(self.posterior), jax.tree.map(_struct, self.inputs)
        )
        # A few arrays of the largest size live at a time.
        per_draw = 4 * largest_bytes(jaxpr.jaxpr)
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


def one_draw(posterior: Posterior) -> tuple[dict[str, Any], Any]:
    """Give abstract arrays of one draw's latents, and of what was learned beside them."""
    draws, learned = dict(posterior.draws), (posterior.params, posterior.mutables)
    return (
        jax.tree.map(lambda a: _struct(a, 2), draws),
        jax.tree.map(lambda a: _struct(a, 1), learned),
    )


def _struct(a: Any, dropped: int = 0) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(a.shape[dropped:], a.dtype)


def largest_bytes(jaxpr: Any) -> int:
    """Bytes of the largest array that a traced function makes."""
    largest = 1
    for eqn in jaxpr.eqns:
        for out in eqn.outvars:
            largest = max(largest, out.aval.size * getattr(out.aval.dtype, "itemsize", 8))
        for inner in eqn.params.values():
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                largest = max(largest, largest_bytes(inner))
    return largest


@remembered
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


def _joined(parts: list[Any]) -> Any:
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def twice(one: Callable[..., Any], centre: str) -> Callable[..., Any]:
    """Run each draw twice, with the rows' own noise drawn apart.

    The outputs are the first run's and, under ``both``, what the two say of the draw without its
    noise.  The `centre` is their mean and ``gap`` half of their difference: the centre's variance
    over draws less the gap's is the covariance of the runs, in which the noise has no part.  The
    other outputs are means, but for the ``entropy``, a jackknife from runs that gave p and q,

        2 H((p + q) / 2) - (H(p) + H(q)) / 2,

    which is that of the expected probabilities to the second order in the noise.
    """

    def runs(key: Key, values: Any, learned: Any, inputs: Any) -> dict[str, Any]:
        # By 2, since 0 and 1 would be keys into which the first run splits its own.
        keys = jnp.stack([key, jax.random.fold_in(key, 2)])
        out = jax.vmap(one, (0, None, None, None))(keys, values, learned, inputs)
        both = {name: a.mean(0) for name, a in out.items() if name != "y"}
        both["gap"] = (out[centre][0] - out[centre][1]) / 2
        if "entropy" in both:
            both["entropy"] = 2 * entropy(both[centre]) - both["entropy"]
        return {name: a[0] for name, a in out.items()} | {"both": both}

    return runs


def entropy(probs: Any) -> Any:
    """Give the entropy of probabilities along the last axis, in nats; on host or device."""
    namespace = probs.__array_namespace__()
    logs = namespace.log(namespace.where(probs > 0, probs, 1.0))
    return -namespace.sum(probs * logs, axis=-1)


def energy(fn: Any, rows: tuple[int, ...]) -> dict[str, Array]:
    """Give each row's free energy, where a likelihood keeps logits as the model made them.

    The softmax of a likelihood of probabilities has taken their sum away: it has none.  Of a binary
    one, which has the difference l alone, the logits are (-l/2, l/2), so that the labels' names
    don't matter: -log(e^(-l/2) + e^(l/2)).
    """
    if isinstance(fn, dist.BernoulliLogits):
        both = jax.nn.softplus(fn.logits) - fn.logits / 2
        return {"energy": -jnp.broadcast_to(both, rows)}
    if isinstance(fn, dist.CategoricalLogits):
        return {"energy": -jnp.broadcast_to(jax.nn.logsumexp(fn.logits, axis=-1), rows)}
    return {}


def tied(sites: dict[str, Any], posterior: Posterior, name: str) -> bool:
    """Tell whether some of the draws are of latents in a plate of the observed site's rows."""
    return _any_beside(sites, name, posterior.draws.keys() & sites.keys())


def noisy(sites: dict[str, Any], posterior: Posterior, name: str) -> bool:
    """Tell whether the observed site's rows have noise of their own, drawn before it."""
    before = itertools.takewhile(lambda site: site != name, sites)
    drawn = {s for s in before if sites[s]["type"] == "sample" and not sites[s]["is_observed"]}
    return _any_beside(sites, name, drawn - posterior.draws.keys())


def _any_beside(sites: dict[str, Any], name: str, others: Iterable[str]) -> bool:
    plates = {frame.name for frame in sites[name]["cond_indep_stack"]}
    return any(frame.name in plates for s in others for frame in sites[s]["cond_indep_stack"])
