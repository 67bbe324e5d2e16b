"""Tasks and streams of them (paper, section 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import jax
import numpy as np

from metaleader.problem.batch import Batch, Examples, check_alike


@dataclass(frozen=True)
class Task:
    """A task T_t: the data of a round, in order of arrival, and held-out data.

    Attributes:
        train: D_t once it is complete; a learner sees growing prefixes of it.
        test: D_t_test, which only the protocol touches; None: the learner is judged on the datapoints to come.
        name: what records and figures call it.
        key: which task it is, an integer or a string; rounds of equal keys are of one task, whose datapoints they
            share. None: a task of its own, that no other round is of.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> x = np.linspace(-1, 1, 15, dtype=np.float32)[:, None]
        >>> task = ml.Task.from_arrays(x[:10], 2 * x[:10], x[10:], 2 * x[10:], name="a line")
        >>> task.name, len(task.train), len(task.held_out)
        ('a line', 10, 5)
    """

    train: Batch
    test: Batch | None = None
    name: str = ""
    key: int | str | None = None

    @classmethod
    def from_arrays(
        cls,
        inputs: Examples,
        targets: Examples,
        test_inputs: Examples | None = None,
        test_targets: Examples | None = None,
        name: str = "",
        key: int | str | None = None,
    ) -> Task:
        """A task from a user's arrays, or pytrees of them; the first axis counts the examples.

        Raises:
            ValueError: see `Batch.of`; the test examples are of another structure, shape or type than the training
                examples, or only one of test inputs and test targets is given.
        """
        train = Batch.of(inputs, targets)
        if test_inputs is None and test_targets is None:
            return cls(train, None, name, key)
        if test_inputs is None or test_targets is None:
            raise ValueError(f"task {name!r}: give both test inputs and test targets, or neither")
        test = Batch.of(test_inputs, test_targets)
        try:
            check_alike(test, train, "training data holds")
        except ValueError as error:
            raise ValueError(f"task {name!r}, held-out data: {error}") from error
        return cls(train, test, name, key)

    @property
    def checksum(self) -> str:
        """A checksum of its data and names, the same in every process."""
        leaves, structure = jax.tree.flatten((self.train, self.test))
        digest = hashlib.blake2b(repr((self.name, self.key, structure)).encode(), digest_size=8)
        for leaf in map(np.ascontiguousarray, leaves):
            digest.update(f"{leaf.dtype} {leaf.shape}".encode())
            digest.update(leaf.reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    @property
    def held_out(self) -> Batch:
        """The held-out data.

        Raises:
            ValueError: there is none.
        """
        if self.test is None:
            raise ValueError(f"task {self.name!r} has no held-out data: give it test inputs and targets")
        return self.test


@dataclass(frozen=True)
class Stream(Sequence[Task]):
    """Tasks in order of arrival, each made when its round comes.

    A list of tasks is a stream too, and so is any iterable of them; this one keeps only the task in use in memory.

    Attributes:
        make: `make(i)` gives the task of round `i + 1`, the same whenever it is asked.
        rounds: how many tasks there are.
        sources: the checksum of every data file read, by file name, for the record of the run.

    Raises:
        ValueError: there is no task.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> x = np.linspace(-1, 1, 15, dtype=np.float32)[:, None]
        >>> stream = ml.Stream(lambda i: ml.Task.from_arrays(x, i * x, name=f"slope {i}"), rounds=1000)
        >>> len(stream), stream[3].name, [task.name for task in stream[-2:]]
        (1000, 'slope 3', ['slope 998', 'slope 999'])
    """

    make: Callable[[int], Task]
    rounds: int
    sources: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"the rounds of a stream must be at least 1, got {self.rounds}")

    def __len__(self) -> int:
        return self.rounds

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        if isinstance(index, slice):
            return [self.make(i) for i in range(*index.indices(self.rounds))]
        if not -self.rounds <= index < self.rounds:
            raise IndexError(f"round index {index} of a stream of {self.rounds} rounds")
        return self.make(index % self.rounds)

    def __iter__(self) -> Iterator[Task]:
        return (self.make(i) for i in range(self.rounds))
