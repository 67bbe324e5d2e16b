"""Tasks and streams of them (paper, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from metaleader.problem.batch import Batch, Examples


@dataclass(frozen=True)
class Task:
    """A task T_t: the data of a round, in order of arrival, and held-out data.

    Attributes:
        train: D_t once it is complete; a learner sees growing prefixes of it.
        test: D_t_test, which only the protocol touches.
        name: what records and figures call it.
    """

    train: Batch
    test: Batch
    name: str = ""

    @classmethod
    def from_arrays(
        cls,
        inputs: Examples,
        targets: Examples,
        test_inputs: Examples,
        test_targets: Examples,
        name: str = "",
    ) -> Task:
        """A task from a user's arrays; the first axis counts the examples.

        Raises:
            ValueError: see `Batch.of`, or the test examples are of another shape than the training examples.
        """
        train, test = Batch.of(inputs, targets), Batch.of(test_inputs, test_targets)
        for kind, of_train, of_test in (
            ("inputs", train.inputs, test.inputs),
            ("targets", train.targets, test.targets),
        ):
            if of_train.shape[1:] != of_test.shape[1:]:
                raise ValueError(
                    f"task {name!r}: training {kind} have shape {of_train.shape[1:]} an example, test {kind} "
                    f"{of_test.shape[1:]}; make them equal"
                )
        return cls(train, test, name)


@dataclass(frozen=True)
class Stream(Sequence[Task]):
    """Tasks in order of arrival, each made when its round comes.

    A list of tasks is a stream too; this one keeps only the task in use in memory.

    Attributes:
        make: `make(i)` gives the task of round `i + 1`, the same whenever it is asked.
        rounds: how many tasks there are.
        sources: the checksum of every data file read, by file name, for the record of the run.
    """

    make: Callable[[int], Task]
    rounds: int
    sources: tuple[tuple[str, str], ...] = ()

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
