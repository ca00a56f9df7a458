"""The same model by several methods, or on ever more rows, in one tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from .data import Data
from .datatree import to_datatree
from .errors import FitError, InputError, require_whole
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
    xarray.DataTree
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
        branches[name] = _branch(
            jax.random.fold_in(key, i), name, model, data, method, test, progress
        )
    return xr.DataTree.from_dict({f"/{name}": tree for name, tree in branches.items()})


def fit_sizes(
    key: Key | int,
    model: Model,
    data: Data,
    method: Inference,
    sizes: Sequence[int],
    *,
    test: Data,
    progress: bool = True,
) -> xr.DataTree:
    """Fit ever more of the rows, to see what more of them would teach.

    The rows are shuffled once, by the key, and each size takes the first so many: a larger set
    holds the smaller ones.  A standardisation is that of all the rows.

    Parameters
    ----------
    key
        A JAX random key or an integer seed.
    model, data, method
        What is fitted, to parts of what, and how.
    sizes
        Numbers of rows.
    test
        Held-out rows in the user's units, the same for each size.
    progress
        Whether to show progress.

    Returns
    -------
    xarray.DataTree
        A tree with one branch a size, such as ``50 rows``, each as `to_datatree` makes it; see
        `ppbdl.diagnostics.learning_curve`.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 40)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model, svi = ppbdl.models.LinearRegression(noise=0.1), ppbdl.SVI(steps=200)
    >>> tree = fit_sizes(0, model, data.take(range(30)), svi, (10, 30), test=data, progress=False)
    >>> list(tree.children)
    ['10 rows', '30 rows']
    """
    import xarray as xr

    require_whole(**{f"sizes[{i}]": size for i, size in enumerate(sizes)})
    if not sizes or max(sizes) > data.rows or len(set(sizes)) < len(sizes):
        raise InputError(
            "sizes",
            expected=f"one or more different numbers of rows, up to the data's {data.rows}",
            got=repr(list(sizes)),
            remedy="Pass numbers such as (50, 100, 200).",
        )
    order_key, key = jax.random.split(as_key(key))
    order = np.asarray(jax.random.permutation(order_key, data.rows))
    branches = {}
    for size in sizes:
        part, name = data.take(order[:size]), f"{size} rows"
        branches[name] = _branch(
            jax.random.fold_in(key, size), name, model, part, method, test, progress
        )
    return xr.DataTree.from_dict({f"/{name}": tree for name, tree in branches.items()})


def _branch(
    key: Key,
    name: str,
    model: Model,
    data: Data,
    method: Inference,
    test: Data | None,
    progress: bool,
) -> xr.DataTree:
    """Fit once: what came of it, or what is to be said of its failure."""
    import xarray as xr

    fit_key, tree_key = jax.random.split(key)
    try:
        posterior = fit(fit_key, model, data, method, progress=progress)
    except FitError as error:
        if error.posterior is None:
            about = {"method": name, "failure": str(error), "creation_library": "ppbdl"}
            return xr.DataTree(xr.Dataset(attrs=about))
        posterior = error.posterior
    guide = getattr(model, "guide", None)  # of a model whose rows have latents of their own
    return to_datatree(tree_key, model, posterior, data, test=test, guide=guide)
