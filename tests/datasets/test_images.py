"""MNIST, Fashion-MNIST and CIFAR-10: the real files, and tiny ones in the same formats."""

import gzip
import io
import struct
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from ppbdl.datasets import fetch_images, formats, images
from ppbdl.errors import DataError, InputError

IDX_FILES = list(images._SETS["mnist"].layouts[0].files)


def tiny_cifar():
    """Two images in each batch, by file; the records' bytes are written one by one."""
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 256, (12, 32, 32, 3), np.uint8), rng.integers(0, 10, 12, np.uint8)
    records = [
        bytes([y[i]]) + b"".join(x[i, :, :, c].tobytes() for c in range(3)) for i in range(12)
    ]
    pairs = zip(records[::2], records[1::2], strict=True)
    return x, y, dict(zip(formats.BATCHES, map(b"".join, pairs), strict=True))


def write(folder, contents):
    for file, content in contents.items():
        (folder / file).write_bytes(content)


# The real files.


@pytest.mark.parametrize(
    ("name", "folder", "per_class"),
    [
        (
            "mnist",
            "mnist",
            (
                [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
                [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
            ),
        ),
        ("fashion-mnist", "fashion_mnist", ([6000] * 10, [1000] * 10)),
    ],
)
def test_the_published_files_load(name, folder, per_class, shared_data):
    for data, counts in zip(fetch_images(name, shared_data / folder), per_class, strict=True):
        assert data.x.shape == (sum(counts), 28, 28, 1)
        assert data.x.min() == 0
        assert data.x.max() == 1
        assert np.bincount(data.y).tolist() == counts
        assert len(data.classes) == 10
        assert repr(data) == f"Data({name}, x float32{list(data.x.shape)}, y int32[{sum(counts)}])"


def test_fashions_classes_have_their_names(shared_data):
    """Trousers are told by the gap between their legs; the others are as in the set's README."""
    train, _ = fetch_images("fashion-mnist", shared_data / "fashion_mnist")
    hems = [train.x[train.y == k, 20:27].mean((0, 1))[:, 0] for k in range(10)]
    gaps = [np.maximum(hem[:14].max(), hem[14:].max()) - hem[13:15].mean() for hem in hems]
    assert train.classes[np.argmax(gaps)] == "trouser"
    assert (train.classes[7], train.classes[9]) == ("sneaker", "ankle boot")


def test_the_developers_jpegs_load(shared_data):
    train, test = fetch_images("cifar10", shared_data / "cifar10_jpeg")
    assert train.x.shape == (30_000, 32, 32, 3)
    assert test.x.shape == (10_000, 32, 32, 3)
    assert np.bincount(train.y).tolist() == [5000] * 5 + [1000] * 5
    assert np.bincount(test.y).tolist() == [1000] * 10
    assert train.name == test.name == "cifar10 (lossy JPEG, in part)"
    assert 0 <= test.x.min() < 0.01 < 0.99 < test.x.max() <= 1
    with np.load(shared_data / "cifar10_jpeg" / "test.npz", allow_pickle=False) as arrays:
        assert tuple(arrays["class_names"]) == test.classes
    # Ships sail on blue: the channels are red, green and blue, in this order.
    red, _, blue = test.x[test.y == test.classes.index("ship")].mean((0, 1, 2))
    assert blue > red + 0.02


# The formats.


def test_idx_files_are_parsed(tmp_path, pin, tiny_mnist, check_images):
    x, y, contents = tiny_mnist
    pin("mnist", contents)
    write(tmp_path, contents)
    check_images(fetch_images("mnist", tmp_path), x[..., None], y, n_train=3)


def test_cifars_batches_are_parsed(tmp_path, pin, check_images):
    x, y, contents = tiny_cifar()
    pin("cifar10", contents, number=1)
    write(tmp_path, contents)
    check_images(fetch_images("cifar10", tmp_path), x, y, n_train=10)


def test_cifars_archive_is_parsed(tmp_path, pin, check_images):
    """In any order of its members, and past what else it holds."""
    x, y, batches = tiny_cifar()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        members = {**dict(reversed(batches.items())), "readme.html": b"<p>"}
        for file, content in members.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    contents = {"cifar-10-binary.tar.gz": stream.getvalue()}
    pin("cifar10", contents)
    write(tmp_path, contents)
    check_images(fetch_images("cifar10", tmp_path), x, y, n_train=10)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-binary.tar.gz"]


def test_an_archive_without_a_batch_is_refused():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz"):
        pass
    with pytest.raises(
        DataError, match=r"a\.tar\.gz: expected CIFAR-10's six batches, got no data"
    ):
        formats.parse_tar({"a.tar.gz": stream.getvalue()})


def test_half_a_record_is_refused():
    with pytest.raises(DataError, match=r"a\.bin: expected records of 3073 bytes, got 4000 bytes"):
        formats.parse_batches({"a.bin": bytes(4000), "b.bin": bytes(3073)})


IMAGES = struct.pack(">4I", 0x0803, 2, 28, 28) + bytes(2 * 28 * 28)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "expected a gzipped IDX file of bytes with 3 axes, got Not a gzipped file"),
        (gzip.compress(IMAGES)[:-9], "got Compressed file ended"),
        (gzip.compress(b""), "got the first bytes ''"),
        (gzip.compress(IMAGES[:9]), "got the first bytes '00000803'"),
        (gzip.compress(struct.pack(">2I", 0x0801, 2) + bytes(99)), "got the first bytes '00000801"),
        (gzip.compress(b"\0\0\x0d\x03" + IMAGES[4:]), "got the first bytes '00000d03'"),
        (gzip.compress(IMAGES[:-1]), r"expected 1568 values, shape \(2, 28, 28\), got 1567"),
        (gzip.compress(IMAGES + b"\0"), "got 1569"),
    ],
    # A gzipped file holds the second it was made in, and each process makes its own.
    ids=["no gzip", "cut", "empty", "header cut", "labels", "floats", "short", "long"],
)
def test_a_file_that_is_no_idx_is_refused(content, message):
    first, *others = IDX_FILES
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte\.gz: .*{message}"):
        formats.parse_idx_files({first: content, **dict.fromkeys(others, b"")})


# What lies in the folder.


def test_an_altered_file_is_refused_before_it_is_parsed(tmp_path, pin, tiny_mnist):
    _, _, contents = tiny_mnist
    pin("mnist", contents)
    write(tmp_path, contents | {IDX_FILES[2]: b"altered"})
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: expected sha256 .* altered"):
        fetch_images("mnist", tmp_path)


def test_an_altered_archive_of_jpegs_is_refused(tmp_path):
    write(tmp_path, {"train.npz": b"altered", "test.npz": b""})
    with pytest.raises(DataError, match=r"train\.npz: expected sha256 9b49d737b3b4"):
        fetch_images("cifar10", tmp_path)


def test_another_sets_files_are_refused(shared_data):
    """Fashion-MNIST's files have the very names of MNIST's."""
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: .* or is another"):
        fetch_images("mnist", shared_data / "fashion_mnist")


@pytest.mark.parametrize(
    ("name", "there", "message"),
    [
        (
            "mnist",
            IDX_FILES[:3],
            "which lacks t10k-labels-idx1-ubyte.gz. Get the originals from ht",
        ),
        ("mnist", [], "which lacks train-images-idx3-ubyte.gz, .* and t10k-labels-idx1-ubyte.gz"),
        ("cifar10", formats.BATCHES[1:], "which lacks data_batch_1.bin"),
        ("cifar10", ["train.npz"], "which lacks test.npz"),
        ("cifar10", [], "which lacks cifar-10-binary.tar.gz"),
    ],
)
def test_a_folder_that_lacks_a_file_is_told_which(name, there, message, tmp_path):
    write(tmp_path, dict.fromkeys(there, b""))
    with pytest.raises(InputError, match=f"folder: expected a folder with .*{message}"):
        fetch_images(name, tmp_path)


def test_an_import_loads_no_downloader():
    program = "import sys, ppbdl.datasets; print({'pooch', 'requests', 'PIL'} & sys.modules.keys())"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


def test_an_unknown_set_is_refused():
    with pytest.raises(
        InputError, match="name: expected one of mnist, fashion-mnist, cifar10, got"
    ):
        fetch_images("imagenet")
