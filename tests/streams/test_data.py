"""Finding, checking, fetching and reading data files; what goes wrong is said in one line."""

import contextlib
import gzip
import hashlib
import http.server
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from metaleader import UserError
from metaleader.streams import sources as data

CONTENT = gzip.compress(b"\0\0\x08\x02" + (2).to_bytes(4, "big") + (3).to_bytes(4, "big") + bytes(range(6)), mtime=0)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[data.DataSet]:
    """A data set of one file, published by a server on this machine; the cache is empty.

    What the server publishes under `cut/` breaks off half-way.
    """
    published = tmp_path / "published"
    published.mkdir()
    (published / "six.gz").write_bytes(CONTENT)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(published))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            if not self.path.startswith("/cut/"):
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
            return None

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.delenv("METALEADER_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = MappingProxyType({"six.gz": hashlib.sha256(CONTENT).hexdigest()})
    yield data.DataSet("small", f"http://127.0.0.1:{server.server_port}/", files)
    server.shutdown()
    server.server_close()


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folders_are_searched_in_order_and_the_cache_is_filled_last(
    small: data.DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = data.locate(small)["six.gz"]
    assert fetched == tmp_path / "cache" / "metaleader" / "data" / "small" / "six.gz"
    for name in ("environment", "given"):
        (tmp_path / name / "small").mkdir(parents=True)
        (tmp_path / name / "small" / "six.gz").write_bytes(CONTENT)
    monkeypatch.setenv("METALEADER_DATA", str(tmp_path / "environment"))
    assert data.locate(small)["six.gz"].is_relative_to(tmp_path / "environment")
    assert data.locate(small, tmp_path / "given")["six.gz"].is_relative_to(tmp_path / "given")


def test_what_a_package_of_the_system_holds_need_not_be_fetched(
    small: data.DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "system" / "small").mkdir(parents=True)
    (tmp_path / "system" / "small" / "six.gz").write_bytes(CONTENT)
    monkeypatch.setattr(data, "SYSTEM", tmp_path / "system")
    assert data.locate(small)["six.gz"].is_relative_to(tmp_path / "system")
    assert data.folders(None)[-1] == tmp_path / "cache" / "metaleader" / "data"


def test_a_compressed_file_of_fashion_mnist_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for name in data.find("fashion-mnist").files:
        (folder / name).write_bytes(CONTENT)
    with pytest.raises(UserError, match=r"train-images.* holds an array of shape \(2, 3\), not \(60000, 28, 28\)"):
        data.locate(data.find("fashion-mnist"), tmp_path)


def test_a_folder_that_lacks_the_file_is_passed_over(
    small: data.DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "given" / "small").mkdir(parents=True)
    monkeypatch.setenv("METALEADER_DATA", str(tmp_path / "nowhere"))
    assert data.locate(small, tmp_path / "given")["six.gz"].is_relative_to(tmp_path / "cache")


@pytest.mark.parametrize(("below", "checksum"), [("", "0" * 64), ("cut/", hashlib.sha256(CONTENT).hexdigest())])
def test_what_arrives_damaged_is_not_kept(small: data.DataSet, tmp_path: Path, below: str, checksum: str) -> None:
    other = data.DataSet(small.name, small.url + below, MappingProxyType({"six.gz": checksum}))
    with pytest.raises(UserError) as error:
        data.locate(other)
    assert "small/six.gz" in one_line(error)
    assert "could not be downloaded" in one_line(error)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_without_network_the_message_says_what_to_do(small: data.DataSet) -> None:
    unreachable = data.DataSet("small", "http://127.0.0.1:9/", small.files)
    with pytest.raises(UserError) as error:
        data.locate(unreachable)
    assert "Connection refused); put it into one of these folders, or name another with --data-dir" in one_line(error)


def test_a_damaged_file_is_named_with_both_checksums(small: data.DataSet, tmp_path: Path) -> None:
    path = data.locate(small)["six.gz"]
    path.write_bytes(b"damaged")
    with pytest.raises(UserError) as error:
        data.locate(small)
    assert str(path) in one_line(error)
    assert hashlib.sha256(b"damaged").hexdigest() in one_line(error)
    assert small.files["six.gz"] in one_line(error)
    assert "delete it and run: metaleader data small" in one_line(error)


def test_a_data_dir_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        data.folders(tmp_path / "nowhere")


def test_an_unknown_data_set_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown data set 'minst': did you mean mnist"):
        data.find("minst")


def test_cad_models_are_fetched_by_hand() -> None:
    with pytest.raises(UserError, match=r"pascal3d must be fetched by hand: .*unpack its folder CAD to pascal3d/CAD"):
        data.find("pascal3d")


def test_the_home_folder_may_be_named_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(data.ENVIRONMENT, "~/sets")
    assert data.folders(None)[0] == tmp_path / "sets"


def test_idx_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "good.gz").write_bytes(CONTENT)
    np.testing.assert_array_equal(data.read_idx(tmp_path / "good.gz"), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    "content",
    [
        b"no gzip",
        CONTENT[:-9],
        gzip.compress(b"\0\0\x08", mtime=0),
        CONTENT[:10] + b"\xff" + CONTENT[11:],
        gzip.compress(b"\0\0\x0d\x01\0\0\0\1abcd", mtime=0),
    ],
)
def test_damaged_idx_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.gz is no gzipped IDX file") as error:
        data.read_idx(tmp_path / "bad.gz")
    one_line(error)


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bad.gz"
    for place, bit in itertools.product(range(len(CONTENT)), range(8)):
        damaged = bytearray(CONTENT)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):  # some bits mean nothing: the time in the header, the last of a block
            np.testing.assert_array_equal(data.read_idx(path), [[0, 1, 2], [3, 4, 5]])


def test_the_inventory_tells_present_missing_and_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METALEADER_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    models = tmp_path / "pascal3d" / "CAD" / "car"
    models.mkdir(parents=True)
    (models / "01.off").touch()
    assert list(data.inventory(tmp_path))[-1][:4] == ("pascal3d", "CAD/*/*.off", "present", "1 files")
    (models / "01.off").unlink()
    status = {row[:2]: row[2] for row in data.inventory(tmp_path)}
    assert status["pascal3d", "CAD/*/*.off"] == "missing"
    assert status["mnist", "train-images-idx3-ubyte.gz"] == "damaged"
    assert status["mnist", "t10k-images-idx3-ubyte.gz"] == "missing"


def test_mnist_is_mnist(data_dir: Path) -> None:
    paths = data.locate(data.find("mnist"), data_dir)
    images, labels, test_images, test_labels = map(data.read_idx, paths.values())
    assert images.shape == (60_000, 28, 28)
    assert test_images.shape == (10_000, 28, 28)
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert {row[2] for row in data.inventory(data_dir) if row[0] == "mnist"} == {"present"}
