"""Data sets: where they are found, how they are fetched and checked, and how their files are read."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import platformdirs
import pooch
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from metaleader.errors import UserError, unknown

ENVIRONMENT = "METALEADER_DATA"
SYSTEM = Path("/usr/share/datasets")  # where Debian's packages of data sets put them


@dataclass(frozen=True)
class DataSet:
    """Files as their publisher made them.

    Attributes:
        name: on the command line, and of the folder that holds the files.
        url: where the files are published; a file's name is appended.
        files: SHA-256 of each, by name. What is downloaded must have it.
        check: admits a file that a user put into a folder though its SHA-256 is another, by reading it; it raises
            `UserError` where the content is not sound. Runs note the SHA-256 of the file they read. None: only
            published files are admitted.
    """

    name: str
    url: str
    files: Mapping[str, str]
    check: Callable[[Path], Any] | None = None


class Cifar100(NamedTuple):
    """The content of the archive of CIFAR-100, binary version.

    Attributes:
        names: of the 100 classes, in the order of their numbers.
        train: `(100, 500, 32, 32, 3)`: the 500 training images of each class, in the order of the archive.
        test: `(100, 100, 32, 32, 3)`: the 100 test images of each class.
    """

    names: tuple[str, ...]
    train: UInt8[np.ndarray, "100 500 32 32 3"]
    test: UInt8[np.ndarray, "100 100 32 32 3"]


def read_cifar100(path: Path) -> Cifar100:
    """The images of CIFAR-100 by class, from the `.tar.gz` of its binary version.

    A record is a byte for the coarse label, one for the fine label, and 3072 bytes of pixels: the red, the green
    and the blue plane. The archive is sound if every class has 500 training images and 100 test images; images
    may be in another order than published.

    Raises:
        UserError: the archive is missing, truncated or damaged, or a class has another number of images.
    """
    status = path.stat()
    return _read_cifar100(path, status.st_mtime_ns, status.st_size)


@cache
def _read_cifar100(path: Path, modified: int, size: int) -> Cifar100:  # noqa: ARG001 - a changed file is read again
    try:
        with tarfile.open(path, "r:gz") as archive:
            content = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
            files: dict[str, bytes] = {}
            for name in ("fine_label_names.txt", "train.bin", "test.bin"):
                if name not in content:
                    raise ValueError(f"it holds no {name}")
                file = archive.extractfile(content[name])
                assert file is not None
                files[name] = file.read()
        names = tuple(files["fine_label_names.txt"].decode().split())
        if len(names) != 100:
            raise ValueError(f"fine_label_names.txt has {len(names)} names")
        train, test = (_by_class(name, files[name], count) for name, count in (("train.bin", 500), ("test.bin", 100)))
        return Cifar100(names, train, test)
    except (EOFError, OSError, ValueError, tarfile.TarError, zlib.error) as error:
        raise UserError(
            f"{path} is no sound archive of CIFAR-100, binary version ({error}): delete it and run "
            "metaleader data cifar100, which fetches the published one"
        ) from error


def _by_class(name: str, content: bytes, per_class: int) -> UInt8[np.ndarray, "100 _ 32 32 3"]:
    expected = 100 * per_class * 3074
    if len(content) != expected:
        raise ValueError(f"{name} has {len(content):,} bytes, not {expected:,}")
    records = np.frombuffer(content, np.uint8).reshape(-1, 3074)
    counts = np.bincount(records[:, 1], minlength=100)
    if len(odd := np.flatnonzero(counts != per_class)):
        raise ValueError(f"{name} has {counts[odd[0]]} images of class {odd[0]}, not {per_class}")
    sorted_records = records[np.argsort(records[:, 1], kind="stable"), 2:]
    planes = sorted_records.reshape(100, per_class, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 1, 3, 4, 2))


def _check_fashion(path: Path) -> None:
    """Admit a file of Fashion-MNIST that another program compressed: Debian's are, with the same content."""
    many = 60_000 if path.name.startswith("train") else 10_000
    expected = (many, 28, 28) if "images" in path.name else (many,)
    if (shape := read_idx(path).shape) != expected:
        raise UserError(f"{path} holds an array of shape {shape}, not {expected}: replace it by the published one")


BY_HAND = (
    "PASCAL3D+ is one archive of several GB, from https://cvgl.stanford.edu/projects/pascal3d.html; unpack its folder "
    "CAD to pascal3d/CAD in a folder of data sets"
)
DATA_SETS: Mapping[str, DataSet] = MappingProxyType(
    {
        "mnist": DataSet(
            "mnist",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            MappingProxyType(
                {
                    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                }
            ),
        ),
        "fashion-mnist": DataSet(
            "fashion-mnist",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            MappingProxyType(
                {
                    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                }
            ),
            check=_check_fashion,
        ),
        "cifar100": DataSet(
            "cifar100",
            "https://www.cs.toronto.edu/~kriz/",
            MappingProxyType(
                {"cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"}
            ),
            check=read_cifar100,
        ),
    }
)


def find(name: str) -> DataSet:
    """The data set of that name.

    Raises:
        UserError: there is none, or it cannot be fetched from here.
    """
    if name == "pascal3d":
        raise UserError(f"pascal3d must be fetched by hand: {BY_HAND}")
    if name not in DATA_SETS:
        raise UserError(unknown("data set", name, DATA_SETS))
    return DATA_SETS[name]


def folders(data_dir: Path | None) -> list[Path]:
    """Where data is looked for, in order: `data_dir`, the environment's METALEADER_DATA, `SYSTEM`, the cache.

    Raises:
        UserError: `data_dir` is given and is no folder.
    """
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"--data-dir {data_dir} is no folder: name one that holds data sets, such as mnist/")
    given = [data_dir, Path(os.path.expanduser(os.environ[ENVIRONMENT])) if os.environ.get(ENVIRONMENT) else None]
    system = [SYSTEM] if SYSTEM.is_dir() else []
    cache = platformdirs.user_cache_path("metaleader") / "data"
    return [*(folder for folder in given if folder is not None), *system, cache]


def locate(data_set: DataSet, data_dir: Path | None = None) -> dict[str, Path]:
    """The path of every file of a data set, each checked; what no folder holds is downloaded into the cache.

    A file found is what was published, byte for byte, or where the data set has a `check`, passes it.

    Raises:
        UserError: a file is not what was published, or can be neither found nor downloaded.
    """
    found = {}
    for file, expected in data_set.files.items():
        path = _present(data_set, file, data_dir) or _download(data_set, file, folders(data_dir))
        _admit(data_set, path, expected)
        found[file] = path
    return found


def inventory(data_dir: Path | None = None) -> Iterator[tuple[str, str, str, str, str, str]]:
    """For every file of every data set: data set, file, status, size, the start of its SHA-256, folder.

    Of the CAD models of PASCAL3D+, which are fetched by hand, the folder and how many there are.
    """
    for data_set in DATA_SETS.values():
        for file, expected in data_set.files.items():
            path = _present(data_set, file, data_dir)
            if path is None:
                yield data_set.name, file, "missing", "", expected[:12], ""
            else:
                yield (
                    data_set.name,
                    file,
                    _status(data_set, path, expected),
                    f"{path.stat().st_size:,} B",
                    sha256(path)[:12],
                    str(path.parent),
                )
    cad = next((folder for folder in cad_folders(data_dir) if folder.is_dir()), None)
    count = 0 if cad is None else sum(1 for _ in cad.glob("*/*.off"))
    yield "pascal3d", "CAD/*/*.off", "present" if count else "missing", f"{count} files", "", str(cad or "")


def cad_folders(data_dir: Path | None) -> list[Path]:
    """Where the CAD models of PASCAL3D+ are looked for, in order."""
    return [folder / "pascal3d" / "CAD" for folder in folders(data_dir)]


def _admit(data_set: DataSet, path: Path, expected: str) -> str:
    """The status of a file that may be read; raises `UserError` for one that may not."""
    if (checksum := sha256(path)) == expected:
        return "present"
    if data_set.check is None:
        raise UserError(
            f"{path} is damaged: its SHA-256 is {checksum}, that of the published file {expected}; "
            f"delete it and run: metaleader data {data_set.name}"
        )
    data_set.check(path)
    return "sound, not as published"


def _status(data_set: DataSet, path: Path, expected: str) -> str:
    try:
        return _admit(data_set, path, expected)
    except UserError:
        return "damaged"


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    status = path.stat()
    return _sha256(path, status.st_mtime_ns, status.st_size)


@cache
def _sha256(path: Path, modified: int, size: int) -> str:  # noqa: ARG001 - a changed file is read again
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_idx(path: Path) -> np.ndarray:
    """The array in a gzipped IDX file of unsigned bytes, the format of MNIST.

    Raises:
        UserError: the file is missing, truncated or damaged.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        magic, dimensions = content[:3], content[3]
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        if magic != b"\0\0\x08":
            raise ValueError(f"it begins with {magic.hex()}, not 000008")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (EOFError, IndexError, OSError, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"{path} is no gzipped IDX file of bytes ({error}): replace it by the published one") from error


def _present(data_set: DataSet, file: str, data_dir: Path | None) -> Path | None:
    paths = (folder / data_set.name / file for folder in folders(data_dir))
    return next((path for path in paths if path.is_file()), None)


def _download(data_set: DataSet, file: str, searched: list[Path]) -> Path:
    """Fetch a file into the cache; what arrives damaged is not kept."""
    pooch.get_logger().setLevel("WARNING")  # the bar says what is being fetched, or the error what was not
    try:
        with _progress(file) as bar:
            downloader = pooch.HTTPDownloader(progressbar=bar, timeout=30)
            path = pooch.retrieve(
                data_set.url + file,
                known_hash=f"sha256:{data_set.files[file]}",
                fname=file,
                path=searched[-1] / data_set.name,
                downloader=downloader,
            )
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; ValueError: another checksum
        raise UserError(
            f"{data_set.name}/{file} is in none of {', '.join(map(str, searched))} and could not be downloaded from "
            f"{data_set.url} ({_reason(error)}); put it into one of these folders, or name another with --data-dir"
        ) from error
    return Path(path)


def _reason(error: BaseException) -> str:
    """What went wrong in the first place, on one line: requests wraps the error of a socket three times."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return " ".join(str(error).split())


class _progress:  # noqa: N801 - used as a context manager
    """A download bar of the form that pooch drives; quiet when nobody is at the terminal."""

    def __init__(self, file: str) -> None:
        columns = (TextColumn(file), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        console = Console(stderr=True)
        self._display = Progress(*columns, console=console, disable=not sys.stderr.isatty())
        self._task = self._display.add_task(file, total=None)
        self.total = 0

    def __enter__(self) -> _progress:
        self._display.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._display.stop()

    def update(self, n: int) -> None:
        self._display.update(self._task, total=self.total, advance=n)

    def reset(self) -> None:
        self._display.reset(self._task)

    def close(self) -> None:
        """Pooch calls this at the end of a file."""
