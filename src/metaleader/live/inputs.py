"""What a user tells, checked before anything is stored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import numpy as np

from metaleader.buffer import TaskKey
from metaleader.errors import UserError
from metaleader.live.layout import Layout
from metaleader.problem import Problem
from metaleader.problem.model import applied

NAME_LENGTH = 200  # characters of a task's key, or of a datapoint's id


def checked_key(task: TaskKey) -> TaskKey:
    """A task's key, as it is stored.

    Raises:
        UserError: it is none.
    """
    if isinstance(task, (int, np.integer)) and not isinstance(task, bool):
        return int(task)
    if not isinstance(task, str):
        raise UserError(f"a task's key must be an integer or a string, got {task!r:.50}")
    if len(task) > NAME_LENGTH:
        raise UserError(f"a task's key must have at most {NAME_LENGTH} characters, got {len(task)}")
    try:
        task.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"a task's key must be text, got {task!r:.50}: {error.reason}") from error
    return str(task)


def checked_ids(ids: Sequence[str], n: int) -> list[str]:
    """The ids of `n` datapoints.

    Raises:
        UserError: they are not.
    """
    if isinstance(ids, str) or len(ids) != n:
        count = "one string" if isinstance(ids, str) else str(len(ids))
        raise UserError(f"ids must be {n} names, one a datapoint, got {count}: give a list of strings")
    for name in ids:
        if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
            raise UserError(f"an id must be a printable string of 1 to {NAME_LENGTH} characters, got {name!r:.50}")
    return list(ids)


def classes(problem: Problem, layout: Layout) -> int | None:
    """How many outputs the problem's model has for an example; None: it has no model."""
    if problem.model is None:
        return None
    example = layout.example()
    params = jax.eval_shape(problem.init, jax.random.key(0))
    asked = partial(applied, problem.net, training=False)
    outputs = jax.eval_shape(asked, params, example.inputs, example.weights, None)
    return int(outputs.shape[-1]) if hasattr(outputs, "shape") else None
