"""Records as they are made, for the trackers that people look at runs with.

A tracker begins a run, is told values by step, and ends. It sees records once they are in the run's folder, and can
neither change nor skip one; if it fails, the run goes on without it.
"""

from __future__ import annotations

import csv
import json
import math
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from metaleader.errors import UserError, imported, in_one_line, unknown
from metaleader.files import whole_lines
from metaleader.online import Record, RunState
from metaleader.online.description import RunDescription
from metaleader.online.record import records_of
from metaleader.runs.run import Plan, Progress

T = TypeVar("T")
STATE = "tracked.json"  # in the folder of a run: how far each tracker is, and by which name it knows the run
Values: TypeAlias = Mapping[str, float]  # NaN: not finite


@runtime_checkable
class Tracker(Protocol):
    """What follows runs, one after another.

    >>> class Printed:
    ...     def begin(self, about, folder, before):
    ...         return "printed"
    ...
    ...     def write(self, step, values):
    ...         print(step, sorted(values)[:3])
    ...
    ...     def end(self):
    ...         pass
    >>> isinstance(Printed(), Tracker)
    True
    """

    def begin(self, about: RunDescription, folder: Path, before: str | None) -> str:
        """Begin a run, or go on with the one that `before` names; returns its name for the next time."""
        ...

    def write(self, step: int, values: Values) -> None:
        """Take the values of a record, the `step`-th of the run, from 1."""
        ...

    def end(self) -> None:
        """No more records come for now."""
        ...


def values_of(about: RunDescription, record: Record) -> dict[str, float]:
    """The numbers of a record by name: scores by theirs, what is not finite as NaN."""
    fields = asdict(record)
    others = fields.pop("other_scores")
    fields.pop("task")
    scores = {about.score.name: fields.pop("score"), **others}
    return {name: math.nan if value is None else float(value) for name, value in (scores | fields).items()}


class Csv:
    """`tracked.csv` in the folder of each run: a row for every record."""

    def begin(self, about: RunDescription, folder: Path, before: str | None) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "tracked.csv"
        if before is None:
            self._path.write_text("")
        return str(self._path)

    def write(self, step: int, values: Values) -> None:
        row = {"step": step, **values}
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)

    def end(self) -> None:
        pass


class TensorBoard:
    """Events in the folder `tensorboard` of each run, for `tensorboard --logdir`."""

    def __init__(self) -> None:
        self._module = imported("tensorboardX", "tensorboard", "the tracker tensorboard")

    def begin(self, about: RunDescription, folder: Path, before: str | None) -> str:
        path = folder / "tensorboard"
        number = len(list(path.iterdir())) if path.exists() else 0  # names of files tell no more than the second
        self._writer = self._module.SummaryWriter(str(path), filename_suffix=f".{number}")
        if before is None:
            self._writer.add_text("settings", f"```\n{json.dumps(about.settings, indent=2)}\n```")
        return str(path)

    def write(self, step: int, values: Values) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self) -> None:
        self._writer.close()


class MLflow:
    """Runs of MLflow, in the experiment of theirs, where `MLFLOW_TRACKING_URI` says."""

    def __init__(self) -> None:
        module = imported("mlflow", "mlflow", "the tracker mlflow")
        self._client, self._entities = module.MlflowClient(), module.entities

    def begin(self, about: RunDescription, folder: Path, before: str | None) -> str:
        if before is None:
            known = self._client.get_experiment_by_name(about.experiment)
            experiment = known.experiment_id if known else self._client.create_experiment(about.experiment)
            self._run = self._client.create_run(experiment, run_name=_name(about)).info.run_id
            for name, value in _flat(about).items():
                self._client.log_param(self._run, name, value[:500])
        else:
            self._run = before
            self._client.update_run(self._run, "RUNNING")
        return str(self._run)

    def write(self, step: int, values: Values) -> None:
        self._client.log_batch(
            self._run,
            [
                self._entities.Metric(_plain(name), value, int(1000 * time.time()), step)
                for name, value in values.items()
            ],
        )

    def end(self) -> None:
        self._client.set_terminated(self._run)


class WandB:
    """Runs of Weights & Biases, in the project `metaleader`; `WANDB_MODE=offline` needs no account."""

    def __init__(self) -> None:
        self._module = imported("wandb", "wandb", "the tracker wandb")

    def begin(self, about: RunDescription, folder: Path, before: str | None) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        self._run = self._module.init(
            project="metaleader", group=about.experiment, name=_name(about), config=_flat(about), dir=str(folder),
            id=before, resume="allow", reinit="create_new",
        )  # fmt: skip
        return str(self._run.id)

    def write(self, step: int, values: Values) -> None:
        self._run.log(dict(values), step=step)

    def end(self) -> None:
        self._run.finish()


class Trackio:
    """Runs of trackio, in the project of the experiment, in its own database on this machine."""

    def __init__(self) -> None:
        self._module = imported("trackio", "trackio", "the tracker trackio")

    def begin(self, about: RunDescription, folder: Path, before: str | None) -> str:
        name = before or f"{_name(about)}, {about.made}"
        self._module.init(project=_plain(about.experiment), name=name, config=_flat(about), resume="allow")
        return name

    def write(self, step: int, values: Values) -> None:
        self._module.log(dict(values), step=step)

    def end(self) -> None:
        self._module.finish()


TRACKERS: Mapping[str, type[Any]] = {
    "csv": Csv, "tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB, "trackio": Trackio,
}  # fmt: skip
Track: TypeAlias = str | Tracker | Sequence[str | Tracker]  # by name, or of one's own


def trackers(track: Track) -> dict[str, Tracker]:
    """The trackers by name; those of one's own by the name of their class, a second one as `NAME 2`.

    Raises:
        UserError: a name is not known, or its package is not installed.
    """
    found: dict[str, Tracker] = {}
    for each in [track] if isinstance(track, (str, Tracker)) else track:
        if isinstance(each, str) and each not in TRACKERS:
            raise UserError(unknown("tracker", each, TRACKERS))
        if isinstance(each, str):
            found[each] = TRACKERS[each]()
        elif not any(each is other for other in found.values()):
            name = type(each).__name__
            same = sum(other == name or other.startswith(f"{name} ") for other in found)
            found[f"{name} {same + 1}" if same else name] = each
    return found


@contextmanager
def tracked(plan: Plan, track: Track, progress: Progress | None, keeps: bool = True) -> Iterator[Progress]:
    """What is called with every record of the plan's runs: it tells the trackers, then `progress`.

    A run that goes on tells a tracker what it was not told before, records made anew included once only.

    Args:
        plan: whose records.
        track: the trackers.
        progress: what else is to be called.
        keeps: whether the runs have folders.

    Raises:
        UserError: see `trackers`; or a tracker writes into the folders of runs, and these have none.
    """
    every = trackers(track)
    if not keeps and (files := [name for name in ("csv", "tensorboard") if name in every]):
        raise UserError(f"{' and '.join(files)} write into the folders of runs: give out=FOLDER as well")
    following: list[_Following] = []
    under_way: tuple[str, int] | None = None

    def end() -> None:
        for each in following:
            each.end()
        following.clear()

    def show(learner: str, seed: int, rounds: int | None, state: RunState, record: Record | None) -> None:
        nonlocal under_way
        if under_way != (learner, seed):
            end()
            under_way, folder = (learner, seed), plan.folder(learner, seed)
            about = folder.description if keeps else plan.description(learner, seed)
            told, path = _Told(folder.path / STATE if keeps else None), folder.path if keeps else Path()
            following.extend(_Following(name, each, about, path, told) for name, each in every.items())
        if record is not None:
            for each in following:
                each.tell(state.records, record)
        if progress is not None:
            progress(learner, seed, rounds, state, record)

    try:
        yield show
    finally:
        end()


class _Told:
    """How many records of a run each tracker was told, and by which name it knows the run; kept in a file."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._of = path, dict[str, Any]()
        if path is not None and path.exists():
            with suppress(ValueError):  # cut off by a power cut: all is told again
                self._of = dict(json.loads(path.read_text()))

    def of(self, tracker: str) -> tuple[str | None, int]:
        """The name of the run, and how many records."""
        found = self._of.get(tracker, {})
        return found.get("run"), found.get("records", 0)

    def note(self, tracker: str, run: str | None, records: int) -> None:
        """The same, from now on."""
        self._of[tracker] = {"run": run, "records": records}
        if self._path is not None:
            written = self._path.with_suffix(".new")
            written.write_text(json.dumps(self._of))
            written.replace(self._path)  # a kill leaves the one or the other


class _Following:
    """A tracker and a run, which goes on if the tracker fails."""

    def __init__(self, name: str, tracker: Tracker, about: RunDescription, folder: Path, told: _Told) -> None:
        self._name, self._tracker, self._about, self._told = name, tracker, about, told
        self._records, self._works = folder / "records.jsonl", True
        before, self._step = told.of(name)
        self._run = self._done(lambda: tracker.begin(about, folder, before))

    def tell(self, step: int, record: Record) -> None:
        """Tell of a record, and of those before that the tracker was not told, as it was not asked for then."""
        if not self._works or step <= self._step:
            return
        missed = records_of(whole_lines(self._records)[self._step : step - 1], self._records)
        for each in (*missed, record):
            values = values_of(self._about, each)
            self._done(lambda values=values: self._tracker.write(self._step + 1, values))  # type: ignore[misc]
            if not self._works:
                return
            self._step += 1
        self._told.note(self._name, self._run, self._step)

    def end(self) -> None:
        """Tell that no more comes."""
        self._done(self._tracker.end)

    def _done(self, what: Callable[[], T]) -> T | None:
        """What a tracker that works does; if it fails, that is a warning, and it is asked no more."""
        if not self._works:
            return None
        try:
            return what()
        except Exception as error:  # of another package: a network, an account, a disk
            self._works = False
            said = in_one_line(error)
            warnings.warn(f"the tracker {self._name} failed, and the run goes on without it: {said:.300}", stacklevel=2)
            return None


def _name(about: RunDescription) -> str:
    return f"{about.experiment} {about.preset} {about.learner} seed {about.seed}"


def _flat(about: RunDescription) -> dict[str, str]:
    """All that determines the records, by dotted names."""
    found: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, part in value.items():
                add(f"{name}.{key}" if name else str(key), part)
        else:
            found[_plain(name)] = value if isinstance(value, str) else json.dumps(value)

    add("", {"learner": about.learner, "seed": about.seed, "preset": about.preset, "settings": about.settings})
    return found


def _plain(name: str) -> str:
    """A name of letters, digits and the few signs that all trackers take."""
    return re.sub(r"[^\w .\-/]", "_", name)[:250]
