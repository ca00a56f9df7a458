"""Report a fit of 1,000 draws and 100,000 rows of each kind, lazily stored; print what it took.

python tests/benchmarks/large_report.py FOLDER netcdf|zarr [rows]

The first call writes the tree, the second reports it.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import dask.array as da
import numpy as np
import xarray as xr

from ppbdl import diagnostics as d

DRAWS = (4, 250)


def write(path: Path, rows: int) -> None:
    """Store an honest normal fit of ``y = mean + noise``: the mean is known up to 0.1."""
    rng = np.random.default_rng(0)
    shift = 0.1 * rng.normal(size=(*DRAWS, 1))
    three, test = ("chain", "draw", "row"), ("chain", "draw", "test_row")
    chunks = (*DRAWS, 10_000)

    def normal(seed: int) -> da.Array:
        return da.random.default_rng(seed).normal(size=(*DRAWS, rows), chunks=chunks)

    def lazily(array: np.ndarray) -> da.Array:
        return da.from_array(array.astype("f4"), chunks=(10_000,))

    groups: dict[str, xr.Dataset] = {}
    for seed, (dims, pair) in enumerate(
        ((three, ("log_likelihood", "posterior_predictive")),
         (test, ("predictions_log_likelihood", "predictions")))
    ):  # fmt: skip
        truth = rng.normal(size=rows)
        y = lazily(truth + rng.normal(size=rows))
        mean = (lazily(truth)[None, None] + shift).astype("f4")
        density = (-0.5 * (np.log(2 * np.pi) + (y - mean) ** 2)).astype("f4")
        drawn = (mean + normal(seed)).astype("f4")
        groups[pair[0]] = xr.Dataset({"y": (dims, density)})
        groups[pair[1]] = xr.Dataset({"y": (dims, drawn)})
        observed = "observed_data" if dims is three else "predictions_observed_data"
        groups[observed] = xr.Dataset({"y": (dims[-1], y)})
        if dims is test:
            groups[pair[1]]["y_mean"] = (dims, mean)
            groups[pair[1]]["y_variance"] = (dims, da.ones_like(mean))
    tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    tree.attrs = {"observed": "y", "task": "regression", "kind": "mcmc", "method": "exact"}
    if path.suffix == ".zarr":
        tree.to_zarr(path)
    else:
        tree.to_netcdf(path, engine="h5netcdf")


def main(folder: str, kind: str, rows: str = "100000") -> None:
    path = Path(folder) / f"large.{'zarr' if kind == 'zarr' else 'nc'}"
    if not path.exists():
        write(path, int(rows))
        print(f"wrote {path.name}")
        return
    engine = "zarr" if kind == "zarr" else "h5netcdf"
    tree = xr.open_datatree(path, engine=engine, chunks={} if kind == "zarr" else None)
    start = time.perf_counter()
    found = d.report(tree, Path(folder) / "large.html")
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(found)
    print(f"{seconds:.1f} seconds, peak {peak:.2f} GiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
