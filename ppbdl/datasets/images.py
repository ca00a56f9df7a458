"""MNIST, Fashion-MNIST and CIFAR-10: downloaded once, or read from a folder; always verified.

A set may lie in a folder in several layouts (an archive, its extracted files). Each layout pins the
sha256 of its files and knows how to parse them; the first is the one that is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import Data
from ..errors import DataError, InputError
from .formats import BATCHES, Part, parse_batches, parse_idx_files, parse_jpeg_files, parse_tar
from .verification import read_verified


@dataclass(frozen=True)
class _Layout:
    files: dict[str, str]  # sha256 by name
    parse: Callable[[dict[str, bytes]], tuple[Part, Part]]  # contents by name to (train, test)
    note: str = ""  # what the data's name must add


@dataclass(frozen=True)
class _Set:
    url: str
    classes: tuple[str, ...]
    layouts: tuple[_Layout, ...]


def fetch_images(name: str, folder: str | Path | None = None) -> tuple[Data, Data]:
    """Load a set of labelled images, with its published training and test parts.

    Parameters
    ----------
    name
        ``"mnist"`` or ``"fashion-mnist"`` (60,000 and 10,000 images, 28 × 28 × 1), or
        ``"cifar10"`` (50,000 and 10,000, 32 × 32 × 3).
    folder
        Where the files lie. MNIST and Fashion-MNIST are four ``.gz`` files each. CIFAR-10 is
        ``cifar-10-binary.tar.gz`` or the ``.bin`` files inside it; a pair ``train.npz`` and
        ``test.npz`` is a developers' copy, which is lossy (re-encoded as JPEG), partial (30,000
        training images: all of the classes 0 to 4, 1,000 of each other class) and sorted by class,
        so its errors are not comparable with published ones. None downloads the originals once,
        into the cache folder of the operating system.

    Returns
    -------
    train, test
        `x` in [0, 1], shape (rows, height, width, channels); `y` the classes.

    Raises
    ------
    InputError
        If there is no such set or file, or the download failed; it says which files to get.
    DataError
        If a file is not the one published.

    References
    ----------
    LeCun et al. (1998), Gradient-based learning applied to document recognition. Xiao et al.
    (2017), Fashion-MNIST. Krizhevsky (2009), Learning multiple layers of features from tiny images.

    Examples
    --------
    >>> train, test = fetch_images("fashion-mnist")  # doctest: +SKIP
    >>> train  # doctest: +SKIP
    Data(fashion-mnist, x float32[60000, 28, 28, 1], y int32[60000])
    >>> train.classes[7], train.classes[9]  # doctest: +SKIP
    ('sneaker', 'ankle boot')
    """
    if name not in _SETS:
        known = ", ".join(_SETS)
        raise InputError("name", expected=f"one of {known}", got=repr(name), remedy="Pass one.")
    images = _SETS[name]
    if folder is None:
        layout, place = images.layouts[0], _download(name, images)
    else:
        layout, place = _layout_in(Path(folder), images), Path(folder)
    contents = {file: read_verified(place / file, sha) for file, sha in layout.files.items()}
    train, test = (
        Data(
            np.divide(x, np.float32(255), dtype=np.float32),
            y,
            classes=images.classes,
            name=name + layout.note,
        )
        for x, y in layout.parse(contents)
    )
    return train, test


def _layout_in(folder: Path, images: _Set) -> _Layout:
    """The first layout whose files all lie in a folder."""

    def lacking(layout: _Layout) -> list[str]:
        return [file for file in layout.files if not (folder / file).is_file()]

    nearest = min(images.layouts, key=lambda layout: len(lacking(layout)) / len(layout.files))
    if not (absent := lacking(nearest)):
        return nearest
    raise InputError(
        "folder",
        expected="a folder with " + ", or with ".join(_list(each.files) for each in images.layouts),
        got=f"{str(folder)!r}, which lacks {_list(absent)}",
        remedy=f"Get the originals from {images.url} , or leave folder= out to download them.",
    )


def _download(name: str, images: _Set) -> Path:
    """The cache folder with the files of the first layout, downloaded where they are not there."""
    import pooch  # here, because it brings requests, and most sessions download nothing

    cache, files = Path(pooch.os_cache("ppbdl")) / name, images.layouts[0].files
    for file, sha256 in files.items():
        try:  # a file comes under its name only whole and verified
            pooch.retrieve(images.url + file, known_hash=sha256, fname=file, path=cache)
        except OSError as error:  # no connection, refused by the server, no room in the cache
            raise InputError(
                "folder",
                expected=f"a connection to {images.url} , or a folder with the files",
                got=f"None, and the download of {file} failed ({type(error).__name__})",
                remedy=f"Put {_list(files)} from there into one folder, and pass folder=.",
            ) from error
        except ValueError as error:  # pooch's word for another hash
            raise DataError(
                file,
                expected=f"sha256 {sha256[:12]}...",
                got=f"another file from {images.url}",
                remedy="Try again, or get the file elsewhere and pass folder=.",
            ) from error
    return cache


def _list(names: Iterable[str]) -> str:
    """The names as a sentence has them: a, b and c."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _idx(train_images: str, train_labels: str, test_images: str, test_labels: str) -> _Layout:
    """The layout of the MNIST family, by the sha256 of its files."""
    return _Layout(
        {
            "train-images-idx3-ubyte.gz": train_images,
            "train-labels-idx1-ubyte.gz": train_labels,
            "t10k-images-idx3-ubyte.gz": test_images,
            "t10k-labels-idx1-ubyte.gz": test_labels,
        },
        parse_idx_files,
    )


_BATCH_SHA256 = (
    "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
)

# The hosts, and the hashes of what is downloaded, are those that TensorFlow Datasets pins; those of
# CIFAR-10's batches, below, are torchvision-ruby's.
_SETS = {
    "mnist": _Set(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        tuple("0123456789"),
        (
            _idx(
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
    ),
    "fashion-mnist": _Set(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            *("t-shirt", "trouser", "pullover", "dress", "coat"),
            *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
        ),
        (
            _idx(
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
    ),
    "cifar10": _Set(
        "https://www.cs.toronto.edu/~kriz/",
        (
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        (
            _Layout(
                {
                    "cifar-10-binary.tar.gz": (
                        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
                    )
                },
                parse_tar,
            ),
            _Layout(dict(zip(BATCHES, _BATCH_SHA256, strict=True)), parse_batches),
            _Layout(
                {
                    "train.npz": "9b49d737b3b4afdf8c5f86c36c48841f8e3cfbff11f6d44ddebf1d70af69cca4",
                    "test.npz": "730969c4cf4da56e3e2b117baa928f41131d4ef4e1d4001a1048c41c96186fa7",
                },
                parse_jpeg_files,
                note=" (lossy JPEG, in part)",
            ),
        ),
    ),
}
