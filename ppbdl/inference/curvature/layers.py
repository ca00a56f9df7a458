"""What a layer's block of the Gauss-Newton matrix is made of: sums over rows and columns of S.

With a the layer's inputs and g what the pullback of a column of S leaves at its outputs, summed
over places p,

    diagonal: sum (sum_p a_p g_p)^2,      Kronecker: (sum a a') kron (sum g g') / places,
    whole, at one place: H[(i, o), (j, p)] = sum_n a_i a_j M_n[o, p],  M_n = sum g g'.

The Kronecker product is that of Martens and Grosse (2015), and for convolutions of Grosse and
Martens (2016); biases have whole blocks of their own, which are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...linearization import run_at
from ...types import Array, Model
from .capturing import Capture, Layer


def layer_sums(
    kind: str,
    model: Model,
    layers: tuple[Layer, ...],
    eta: Any,
    roots: Any,
    point: Any,
    x: Any,
    y: Any,
) -> dict[str, Any]:
    """Give by layer the sums over rows and columns of S that its block is made of."""
    shapes: dict[str, Any] = {}

    def look() -> None:
        capture = Capture(model, layers, None)
        run_at(capture, point.learned, point.mode, x, y)
        shapes.update({name: (a.shape, a.dtype) for name, a in capture.outputs.items()})

    jax.eval_shape(look)

    def f(added: dict[str, Array]) -> tuple[Any, Any]:
        capture = Capture(model, layers, added)
        out, seen = eta(capture, point, point.mode, x, y)
        return out, (seen, capture.inputs)

    at = {name: jnp.zeros(*shape) for name, shape in shapes.items()}
    out, pull, (seen, inputs) = jax.vjp(f, at, has_aux=True)
    rule = RULES[kind]
    inputs = {layer.weight: layer.inputs(inputs[layer.weight]) for layer in layers}

    def of_column(name: str, column: Array) -> dict[str, Any]:
        cotangent = {n: column if n == name else jnp.zeros_like(v) for n, v in out.items()}
        (slopes,) = pull(cotangent)
        return {
            layer.weight: rule.column(inputs[layer.weight], layer.outputs(slopes[layer.weight]))
            for layer in layers
        }

    sums = None
    for name, root in roots(seen).items():
        each = jnp.moveaxis(root, -1, 0)
        first = of_column(name, each[0])
        sums = first if sums is None else jax.tree.map(jnp.add, sums, first)
        if any(layer.window for layer in layers):
            # In a loop's body XLA's CPU compiler has slow convolutions (see `loop`).
            for column in each[1:]:
                sums = jax.tree.map(jnp.add, sums, of_column(name, column))
            continue

        def body(sums: Any, column: Array, name: str = name) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, of_column(name, column)), None

        sums, _ = jax.lax.scan(body, sums, each[1:])
    assert sums is not None
    return {
        layer.weight: rule.end(layer, inputs[layer.weight], sums[layer.weight]) for layer in layers
    }


def gram(a: Array) -> Array:
    """Give a' a; by halves, since XLA does not know that it is symmetric."""
    if a.shape[1] < 200:
        return a.T @ a
    left, right = jnp.split(a, [a.shape[1] // 2], axis=1)
    across = left.T @ right
    return jnp.block([[gram(left), across], [across.T, gram(right)]])


class _Rule(NamedTuple):
    """What to sum over the columns, from a layer's inputs and slopes; and what to make of it."""

    column: Callable[[Array, Array], Any]
    end: Callable[[Layer, Array, Any], Any]


def _diagonal_column(inputs: Array, slopes: Array) -> tuple[Array, Array]:
    bias = jnp.sum(jnp.sum(slopes, axis=1) ** 2, axis=0)
    if inputs.shape[1] == 1:
        return slopes[:, 0] ** 2, bias
    return jnp.sum(jnp.einsum("npi,npo->nio", inputs, slopes) ** 2, axis=0), bias


def _diagonal_end(layer: Layer, inputs: Array, sums: Any) -> tuple[Array, Array]:
    weight, bias = sums
    return (inputs[:, 0] ** 2).T @ weight if inputs.shape[1] == 1 else weight, bias


def _kronecker_column(inputs: Array, slopes: Array) -> tuple[Array, Array]:
    flat, by_row = slopes.reshape(-1, slopes.shape[-1]), jnp.sum(slopes, axis=1)
    outer = gram(flat)
    return outer, outer if slopes.shape[1] == 1 else gram(by_row)


def _kronecker_end(layer: Layer, inputs: Array, sums: Any) -> tuple[Array, Array, Array, Array]:
    flat = inputs.reshape(-1, inputs.shape[-1])
    return gram(flat), *sums, jnp.asarray(flat.shape[0], flat.dtype)


def _dense_column(inputs: Array, slopes: Array) -> Array:
    return slopes[:, 0, :, None] * slopes[:, 0, None, :]


def _dense_end(layer: Layer, inputs: Array, sums: Array) -> Array:
    """H[(i, o), (j, p)] = sum_n a_i a_j M_n[o, p], with the bias as an input of ones, last."""
    a, units = inputs[:, 0], sums.shape[-1]
    if layer.bias is not None:
        a = jnp.concatenate([a, jnp.ones((len(a), 1), a.dtype)], axis=1)
    first, second = np.tril_indices(units)
    pairs = jax.lax.map(lambda weight: (a * weight[:, None]).T @ a, sums[:, first, second].T)
    at = np.zeros((units, units), int)
    at[first, second] = at[second, first] = np.arange(len(first))
    return jnp.transpose(pairs[at], (2, 0, 3, 1)).reshape(a.shape[1] * units, -1)


RULES = {
    "diagonal": _Rule(_diagonal_column, _diagonal_end),
    "kronecker": _Rule(_kronecker_column, _kronecker_end),
    "dense": _Rule(_dense_column, _dense_end),
}
