"""File systems under a power cut: simulated, where of what was not synced anything may be left; and a real one."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest


class PowerCuts:
    """Keeps note, below a folder, of what has reached the disk for sure.

    The content of a file is sure as of its last `fsync`; the names in a folder are as of the last `fsync` of the
    folder. At a cut, each later change of a name has happened or not, each file never synced is empty, cut off or
    garbage, and what was written to a synced one since may be there in part.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.contents: dict[int, bytes] = {}  # by inode
        self.names: dict[Path, dict[str, int]] = {}  # of a folder: inodes by name
        self.kept = ExitStack()  # open files: an inode that is in use is given to no other file
        fsync = os.fsync

        def synced(file: Any) -> None:
            fsync(file)
            number = file if isinstance(file, int) else file.fileno()
            path = Path(f"/proc/self/fd/{number}").resolve()
            if path.is_relative_to(root) and path.is_dir():
                self.names[path] = {each.name: each.stat().st_ino for each in path.iterdir()}
                for each in path.iterdir():
                    if each.is_file():
                        self.kept.enter_context(each.open("rb"))
            elif path.is_relative_to(root):
                self.contents[os.fstat(number).st_ino] = path.read_bytes()
                self.kept.enter_context(path.open("rb"))

        patch.setattr(os, "fsync", synced)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kept.close()

    def cut(self, to: Path, chance: random.Random) -> None:
        """Write to `to` what a cut at this moment may leave of the folder."""
        self._cut(self.root, to, chance)

    def _cut(self, folder: Path, to: Path, chance: random.Random) -> None:
        to.mkdir(exist_ok=True)
        before = self.names.get(folder, {})
        now = {path.name: path.stat().st_ino for path in folder.iterdir()}
        for name in sorted(before.keys() | now.keys()):
            inode = chance.choice([before.get(name), now.get(name)])  # the entry is the old one or the new one
            if inode is None:
                continue
            if (folder / name).is_dir():
                self._cut(folder / name, to / name, chance)
                continue
            content = self.contents.get(inode)
            written = (folder / name).read_bytes() if now.get(name) == inode else content or b""
            if content is None:  # never synced
                (to / name).write_bytes(chance.choice([b"", written[: chance.randint(0, len(written))], b"\0" * 7]))
            elif not written.startswith(content):  # removed, or written anew in its place
                (to / name).write_bytes(chance.choice([content, written[: chance.randint(0, len(written))]]))
            else:
                tail = written[len(content) :]
                lost = chance.randint(0, len(tail))
                (to / name).write_bytes(content + chance.choice([tail[:lost], b"\0" * lost]))


def emptied(folder: Path) -> Path:
    """The folder, without anything in it."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


class Image:
    """An ext4 file system in a file: the file is the disk, which holds what has left the caches of the file system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def made(cls, path: Path) -> "Image":
        """A new one, empty; what `mkfs` would otherwise leave to be written later is written now."""
        with path.open("xb") as file:
            file.truncate(256 << 20)
        _done("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(path))
        return cls(path)

    @contextmanager
    def mounted(self, at: Path) -> Iterator[Path]:
        """The folder `at`, where the file system is mounted; replays its journal if need be."""
        at.mkdir(exist_ok=True)
        _done("mount", "-o", "loop,noatime", str(self.path), str(at))
        try:
            yield at
        finally:
            _done("umount", str(at))

    def cut(self, to: Path) -> "Image":
        """What a power cut at this moment leaves of the mounted file system.

        Nothing is asked to sync. The copy is of one moment: while it is made, nothing is written to the disk, or it is
        made again.
        """
        device = Path("/sys/block") / Path(_done("losetup", "-n", "-O", "NAME", "-j", str(self.path))).name
        while True:
            before = self._writes(device)
            _done("cp", "--sparse=always", str(self.path), str(to))
            if before == self._writes(device) and before[1] == 0:
                return Image(to)

    @staticmethod
    def _writes(device: Path) -> tuple[int, int]:
        """How many writes the disk has done, and how many it is doing."""
        done = int((device / "stat").read_text().split()[4])
        return done, int((device / "inflight").read_text().split()[1])


def image_or_skip(folder: Path) -> Image:
    """An empty file system that can be mounted, or a skip with the reason."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    if missing := [command for command in ("mkfs.ext4", "mount", "losetup") if shutil.which(command) is None]:
        pytest.skip(f"{', '.join(missing)} cannot be found")
    image = Image.made(folder / "disk")
    try:
        with image.mounted(folder / "tried"):
            pass
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a file cannot be mounted here: {error.stderr.strip()}")
    return image


def _done(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
