"""What is recorded of a run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metaleader.errors import UserError


@dataclass(frozen=True)
class Record:
    """One evaluation: the learner adapted to D_t, judged on D_t_test, or without it on the next datapoints.

    Attributes:
        round: t, from 1.
        task: the task's name.
        datapoints: `|D_t|`, with what a task that came back had before.
        loss: L(D_t_test, U(w_t)), None where it is not finite.
        score: the problem's first score on D_t_test, None where it or the loss is not finite.
        diverged: whether the loss or the score was not finite; but for a score that is NaN where the loss and all
            predictions are finite. It is undefined, as R2 of one example is: reports leave such a task out, for all
            learners.
        gradient_evaluations: per-example gradients so far in the run, in learning and adapting; a
            Hessian-vector product counts as two.
        train_seconds: wall time so far in `observe`, compiling included.
        evaluation_seconds: wall time so far in `adapt` and judging.
        learning_evaluations: those of the gradients that `observe` took.
        other_scores: the problem's other scores by name, None where one is not finite.

    Examples:
        >>> import metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> (record,) = ml.play(problem, ml.Sinusoid(1, 20, 10).stream(0), ml.TOE(1), ml.OnlineProtocol(20))
        >>> record.round, record.datapoints, record.score == record.loss, record.diverged
        (1, 20, True, False)
    """

    round: int
    task: str
    datapoints: int
    loss: float | None
    score: float | None
    diverged: bool
    gradient_evaluations: int
    train_seconds: float
    evaluation_seconds: float
    learning_evaluations: int
    other_scores: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def undefined(self) -> bool:
        """Whether there is no score although the loss is finite."""
        return self.score is None and not self.diverged

    def as_line(self) -> str:
        """A line of JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False) + "\n"


def is_record(line: bytes) -> bool:
    """Whether a line of a file holds a record."""
    try:
        Record(**json.loads(line))
    except (ValueError, TypeError):
        return False
    return True


def records_of(lines: Iterable[bytes], path: Path) -> list[Record]:
    """The records in the lines of a file.

    Raises:
        UserError: a line is no record; names the file and the line.
    """
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(Record(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}, is no record ({error}): restore it, or delete its folder"
            ) from error
    return records
