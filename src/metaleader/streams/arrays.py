"""Where the examples of a task are, and tasks in `.npz` files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metaleader.errors import UserError, listed


@dataclass(frozen=True, eq=False)
class Source:
    """Where the examples of a task are.

    Attributes:
        name: of the folder or file.
        targets: of all examples, as they are written.
        read: `read(rows)` gives the inputs of some examples.
        test_targets: of the examples that are held out, where the file itself says so.
        read_test: gives their inputs.
    """

    name: str
    targets: np.ndarray
    read: Callable[[np.ndarray], np.ndarray]
    test_targets: np.ndarray | None = None
    read_test: Callable[[], np.ndarray] | None = None


def read_files(paths: Sequence[Path]) -> tuple[list[Source], tuple[int, ...]]:
    """The tasks of `.npz` files, one a file, checked whole, and the shape of an input.

    Raises:
        UserError: a file is damaged, pickled or lacks `x` or `y`; arrays do not hold as many finite numbers, classes or
            words as there are examples, or inputs are of several shapes or types.
    """
    sources = [_read(path) for path in paths]
    return sources, _one_shape(paths, sources)


def _read(path: Path) -> Source:
    """A task in an `.npz` file, checked whole."""
    held = _load(path)
    if missing := [name for name in ("x", "y") if name not in held]:
        raise UserError(f"{path} holds {listed(sorted(held)) or 'nothing'}, but no {missing[0]}: save it by np.savez")
    if ("x_test" in held) != ("y_test" in held):
        raise UserError(f"{path} must hold both x_test and y_test, or neither; got {listed(sorted(held))}")
    for x, y in (("x", "y"), *([("x_test", "y_test")] if "x_test" in held else [])):
        if held[x].ndim < 1 or held[y].ndim < 1 or len(held[x]) != len(held[y]) or not len(held[x]):
            raise UserError(
                f"{path} must hold as many {x} as {y}, at least one; got shapes {held[x].shape} and {held[y].shape}"
            )
        for name in (x, y):
            if held[name].dtype.kind == "f" and not np.isfinite(held[name]).all():
                raise UserError(f"{path}: {name} must be finite, and holds NaN or infinite values: repair them")
        if held[x].dtype.kind not in "fiub":
            raise UserError(f"{path}: {x} must hold numbers, got {held[x].dtype}")
        if held[y].dtype.kind != "f" and held[y].ndim != 1:
            raise UserError(f"{path}: {y} must hold one class an example, got shape {held[y].shape}")
        if held[y].dtype.kind not in "fiubU":
            raise UserError(f"{path}: {y} must hold numbers, truth values or words, got {held[y].dtype}")
    test = held.get("y_test")
    return Source(
        path.stem,
        held["y"],
        lambda rows: _as_inputs(_load(path)["x"][rows]),
        test,
        None if test is None else lambda: _as_inputs(_load(path)["x_test"]),
    )


def _one_shape(paths: Sequence[Path], sources: Sequence[Source]) -> tuple[int, ...]:
    """The shape of an input, the same in all files.

    Raises:
        UserError: naming two files of different shapes or types.
    """
    first: tuple[Path, tuple[int, ...], Any] | None = None
    for path, source in zip(paths, sources, strict=True):
        parts = [source.read(np.arange(1)), *([source.read_test()] if source.read_test else [])]
        for part in parts:
            first = first or (path, part.shape[1:], part.dtype)
            if (part.shape[1:], part.dtype) != first[1:]:
                raise UserError(
                    f"x must be alike in all files: {first[0]} has {first[2]} of shape {first[1]} an example, {path} "
                    f"{part.dtype} of shape {part.shape[1:]}"
                )
    assert first is not None
    return first[1]


def _as_inputs(x: np.ndarray) -> np.ndarray:
    """8-bit images as they are, otherwise float32; plain numbers as `(n, 1)`."""
    x = x if x.dtype == np.uint8 else x.astype(np.float32)
    return x[:, None] if x.ndim == 1 else x


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Raises:
        UserError: it is damaged, or pickled.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in ("x", "y", "x_test", "y_test") if name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error) or "ickle" in str(error):
            raise UserError(
                f"{path} holds Python objects (pickled), which may run code when they are read, or is no .npz file: "
                "save arrays of numbers or words by np.savez"
            ) from error
        raise UserError(f"{path} is damaged or no .npz file ({error}): save it again by np.savez") from error
