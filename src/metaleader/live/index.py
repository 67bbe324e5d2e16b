"""What a log says of tasks, in memory, as of its last event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from metaleader.buffer import TaskKey
from metaleader.live.events import Known


@dataclass
class Index:
    """An account of a log up to an event. It lags behind where other processes write.

    Attributes:
        last: the number of the event.
        tasks: those that have datapoints.
        deleting: by the number of the event: tasks forgotten, whose datapoints may not be deleted yet.
    """

    last: int = 0
    tasks: dict[TaskKey, Known] = field(default_factory=dict)
    deleting: dict[int, TaskKey] = field(default_factory=dict)

    def known(self, task: TaskKey) -> Known:
        """What is known of a task."""
        return self.tasks.get(task, Known(0, 0))

    def since(self, task: TaskKey, until: int | None = None) -> int:
        """The number of the last event, up to `until`, that forgot the task, if its datapoints are not yet deleted."""
        events = [sequence for sequence, forgotten in list(self.deleting.items()) if forgotten == task]
        return max((sequence for sequence in events if until is None or sequence <= until), default=0)

    def add(self, tasks: Mapping[TaskKey, Known], last: int) -> None:
        """Go on to event `last`, by which there is so much of these tasks; twice is once."""
        if last > self.last:
            self.tasks.update(tasks)
            self.last = last

    def forget(self, task: TaskKey, sequence: int) -> None:
        """Go on to the event by which a task is forgotten; twice is once."""
        if sequence > self.last:
            self.deleting[sequence] = task
            self.tasks.pop(task, None)
            self.last = sequence
