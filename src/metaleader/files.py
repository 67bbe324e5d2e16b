"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Let `write` fill a file, which is at `path` once it is complete.

    Raises:
        OSError: the file system refuses; what was at `path` before is still there.
    """
    partial = path.with_name(path.name + ".tmp")
    with partial.open("wb") as file:
        write(file)
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    """Write `text` whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
