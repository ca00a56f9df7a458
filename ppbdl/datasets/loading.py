"""The UCI regression sets with the standard splits of Hernández-Lobato and Adams (2015).

Every published comparison of Bayesian neural networks uses these splits: 90 % of the rows to train
on and 10 % to test, 20 times over. A file's sha256 is checked before it is parsed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import Data
from ..errors import InputError
from .verification import read_verified

_SHIPPED = Path(__file__).parent / "uci"


@dataclass(frozen=True)
class _Table:
    features: tuple[str, ...]
    target: str
    sha256: str


_TABLES = {
    "yacht": _Table(
        (
            "longitudinal position of the centre of buoyancy",
            "prismatic coefficient",
            "length-displacement ratio",
            "beam-draught ratio",
            "length-beam ratio",
            "Froude number",
        ),
        "residuary resistance",
        "a546eb1a39e5ac45ba24615a8a52e8dd1c5abed212d46aede08fdd318e38d47d",
    ),
    "energy": _Table(
        (
            "relative compactness",
            "surface area",
            "wall area",
            "roof area",
            "overall height",
            "orientation",
            "glazing area",
            "glazing area distribution",
        ),
        "heating load",
        "c0db8b3cc810846fa46bd39d3b4e728201bd13a5993164a39b42abcb50051054",
    ),
    "concrete": _Table(
        (
            "cement",
            "blast furnace slag",
            "fly ash",
            "water",
            "superplasticizer",
            "coarse aggregate",
            "fine aggregate",
            "age",
        ),
        "compressive strength",
        "31d001d5a964410f53dc2f7fbc10b913e24912e96f5d771cbd12229385bb6f7b",
    ),
    "power-plant": _Table(
        ("temperature", "exhaust vacuum", "ambient pressure", "relative humidity"),
        "electrical energy output",
        "12c1534e435c30bdc12fa275364e90486cae6cf1c2acf6c859f1762691390bb6",
    ),
    "protein-tertiary-structure": _Table(
        (
            "total surface area",
            "non-polar exposed area",
            "fractional area of exposed non-polar residue",
            "fractional area of exposed non-polar part of residue",
            "molecular mass weighted exposed area",
            "average deviation from standard exposed area of residue",
            "Euclidean distance",
            "secondary structure penalty",
            "spatial distribution constraints",
        ),
        "size of the residue",
        "184c14cb89d134c0375727ca2d785d0aa6ec1348f28bf5622e9e8a32bb75e29d",
    ),
    "wine-quality-red": _Table(
        (
            "fixed acidity",
            "volatile acidity",
            "citric acid",
            "residual sugar",
            "chlorides",
            "free sulfur dioxide",
            "total sulfur dioxide",
            "density",
            "pH",
            "sulphates",
            "alcohol",
        ),
        "quality",
        "f8ec24260d732040a37c981057ee400bdfdc2c6998c8b0d11c4f25c03a0714ae",
    ),
    # Withdrawn by UCI (its column B is ethically unsound): for comparison with old tables only.
    "bostonHousing": _Table(
        (
            "CRIM",
            "ZN",
            "INDUS",
            "CHAS",
            "NOX",
            "RM",
            "AGE",
            "DIS",
            "RAD",
            "TAX",
            "PTRATIO",
            "B",
            "LSTAT",
        ),
        "MEDV",
        "71c94521fda2632244a6a0bdc5b3f3c25fc9957a768e497688ae49a91ddb0d2b",
    ),
}


def load(name: str, split: int = 0, folder: str | Path | None = None) -> tuple[Data, Data]:
    """Load one standard split of a UCI regression set, in its own units.

    Parameters
    ----------
    name
        ``"yacht"`` (308 rows, 6 features) and ``"energy"`` (768 rows, 8 features) ship inside.
    split
        Number of the split, from 0.
    folder
        Where ``name.npz`` lies; None for the sets that ship inside.

    Returns
    -------
    train, test
        90 % and 10 % of the rows, raw: call ``train.standardized()`` before a fit.

    Raises
    ------
    InputError
        If there is no such set, file or split.
    DataError
        If the file is not the one published.

    Examples
    --------
    >>> train, test = load("yacht")
    >>> train
    Data(yacht, x float32[277, 6], y float32[277])
    >>> train.feature_names[-1], train.target_name
    ('Froude number', 'residuary resistance')
    """
    if name not in _TABLES:
        known = ", ".join(_TABLES)
        raise InputError("name", expected=f"one of {known}", got=repr(name), remedy="Pass one.")
    path = Path(_SHIPPED if folder is None else folder) / f"{name}.npz"
    if not path.is_file():
        raise InputError(
            "name" if folder is None else "folder",
            expected="a set that ships inside" if folder is None else f"a folder with {path.name}",
            got=repr(name if folder is None else str(folder)),
            remedy="Pass folder=, where the file lies.",
        )
    table = _TABLES[name]
    content = read_verified(path, table.sha256)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        n_splits = len(arrays["index_train"])
        if isinstance(split, bool) or not isinstance(split, int) or not 0 <= split < n_splits:
            raise InputError(
                "split",
                expected=f"an integer from 0 to {n_splits - 1}",
                got=repr(split),
                remedy="Pass one of these.",
            )
        data = Data(
            arrays["x"],
            arrays["y"],
            feature_names=table.features,
            target_name=table.target,
            name=name,
        )
        return data.take(arrays["index_train"][split]), data.take(arrays["index_test"][split])
