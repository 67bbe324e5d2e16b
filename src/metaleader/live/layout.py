"""The layout of a datapoint: how its input and target are told as plain data, and stored as plain bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaleader.errors import UserError
from metaleader.problem.batch import Batch, Examples, check_alike


@dataclass(frozen=True)
class Layout:
    """What every datapoint of a learner holds: structure, types and shapes of an input and a target.

    Types are those of JAX: float32 for float64, unless `jax_enable_x64` is set. A datapoint is stored as the bytes of
    its arrays one after another, those of the input first; nothing of it is ever executed.

    Attributes:
        inputs: as plain JSON: an array as `{"dtype": ..., "shape": ...}`, a container as `{"dict": ...}`, `list` or
            `tuple`.
        targets: likewise.
    """

    inputs: Any
    targets: Any

    @classmethod
    def of(cls, batch: Batch) -> Layout:
        """The layout of the examples of a batch.

        Raises:
            UserError: inputs or targets are in another container than a dict with names, a list or a tuple.
        """
        return cls(layout_of(batch.inputs, "inputs"), layout_of(batch.targets, "targets"))

    @property
    def as_json(self) -> dict[str, Any]:
        """As plain JSON, the names of its parts being those of its attributes."""
        return {"inputs": self.inputs, "targets": self.targets}

    @cached_property
    def size(self) -> int:
        """Bytes of a datapoint."""
        return sum(_bytes(leaf) for leaf in _leaves((self.inputs, self.targets)))

    @cached_property
    def _one(self) -> Batch:
        return self.example()

    def example(self, n: int = 1) -> Batch:
        """A batch of `n` datapoints of zeros."""
        return self.unpacked([bytes(self.size)] * n)

    def check(self, batch: Batch) -> None:
        """Make sure that examples have this layout.

        Raises:
            ValueError: they are of another structure, shape or type.
        """
        check_alike(batch, self._one, "this learner's datapoints are")

    def questions(self, inputs: Examples) -> Examples:
        """Checked inputs of this layout.

        Raises:
            ValueError: see `Batch.of` and `check`.
        """
        batch = Batch.of(inputs, ())
        check_alike(batch, Batch(self._one.inputs, (), batch.weights), "this learner's inputs are")
        return jax.tree.map(lambda leaf: leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype)), batch.inputs)

    def packed(self, batch: Batch) -> list[bytes]:
        """The bytes of each datapoint."""
        parts = [
            np.ascontiguousarray(leaf, _dtype(told)).reshape(len(batch), -1).view(np.uint8)
            for leaf, told in zip(
                jax.tree.leaves((batch.inputs, batch.targets)), _leaves((self.inputs, self.targets)), strict=True
            )
        ]
        return [row.tobytes() for row in np.concatenate(parts, axis=1)]

    def unpacked(self, rows: Sequence[bytes]) -> Batch:
        """The batch of datapoints that were packed; they may be none.

        Raises:
            ValueError: one has another number of bytes.
        """
        if odd := [len(row) for row in rows if len(row) != self.size]:
            raise ValueError(f"a datapoint of {odd[0]} bytes, where each has {self.size}")
        content = np.array(bytearray(b"".join(rows)), np.uint8).reshape(len(rows), self.size)
        at = 0

        def array(told: Any) -> np.ndarray:
            nonlocal at
            part, at = np.ascontiguousarray(content[:, at : at + _bytes(told)]), at + _bytes(told)
            return part.view(_dtype(told)).reshape(len(rows), *told["shape"])

        inputs, targets = _filled(self.inputs, array), _filled(self.targets, array)
        return Batch(inputs, targets, np.ones(len(rows), np.float32))


def layout_of(tree: Any, what: str) -> Any:
    """The layout of an example of a pytree of arrays, as plain JSON; see `Layout.inputs`.

    Raises:
        UserError: it has another container than a dict with names, a list or a tuple.
    """
    if isinstance(tree, np.ndarray):
        return {"dtype": str(jax.dtypes.canonicalize_dtype(tree.dtype)), "shape": list(tree.shape[1:])}
    if type(tree) is dict and all(isinstance(name, str) for name in tree):
        return {"dict": {name: layout_of(tree[name], what) for name in sorted(tree)}}
    if type(tree) in (list, tuple):
        return {type(tree).__name__: [layout_of(part, what) for part in tree]}
    raise UserError(
        f"{what} hold a {type(tree).__name__}: a learner that lives stores arrays, and dicts (with names as keys), "
        "lists and tuples of them; convert them to these"
    )


def _leaves(told: Any) -> Iterator[Any]:
    """The arrays, in the order of JAX."""
    if isinstance(told, tuple):
        parts = list(told)
    elif "dtype" in told:
        yield told
        return
    else:
        ((kind, held),) = told.items()
        parts = [held[name] for name in sorted(held)] if kind == "dict" else held
    for part in parts:
        yield from _leaves(part)


def _filled(told: Any, array: Any) -> Any:
    if "dtype" in told:
        return array(told)
    ((kind, held),) = told.items()
    if kind == "dict":
        return {name: _filled(held[name], array) for name in sorted(held)}
    parts = [_filled(part, array) for part in held]
    return tuple(parts) if kind == "tuple" else parts


def _dtype(told: Any) -> np.dtype[Any]:
    return np.dtype(jnp.dtype(told["dtype"]))


def _bytes(told: Any) -> int:
    return int(np.prod(told["shape"], dtype=np.int64)) * _dtype(told).itemsize
