"""A finished run as a learner that lives: its datapoints, in the order in which they arrived, are in the log."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from metaleader.buffer import TaskKey
from metaleader.errors import UserError, unknown
from metaleader.experiments import find
from metaleader.files import whole_lines
from metaleader.learners import Learner
from metaleader.live.beginning import Portion, begun_with, check_new
from metaleader.live.settings import rebuilt
from metaleader.online import OnlineProtocol
from metaleader.online.description import RunDescription, described
from metaleader.online.protocol import key_of
from metaleader.online.record import Record, records_of
from metaleader.problem import Problem
from metaleader.runs.folder import RunFolder
from metaleader.streams import Task

Show = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Replayed:
    """What was left in a folder.

    Attributes:
        folder: where the learner is.
        tasks: how many it has learned.
        datapoints: how many.
        snapshot: whether its state is stored; otherwise it is learned anew whenever it is opened.

    Examples:
        >>> from pathlib import Path
        >>> from metaleader.live import Replayed
        >>> replayed = Replayed(Path("shops"), tasks=2, datapoints=40, snapshot=True)
        >>> replayed.folder.name, replayed.datapoints / replayed.tasks
        ('shops', 20.0)
    """

    folder: Path
    tasks: int
    datapoints: int
    snapshot: bool


class RunParts(NamedTuple):
    """What a run was made of.

    Attributes:
        problem: what was learned.
        learner: by which learner.
        stream: the tasks of the run's seed.
        protocol: how a round went.

    Examples:
        >>> import metaleader as ml
        >>> from metaleader.live import RunParts
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> parts = RunParts(problem, ml.TOE(1), ml.Sinusoid(2).stream(seed=0), ml.OnlineProtocol())
        >>> parts.learner.steps, len(parts.stream)
        (1, 2)
    """

    problem: Problem
    learner: Learner
    stream: Iterable[Task]
    protocol: OnlineProtocol


def run_folder(folder: str | Path, learner: str | None = None, seed: int | None = None) -> Path:
    """The folder of one run.

    Args:
        folder: that of the run, or the one that `metaleader run` gave to all runs.
        learner: name; None: there is one.
        seed: of the run; None: 0, or whichever a run's own folder has.

    Raises:
        UserError: there is no such run, or the folder is that of another one.

    Examples:
        >>> import tempfile, metaleader as ml
        >>> from metaleader.live import run_folder
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> stream = ml.Sinusoid(2, 20, 10).stream(0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     results = ml.run(problem, stream, {"toe": ml.TOE(1)}, out=folder, progress=False)
        ...     run_folder(folder).relative_to(folder).parts
        ('toe', 'seed-0')
    """
    folder = Path(folder)
    if RunFolder(folder).begun:
        _check_asked_for(RunFolder(folder), learner, seed)
        return folder
    seed = seed or 0
    learners = sorted(path.parent.parent.name for path in folder.glob(f"*/seed-{seed}/config.json"))
    if not learners:
        raise UserError(f"{folder} holds no run of seed {seed}: name the folder that `metaleader run` wrote")
    if learner is None and len(learners) > 1:
        raise UserError(f"{folder} holds runs of {', '.join(learners)}: choose one with --learner")
    name = learner or learners[0]
    if name not in learners:
        raise UserError(unknown("learner", name, learners))
    return folder / name / f"seed-{seed}"


def _check_asked_for(run: RunFolder, learner: str | None, seed: int | None) -> None:
    """Make sure that a run is the one of a learner and a seed, as far as they are given."""
    about = run.description
    for option, asked, own in (("--learner", learner, about.learner), ("--seed", seed, about.seed)):
        if asked not in (None, own):
            raise UserError(
                f"{run.path} is the run of learner {about.learner}, seed {about.seed}, got {option} {asked}: leave "
                f"{option} out, or name the folder of the run that is meant"
            )


def from_run(
    run: str | Path,
    to: str | Path,
    *,
    made_of: RunParts | None = None,
    data_dir: Path | None = None,
    show: Show | None = None,
) -> Replayed:
    """Make a learner that lives of a finished run, in a new folder.

    The stream is played again: its datapoints are stored in the portions in which they arrived, and learned. So the
    learner arrives, on the same machine and versions of packages, at the weights that the run ended with, and all that
    `Live` promises holds of it; it takes as long as the run took to learn. Tasks are known as the run knew them: by
    their keys, or as `round 1`, `round 2`, ... The folder appears when all is learned.

    Args:
        run: the folder of the run: see `run_folder`.
        to: where the learner will be.
        made_of: what the run was made of; None: its folder tells, as far as that is of this package.
        data_dir: where to look for data first.
        show: is told what is being done, and how many tasks of how many are.

    Raises:
        UserError: the run has not finished, or not all of it can be told by its folder; `to` is not empty; the data
            is not what it was.
        WriteError: the file system refuses; nothing is left there.

    Examples:
        >>> import tempfile, metaleader as ml
        >>> from pathlib import Path
        >>> from metaleader.live import RunParts, from_run, run_folder
        >>> problem, learner = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error), ml.TOE(1)
        >>> stream, protocol = ml.Sinusoid(2, 20, 10).stream(0), ml.OnlineProtocol()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     results = ml.run(problem, stream, {"toe": learner}, out=Path(folder) / "runs", progress=False)
        ...     made_of = RunParts(problem, learner, stream, protocol)
        ...     replayed = from_run(run_folder(Path(folder) / "runs"), Path(folder) / "live", made_of=made_of)
        >>> replayed.tasks, replayed.datapoints
        (2, 40)
    """
    source, to = RunFolder(Path(run)), Path(to)
    if not source.begun:
        raise UserError(f"{source.path} holds no run: name the folder of one, such as runs/sinusoid-laptop/ftml/seed-0")
    if source.outcome != "finished":
        raise UserError(
            f"{source.path} has not finished: its outcome is {source.outcome or 'not there yet'}; go on with it by "
            "`metaleader run --resume`"
        )
    check_new(to, "--out")
    about = source.description
    problem, learner, stream, protocol = _parts(about, source.path, data_dir) if made_of is None else made_of
    _check_data(source.path, about, stream)
    records = records_of(whole_lines(source.path / "records.jsonl"), source.path / "records.jsonl")
    rounds, tasks, datapoints = records[-1].round if records else 0, set[TaskKey](), 0

    def portions() -> Iterator[Portion]:
        nonlocal datapoints
        for number, portion in _portions(stream, protocol, records, rounds):
            tasks.add(portion.task)
            datapoints += len(portion.ids)
            yield portion
            if show is not None:
                show(f"learning {about.learner} again", number, rounds)

    snapshot = begun_with(to, problem, learner, portions(), seed=about.seed)
    return Replayed(to, len(tasks), datapoints, snapshot)


def _parts(about: RunDescription, folder: Path, data_dir: Path | None) -> RunParts:
    """What a run was made of, by its description.

    Raises:
        UserError: it does not tell all of them.
    """
    try:
        experiment = find(about.experiment)
        preset = experiment.preset(about.preset)
        own: Mapping[str, Any] = {
            "model": preset.model,
            "loss": preset.loss,
            "protocol": preset.protocol,
            "stream": preset.stream,
            "learner": preset.learners.get(about.learner),
        }
        found = {name: _part(about.settings[name], part) for name, part in own.items()}
        scores = {score.name: described(score.function) for score in experiment.problem(preset).scored}
        if json.loads(json.dumps(scores)) != about.settings["scores"]:
            raise UserError("its scores are others now")
    except (UserError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder} does not tell all of its run ({error}): call metaleader.live.from_run(run, to, "
            "made_of=RunParts(problem, learner, stream, protocol)), with those it was made with"
        ) from error
    problem = Problem(found["model"], found["loss"], experiment.scores)
    return RunParts(problem, found["learner"], found["stream"].stream(about.seed, data_dir), found["protocol"])


def _part(told: Any, own: Any) -> Any:
    """The preset's own value, where that is what the run had; otherwise, one that is made of what is told."""
    return own if json.loads(json.dumps(described(own))) == told else rebuilt(told)


def _check_data(folder: Path, about: RunDescription, stream: Iterable[Task]) -> None:
    """Make sure that the stream reads the files that the run read."""
    now = dict(getattr(stream, "sources", ()))
    if other := sorted(name for name in about.data if now.get(name) != about.data[name]):
        raise UserError(
            f"{folder} was made with other data: {other[0]} is not what it was; give the same by --data-dir"
        )


def _portions(
    stream: Iterable[Task], protocol: OnlineProtocol, records: list[Record], rounds: int
) -> Iterator[tuple[int, Portion]]:
    """What the learner of a run observed, each with the number of its round."""
    ends = {record.round: record.datapoints for record in records}
    before = dict[TaskKey, int]()
    for number, task in enumerate(itertools.islice(stream, rounds), 1):
        key, arrived = key_of(task, number), 0
        end = len(task.train)
        if protocol.move_on:
            if task.test is None:
                raise UserError(
                    "a run that moves on at proficiency, without held-out data, does not record all that arrived: it "
                    "cannot be learned again"
                )
            end = ends[number] - before.get(key, 0)
        while arrived < end:
            coming = protocol.arriving(arrived)
            batch = task.train[arrived : None if coming is None else arrived + coming]
            yield number, Portion(key, batch, [f"round {number}, {arrived + i}" for i in range(len(batch))])
            arrived += len(batch)
        before[key] = before.get(key, 0) + arrived
