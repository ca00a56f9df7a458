"""Flows over vectors, by the layer that each repeats: couplings, autoregressive.

Between layers the features change places: what one coupling keeps the next one moves, and the
halves are dealt anew; autoregressive layers take turns at the order.
Standardise the data (`Data.standardized`): all start as the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppbdl.errors import InputError
from ppbdl.flows import (
    Autoregressive,
    Bijection,
    Chain,
    Coupling,
    Reverse,
    Transformer,
    affine,
    half,
    made,
    mlp,
    rational_quadratic,
)
from ppbdl.types import Array

from .density import FlowDensity


@dataclass(frozen=True, eq=False)
class RealNVP(FlowDensity):
    """Affine couplings: Dinh et al. (2017), *Density Estimation using Real NVP*.

    It scores and samples in one pass.  For the parameters see `FlowDensity`; it takes at least two
    features, and two layers, to move them all.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> y = np.random.default_rng(0).normal(size=(100, 2))
    >>> model = RealNVP(features=2, layers=2, width=8)
    >>> data = ppbdl.Data(None, y)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.MAP(steps=50), progress=False)
    >>> ppbdl.log_likelihood(1, model, posterior, data)["y"].shape
    (1, 1, 100)
    >>> flow = model.fitted(posterior)
    >>> bool(abs(flow.forward(flow.inverse(y)) - y).max() < 1e-4)
    True
    """

    layers: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_two(self)

    def conditioner(self, context: int) -> tuple[Callable[..., Any], int]:
        return _halves(self, affine(), context)

    def bijection(self, net: Callable[[Array], Any]) -> Bijection:
        return _coupled(self, affine(), net)

    def orders(self) -> np.ndarray | None:
        return _dealt(self)


@dataclass(frozen=True, eq=False)
class NSF(FlowDensity):
    """Spline couplings: Durkan et al. (2019), *Neural Spline Flows*.

    It scores and samples in one pass, and bends where an affine coupling can only stretch.

    Parameters
    ----------
    features, layers, width, prior
        As for `FlowDensity`; at least two features, and two layers, to move them all.
    bins, bound
        Of the splines, which are the identity outside of [-bound, bound]: standardise y.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> x = np.random.default_rng(0).uniform(-1, 1, size=(100, 1))
    >>> data = ppbdl.Data(x, np.concatenate([x, x**2], axis=1)).standardized()
    >>> model = NSF(features=2, layers=2, width=8)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.MAP(steps=50), progress=False)
    >>> model.fitted(posterior, x[:3], temperature=0.5).sample(ppbdl.types.as_key(1)).shape
    (3, 2)
    """

    layers: int = 6
    bins: int = 8
    bound: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_two(self)
        self._transformer()

    def conditioner(self, context: int) -> tuple[Callable[..., Any], int]:
        return _halves(self, self._transformer(), context)

    def bijection(self, net: Callable[[Array], Any]) -> Bijection:
        return _coupled(self, self._transformer(), net)

    def orders(self) -> np.ndarray | None:
        return _dealt(self)

    def _transformer(self) -> Transformer:
        return rational_quadratic(self.bins, self.bound)


@dataclass(frozen=True, eq=False)
class MAF(FlowDensity):
    """Masked autoregressive flow: Papamakarios et al. (2017).

    It scores in one pass, and samples in one for each feature and layer.

    Parameters
    ----------
    features, layers, width, prior
        As for `FlowDensity`; `width` at least features - 1, so that each sees all before it.
    transformer
        ``ppbdl.flows.affine()``, or ``rational_quadratic()`` for the autoregressive spline flow.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> data = ppbdl.Data(None, np.random.default_rng(0).normal(size=(100, 3)))
    >>> model = MAF(features=3, layers=2, width=8)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.MAP(steps=50), progress=False)
    >>> model.fitted(posterior).sample(ppbdl.types.as_key(1), (7,)).shape
    (7, 3)
    """

    layers: int = 5
    transformer: Transformer = affine()

    def conditioner(self, context: int) -> tuple[Callable[..., Any], int]:
        return _masked(self, self.transformer, context)

    def bijection(self, net: Callable[[Array], Any]) -> Bijection:
        return Chain([Autoregressive(self.transformer, net).inv, Reverse()])


@dataclass(frozen=True, eq=False)
class IAF(FlowDensity):
    """Inverse autoregressive flow: Kingma et al. (2016); `MAF` read backwards.

    It samples in one pass, and scores given rows in one for each feature and layer: made for a
    guide, ``AutoFlow(IAF)``, rather than to be fitted to data.

    Parameters
    ----------
    features, layers, width, prior, transformer
        As for `MAF`.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> data = ppbdl.Data(None, np.random.default_rng(0).normal(size=(50, 2)))
    >>> model = IAF(features=2, layers=2, width=8)
    >>> ppbdl.fit(0, model, data, ppbdl.MAP(steps=10), progress=False).shape
    (1, 1)
    """

    layers: int = 4
    transformer: Transformer = affine()

    def conditioner(self, context: int) -> tuple[Callable[..., Any], int]:
        return _masked(self, self.transformer, context)

    def bijection(self, net: Callable[[Array], Any]) -> Bijection:
        return Chain([Autoregressive(self.transformer, net), Reverse()])


def _halves(density: FlowDensity, transformer: Transformer, context: int) -> tuple[Any, int]:
    kept = density.features // 2
    outputs = (density.features - kept) * transformer.width
    return mlp(outputs, (density.width, density.width), context), kept


def _coupled(
    density: FlowDensity, transformer: Transformer, net: Callable[[Array], Any]
) -> Bijection:
    coupling = Coupling(transformer, net, half(density.features))
    return Chain([coupling, Reverse()]) if density.features == 2 else coupling


def _dealt(density: FlowDensity) -> np.ndarray | None:
    """Let the halves change places, then deal them out to new ones, in turn.

    If they only changed places, two features of one half would never steer each other.
    """
    if density.features == 2:
        return None
    kept, moved = np.split(np.arange(density.features), [density.features // 2])
    swapped = np.concatenate([moved, kept])
    dealt = np.empty_like(swapped)
    dealt[::2], dealt[1::2] = moved, kept
    return np.array([swapped, dealt])[np.arange(density.layers) % 2]


def _masked(density: FlowDensity, transformer: Transformer, context: int) -> tuple[Any, int]:
    hidden = (density.width, density.width)
    return made(density.features, transformer.width, hidden, context), density.features


def _require_two(density: FlowDensity) -> None:
    for name in ("features", "layers"):
        if getattr(density, name) < 2:
            raise InputError(
                name,
                expected="at least 2 for couplings, where one half decides how the other moves",
                got=str(getattr(density, name)),
                remedy="Take an MAF for a single feature.",
            )
