"""Posteriors on disk: a folder with the arrays in safetensors and the rest in JSON, no pickle.

A damaged file must not load as another posterior, so a manifest holds the size and SHA-256 of
each file and is checked before anything is parsed.
"""

from __future__ import annotations

import hashlib
import json
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
_TREES = ("draws", "params", "mutables", "stats", "losses", "scaling")


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
    trees = {name: getattr(posterior, name) for name in _TREES}
    trees["scaling"] = {} if posterior.scaling is None else asdict(posterior.scaling)
    leaves, _ = jax.tree_util.tree_flatten_with_path(trees)
    arrays = {json.dumps(_keys(keys)): np.asarray(leaf, order="C") for keys, leaf in leaves}
    # bfloat16 and the like, which safetensors writes but does not read back into NumPy.
    small = {name: a.dtype.name for name, a in arrays.items() if a.dtype.kind == "V"}
    arrays |= {name: arrays[name].view(f"u{arrays[name].itemsize}") for name in small}
    record = {
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
    trees: dict[str, Any] = {name: {} for name in _TREES}
    for name, array in from_bytes(files[_ARRAYS]).items():
        if name in record["dtypes"]:
            array = array.view(jnp.dtype(record["dtypes"][name]))
        *parents, leaf = json.loads(name)
        tree = trees
        for key in parents:
            tree = tree.setdefault(key, {})
        tree[leaf] = array
    source = record["provenance"]
    return Posterior(
        **{name: jax.tree.map(jnp.asarray, trees[name]) for name in _TREES[:4]},
        losses=trees["losses"] if isinstance(trees["losses"], np.ndarray) else None,
        scaling=Scaling(**trees["scaling"]) if record["standardised"] else None,
        shape=tuple(record["shape"]),
        observed=tuple(record["observed"]),
        x_shape=jax.tree.map(tuple, record["x_shape"], is_leaf=lambda v: isinstance(v, list)),
        provenance=Provenance(**source | {"seed": tuple(source["seed"])}),
    )


def _keys(path: tuple) -> list[str]:
    for key in path:
        if not isinstance(key, jax.tree_util.DictKey) or not isinstance(key.key, str):
            raise InputError(
                "posterior",
                expected="parameters and state held in dicts with names",
                got=f"{type(key).__name__} in {jax.tree_util.keystr(path)}",
                remedy="Declare them with numpyro.param or haiku_module, one array or dict each.",
            )
    return [key.key for key in path]


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
