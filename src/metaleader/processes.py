"""Folders that one process owns, and workers that end with their parent, however it does."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import multiprocessing
import os
import re
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from metaleader.errors import UserError, writing
from metaleader.files import make_folder

OWNER = ".owner"  # the file in a folder that its owner keeps locked
LOOKED = 0.2  # seconds of patience with a lock that may be that of one who only looks, see `owner`


@contextmanager
def owned(folder: Path, patience: float = 0.0, new: bool = False) -> Iterator[None]:
    """Be the only process that writes in a folder, which is made if need be, until the block or the process ends.

    Args:
        folder: which.
        patience: how many seconds to wait for an owner that may be about to end.
        new: whether the folder must not exist.

    Raises:
        UserError: another process owns the folder; says which.
        FileExistsError: the folder exists, and should be new.
        OSError: the folder cannot be made or written.
    """
    path, until = folder / OWNER, time.monotonic() + max(patience, LOOKED)
    made = make_folder(folder, new)
    while (lock := _locked(path)) is None:
        if time.monotonic() >= until:
            raise UserError(f"{folder} is in use by {_owner(path)}: wait until it ends, or choose another folder")
        time.sleep(0.05)
    with lock:
        lock.write(this_process())
        lock.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is locked: whoever has opened it sees that it is no longer there
            with suppress(OSError):  # they hold something by now
                for each in made:
                    each.rmdir()


@contextmanager
def owned_for_results(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """The same, with what the file system refuses in one line; what it refuses in the block itself is not touched.

    Raises:
        UserError: another process owns the folder; says which.
        WriteError: the folder cannot be made or written.
    """
    with ExitStack() as ours:
        with writing(folder):
            ours.enter_context(owned(folder, patience))
        yield


def _locked(path: Path) -> TextIO | None:
    """The file, empty and locked until it is closed or the process ends; None if another process holds the lock."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                file.close()
                return None
            # A file system without locks, as some that are reached over a network: nobody can own a folder there.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                return file
        file.close()  # its owner ended, and removed it, after it was opened


def owner(folder: Path) -> str | None:
    """Which process owns a folder now; None: none does, though one that was killed may have left its file."""
    path = folder / OWNER
    try:
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return _owner(path)
    except OSError:
        pass
    return None


def _owner(path: Path) -> str:
    try:
        return path.read_text() or "another process"
    except OSError:
        return "another process"


def this_process() -> str:
    """What others are told of this process: its number, machine and command, without passwords of databases."""
    command = " ".join(shlex.join(sys.orig_argv).split())
    command = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", command)
    command = re.sub(r"([?&]password=)[^&\s'\"]*", r"\1***", command)
    return f"process {os.getpid()} on {socket.gethostname()} ({command})"


def release_memory() -> None:
    """Give back to the system what this process has freed, where the C library can: glibc keeps most of it."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def own_memory() -> int | None:
    """Bytes of main memory that this process holds and shares with no other; None on systems that do not say."""
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    except (OSError, ValueError):
        return None
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def end_with_parent() -> None:
    """Let this process, a worker, end at once when its parent has, whatever either of them is doing."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def leave_a_processor() -> None:
    """Let the threads that this process has, and those that they start, keep off one processor, if there are several.

    On systems without such a choice nothing happens.
    """
    if not hasattr(os, "sched_setaffinity") or len(allowed := os.sched_getaffinity(0)) < 2:
        return
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):  # it has ended
            os.sched_setaffinity(int(thread), allowed - {min(allowed)})
