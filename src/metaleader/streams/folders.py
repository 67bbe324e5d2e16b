"""Folders as streams: of images in class folders, one folder a task, or of arrays, one `.npz` file a task."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from metaleader.errors import UserError, at_most, check_between, check_word, listed, unknown
from metaleader.models import MLP, ConvNet
from metaleader.problem import CrossEntropy, ModelLike, Problem, Score, accuracy, squared_error
from metaleader.problem.losses import Loss
from metaleader.streams.arrays import Source, read_files
from metaleader.streams.groups import Group, split_of
from metaleader.streams.images import Colour, read_folders
from metaleader.streams.table import RootMeanSquare
from metaleader.streams.task import Stream, Task

FolderOrder: TypeAlias = Literal["name", "seed"]
LEAST = 16  # pixels a side of an image that a convolutional net is the default for


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder as a stream of tasks, made by `from_folder`: what was understood of it.

    Attributes:
        path: of the folder.
        tasks: by name.
        sources: where the examples of each are.
        shuffled: whether seeds decide on the order of tasks.
        classes: their names, by label; none where numbers are predicted.
        shape: of an input.
        inputs: what the inputs are, in words.
        left_out: files and tasks that take no part, each with the reason.
        notes: what else to know, such as classes that are not in every task.
        held_out: which examples are held out, in words.

    Examples:
        >>> import tempfile, numpy as np, metaleader as ml
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("north", "south"):
        ...         np.savez(Path(folder) / f"{name}.npz", x=np.ones((10, 3)), y=np.array(["yes", "no"] * 5))
        ...     found = ml.streams.from_folder(folder)
        >>> found.kind, found.classes, found.shape, found.score.name
        ('binary', ('no', 'yes'), (3,), 'accuracy')
    """

    path: Path
    tasks: tuple[Group, ...]
    sources: tuple[Source, ...]
    shuffled: bool
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    inputs: str
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    held_out: str

    @property
    def kind(self) -> Literal["regression", "binary", "multi-class"]:
        """What is predicted."""
        return ("binary" if len(self.classes) == 2 else "multi-class") if self.classes else "regression"

    @property
    def outputs(self) -> int:
        """How many numbers a model must give for an example."""
        return len(self.classes) or int(np.prod(_as_values(self.sources[0].targets).shape[1:]))

    @property
    def loss(self) -> Loss:
        """The cross-entropy in nats, or the squared error."""
        return CrossEntropy(label_smoothing=0.0) if self.classes else squared_error

    @property
    def score(self) -> Score:
        """The accuracy, or the root of the mean squared error."""
        return accuracy if self.classes else Score("RMSE", RootMeanSquare(1.0), False, whole=True)

    def problem(self, model: ModelLike | None = None) -> Problem:
        """What is learned, for `ml.run`.

        Args:
            model: gives `outputs` numbers for inputs `(n, *shape)`; None: a `ConvNet` for images of classes from 16
                pixels a side on, otherwise an `MLP`.
        """
        if model is None:
            height, width, channels = self.shape if len(self.shape) == 3 else (0, 0, 0)
            if self.classes and channels in (1, 3) and min(height, width) >= LEAST:
                model = ConvNet(image=(height, width, channels), classes=self.outputs)
            else:
                model = MLP(int(np.prod(self.shape)), self.outputs)
        return Problem(model, self.loss, self.score)

    def stream(self, seed: int) -> Stream:
        """The tasks in order of arrival; each is read when its round comes.

        Inputs are `(n, *shape)`; targets are int32 labels `(n,)`, or float32 values `(n, k)`.
        """
        order = np.arange(len(self.tasks))
        if self.shuffled:
            order = np.random.default_rng(seed).permutation(order)

        def make(i: int) -> Task:
            group, source = self.tasks[order[i]], self.sources[order[i]]
            train, test = group.parts
            inputs = source.read(train if test is None else np.concatenate([train, test]))
            targets, n = self._targets(source.targets), len(train)
            held_out: tuple[Any, Any] = (None, None) if test is None else (inputs[n:], targets[test])
            if source.read_test is not None and source.test_targets is not None:
                held_out = source.read_test(), self._targets(source.test_targets)
            return Task.from_arrays(inputs[:n], targets[train], *held_out, group.name)

        return Stream(make, len(self.tasks))

    def _targets(self, targets: np.ndarray) -> np.ndarray:
        if not self.classes:
            return _as_values(targets)
        return np.array([self.classes.index(name) for name in targets.astype(str).tolist()], np.int32)

    def describe(self) -> str:
        """What was understood of the folder, in lines of text, before anything runs."""
        sizes = [len(source.targets) + _own_test(source) for source in self.sources]
        held_out = sum(task.held_out + _own_test(source) for task, source in zip(self.tasks, self.sources, strict=True))
        lines = [
            f"{len(sizes)} tasks, in {self.path}, of {min(sizes)} to {max(sizes)} examples (median "
            f"{np.median(sizes):g})",
            f"target: {self.kind}, "
            + (f"{len(self.classes)} classes: {listed(self.classes)}" if self.classes else f"{self.outputs} numbers"),
            f"inputs: {self.inputs}",
            f"held out: {self.held_out}, {held_out} examples"
            if held_out
            else "held out: none; each chunk of examples is judged before it is learned from",
            f"order: tasks by {'seed' if self.shuffled else 'name'}",
            *self.notes,
            *(["left out:", *(f"  {text}" for text in at_most(self.left_out))] if self.left_out else []),
        ]
        return "\n".join(lines)


def from_folder(
    path: str | Path,
    *,
    image_size: int | tuple[int, int] | None = None,
    colour: Colour = "rgb",
    held_out: str = "random 30%",
    tasks: FolderOrder = "seed",
    smallest: int = 5,
) -> Folder:
    """A folder as a stream: of images, or of arrays.

    Images lie in `path/task/class/image.png`: one folder a task, in it one a class; they need Pillow (`pip install
    'metaleader[images]'`), and they arrive in an order that is drawn once for each task. Arrays lie in `path/task.npz`,
    as `x` and `y`, in order of arrival, and optionally `x_test` and `y_test`, which are then held out. Whole numbers,
    truth values and words in `y` are classes, other numbers are regressed as they are.

    Args:
        path: of the folder.
        image_size: to which images are resized: height and width in pixels, or both in one number; None: they must all
            be of one size.
        colour: `rgb`, arrays `(n, h, w, 3)`; or `grey`, `(n, h, w, 1)`; of 8-bit integers.
        held_out: which examples of a task are held out: `random 30%` (drawn once, the same for all seeds), `last 30%`,
            any per cent; or `none`: a chunk of examples is judged before it is learned from.
        tasks: the order of tasks: by `name`, numbers in it by value, or by `seed`.
        smallest: how many examples a task needs; smaller ones are left out.

    Raises:
        UserError: there is no such folder, or it holds no tasks, or both folders and `.npz` files; images or arrays are
            damaged or of several shapes; an `.npz` file is pickled, or lacks `x` or `y`; a setting is unknown.

    Examples:
        >>> import tempfile, numpy as np, metaleader as ml
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("north", "south"):
        ...         np.savez(Path(folder) / f"{name}.npz", x=np.ones((10, 3)), y=np.ones((10, 1)))
        ...     stream = ml.streams.from_folder(folder, held_out="last 30%", tasks="name").stream(seed=0)
        ...     [(task.name, len(task.train), len(task.held_out)) for task in stream]
        [('north', 7, 3), ('south', 7, 3)]
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        near = sorted(p.name for p in path.parent.iterdir() if p.is_dir()) if path.parent.is_dir() else []
        raise UserError(f"{path}: {unknown('folder', path.name, near)}")
    check_between("smallest", smallest, 2, 1_000_000_000)
    check_word("order of tasks", tasks, get_args(FolderOrder))
    check_word("colour", colour, get_args(Colour))
    split = split_of(held_out, None)
    inside = sorted((p for p in path.iterdir() if not p.name.startswith(".")), key=_by_number)
    folders, arrays = [p for p in inside if p.is_dir()], [p for p in inside if p.suffix.lower() == ".npz"]
    if bool(folders) == bool(arrays):
        what = f"{len(folders)} folders and {len(arrays)} .npz files" if folders else "no folder and no .npz file"
        raise UserError(f"{path} holds {what}: give one folder of images a task, or one .npz file a task")
    out = [f"{p.name}: no {'folder' if folders else '.npz file'}" for p in inside if p not in (*folders, *arrays)]
    if folders:
        shape: tuple[int, ...]
        found, shape, skipped = read_folders(folders, _size(image_size), colour)
        inputs = f"images of {shape[0]} x {shape[1]} pixels, {colour}"
        out += skipped
    else:
        found, shape = read_files(arrays)
        inputs = f"arrays of shape {shape}"
    small = [source for source in found if len(source.targets) < smallest]
    out += [f"task {source.name}: {len(source.targets)} examples, fewer than {smallest}" for source in small]
    sources = [source for source in found if source not in small]
    if len(sources) < 2:
        raise UserError(
            f"{len(sources)} of {len(found)} tasks in {path} can be learned, at least 2 must be. Left out: "
            f"{listed(out, 3) or 'none'}. Choose a smaller `smallest`, or add tasks"
        )
    whole = "none"  # where the file itself says what is held out, all of `x` is to learn from
    splits = [split if source.read_test is None else split_of(whole, None) for source in sources]
    groups = [Group(s.name, range(len(s.targets)), part) for s, part in zip(sources, splits, strict=True)]
    classes, notes = _classes(sources)
    own = sum(source.read_test is not None for source in sources)
    told = (
        "as the files say" if own == len(sources) else held_out + (f", in {own} tasks as their files say" * (own > 0))
    )
    return Folder(
        path,
        tuple(groups),
        tuple(sources),
        tasks == "seed",
        classes,
        shape,
        inputs,
        tuple(out),
        tuple(notes),
        told,
    )


def _by_number(path: Path) -> list[tuple[int, int | str]]:
    """For sorting: numbers within names count by their value."""
    parts = [part for part in re.split(r"(\d+)", path.name) if part]
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def _own_test(source: Source) -> int:
    return 0 if source.test_targets is None else len(source.test_targets)


def _size(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    check_between("image_size", min(height, width), 1, 100_000)
    return height, width


def _as_values(targets: np.ndarray) -> np.ndarray:
    """Numbers to regress, float32 `(n, k)`."""
    return targets.reshape(len(targets), -1).astype(np.float32)


def _classes(sources: Sequence[Source]) -> tuple[tuple[str, ...], list[str]]:
    """The names of all classes, and a sentence on those that are not in every task.

    Raises:
        UserError: some tasks have classes and others numbers; or there is one class.
    """
    parts = {
        f"{name} of {source.name}": targets
        for source in sources
        for name, targets in (("y", source.targets), ("y_test", source.test_targets))
        if targets is not None
    }
    decimal = [name for name, targets in parts.items() if targets.dtype.kind == "f"]
    if decimal and len(decimal) < len(parts):
        raise UserError(f"{decimal[0]} holds decimal numbers, others classes: write the same everywhere")
    if decimal:
        return (), []
    in_tasks = Counter(
        name
        for source in sources
        for name in {str(label) for part in (source.targets, source.test_targets) if part is not None for label in part}
    )
    numbers = all(targets.dtype.kind in "iu" for targets in parts.values())
    names = sorted(in_tasks, key=lambda name: (int(name), "") if numbers else (0, name))
    if len(names) < 2:
        raise UserError(f"all examples are of one class, {names[0]!r}: there is nothing to predict")
    some = [f"{name} in {in_tasks[name]}" for name in names if in_tasks[name] < len(sources)]
    note = f"classes that are not in each of the {len(sources)} tasks: {listed(some)}"
    return tuple(names), [note] if some else []
