"""Which source a run was made with."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path


@cache
def commit() -> str | None:
    """The commit of the checkout that this package is imported from, with a word if its source was changed since.

    None where it is no checkout (an installed package, whose version says as much), or git is not there.
    """
    here = Path(__file__).parent
    if _git(here, "ls-files", "--error-unmatch", Path(__file__).name) is None:  # another repository around it, say
        return None
    head, changes = _git(here, "rev-parse", "HEAD"), _git(here, "status", "--porcelain", "--", ".")
    return None if head is None else f"{head} with changes" if changes else head


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
