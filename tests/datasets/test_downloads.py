"""Downloads of the image sets, from a real server on this machine, through the real pooch.

Only the address of a set is replaced, by the server's, and the pinned hashes by those of tiny files
in the set's own format.
"""

import http.server
import threading

import pooch
import pytest

from ppbdl.datasets import fetch_images, images
from ppbdl.errors import DataError, InputError

IDX_FILES = list(images._SETS["mnist"].layouts[0].files)


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.contents, self.asked, self.cut = {}, [], set()
        self.url = f"http://127.0.0.1:{self.server_port}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        file = self.path.removeprefix("/")
        self.server.asked.append(file)
        if file not in self.server.contents:
            self.send_error(404)
            return
        content = self.server.contents[file]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:20] if file in self.server.cut else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path, tiny_mnist, pin):
    """A server whose files are tiny MNIST's, and an empty cache at ``tmp_path``."""
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with _Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.contents = dict(tiny_mnist[2])
        pin("mnist", server.contents, url=server.url)
        yield server
        server.shutdown()


def cached(tmp_path):
    return sorted(path.name for path in tmp_path.rglob("*") if path.is_file())


def test_a_set_is_downloaded_once(server, tmp_path, tiny_mnist, check_images):
    x, y, _ = tiny_mnist
    for _ in range(2):
        check_images(fetch_images("mnist"), x[..., None], y, n_train=3)
    assert server.asked == IDX_FILES
    assert cached(tmp_path / "ppbdl" / "mnist") == sorted(IDX_FILES)


def test_a_damaged_file_in_the_cache_is_downloaded_again(
    server, tmp_path, tiny_mnist, check_images
):
    x, y, _ = tiny_mnist
    fetch_images("mnist")
    (tmp_path / "ppbdl" / "mnist" / IDX_FILES[1]).write_bytes(b"damaged")
    check_images(fetch_images("mnist"), x[..., None], y, n_train=3)
    assert server.asked == [*IDX_FILES, IDX_FILES[1]]


def test_a_corrupted_download_is_refused_and_not_kept(server, tmp_path):
    server.contents = server.contents | {IDX_FILES[1]: b"corrupted"}
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: expected sha256 .* another"):
        fetch_images("mnist")
    assert cached(tmp_path) == [IDX_FILES[0]]


def test_half_a_download_is_not_kept(server, tmp_path):
    server.cut.add(IDX_FILES[0])
    with pytest.raises(InputError, match=r"download of train-images-idx3-ubyte\.gz failed \("):
        fetch_images("mnist")
    assert cached(tmp_path) == []


def test_a_file_that_the_server_lacks_is_told(server):
    del server.contents[IDX_FILES[3]]
    with pytest.raises(InputError, match=r"t10k-labels-idx1-ubyte\.gz failed \(HTTPError\)"):
        fetch_images("mnist")


def test_without_a_connection_the_files_to_get_are_told(server, monkeypatch):
    server.shutdown()
    server.server_close()  # nothing listens there any more
    with pytest.raises(InputError) as caught:
        fetch_images("mnist")
    assert caught.value.argument == "folder"
    message = str(caught.value)
    assert server.url in message
    assert all(file in message for file in IDX_FILES)
    assert "pass folder=" in message
