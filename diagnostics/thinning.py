"""Trees too large to be read at once, such as lazily stored ones.

Sums over rows run over all of them, block by block; what cannot be summed, a check or a figure,
looks at a random sample of the rows, the same of every fit. A share found in n of N rows has a
standard error of at most ``0.5 sqrt((1/n - 1/N))``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from .reading import HELD_OUT_GROUPS, TRAINING_GROUPS, row_dims

ROWS = 5_000
_NUMBERS = 4_000_000  # of a variable in a block: 32 MB in double precision


def thinned(fit: xr.DataTree, rows: int = ROWS) -> xr.DataTree:
    """Return a fit with at most so many training rows and held-out rows, in memory.

    Rows are drawn at random, from a fixed seed, and keep their order and their labels. Fits of as
    many rows keep the same ones. A fit with no more rows is returned as it is.

    Parameters
    ----------
    fit
        One fit's DataTree; `check` and `report` do this by themselves.
    rows
        How many rows of each kind to keep.

    Returns
    -------
    xarray.DataTree
        Its attributes ``training_rows`` and ``held_out_rows`` tell how many there were, and
        ``not_finite`` how many of all rows' predictions and log densities are NaN or infinite.

    Examples
    --------
    >>> y = xr.Dataset({"y": ("row", np.arange(100_000.0))})
    >>> few = thinned(xr.DataTree.from_dict({"/observed_data": y}), rows=1000)
    >>> few["observed_data"].sizes["row"], few.attrs["training_rows"]
    (1000, 100000)
    """
    attributes, groups, lost = dict(fit.attrs), {}, 0
    for kind, names in (("training", TRAINING_GROUPS), ("held_out", HELD_OUT_GROUPS)):
        dims = row_dims(fit, names)
        for name in (name for name in names if name in fit.children):
            data = fit[name].to_dataset()
            for dim in sorted(d for d in dims & set(data.sizes) if data.sizes[d] > rows):
                attributes[f"{kind}_rows"] = size = data.sizes[dim]
                keep = np.sort(np.random.default_rng(0).choice(size, rows, replace=False))
                data, bad = _picked(data, dim, keep)
                groups[name], lost = data, lost + bad
    if not groups:
        return fit
    rest = {name: fit[name].to_dataset() for name in fit.children if name not in groups}
    few = xr.DataTree.from_dict({f"/{name}": data for name, data in (rest | groups).items()})
    few.attrs = attributes | {"not_finite": lost}
    return few


def held_out_blocks(fit: xr.DataTree) -> Iterator[xr.DataTree]:
    """Yield the fit's held-out groups by blocks of rows, in memory; a small fit itself, whole."""
    dims = row_dims(fit, HELD_OUT_GROUPS)
    present = [name for name in HELD_OUT_GROUPS if name in fit.children]
    sizes = {dim: fit[name].sizes[dim] for name in present for dim in dims & set(fit[name].sizes)}
    most = max((_block(fit[name].to_dataset()) for name in present), default=0)
    if len(sizes) != 1 or max(sizes.values()) <= ROWS:
        yield fit
        return
    (dim, size), step = sizes.popitem(), max(1, _NUMBERS // max(1, most))
    for start in range(0, size, step):
        rows = {dim: slice(start, start + step)}
        block = xr.DataTree.from_dict(
            {
                f"/{name}": fit[name].to_dataset().isel(rows, missing_dims="ignore").load()
                for name in present
            }
        )
        block.attrs = fit.attrs
        yield block


def blocks_of(array: xr.DataArray, dim: str) -> Iterator[np.ndarray]:
    """Yield an array's values by blocks along a dimension, that dimension last."""
    step = max(1, _NUMBERS // max(1, array.size // array.sizes[dim]))
    for start in range(0, array.sizes[dim], step):
        part = array.isel({dim: slice(start, start + step)})
        yield np.asarray(part.transpose(..., dim).values)


def _block(data: xr.Dataset) -> int:
    """Return how many numbers of a row the group's largest variable holds, all draws together."""
    sizes = (
        array.size // max([1, *(n for dim, n in array.sizes.items() if dim not in _DRAWS)])
        for array in data.data_vars.values()
    )
    return max(sizes, default=1)


_DRAWS = ("chain", "draw")


def _picked(data: xr.Dataset, dim: str, keep: np.ndarray) -> tuple[xr.Dataset, int]:
    """Read the rows to keep by contiguous blocks, since files are slow at picking; count NaNs."""
    along = data[[name for name, array in data.data_vars.items() if dim in array.dims]]
    step = max(1, _NUMBERS // max(1, _block(along)))
    pieces, bad = [], 0
    for start in range(0, data.sizes[dim], step):
        mine = keep[(keep >= start) & (keep < start + step)] - start
        part = along.isel({dim: slice(start, start + step)}).load()
        pieces.append(part.isel({dim: mine}))
        drawn = [array.values for array in part.data_vars.values() if set(_DRAWS) & set(array.dims)]
        bad += sum(int((~np.isfinite(x)).sum()) for x in drawn if x.dtype.kind == "f")
    found = xr.concat(pieces, dim, data_vars="minimal", coords="minimal", compat="override")
    assert isinstance(found, xr.Dataset)
    found = found if dim in found.coords else found.assign_coords({dim: keep})
    return found.merge(data.drop_dims(dim)), bad
