"""The same model and data by several methods, in one tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax

from .data import Data
from .datatree import to_datatree
from .errors import FitError, InputError
from .fitting import fit
from .types import Inference, Key, Model, as_key

if TYPE_CHECKING:
    import xarray as xr


def fit_all(
    key: Key | int,
    model: Model,
    data: Data,
    methods: Mapping[str, Inference],
    *,
    test: Data | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Fit a model by each method and gather the fits for `ppbdl.diagnostics`.

    A method that fails does not take the others down: its branch holds the last good state, if
    there was one, and says what happened in the attribute ``failure``.

    Parameters
    ----------
    key
        A JAX random key or an integer seed.
    model, data
        What is fitted, and to what.
    methods
        Inference methods by the names they shall have.
    test
        Held-out rows in the user's units, on which the methods are compared.
    progress
        Whether to show progress.

    Returns
    -------
    A tree with one branch a method, each as `to_datatree` makes it.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 30)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> methods = {"SVI": ppbdl.SVI(steps=200), "MAP": ppbdl.MAP(steps=200)}
    >>> sorted(fit_all(0, model, data, methods, progress=False).children)
    ['MAP', 'SVI']
    """
    import xarray as xr

    for name in methods:
        if not name or "/" in name:
            raise InputError(
                "methods",
                expected="names without a slash, which parts the branches of a tree",
                got=repr(name),
                remedy="Rename the method.",
            )
    key, branches = as_key(key), {}
    for i, (name, method) in enumerate(methods.items()):
        fit_key, tree_key = jax.random.split(jax.random.fold_in(key, i))
        try:
            posterior = fit(fit_key, model, data, method, progress=progress)
        except FitError as error:
            posterior = error.posterior
            if posterior is None:
                branches[name] = xr.DataTree(xr.Dataset(attrs=_failed(name, error)))
                continue
        guide = getattr(model, "guide", None)  # of a model whose rows have latents of their own
        branches[name] = to_datatree(tree_key, model, posterior, data, test=test, guide=guide)
    return xr.DataTree.from_dict({f"/{name}": tree for name, tree in branches.items()})


def _failed(name: str, error: FitError) -> dict[str, Any]:
    return {"method": name, "failure": str(error), "creation_library": "ppbdl"}
