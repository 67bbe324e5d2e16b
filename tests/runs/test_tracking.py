"""Trackers are told every record once, whatever stops, and what was told can be read back from the real ones."""

import csv
import importlib.util
import json
import math
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metaleader as ml
from command import call
from metaleader.online.description import RunDescription
from metaleader.results.metrics import Run
from metaleader.runs.tracking import STATE, trackers, values_of

PROBLEM = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
LEARNERS: dict[str, ml.Learner] = {
    "ftml": ml.FTML(ml.GradientDescent(step_size=0.01), meta_steps=1),
    "scratch": ml.Scratch(steps=2),
}
PROTOCOL = ml.OnlineProtocol(chunk=5, threshold=0.01)


def task(i: int) -> ml.Task:
    random = np.random.default_rng(i)
    x = random.normal(size=(12, 1)).astype(np.float32)
    return ml.Task.from_arrays(x[:10], i * x[:10], x[10:], i * x[10:], f"line {i}")


class Kept:
    """A tracker of one's own; each run is known by its learner."""

    def __init__(self, fails_at: int = 10**9) -> None:
        self.told: dict[str, list[tuple[int, Mapping[str, float]]]] = {}
        self.fails_at, self.begun, self.ended = fails_at, list[tuple[str, str | None]](), 0

    def begin(self, about: RunDescription, folder: Path, before: str | None) -> str:
        self.begun.append((about.learner, before))
        self._now = self.told.setdefault(about.learner, [])
        return about.learner

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if step >= self.fails_at:
            raise OSError("no network")
        self._now.append((step, values))

    def end(self) -> None:
        self.ended += 1


def expected(run: Run) -> list[tuple[int, Mapping[str, float]]]:
    return [(step, values_of(run.about, record)) for step, record in enumerate(run.records, 1)]


@pytest.mark.parametrize("keeps", [True, False])
def test_every_record_is_told_once_in_order(keeps: bool, tmp_path: Path) -> None:
    kept = Kept()
    out = tmp_path / "runs" if keeps else None
    found = ml.run(
        PROBLEM, [task(i) for i in range(3)], LEARNERS, protocol=PROTOCOL, out=out, progress=False, track=kept
    )
    assert kept.told == {run.learner: expected(run) for run in found.runs}
    assert all(len(told) == 6 for told in kept.told.values())
    assert kept.begun == [("ftml", None), ("scratch", None)]
    assert kept.ended == 2


def test_a_run_that_goes_on_tells_what_was_not_told_before(tmp_path: Path) -> None:
    def run(rounds: int, *track: Kept) -> ml.Results:
        tasks = [task(i) for i in range(rounds)]
        return ml.run(
            PROBLEM, tasks, LEARNERS, protocol=PROTOCOL, out=tmp_path, resume=rounds > 2, progress=False, track=track
        )

    first, late = Kept(), Kept()
    run(2, first)
    found = run(4, first)
    assert first.begun[2:] == [("ftml", "ftml"), ("scratch", "scratch")]
    assert first.told == {run.learner: expected(run) for run in found.runs}
    # Asked for later: all of a run that goes on, from its beginning. Records made anew after a kill are told once.
    state = tmp_path / "ftml" / "seed-0" / STATE
    state.write_text('{"Kept": {"run": "ftml", "records": 3}}')
    found = run(5, late)
    assert [step for step, _ in late.told["ftml"]] == list(range(4, 11))
    assert late.told["scratch"] == expected(found.runs[1])[8:]
    assert json.loads(state.read_text())["Kept"]["records"] == 10


def test_a_state_that_was_cut_off_is_told_anew(tmp_path: Path) -> None:
    ml.run(PROBLEM, [task(0)], LEARNERS["scratch"], protocol=PROTOCOL, out=tmp_path, progress=False)
    (tmp_path / "scratch" / "seed-0" / STATE).write_text('{"Ke')
    kept = Kept()
    tasks = [task(0), task(1)]
    found = ml.run(
        PROBLEM, tasks, LEARNERS["scratch"], protocol=PROTOCOL, out=tmp_path, resume=True, progress=False, track=kept
    )
    assert kept.told["scratch"] == expected(found.runs[0])


def test_a_tracker_that_fails_loses_neither_the_run_nor_the_others() -> None:
    failing, kept = Kept(fails_at=3), Other()
    with pytest.warns(UserWarning, match="the tracker Kept failed, and the run goes on without it: no network"):
        found = ml.run(
            PROBLEM, [task(i) for i in range(3)], LEARNERS["scratch"], protocol=PROTOCOL, progress=False,
            track=(failing, kept),
        )  # fmt: skip
    assert [step for step, _ in failing.told["scratch"]] == [1, 2]
    assert kept.told["scratch"] == expected(found.runs[0])


class Other(Kept):
    pass


def test_what_is_not_finite_is_told_as_such() -> None:
    about = RunDescription.of("own", "own", PROBLEM, PROTOCOL)
    record = ml.Record(1, "a", 5, None, None, True, 10, 0.1, 0.2, 10, {"other": None})
    found = values_of(about, record)
    assert all(math.isnan(found[name]) for name in ("loss", about.score.name, "other"))
    assert found["datapoints"] == 5


@pytest.mark.parametrize(
    ("track", "message"), [("csvv", "did you mean csv"), ("csv", "give out=FOLDER"), (["csv", "x"], "tracker 'x'")]
)
def test_what_cannot_be_tracked_is_said_before_anything_runs(track: Any, message: str) -> None:
    with pytest.raises(ml.UserError, match=message):
        ml.run(PROBLEM, [task(0)], LEARNERS, progress=False, track=track)


def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    out = tmp_path / "out"
    assert call("run", "sinusoid", "--preset", "smoke", "--track", "wandb", "--out", str(out)) == 2
    assert "pip install 'metaleader[wandb]'" in capsys.readouterr().err
    assert not out.exists()


# The real ones


def tracked_run(name: str, folder: Path) -> Run:
    """A run that stops after two tasks and goes on with a third."""
    for rounds in (2, 3):
        tasks = [task(i) for i in range(rounds)]
        found = ml.run(
            PROBLEM, tasks, LEARNERS["scratch"], protocol=PROTOCOL, out=folder, resume=rounds > 2, progress=False,
            track=name, name="lines",
        )  # fmt: skip
    return found.runs[0]


def scores(run: Run) -> list[float]:
    return [math.nan if record.score is None else record.score for record in run.records]


def needed(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def test_csv_holds_a_row_for_every_record(tmp_path: Path) -> None:
    run = tracked_run("csv", tmp_path)
    with (tmp_path / "scratch" / "seed-0" / "tracked.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row[run.about.score.name]) for row in rows] == scores(run)
    assert [int(row["step"]) for row in rows] == list(range(1, 7))


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    needed("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    run = tracked_run("tensorboard", tmp_path)
    found: dict[int, float] = {}
    for file in sorted((tmp_path / "scratch" / "seed-0" / "tensorboard").iterdir()):
        content, at = file.read_bytes(), 0
        while at < len(content):  # length, its checksum, an event, its checksum
            length = int.from_bytes(content[at : at + 8], "little")
            data = content[at + 12 : at + 12 + length]
            assert int.from_bytes(content[at + 12 + length : at + 16 + length], "little") == masked_crc32c(data)
            event, at = Event.FromString(data), at + 16 + length
            for value in event.summary.value:
                if value.tag.replace("_", " ") == run.about.score.name:
                    found[event.step] = value.simple_value
    np.testing.assert_allclose([found[step] for step in range(1, 7)], scores(run), rtol=1e-6)


@pytest.mark.slow
def test_mlflow_reads_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed("mlflow", "sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    run = tracked_run("mlflow", tmp_path / "runs")
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("lines")
    (logged,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(logged.info.run_id, run.about.score.name)
    assert [metric.step for metric in history] == list(range(1, 7))
    assert [metric.value for metric in history] == scores(run)
    assert logged.data.params["learner"] == "scratch"
    assert logged.info.status == "FINISHED"


@pytest.mark.slow
def test_wandb_keeps_what_was_logged_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tracked_run("wandb", tmp_path)
    from wandb.proto.wandb_internal_pb2 import Record

    files = sorted(tmp_path.glob("scratch/seed-0/wandb/offline-run-*/*.wandb"), key=lambda path: path.parent.name)

    def found() -> list[float]:
        items = [
            item
            for file in files
            for data in logged(file.read_bytes())
            for item in Record.FromString(data).history.item
        ]
        own = [item for item in items if run.about.score.name in (item.key, *item.nested_key)]
        return [float(json.loads(item.value_json)) for item in own]

    late = time.monotonic() + 30
    while len(found()) < len(run.records) and time.monotonic() < late:  # a process of its own writes
        time.sleep(0.1)
    assert found() == scores(run)
    assert len(files) == 2
    assert len({file.name for file in files}) == 1  # both parts are one run to the server


def logged(content: bytes) -> Iterator[bytes]:
    """The records of a log of LevelDB: blocks of 32 KiB, parts of records with checksum, length and kind."""
    whole, at = b"", 7  # a head of its own comes first
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # all of a record, or its end
            yield whole
            whole = b""


@pytest.mark.slow
def test_trackio_reads_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run = tracked_run("trackio", tmp_path / "runs")
    (path,) = (tmp_path / "trackio").glob("lines*.db")
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    assert [step for step, _ in rows] == list(range(1, 7))
    assert [json.loads(metrics)[run.about.score.name] for _, metrics in rows] == scores(run)


def test_trackers_are_named_once() -> None:
    kept = Kept()
    assert list(trackers(["csv", kept, "csv", kept])) == ["csv", "Kept"]
    assert list(trackers([kept, Kept(), Kept()])) == ["Kept", "Kept 2", "Kept 3"]
    assert trackers(kept) == {"Kept": kept}
    assert trackers(()) == {}
