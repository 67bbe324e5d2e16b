"""Files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from metaleader.errors import UserError


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Let `write` fill a file, which is at `path`, and on the disk, once it is complete.

    A link at `path` is replaced, not followed.

    Raises:
        OSError: the file system refuses; what was at `path` before is still there.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with partial.open("xb") as file:
            write(file)
            sync(file)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write `text` whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: it is empty, cut off or otherwise damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        size = path.stat().st_size
        raise UserError(f"{path} is damaged ({error}; {size} bytes): restore it, or delete its folder") from error


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that may not exist, without a last one that a stop has cut off."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith(b"\n")]


def make_folder(path: Path, new: bool = False) -> list[Path]:
    """Make a folder, on the disk, and those above it that do not exist; returns those made, the folder itself first.

    Raises:
        FileExistsError: `new`, and the folder exists.
        OSError: the file system refuses.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=not new)
    for folder in missing:
        sync_folder(folder.parent)
    return missing


def sync(file: BinaryIO) -> None:
    """Wait until what was written to a file is on the disk."""
    file.flush()
    if sys.platform == "darwin":  # where fsync leaves it in the cache of the disk
        with suppress(OSError):
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
            return
    os.fsync(file)


def sync_folder(path: Path) -> None:
    """Wait until the names of the files in a folder are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot, and need not
            raise
    finally:
        os.close(number)


def contents(folder: Path) -> list[Path]:
    """What is in a folder, without what a process that was killed may leave before it began.

    That is hidden files, and folders without any contents. A folder that does not exist has none.
    """
    there = sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.exists() else []
    return [path for path in there if path.is_symlink() or not path.is_dir() or contents(path)]


def real(folder: Path) -> Path:
    """Where a folder is, or will be: an absolute path without links, whose last part is a name."""
    return Path(os.path.realpath(folder))


def check_replaceable(folder: Path, remedy: str) -> None:
    """Make sure that a folder which is made elsewhere can take the place of this one, by `os.replace`.

    Other than `contents`, that minds all that is in it.

    Args:
        folder: as `real` gives it.
        remedy: what to do otherwise, for messages.

    Raises:
        UserError: it is a file, holds something, or is one that cannot be replaced.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: {remedy}")
    if there := sorted(path.name for path in folder.iterdir()):
        raise UserError(f"{folder} holds {there[0]!r}, and would be replaced: remove that, or {remedy}")
    if not os.access(folder.parent, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be replaced, as {folder.parent} cannot be written to: {remedy}")
    if os.path.ismount(folder):
        raise UserError(f"{folder} is a place where a file system is mounted, and cannot be replaced: {remedy}")
    if folder.samefile("."):
        raise UserError(f"{folder} is the working directory, which would be replaced: {remedy}")
