"""Snapshots of what was learned, as bytes that say by a checksum if they are damaged.

A snapshot holds arrays, and the rest as JSON: nothing in it is executed. The structure of the learner's state is not
stored: it is that of the learner's `init`.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaleader import devices
from metaleader.errors import UserError

DIGITS = 40  # of a checksum


class Damaged(Exception):  # noqa: N818 - a state of a file
    """A snapshot that cannot be read; the message names it and says why."""


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


def packed(snapshot: Snapshot) -> bytes:
    """A snapshot as bytes."""
    arrays, told = dict[str, np.ndarray](), list[dict[str, Any]]()
    for number, leaf in enumerate(snapshot.leaves):
        if isinstance(leaf, _Key):
            told.append({"key": leaf.kind})
            arrays[f"leaf {number}"] = leaf.data
        elif isinstance(leaf, (np.ndarray, np.generic)):
            told.append(_told(leaf))
            arrays[f"leaf {number}"] = _bytes(leaf)
        else:
            told.append({"plain": leaf})
    kinds = {name: _told(array) for name, array in snapshot.arrays.items()}
    arrays |= {f"array {name}": _bytes(array) for name, array in snapshot.arrays.items()}
    about = {"sequence": snapshot.sequence, "leaves": told, "arrays": kinds, "about": snapshot.about}
    file = io.BytesIO()
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(file, **arrays)  # type: ignore[arg-type] # its stub takes the names for flags
    content = file.getvalue()
    return _checksum(content).encode() + content


def unpacked(content: bytes, name: str) -> Snapshot:
    """The snapshot in these bytes.

    Args:
        content: the bytes.
        name: of the snapshot, in messages.

    Raises:
        Damaged: it is not what was written.
    """
    if content[:DIGITS] != _checksum(memoryview(content)[DIGITS:]).encode():
        raise Damaged(f"{name} is damaged ({len(content)} bytes)")
    try:
        with np.load(io.BytesIO(content[DIGITS:]), allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            leaves = [
                told["plain"] if "plain" in told else _loaded(told, file[f"leaf {number}"])
                for number, told in enumerate(about["leaves"])
            ]
            arrays = {name: _loaded(told, file[f"array {name}"]) for name, told in about["arrays"].items()}
        return Snapshot(about["sequence"], leaves, arrays, about["about"])
    except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile) as error:  # of another version, say
        raise Damaged(f"{name} cannot be read: {' '.join(str(error).split())}") from error


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
    if isinstance(leaf, (np.ndarray, np.generic)) and _is_told_by_name(leaf.dtype):
        return leaf
    if type(leaf) in (int, float, bool, str):
        return leaf
    raise Unsaveable(
        f"the learner's state holds a {type(leaf).__name__}, so that no snapshot can be made: keep it a tree of "
        "arrays, numbers and strings"
    )


def _is_told_by_name(dtype: np.dtype[Any]) -> bool:
    """Whether `_told` says all of a type: not of text or of objects."""
    try:
        return bool(jnp.dtype(dtype.name) == dtype.newbyteorder("="))
    except TypeError:
        return False


def _told(leaf: np.ndarray | np.generic) -> dict[str, Any]:
    return {"dtype": leaf.dtype.name, "shape": leaf.shape, "scalar": isinstance(leaf, np.generic)}


def _bytes(leaf: np.ndarray | np.generic) -> np.ndarray:
    """In the byte order of this machine; as bytes, since NumPy's files know no bfloat16."""
    native = np.ascontiguousarray(leaf, leaf.dtype.newbyteorder("="))
    return np.frombuffer(native.tobytes(), np.uint8)


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
