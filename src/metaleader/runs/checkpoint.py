"""Checkpoints: a run state as files, whatever the learner's state is made of.

A checkpoint is a file `NUMBER.state`. Large arrays are cut into chunks, kept in `chunks/` by their checksums, so that
of a buffer that grows only what is new is written. What is written is on the disk before what it replaces goes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaleader import devices
from metaleader.files import make_folder, write_whole
from metaleader.online import RunState

CHUNK = 1 << 18  # bytes; smaller arrays are kept whole, in the file of the checkpoint
KEPT = 2  # checkpoints, so that there is one if the newest is damaged
DIGITS = 40  # of a checksum


class Damaged(Exception):  # noqa: N818 - a state of a file
    """A checkpoint that cannot be read; the message names the file and says why."""


class _Chunks(NamedTuple):
    """An array in chunks."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    names: tuple[str, ...]


class _Key(NamedTuple):
    """A random key."""

    data: np.ndarray
    kind: str


def save(folder: Path, state: RunState) -> None:
    """Write a checkpoint into `folder`; of those before, the newest stays.

    The datapoints of tasks that may come back are not stored: the stream has them.

    Raises:
        OSError: the file system refuses; the checkpoints before are still there.
    """
    make_folder(folder / "chunks")
    plain = dataclasses.replace(state, earlier={})
    leaves, structure = jax.tree.flatten(plain.learner)
    stored = [_stored(leaf, folder / "chunks") for leaf in leaves]
    skeleton = jax.tree.unflatten(structure, range(len(leaves)))
    content = pickle.dumps((dataclasses.replace(plain, learner=skeleton), stored))
    before = _paths(folder)
    number = 1 + (int(before[-1].stem) if before else 0)
    write_whole(folder / f"{number:08d}.state", lambda file: file.write(_checksum(content).encode() + content))
    _forget(before, stored, folder / "chunks")


def newest_first(folder: Path) -> Iterator[RunState | Damaged]:
    """The run states that were saved, on the host, without the datapoints of tasks that may come back."""
    for path in reversed(_paths(folder)):
        try:
            yield _read(path)
        except Damaged as damage:
            yield damage


def placed(state: RunState, like: Any) -> RunState:
    """A run state from the host, with the learner's state on devices.

    Args:
        state: see `newest_first`.
        like: a learner's state whose arrays lie on the devices where those of the run should, where its structure is
            the same.
    """
    leaves, structure = jax.tree.flatten(state.learner, is_leaf=lambda leaf: isinstance(leaf, _Key))
    same = str(jax.tree.structure(like)) == str(structure)
    shown = jax.tree.leaves(like) if same else [None] * len(leaves)
    learner = jax.tree.unflatten(structure, map(_placed, leaves, shown))
    return dataclasses.replace(state, learner=learner)


def _placed(value: Any, like: Any) -> Any:
    if isinstance(value, _Key):
        value = jax.random.wrap_key_data(jnp.asarray(value.data), impl=value.kind)
    return devices.put(value, like.sharding) if isinstance(like, jax.Array) else value


def _paths(folder: Path) -> list[Path]:
    """The files of checkpoints, oldest first."""
    return sorted(path for path in folder.iterdir() if path.suffix == ".state") if folder.exists() else []


def _stored(leaf: Any, chunks: Path) -> Any:
    """What stands for a leaf in the file of a checkpoint; chunks that are new are written."""
    if isinstance(leaf, jax.Array):
        leaf = leaf.addressable_data(0)  # one copy of what several devices hold alike
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return _Key(np.asarray(jax.random.key_data(leaf)), str(jax.random.key_impl(leaf)))
        leaf = np.asarray(leaf)
    if not isinstance(leaf, np.ndarray) or leaf.dtype == object or leaf.nbytes <= CHUNK:
        return leaf
    content = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
    names = []
    for start in range(0, len(content), CHUNK):
        chunk = content[start : start + CHUNK]
        names.append(_checksum(chunk))
        if not (chunks / names[-1]).exists():
            write_whole(chunks / names[-1], lambda file, chunk=chunk: file.write(chunk.data))  # type: ignore[misc]
    return _Chunks(leaf.dtype, leaf.shape, tuple(names))


def _read(path: Path) -> RunState:
    """A checkpoint.

    Raises:
        Damaged: it, or a chunk of it, is not what was written.
    """
    state, stored = _content(path)
    places, structure = jax.tree.flatten(state.learner)
    leaves = [_loaded(stored[place], path.parent / "chunks") for place in places]
    return dataclasses.replace(state, learner=jax.tree.unflatten(structure, leaves))


def _content(path: Path) -> tuple[RunState, list[Any]]:
    content = path.read_bytes()
    checksum, rest = content[:DIGITS], content[DIGITS:]
    if checksum != _checksum(rest).encode():
        raise Damaged(f"{path} is damaged ({len(content)} bytes)")
    try:
        state, stored = pickle.loads(rest)
    except Exception as error:  # of a learner's state, say, whose class has gone
        raise Damaged(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return state, stored


def _loaded(value: Any, chunks: Path) -> Any:
    if not isinstance(value, _Chunks):
        return value
    parts = []
    for name in value.names:
        path = chunks / name
        part = path.read_bytes() if path.exists() else b""
        if _checksum(part) != name:
            path.unlink(missing_ok=True)  # so that it will be written again
            raise Damaged(f"{path} is damaged ({len(part)} bytes)")
        parts.append(part)
    return np.frombuffer(bytearray(b"".join(parts)), value.dtype).reshape(value.shape)


def _forget(before: list[Path], stored: list[Any], chunks: Path) -> None:
    """Remove all checkpoints of before but the newest, and the chunks that neither it nor the one just saved has."""
    for path in before[: 1 - KEPT]:
        path.unlink()
    needed = set(_names(stored))
    for path in before[1 - KEPT :]:
        try:
            needed.update(_names(_content(path)[1]))
        except Damaged:
            path.unlink()
    for path in chunks.iterdir():
        if path.name not in needed:
            path.unlink()


def _names(stored: list[Any]) -> Iterator[str]:
    """The chunks of what was stored."""
    return (name for value in stored if isinstance(value, _Chunks) for name in value.names)


def _checksum(content: Any) -> str:
    return hashlib.blake2b(content, digest_size=DIGITS // 2).hexdigest()
