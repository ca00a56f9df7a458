"""Real fields on a grid: the temperature of the sea's surface, and the wind."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .verification import read_verified


@dataclass(frozen=True, eq=False)
class Fields:
    """Fields on one grid of latitudes and longitudes.

    Attributes
    ----------
    values
        Shape (rows, latitudes, longitudes, channels); NaN where there is no value.
    latitude, longitude
        Degrees north and east.
    rows, channels
        What each row and each channel is.
    """

    values: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    rows: tuple[str, ...]
    channels: tuple[str, ...]

    def __repr__(self) -> str:
        shape = f"values {self.values.dtype}{list(self.values.shape)}"
        return f"Fields({shape}, {self.rows[0]} to {self.rows[-1]}, {', '.join(self.channels)})"


def fetch_fields(name: str, folder: str | Path) -> Fields:
    """Load a set of fields.

    Parameters
    ----------
    name
        ``"sst"``: the monthly mean temperature of the sea's surface, in kelvin, from April 2006 to
        September 2010, all round the equator from 5 degrees south to 4.4 north; NaN on land.
        ``"wind"``: the velocity of the air to the east and to the north in m/s, mean of all
        Januaries, over the whole earth, at 850 and at 500 hPa.
    folder
        Where ``ostia_sst_monthly.npz`` or ``eraint_uv_january.npz`` lies. They are the developers'
        copies of ``ostia_monthly.nc`` of SciTools/iris-sample-data (UK Open Government Licence)
        and of ``eraint_uvz.nc`` of pydata/xarray-data (ECMWF).

    Returns
    -------
    fields
        `values` of shape (54, 18, 432, 1) or (2, 241, 480, 2), with their coordinates.

    Raises
    ------
    InputError
        If there is no such set or file.
    DataError
        If the file is not the one pinned.

    References
    ----------
    Donlon et al. (2012), The operational sea surface temperature and sea ice analysis (OSTIA)
    system. Dee et al. (2011), The ERA-Interim reanalysis.

    Examples
    --------
    >>> sea = fetch_fields("sst", "shared/data/fields")  # doctest: +SKIP
    >>> sea  # doctest: +SKIP
    Fields(values float32[54, 18, 432, 1], 2006-04-16 to 2010-09-16, temperature)
    """
    if name not in _SETS:
        known = ", ".join(_SETS)
        raise InputError("name", expected=f"one of {known}", got=repr(name), remedy="Pass one.")
    chosen = _SETS[name]
    path = Path(folder) / chosen.file
    if not path.is_file():
        raise InputError(
            "folder",
            expected=f"a folder with {chosen.file}",
            got=repr(str(folder)),
            remedy="Pass the one in which the file lies.",
        )
    content = read_verified(path, chosen.sha256)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        rows = tuple(map(str, chosen.rows(arrays)))
        values = np.stack([arrays[channel] for channel in chosen.channels.values()], axis=-1)
        place = arrays["latitude"], arrays["longitude"]
    return Fields(values, *place, rows, tuple(chosen.channels))


@dataclass(frozen=True)
class _Set:
    file: str
    sha256: str
    channels: dict[str, str]  # the file's name of each
    rows: Callable[[Mapping[str, np.ndarray]], list[str]]


_SETS = {
    "sst": _Set(
        "ostia_sst_monthly.npz",
        "57a811af1e609b5fefbcc76ec1ef3763faf6721271531c465bc42617e2cd00b5",
        {"temperature": "sst_kelvin"},
        lambda arrays: list(arrays["time"]),
    ),
    "wind": _Set(
        "eraint_uv_january.npz",
        "bcc848500a130be58f586709571393f1c2f1cd3a9484e6f613a4e8be0f0715ee",
        {"eastward": "u", "northward": "v"},
        lambda arrays: [f"{level} hPa" for level in arrays["level"]],
    ),
}
