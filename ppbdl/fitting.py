"""The one verb that fits any model by any method."""

from __future__ import annotations

from collections.abc import Hashable

import jax
from jax.core import Tracer

from .data import Data
from .errors import InputError, ModelError
from .posterior import Posterior
from .structure import Structure, inspect_model, require_labels, shapes_of
from .types import Examining, Inference, Key, Model, Requiring, as_key


def fit(
    key: Key | int, model: Model, data: Data, method: Inference, *, progress: bool = True
) -> Posterior:
    """Fit a model to data.

    Parameters
    ----------
    key
        A JAX random key, or an integer seed for one.
    model
        A NumPyro program ``(x, y=None)``: ours (`ppbdl.models`) or any other.
    data
        The rows to fit; `Data.standardized` ones give predictions in the user's units again.
    method
        Settings of an inference method: ``NUTS()``, ``SVI(AutoNormal)``, ``Ensemble(MAP())``, ...
    progress
        Whether to show progress.  Ctrl-C ends the fit early and keeps what was done.

    Returns
    -------
    Posterior
        With (chain, draw) in front of every site, whatever the method.

    Raises
    ------
    DataError, ModelError, InputError
        Before anything is compiled, if the arguments do not fit together.
    FitError
        If a NaN or an infinity arises while fitting.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> fit(0, model, data, ppbdl.MAP(steps=300), progress=False).shape
    (1, 1)
    """
    if not isinstance(data, Data):
        raise InputError(
            "data",
            expected="a ppbdl.Data",
            got=type(data).__name__,
            remedy="Wrap the arrays: ppbdl.Data(x, y).",
        )
    if isinstance(method, type) or not isinstance(method, Inference):
        raise InputError(
            "method",
            expected="an inference method such as ppbdl.SVI(), ppbdl.NUTS() or ppbdl.MAP()",
            got=repr(method),
            remedy="Pass the settings as a value: SVI(steps=1000), with its parentheses.",
        )
    if not callable(model) or not isinstance(model, Hashable):
        raise InputError(
            "model",
            expected="a hashable callable (x, y=None)",
            got=repr(model),
            remedy="Use a function, or a frozen dataclass with eq=False.",
        )
    if isinstance(key, Tracer):
        raise InputError(
            "key",
            expected="a concrete key: a fit compiles what it runs, and cannot itself be compiled",
            got=f"a traced one, {key}",
            remedy="Call fit outside of jax.jit and jax.vmap; Ensemble fits several at once.",
        )
    data.require_trainable()
    structure = inspect_model(model, shapes_of(data))
    require_labels(structure, data)
    if isinstance(model, Requiring):
        model.require(data)
    _require_one_target(structure, data)
    posterior = method.run(as_key(key), model, data, progress=progress)
    if isinstance(model, Examining):
        posterior = model.examine(jax.random.fold_in(as_key(key), 1), posterior, data)
    return posterior


def _require_one_target(structure: Structure, data: Data) -> None:
    scaled = data.scaling is not None and data.scaling.y_sd is not None
    if scaled and len(structure.observed) > 1:
        raise ModelError(
            "data",
            expected="a standardised y for one observed site, whose units are given back to it",
            got=f"sites {list(structure.observed)}",
            remedy="Pass y as a dict with an entry for each site; entries keep their units.",
        )
