"""Snapshots of what was learned: files that are there whole or not at all, and say by a checksum if they are damaged.

A snapshot holds arrays, and the rest as JSON: nothing in it is executed. The structure of the learner's state is not
stored: it is that of the learner's `init`.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaleader import devices
from metaleader.errors import UserError
from metaleader.files import make_folder, sync_folder, write_whole

KEPT = 2  # so that there is one if the newest is damaged
DIGITS = 40  # of a checksum
ENDING = ".snapshot"


class Damaged(Exception):  # noqa: N818 - a state of a file
    """A snapshot that cannot be read; the message names the file and says why."""


class Unsaveable(UserError):  # noqa: N818 - a state of a learner
    """A state of which there can be no snapshot: its log is learned anew whenever it is opened."""


class Snapshot(NamedTuple):
    """What is in a snapshot.

    Attributes:
        sequence: the number of the last event of the log that was learned.
        leaves: of the learner's state, as `flattened` gives them.
        arrays: others, by name.
        about: the rest, as plain JSON.
    """

    sequence: int
    leaves: list[Any]
    arrays: Mapping[str, np.ndarray]
    about: Any


def flattened(state: Any, structure: Any) -> list[Any]:
    """The leaves of a state, on the host: arrays, random keys, numbers and strings.

    Raises:
        Unsaveable: it has another structure than it began with, or holds something else.
    """
    leaves, own = jax.tree.flatten(state)
    if own != structure:
        raise Unsaveable(
            "the learner's state has another structure than its `init` gave, so that no snapshot can be made: keep it "
            "a tree of the same form"
        )
    return [_on_host(leaf) for leaf in leaves]


def restored(leaves: list[Any], like: Any) -> Any:
    """The state of these leaves, with the structure of `like`, on the devices where that lies.

    Raises:
        Damaged: it does not fit.
    """
    shown, structure = jax.tree.flatten(like)
    if len(shown) != len(leaves):
        raise Damaged(f"it has {len(leaves)} arrays, the learner's state {len(shown)}")
    return jax.tree.unflatten(structure, map(_placed, leaves, shown))


def write(folder: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot into a folder, which is made if need be; those before stay.

    Raises:
        OSError: the file system refuses; those before are still there.
    """
    make_folder(folder)
    arrays, told = {f"array {name}": array for name, array in snapshot.arrays.items()}, list[dict[str, Any]]()
    for number, leaf in enumerate(snapshot.leaves):
        if isinstance(leaf, _Key):
            told.append({"key": leaf.kind})
            arrays[f"leaf {number}"] = leaf.data
        elif isinstance(leaf, (np.ndarray, np.generic)):
            # By their bytes, as NumPy's files know no bfloat16.
            told.append({"dtype": leaf.dtype.name, "shape": leaf.shape, "scalar": isinstance(leaf, np.generic)})
            arrays[f"leaf {number}"] = np.frombuffer(np.ascontiguousarray(leaf).tobytes(), np.uint8)
        else:
            told.append({"plain": leaf})
    about = {"sequence": snapshot.sequence, "leaves": told, "about": snapshot.about}
    file = io.BytesIO()
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(file, **arrays)  # type: ignore[arg-type] # its stub takes the names for flags
    content = file.getbuffer()
    path = folder / f"{snapshot.sequence:020d}{ENDING}"
    write_whole(path, lambda file: file.writelines([_checksum(content).encode(), content]))
    return path


def read(path: Path) -> Snapshot:
    """The snapshot in a file.

    Raises:
        Damaged: it is not what was written.
    """
    content = path.read_bytes()
    if content[:DIGITS] != _checksum(content[DIGITS:]).encode():
        raise Damaged(f"{path} is damaged ({len(content)} bytes)")
    try:
        with np.load(io.BytesIO(content[DIGITS:]), allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            leaves = [
                told["plain"] if "plain" in told else _loaded(told, file[f"leaf {number}"])
                for number, told in enumerate(about["leaves"])
            ]
            arrays = {name.removeprefix("array "): file[name] for name in file.files if name.startswith("array ")}
        return Snapshot(about["sequence"], leaves, arrays, about["about"])
    except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile) as error:  # of another version, say
        raise Damaged(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def paths(folder: Path) -> list[Path]:
    """The files of snapshots, oldest first."""
    return sorted(path for path in folder.iterdir() if path.suffix == ENDING) if folder.exists() else []


def tidy(folder: Path, keep: int) -> None:
    """Remove all but the newest snapshots, and what a process that was killed left of one."""
    if folder.exists() and (gone := [*folder.glob(".*.tmp"), *reversed(paths(folder)[::-1][keep:])]):
        for path in gone:
            path.unlink()
        sync_folder(folder)


class _Key(NamedTuple):
    """A random key."""

    data: np.ndarray
    kind: str


def _on_host(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        leaf = leaf.addressable_data(0)  # one copy of what several devices hold alike
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return _Key(np.asarray(jax.random.key_data(leaf)), str(jax.random.key_impl(leaf)))
        return np.asarray(leaf)
    if (isinstance(leaf, (np.ndarray, np.generic)) and not leaf.dtype.hasobject) or type(leaf) in (
        int,
        float,
        bool,
        str,
    ):
        return leaf
    raise Unsaveable(
        f"the learner's state holds a {type(leaf).__name__}, so that no snapshot can be made: keep it a tree of "
        "arrays, numbers and strings"
    )


def _loaded(told: Any, array: np.ndarray) -> Any:
    if "key" in told:
        return _Key(array, told["key"])
    found = array.view(jnp.dtype(told["dtype"])).reshape(told["shape"]) if array.size else None
    if found is None:
        found = np.zeros(told["shape"], jnp.dtype(told["dtype"]))
    return found[()] if told["scalar"] else found


def _placed(value: Any, like: Any) -> Any:
    if isinstance(value, _Key):
        value = jax.random.wrap_key_data(jnp.asarray(value.data), impl=value.kind)
    return devices.put(value, like.sharding) if isinstance(like, jax.Array) else value


def _checksum(content: Any) -> str:
    return hashlib.blake2b(content, digest_size=DIGITS // 2).hexdigest()
