"""Data sets: where they are found, how they are fetched and checked, and how their files are read."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import platformdirs
import pooch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from metaleader.errors import UserError, unknown

ENVIRONMENT = "METALEADER_DATA"


@dataclass(frozen=True)
class DataSet:
    """Files as their publisher made them.

    Attributes:
        name: on the command line, and of the folder that holds the files.
        url: where the files are published; a file's name is appended.
        files: SHA-256 of each, by name.
    """

    name: str
    url: str
    files: Mapping[str, str]


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
        )
    }
)


def find(name: str) -> DataSet:
    """The data set of that name.

    Raises:
        UserError: there is none.
    """
    if name not in DATA_SETS:
        raise UserError(unknown("data set", name, DATA_SETS))
    return DATA_SETS[name]


def folders(data_dir: Path | None) -> list[Path]:
    """Where data is looked for, in order: `data_dir`, the environment's METALEADER_DATA, the cache.

    Raises:
        UserError: `data_dir` is given and is no folder.
    """
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"--data-dir {data_dir} is no folder: name one that holds data sets, such as mnist/")
    given = [data_dir, Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None]
    return [folder for folder in given if folder is not None] + [platformdirs.user_cache_path("metaleader") / "data"]


def locate(data_set: DataSet, data_dir: Path | None = None) -> dict[str, Path]:
    """The path of every file of a data set, each checked; what no folder holds is downloaded into the cache.

    Raises:
        UserError: a file is not what was published, or can be neither found nor downloaded.
    """
    found = {}
    for file, expected in data_set.files.items():
        path = _present(data_set, file, data_dir) or _download(data_set, file, folders(data_dir))
        if (checksum := sha256(path)) != expected:
            raise UserError(
                f"{path} is damaged: its SHA-256 is {checksum}, that of the published file {expected}; "
                f"delete it and run: metaleader data {data_set.name}"
            )
        found[file] = path
    return found


def inventory(data_dir: Path | None = None) -> Iterator[tuple[str, str, str, str, str, str]]:
    """For every file of every data set: data set, file, status, size, the start of its SHA-256, folder."""
    for data_set in DATA_SETS.values():
        for file, expected in data_set.files.items():
            path = _present(data_set, file, data_dir)
            if path is None:
                yield data_set.name, file, "missing", "", expected[:12], ""
            else:
                status = "present" if sha256(path) == expected else "damaged"
                yield data_set.name, file, status, f"{path.stat().st_size:,} B", sha256(path)[:12], str(path.parent)


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
        reason = " ".join(str(error).split())
        raise UserError(
            f"{data_set.name}/{file} is in none of {', '.join(map(str, searched))} and could not be downloaded from "
            f"{data_set.url} ({reason[:200]}); put it into one of these folders, or name another with --data-dir"
        ) from error
    return Path(path)


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
