"""What a model is made of, found by tracing it abstractly: nothing is compiled or computed.

Every method starts here, so this is where a model that cannot be fitted is refused.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro import distributions as dist
from numpyro.distributions import biject_to, constraints
from numpyro.handlers import seed, substitute, trace
from numpyro.primitives import Messenger

from .data import Data
from .errors import DataError, ModelError
from .latents import initial_value
from .types import Array, Key, Model

LARGE = 20_000  # entries, from which the time to copy a vector counts for more than to compile it


@dataclass(frozen=True)
class Structure:
    """The sites of a model on given data, by the part they play.

    Attributes
    ----------
    latents
        Continuous latent sites in trace order, with the shapes of their unconstrained values.
    supports
        The latents' supports; None where the model computes the bounds.
    local
        Latent sites that belong to the rows of a minibatch, so that only a guide that
        amortises them can speak of them; they are drawn anew wherever they are needed.
    discrete
        Discrete latent sites, which gradient methods sum out.
    observed
        Observed sites.
    labels
        Of the observed sites whose values are a whole entry of y, and which not every number could
        be: that entry (None for y itself), the support of each number, and whether it is an index
        of classes.
    params, mutables
        Learnable parameters, and state such as BatchNorm's, of the model.
    row_plates
        The plates of the data's rows: those around an observed site, as long as the data.
    subsampled
        Plates that draw a subsample of their own.
    plate_depth
        How many plates are nested at most.
    """

    latents: dict[str, tuple[int, ...]]
    supports: dict[str, Any]
    local: tuple[str, ...]
    discrete: tuple[str, ...]
    observed: tuple[str, ...]
    labels: dict[str, tuple[str | None, Any, bool]]
    params: tuple[str, ...]
    mutables: tuple[str, ...]
    row_plates: frozenset[str]
    subsampled: tuple[str, ...]
    plate_depth: int

    @property
    def size(self) -> int:
        """Number of unconstrained coordinates of the latents."""
        return sum(math.prod(shape) for shape in self.latents.values())

    def unflatten(self, flat: Array) -> dict[str, Array]:
        """Split a flat vector of unconstrained coordinates into its sites."""
        # One split, whose transpose is one concatenation: slices would cost a padded vector each.
        stops = list(itertools.accumulate(math.prod(shape) for shape in self.latents.values()))[:-1]
        # XLA's CPU kernels of a fused concatenation take up to forty times as long in some runs:
        # for large vectors the barriers, and their transposes, keep it apart, a plain copy.
        apart = jax.lax.optimization_barrier if self.size > LARGE else lambda tree: tree
        parts = apart(jnp.split(apart(flat), stops)[: len(self.latents)])
        return {
            name: part.reshape(shape)
            for (name, shape), part in zip(self.latents.items(), parts, strict=True)
        }

    def flatten(self, sites: dict[str, Array]) -> Array:
        """Join the sites' unconstrained values into one flat vector."""
        leaves = [jnp.ravel(sites[name]) for name in self.latents]
        return jnp.concatenate(leaves) if leaves else jnp.zeros((0,))


class Shapes(NamedTuple):
    """The shapes and dtypes of some data, which is all that a compiled program knows of them."""

    rows: int
    size: int
    treedef: Any
    leaves: tuple[tuple[tuple[int, ...], str], ...]

    def structs(self, rows: int) -> Any:
        """Give (x, y) as abstract arrays of so many rows."""
        return self.treedef.unflatten(
            [jax.ShapeDtypeStruct((rows, *shape), dtype) for shape, dtype in self.leaves]
        )


def shapes_of(data: Data) -> Shapes:
    """Tell the data's shapes, in a form that can be looked up."""
    leaves, treedef = jax.tree.flatten((data.x, data.y))
    rows = tuple((leaf.shape[1:], str(leaf.dtype)) for leaf in leaves)
    return Shapes(data.rows, int(data.size), treedef, rows)


@functools.lru_cache(maxsize=64)
def inspect_model(model: Model, shapes: Shapes, batch_size: int | None = None) -> Structure:
    """Trace the model on the data's shapes and refuse what cannot be fitted.

    Raises
    ------
    ModelError
        If the model observes nothing, a plate's size disagrees with the data's rows, or a plate
        subsamples while `batch_size` asks for minibatches as well.
    """
    rows = batch_size or shapes.rows
    found: dict[str, Structure] = {}

    def look(key: Key, x: Any, y: Any) -> None:
        seeded = substitute(seed(model, key), substitute_fn=initial_value)
        found["structure"] = _read(trace(seeded).get_trace(x, y), y, rows, batch_size)

    plates = _Plates()
    try:
        with plates:
            jax.eval_shape(look, jax.random.key(0), *shapes.structs(rows))
    except (TypeError, ValueError) as error:
        if isinstance(error, ModelError) or not any(n != rows for n in plates.sizes.values()):
            raise
        sizes = ", ".join(f"{name!r} of size {size}" for name, size in plates.sizes.items())
        raise ModelError(
            "model",
            expected=f"plates that fit the {rows} rows it is given",
            got=f"{sizes} ({error})",
            remedy='Size the plate of the data by its input: numpyro.plate("data", x.shape[0]).',
        ) from error
    return found["structure"]


def require_labels(structure: Structure, data: Data) -> None:
    """Refuse labels, counts, pixels and the like that the likelihood gives no probability.

    Raises
    ------
    DataError
        If a y lies outside its likelihood's support, or class indices are not integers.
    """
    for name, (entry, support, indexes) in structure.labels.items():
        y = data.y if entry is None else data.y[entry]
        if support is not None:
            require_support(name, support, y)
        if indexes and y.dtype.kind not in "iu":
            raise DataError(
                "y",
                expected=f"integers, the indices of the classes of {name!r}",
                got=str(y.dtype),
                remedy="Pass y.astype(int), or Data(..., classes=labels).",
            )


def require_support(name: str, support: Any, y: Any, seen: Any = True) -> None:
    """Refuse values of y, where they are seen, that a likelihood gives no probability."""
    y, bad = np.asarray(y), np.argwhere(~np.asarray(support(y)) & seen)
    if len(bad):
        raise DataError(
            "y",
            expected=f"values in the support of the likelihood {name!r}",
            got=f"{len(bad)} outside it, the first in row {bad[0, 0]}: {y[tuple(bad[0])]}",
            remedy="Count classes from 0, and give the likelihood as many as there are."
            if y.ndim == 1 and support.is_discrete
            else "Scale or round y, or take a likelihood of its values: of pixels, Bernoulli for "
            "0, 1, ContinuousBernoulli for [0, 1], DiscretizedLogistic for levels, or Normal.",
        )


class _Plates(Messenger):
    """Notes the plates that a model enters, to be named should the model fail."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        super().__init__()

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "plate":
            self.sizes[msg["name"]] = msg["args"][1] or msg["args"][0]


def _read(sites: dict[str, Any], y: Any, rows: int, batch_size: int | None) -> Structure:
    samples = [s for s in sites.values() if s["type"] == "sample"]
    observed = [s for s in samples if s["is_observed"] and not isinstance(s["fn"], dist.Unit)]
    latent = [s for s in samples if not s["is_observed"]]
    if not observed:
        raise ModelError(
            "model",
            expected="at least one observed site",
            got=f"sites {[s['name'] for s in samples]}, none of them observed",
            remedy='Pass y on to the likelihood: numpyro.sample("y", ..., obs=y).',
        )
    for site in observed:
        if jnp.shape(site["value"])[:1] not in ((rows,), ()) and not site["cond_indep_stack"]:
            raise ModelError(
                "model",
                expected=f"observed values with the data's {rows} rows in front",
                got=f"{site['name']!r} of shape {jnp.shape(site['value'])}",
                remedy="Observe y itself, one entry a row.",
            )
        given, shape = jnp.shape(site["value"]), site["fn"].shape()
        if not _fits(shape, given):
            plates = [f"{f.name!r} of size {f.size}" for f in site["cond_indep_stack"]]
            raise ModelError(
                "model",
                expected=f"plates and a likelihood that fit the {rows} rows it is given",
                got=f"{', '.join(plates) or 'no plate'}, where {site['name']!r} has the shape "
                f"{shape} and its observed values {given}",
                remedy='Size the plate by the input, numpyro.plate("data", x.shape[0]), and give '
                "the likelihood the shape of y: a mean of shape (rows, 1) needs [:, 0].",
            )
    frames = {f for s in observed for f in s["cond_indep_stack"]}
    subsampled = tuple(
        name
        for name, s in sites.items()
        if s["type"] == "plate" and s["args"][1] not in (None, s["args"][0])
    )
    if subsampled and batch_size is not None:
        raise ModelError(
            "batch_size",
            expected=f"None, since the plate {subsampled[0]!r} draws its own subsample",
            got=str(batch_size),
            remedy="Drop subsample_size from the plate; ppbdl draws and scales the minibatches.",
        )
    row_plates = frozenset(f.name for f in frames if f.size == rows and f.name not in subsampled)

    def is_local(site: dict[str, Any]) -> bool:
        in_rows = any(f.name in row_plates for f in site["cond_indep_stack"])
        return in_rows and (batch_size is not None or bool(site["infer"].get("local")))

    discrete = [s["name"] for s in latent if s["fn"].support.is_discrete]
    local = [s["name"] for s in latent if s["name"] not in discrete and is_local(s)]
    fitted = [s for s in latent if s["name"] not in (*discrete, *local)]
    return Structure(
        latents={
            s["name"]: tuple(biject_to(s["fn"].support).inverse_shape(jnp.shape(s["value"])))
            for s in fitted
        },
        supports={s["name"]: _fixed(s["fn"].support) for s in fitted},
        local=tuple(local),
        discrete=tuple(discrete),
        observed=tuple(s["name"] for s in observed),
        labels=_labels(observed, y if isinstance(y, dict) else {None: y}),
        params=tuple(s["name"] for s in sites.values() if s["type"] == "param"),
        mutables=tuple(s["name"] for s in sites.values() if s["type"] == "mutable"),
        row_plates=row_plates,
        subsampled=subsampled,
        plate_depth=max((len(s["cond_indep_stack"]) for s in samples), default=0),
    )


def _labels(observed: list[dict[str, Any]], y: dict[Any, Any]) -> dict[str, Any]:
    labels = {}
    for site in observed:
        support, entries = site["fn"].support, [k for k, a in y.items() if a is site["value"]]
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        fn = site["fn"]
        while isinstance(fn, dist.ExpandedDistribution | dist.Independent):
            fn = fn.base_dist
        # What a mask hides may be anything.
        hidden = isinstance(fn, dist.MaskedDistribution) and not isinstance(fn._mask, bool)
        if entries and support.event_dim == 0 and not hidden and support is not constraints.real:
            while isinstance(fn, dist.ExpandedDistribution | dist.MaskedDistribution):
                fn = fn.base_dist
            indexes = isinstance(fn, dist.CategoricalProbs | dist.CategoricalLogits)
            labels[site["name"]] = (entries[0], _fixed(support), indexes)
    return labels


def _fits(shape: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Tell whether a likelihood covers the observed values, without making more of them."""
    return len(shape) <= len(given) and all(
        mine in (1, theirs) for mine, theirs in zip(shape[::-1], given[::-1], strict=False)
    )


def _fixed(support: Any) -> Any:
    bounds = jax.tree.leaves(support)
    return None if any(isinstance(b, Tracer) for b in bounds) else support
