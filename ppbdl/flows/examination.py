"""Look a fitted flow over: does it invert, are its densities right, and does it fit its data?

The numbers for the flow check of `ppbdl.diagnostics`.  A flow can fail in ways that its likelihood
hides: Behrmann et al. (2021), *Understanding and Mitigating Exploding Inverses in Invertible
Neural Networks*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from ..errors import InputError
from ..types import Array, Key, as_key
from .bijection import Bijection, Chain
from .flow import Flow

if TYPE_CHECKING:
    import xarray as xr

_PROBES = 8  # rows whose Jacobian is taken


def examine(key: Key | int, flow: Flow, y: Array) -> xr.Dataset:
    """Measure a flow on data, best on rows that it was not fitted to.

    Parameters
    ----------
    key
        A JAX random key or an integer seed, for the samples.
    flow
        A fitted flow; of a conditional one, with a row of context for each row of y.
    y
        (rows, ...) events in the flow's space.

    Returns
    -------
    ``z`` and its ``pit`` under the base (row, dim); ``round_trip_error`` (row,), of the row there
    and back in its features' standard deviations, or of a draw of z there and back, whichever is
    larger; ``log_det_error`` (probe,), of both log determinants against the Jacobian's, in nats a
    dimension; and ``below`` and ``above`` (dim,), the number of samples, one for each row, that
    lie beyond all of the data.

    Raises
    ------
    InputError
        If the base's dimensions have no distribution function.

    Examples
    --------
    >>> import numpy as np, ppbdl, xarray as xr
    >>> from numpyro import distributions as dist
    >>> from ppbdl.diagnostics.checks import soundness_of_flow
    >>> flow = Flow(dist.Normal(0, 1).expand([2]).to_event(1), [dist.transforms.ExpTransform()])
    >>> y = np.exp(np.random.default_rng(0).normal(size=(500, 2)))
    >>> tree = xr.DataTree.from_dict({"/flow": examine(0, flow, y)})
    >>> soundness_of_flow(tree).verdict
    'pass'
    """
    import xarray as xr

    bijection, base = Chain(flow.transforms), _elementwise(flow.base_dist)
    y = jnp.asarray(y, jnp.result_type(y, float))
    probes = y if flow.batch_shape else y[:_PROBES]  # a context's rows go together

    @jax.jit
    def measure(key: Key, y: Array, probes: Array) -> tuple[Array, ...]:
        z = bijection.inverse_and_log_det(y)[0]
        again = bijection.forward_and_log_det(z)[0]
        scale = y.std(0)
        error = _worst((again - y) / jnp.where(scale > 0, scale, 1.0))
        shape = () if flow.batch_shape else y.shape[:1]
        drawn: Any = flow.base_dist.sample(key, shape)
        sample = bijection.forward_and_log_det(drawn)[0]
        error = jnp.maximum(error, _worst(bijection.inverse_and_log_det(sample)[0] - drawn))
        return z, base.cdf(z), error, sample, *_jacobians(bijection, probes)

    found = measure(as_key(key), y, probes)
    z, pit, error, sample, jacobian, log_det, log_det_back = map(np.asarray, found)
    truth = np.linalg.slogdet(np.float64(jacobian))[1]
    off = np.maximum(abs(log_det_back - truth), abs(log_det + truth)) / jacobian.shape[-1]
    data, sample = (np.asarray(a).reshape(len(y), -1) for a in (y, sample))
    return xr.Dataset(
        {
            "z": (("row", "dim"), z.reshape(len(y), -1)),
            "pit": (("row", "dim"), pit.reshape(len(y), -1)),
            "round_trip_error": ("row", error),
            "log_det_error": ("probe", off),
            "below": ("dim", (sample < data.min(0)).sum(0)),
            "above": ("dim", (sample > data.max(0)).sum(0)),
        }
    )


def _jacobians(bijection: Bijection, y: Array) -> tuple[Array, Array, Array]:
    """Differentiate the inverse at each row, and give both log determinants there."""
    size = y[0].size

    def column(one: Array) -> Array:
        way = jnp.broadcast_to(one.reshape(y.shape[1:]), y.shape)
        moved = jax.jvp(lambda y: bijection.inverse_and_log_det(y)[0], (y,), (way,))[1]
        return moved.reshape(len(y), size)

    columns = jax.lax.map(column, jnp.eye(size, dtype=y.dtype))
    z, back = bijection.inverse_and_log_det(y)
    there = bijection.forward_and_log_det(z)[1]
    back, there = (jnp.reshape(part, (len(y), -1)).sum(-1) for part in (back, there))
    return jnp.moveaxis(columns, 0, -1), there, back


def _worst(error: Array) -> Array:
    return abs(error).reshape(len(error), -1).max(-1)


def _elementwise(base: Any) -> Any:
    while isinstance(base, dist.Independent | dist.ExpandedDistribution):
        base = base.base_dist
    if base.event_shape:
        raise InputError(
            "flow",
            expected="a base of independent dimensions",
            got=type(base).__name__,
            remedy="Use a base such as Normal(0, 1).expand([features]).to_event(1).",
        )
    return base
