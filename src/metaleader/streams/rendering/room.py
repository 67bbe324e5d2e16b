"""Whether there is memory and disk enough, said before the work starts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from metaleader.errors import UserError


def check_disk(needed: int, folder: Path) -> None:
    """Make sure that the disk of `folder`, which need not exist yet, has room for `needed` bytes.

    Raises:
        UserError: it has not.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"{folder} needs {_readable(needed)} of disk and {_readable(free)} are free: make room, choose another "
            "folder with --data-dir, or fewer pixels, tasks or images"
        )


def check_memory(needed: int, what: str) -> None:
    """Make sure that `needed` bytes of memory are available.

    Raises:
        UserError: they are not.
    """
    available = available_memory()
    if needed > available:
        raise UserError(
            f"{what} needs about {_readable(needed)} of memory and {_readable(available)} are available: choose fewer "
            "pixels, tasks, images or rounds"
        )


def available_memory() -> int:
    """Bytes that programs can take without others being written to disk."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # no Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
