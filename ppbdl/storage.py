"""Posteriors on disk: a folder with the arrays in safetensors and the rest in JSON, no pickle.

A damaged file must not load as another posterior, so a manifest holds the size and SHA-256 of
each file and is checked before anything is parsed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .data import Scaling
from .errors import InputError
from .posterior import Posterior, Provenance

_ARRAYS, _RECORD, _MANIFEST = "arrays.safetensors", "posterior.json", "manifest.json"
_TREES = ("draws", "params", "mutables", "stats", "losses", "kept_losses", "iterates", "findings")
_TREES += ("scaling",)


def save(posterior: Posterior, path: str | Path) -> Path:
    """Write a posterior to a new folder.

    Parameters
    ----------
    path
        The folder, which must not exist yet.

    Examples
    --------
    >>> import tempfile, numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, x[:, 0])
    >>> model = ppbdl.models.LinearRegression()
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.MAP(steps=10), progress=False)
    >>> folder = save(posterior, Path(tempfile.mkdtemp()) / "fit")
    >>> load(folder).shape
    (1, 1)
    """
    from safetensors.numpy import save as to_bytes

    path = Path(path)
    if path.exists():
        raise InputError(
            "path", expected="a new folder", got=f"{path}, which exists", remedy="Name another."
        )
    arrays: dict[str, np.ndarray] = {}
    trees = {name: getattr(posterior, name) for name in _TREES}
    trees["scaling"] = {} if posterior.scaling is None else asdict(posterior.scaling)
    layout = _layout(trees, arrays)
    # bfloat16 and the like, which safetensors writes but does not read back into NumPy.
    small = {name: a.dtype.name for name, a in arrays.items() if a.dtype.kind == "V"}
    arrays |= {name: arrays[name].view(f"u{arrays[name].itemsize}") for name in small}
    record = {
        "trees": layout,
        "dtypes": small,
        "shape": posterior.shape,
        "observed": posterior.observed,
        "x_shape": posterior.x_shape,
        "standardised": posterior.scaling is not None,
        "provenance": asdict(posterior.provenance),
    }
    files = {_ARRAYS: to_bytes(arrays), _RECORD: json.dumps(record, default=dict).encode()}
    manifest = {name: {"size": len(b), "sha256": _sha256(b)} for name, b in files.items()}
    path.mkdir(parents=True)
    for name, content in (files | {_MANIFEST: json.dumps(manifest).encode()}).items():
        (path / name).write_bytes(content)
    return path


def load(path: str | Path) -> Posterior:
    """Read a posterior that `save` wrote.

    Raises
    ------
    InputError
        If a file is missing, or is not the one that was written.
    """
    from safetensors.numpy import load as from_bytes

    path = Path(path)
    files = {name: _read(path / name) for name in (_MANIFEST, _ARRAYS, _RECORD)}
    try:
        manifest = json.loads(files[_MANIFEST])
    except ValueError:
        manifest = {}
    for name in (_ARRAYS, _RECORD):
        found = {"size": len(files[name]), "sha256": _sha256(files[name])}
        if manifest.get(name) != found:
            raise InputError(
                "path",
                expected=f"{path / name} as it was written",
                got=f"another content, of {found['size']} bytes",
                remedy="The file is damaged: restore it from a copy, or fit again.",
            )
    record = json.loads(files[_RECORD])
    arrays = from_bytes(files[_ARRAYS])
    for name, dtype in record["dtypes"].items():
        arrays[name] = arrays[name].view(jnp.dtype(dtype))
    trees = _built(record["trees"], arrays)
    source = record["provenance"]
    return Posterior(
        **{name: jax.tree.map(jnp.asarray, trees[name]) for name in _TREES[:4]},
        losses=trees["losses"],
        kept_losses=trees["kept_losses"],
        iterates=trees["iterates"],
        findings=trees["findings"],
        scaling=Scaling(**trees["scaling"]) if record["standardised"] else None,
        shape=tuple(record["shape"]),
        observed=tuple(record["observed"]),
        x_shape=jax.tree.map(tuple, record["x_shape"], is_leaf=lambda v: isinstance(v, list)),
        provenance=Provenance(**source | {"seed": tuple(source["seed"])}),
    )


def _layout(tree: Any, arrays: dict[str, np.ndarray], where: str = "") -> Any:
    """Tell a tree's containers in JSON, and put its arrays by the names used there."""
    if isinstance(tree, Mapping) and all(isinstance(name, str) for name in tree):
        return {"dict": {k: _layout(v, arrays, f"{where}[{k!r}]") for k, v in tree.items()}}
    if type(tree) in (list, tuple):
        parts = [_layout(part, arrays, f"{where}[{i}]") for i, part in enumerate(tree)]
        return {type(tree).__name__: parts}
    if tree is None:
        return None
    if not isinstance(tree, (jax.Array, np.ndarray, float)):
        raise InputError(
            "posterior",
            expected="arrays in dicts with names, lists and tuples",
            got=f"{type(tree).__name__} in {where}",
            remedy="Declare parameters with numpyro.param or haiku_module.",
        )
    name = str(len(arrays))
    arrays[name] = np.asarray(tree, order="C")
    return name


def _built(layout: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Undo `_layout`."""
    if not isinstance(layout, dict):
        return None if layout is None else arrays[layout]
    ((kind, parts),) = layout.items()
    if kind == "dict":
        return {name: _built(part, arrays) for name, part in parts.items()}
    return (list if kind == "list" else tuple)(_built(part, arrays) for part in parts)


def _read(file: Path) -> bytes:
    if not file.is_file():
        raise InputError(
            "path",
            expected=f"a folder with {_MANIFEST}, {_ARRAYS} and {_RECORD}",
            got=f"no {file}",
            remedy="Pass the folder that ppbdl.save returned.",
        )
    return file.read_bytes()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
