"""Run folders: stops of every kind, and going on to the same records bit for bit."""

import dataclasses
import inspect
import json
import os
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metaleader
from accounts import account
from metaleader import EXPERIMENTS, TOE, Adam, Model, Problem, Score, Task, UserError
from metaleader.experiments.plans import Selection
from metaleader.online.description import described
from metaleader.runs import folder, source
from metaleader.runs.folder import RunFolder
from metaleader.runs.run import Plan, RunInterrupted, run
from problems import CURVES, points


def selection(out: Path, **settings: Any) -> Selection:
    experiment = EXPERIMENTS["sinusoid"]
    chosen = Selection(experiment, "smoke", experiment.presets["smoke"], ("ftml", "toe"), (0,), out)
    return dataclasses.replace(chosen, **settings)


def plan(out: Path, **options: Any) -> Plan:
    return selection(out).plan(**options)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("whole")
    assert set(run(plan(out)).values()) == {"finished"}
    return account(out)


def test_a_run_folder_says_how_it_was_made(tmp_path: Path) -> None:
    run(selection(tmp_path, command="metaleader run sinusoid").plan())
    config = json.loads((tmp_path / "ftml" / "seed-0" / "config.json").read_text())
    assert config["settings"]["learner"]["update"]["step_size"] == 0.003
    assert config["settings"]["learner"]["sampling"]["half_life"] == "inf"
    assert config["settings"]["stream"] == {
        "type": "Sinusoid", "rounds": 3, "examples_per_task": 10, "test_examples": 200,
    }  # fmt: skip
    assert config["command"] == "metaleader run sinusoid"
    assert {"jax", "numpy", "metaleader", "python"} <= config["versions"].keys()
    assert (config["seed"], config["rounds"], config["learner"]) == (0, 3, "ftml")


@pytest.mark.parametrize("stop_after", [1, 3, 4, 7, 11])
def test_stopped_and_resumed_gives_the_same_records(
    tmp_path: Path, stop_after: int, uninterrupted: dict[str, list[dict[str, Any]]]
) -> None:
    chunks = 0

    def interrupt(*_: Any) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(RunInterrupted):
        run(plan(tmp_path), progress=interrupt)
    assert run(plan(tmp_path), resume=True)
    assert account(tmp_path) == uninterrupted


def test_records_written_after_the_last_checkpoint_are_made_again(
    tmp_path: Path, uninterrupted: dict[str, list[dict[str, Any]]]
) -> None:
    class Killed(BaseException):
        pass

    chunks = 0

    def kill(*_: Any) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 5:
            raise Killed

    with pytest.raises(Killed):
        run(plan(tmp_path, checkpoint_seconds=0.0), progress=kill)
    with (tmp_path / "ftml" / "seed-0" / "records.jsonl").open("a") as file:
        file.write('{"round": 3, "torn')
    run(plan(tmp_path), resume=True)
    assert account(tmp_path) == uninterrupted


def test_results_are_never_overwritten(tmp_path: Path) -> None:
    run(plan(tmp_path))
    before = account(tmp_path)
    with pytest.raises(UserError, match="exists already: go on with it by --resume"):
        run(plan(tmp_path))
    assert account(tmp_path) == before


def test_resuming_with_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    run(plan(tmp_path))
    changed = dict(EXPERIMENTS["sinusoid"].presets["smoke"].learners)
    changed["ftml"] = dataclasses.replace(changed["ftml"], meta_steps=7)  # type: ignore[type-var]
    preset = EXPERIMENTS["sinusoid"].presets["smoke"]
    other = dataclasses.replace(preset, learners=changed, own_steps=("ftml",))
    with pytest.raises(UserError, match=r"settings.learner.meta_steps = 2, now it is 7"):
        run(selection(tmp_path, preset=other).plan(), resume=True)


def test_a_learner_that_fails_or_diverges_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclasses.dataclass(frozen=True)
    class Broken(TOE):
        def observe(self, *_: Any) -> Any:
            raise MemoryError("no room for\n a batch")

    learners = {"broken": Broken(), "wild": TOE(optimizer=Adam(1e30)), "toe": TOE()}
    three = dataclasses.replace(plan(tmp_path), learners=learners)
    outcomes = {Path(path).parent.name: outcome for path, outcome in run(three).items()}
    assert outcomes == {"broken": "failed: no room for a batch", "wild": "diverged", "toe": "finished"}
    assert account(tmp_path)["wild/seed-0"][-1]["diverged"]
    assert len(account(tmp_path)["toe/seed-0"]) == 6


def test_what_determines_the_records_is_compared_by_content(tmp_path: Path) -> None:
    def model(rate: float, width: int = 3) -> Model:
        return Model(lambda key: jax.random.normal(key, (1, width)), lambda w, x, _: rate * (x @ w).sum(axis=1))

    def loss(outputs: Any, targets: Any) -> Any:
        return (outputs - targets[:, 0]) ** 2

    def squared(outputs: Any, targets: Any) -> Any:
        return jnp.square(outputs - targets[:, 0])

    def made(
        rate: float = 1.0,
        width: int = 3,
        loss: Any = loss,
        score: Any = loss,
        learning_rate: float = 1e-2,
        task: int = 0,
    ) -> Callable[..., Any]:
        tasks = [Task(points(4, seed), points(4, seed)) for seed in range(task, task + 3)]
        problem = Problem(model(rate, width), loss, Score("error", score, higher_is_better=False))
        learner = TOE(steps=1, optimizer=optax.adamw(learning_rate))
        return partial(metaleader.run, problem, tasks, learner, out=tmp_path, progress=False)

    made()()
    made()(resume=True)  # the same, though made of other lambdas
    others: dict[str, Callable[..., Any]] = {
        "other code of settings.model.apply": made(rate=2.0),
        "other code of settings.model.init": made(width=4),
        "other code of settings.loss": made(loss=squared),
        "other code of settings.scores.error": made(score=squared),
        "settings.learner.optimizer": made(learning_rate=2e-2),
        "rounds = 3, now it is 2": partial(made(), rounds=2),
    }
    for name, other in others.items():
        with pytest.raises(UserError, match=name):
            other(resume=True)
    (tmp_path / "toe" / "seed-0" / "outcome.json").unlink()  # a run that can go on compares its first task, too
    before = (tmp_path / "toe" / "seed-0" / "records.jsonl").read_bytes()
    with pytest.warns(RuntimeWarning, match="seed-0: failed: .*another first task"):
        made(task=1)(resume=True)
    assert "another first task" in (tmp_path / "toe" / "seed-0" / "outcome.json").read_text()
    assert (tmp_path / "toe" / "seed-0" / "records.jsonl").read_bytes() == before


def test_learners_without_names_are_refused() -> None:
    learners: Any = [TOE(steps=1)]
    run: Any = inspect.unwrap(metaleader.run)  # past the type checks of the tests
    with pytest.raises(UserError, match="learners are one learner, or several by name"):
        run(CURVES, [Task(points(4), points(4))], learners, progress=False)


def test_what_a_stream_cannot_read_fails_its_own_run_alone(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Reading(TOE):
        def observe(self, *_: Any) -> Any:
            raise FileNotFoundError(2, "No such file or directory", "mine.npy")

    two = dataclasses.replace(plan(tmp_path), learners={"reading": Reading(), "toe": TOE()})
    outcomes = {Path(path).parent.name: outcome for path, outcome in run(two).items()}
    assert outcomes["toe"] == "finished"
    assert "mine.npy" in outcomes["reading"]


def test_a_full_disk_is_one_line_and_the_run_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, list[dict[str, Any]]]
) -> None:
    append = RunFolder.append

    def full(own: RunFolder, record: Any) -> None:
        if record.round == 2:
            with (own.path / "records.jsonl").open("a") as file:
                file.write('{"round": 2')
            raise OSError(28, "No space left on device", str(own.path / "records.jsonl"))
        append(own, record)

    monkeypatch.setattr(RunFolder, "append", folder._writes(full))
    with pytest.raises(UserError, match=r"cannot write to .*records.jsonl: No space left on device; make room"):
        run(plan(tmp_path, checkpoint_seconds=0.0))
    monkeypatch.setattr(RunFolder, "append", append)
    run(plan(tmp_path), resume=True)
    assert account(tmp_path) == uninterrupted


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        run(plan(tmp_path / "file" / "out"))


def test_settings_are_described_as_plain_json() -> None:
    for experiment in EXPERIMENTS.values():
        for preset in experiment.presets.values():
            for value in (preset.stream, preset.model, preset.loss, preset.protocol, *preset.learners.values()):
                assert json.loads(json.dumps(described(value), allow_nan=False))
    assert described(float("inf")) == "inf"
    assert [described(value) for value in (np.int64(4), np.float32(0.5), Path("a/b"), {2, 1})] == [
        4,
        0.5,
        "a/b",
        [1, 2],
    ]


def test_a_run_says_which_commit_made_it(tmp_path: Path) -> None:
    here = Path(source.__file__).parent
    head = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True)
    expected = head.stdout.strip() if head.returncode == 0 else None
    source.commit.cache_clear()
    found = source.commit()
    assert (found and found.partition(" ")[0]) == expected
    assert source._git(tmp_path, "rev-parse", "HEAD") is None
