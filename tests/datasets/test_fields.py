"""The real fields: what is known of the earth, and files that are not the ones pinned."""

import dataclasses
import hashlib

import numpy as np
import pytest

from ppbdl.datasets import fields
from ppbdl.datasets.fields import fetch_fields
from ppbdl.errors import DataError, InputError


def nearest(data, latitude, longitude):
    """The values at one place, (rows, channels)."""
    row, column = abs(data.latitude - latitude).argmin(), abs(data.longitude - longitude).argmin()
    return data.values[:, row, column]


def test_the_sea_is_that_of_the_earth(shared_data):
    sea = fetch_fields("sst", shared_data / "fields")
    assert sea.values.shape == (54, len(sea.latitude), len(sea.longitude), 1)
    assert (sea.rows[0][:7], sea.rows[-1][:7], len(set(sea.rows))) == ("2006-04", "2010-09", 54)
    land = np.isnan(sea.values)
    assert (land == land[0]).all()
    for latitude, longitude in ((-3, 23), (-4, 300), (1, 114)):  # the Congo, the Amazon, Borneo
        assert np.isnan(nearest(sea, latitude, longitude)).all()
    assert 285 < np.nanmin(sea.values) < np.nanmax(sea.values) < 306
    # The warm pool is warmer than the cold tongue, less so in El Nino (the end of 2009).
    contrast = (nearest(sea, 0, 160) - nearest(sea, 0, 250))[:, 0]
    assert contrast.mean() > 3
    months = np.array([row[:7] for row in sea.rows])
    assert contrast[months == "2009-12"] < contrast[months == "2007-12"] - 2


def test_the_wind_is_that_of_the_earth(shared_data):
    wind = fetch_fields("wind", shared_data / "fields")
    assert wind.values.shape == (2, len(wind.latitude), len(wind.longitude), 2)
    assert wind.rows == ("850 hPa", "500 hPa")
    assert wind.channels == ("eastward", "northward")
    assert np.isfinite(wind.values).all()
    by_latitude = wind.values[0, :, :, 0].mean(axis=1)
    trades, westerlies = (abs(wind.latitude - each).argmin() for each in (10, -50))
    assert by_latitude[trades] < -3 < 10 < by_latitude[westerlies]
    # The jet off Japan in winter, to the east and stronger with height; the Somali jet to the south
    low, high = nearest(wind, 35, 140)[:, 0]
    assert 0 < low < high - 20
    assert nearest(wind, 5, 50)[0, 1] < -3
    assert abs(wind.values[..., 1].mean()) < 0.5  # as much air goes north as south


def test_another_file_is_refused(tmp_path):
    (tmp_path / "ostia_sst_monthly.npz").write_bytes(b"something else")
    with pytest.raises(DataError, match="expected sha256 57a811af1e60"):
        fetch_fields("sst", tmp_path)


@pytest.mark.parametrize(
    ("name", "word"), [("salinity", "name: .* sst, wind"), ("wind", "eraint_uv_january.npz")]
)
def test_what_is_not_there_is_named(name, word, tmp_path):
    with pytest.raises(InputError, match=word):
        fetch_fields(name, tmp_path)


def test_a_small_file_in_the_same_format_is_read(tmp_path, monkeypatch):
    u, v = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    path, latitude, longitude = tmp_path / "eraint_uv_january.npz", np.arange(4.0), np.arange(5.0)
    np.savez(path, u=u, v=v, level=np.arange(3), latitude=latitude, longitude=longitude)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = dataclasses.replace(fields._SETS["wind"], sha256=digest)
    monkeypatch.setitem(fields._SETS, "wind", known)
    wind = fetch_fields("wind", str(tmp_path))
    np.testing.assert_array_equal(wind.values, np.stack([u, v], axis=-1))
    np.testing.assert_array_equal(wind.longitude, np.arange(5.0))
    assert repr(wind) == "Fields(values float32[3, 4, 5, 2], 0 hPa to 2 hPa, eastward, northward)"
