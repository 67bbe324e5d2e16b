"""Finished runs as learners that live: the same weights, all datapoints in the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from living import LEARNER, PROBLEM, as_bytes, leaves, points

import metaleader as ml
from command import Refused, call
from metaleader import UserError
from metaleader.live import Live, Replayed, RunParts, check, from_run, run_folder
from metaleader.runs.folder import RunFolder


def stream(keys: bool = False, test: bool = True) -> list[ml.Task]:
    def task(i: int) -> ml.Task:
        x, y = points(100 + i, 4)
        name, key = f"t{i}", f"k{i % 2}" if keys else None
        return ml.Task.from_arrays(*points(i, 7), x if test else None, y if test else None, name=name, key=key)

    return [task(i) for i in range(4)]


@pytest.mark.parametrize("keys", [False, True], ids=["rounds", "keys"])
@pytest.mark.parametrize(
    ("protocol", "datapoints"),
    [
        (ml.OnlineProtocol(chunk=3), 28),
        (ml.OnlineProtocol(arrive_at=(2,)), 28),
        (ml.OnlineProtocol(chunk=3, threshold=1e9, move_on=True), 12),  # any error is proficient
    ],
    ids=["chunks", "sizes", "moving on"],
)
def test_the_learner_is_that_of_the_run(
    tmp_path: Path, keys: bool, protocol: ml.OnlineProtocol, datapoints: int
) -> None:
    tasks, out = stream(keys), tmp_path / "runs"
    ml.run(PROBLEM, tasks, {"ftml": LEARNER}, protocol=protocol, seeds=[3], out=out, progress=False)
    run = run_folder(out, seed=3)
    kept = from_run(run, tmp_path / "live", made_of=RunParts(PROBLEM, LEARNER, tasks, protocol))
    assert kept == Replayed(tmp_path / "live", 2 if keys else 4, datapoints, True)
    begun = ml.begin(PROBLEM, LEARNER, tasks[0])
    state = RunFolder(run).restore(begun.learner)
    assert state is not None
    with Live.open(kept.folder) as live:
        live.wait()
        assert leaves(live) == as_bytes(state.learner)
        assert set(live.tasks()) == ({"k0", "k1"} if keys else {f"round {i}" for i in range(1, 5)})


def finished(folder: Path, *options: str) -> Path:
    assert (
        call("run", "sinusoid", "--preset", "smoke", "--learner", "ftml", "scratch", "--out", str(folder), *options)
        == 0
    )
    return folder


@pytest.mark.usefixtures("blank_figures")
def test_the_folder_of_a_run_tells_what_it_was_made_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, folder = finished(tmp_path / "runs", "--ftml.update.steps", "2"), tmp_path / "live"
    capsys.readouterr()
    assert call("live", "keep", str(out), "--learner", "ftml", "--out", str(folder)) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{folder}: 30 datapoints of 3 tasks, learned as in {out / 'ftml' / 'seed-0'}\n")
    assert check(folder) == (30, 3, 1, ())
    with Live.open(folder) as live:
        learner: Any = live.learner
        assert learner.update.steps == 2
        assert np.isfinite(live.predict("round 1", np.zeros((2, 1), np.float32))).all()
        weights = leaves(live)
    example = ml.EXPERIMENTS["sinusoid"].preset("smoke").stream.stream(0)[0].train
    state = RunFolder(out / "ftml" / "seed-0").restore(learner.init(live.problem, jax.random.key(0), example))
    assert state is not None
    assert weights == as_bytes(state.learner)

    config = out / "ftml" / "seed-0" / "config.json"
    told = json.loads(config.read_text())
    for changed, message in (
        ({"experiment": "of my own"}, "does not tell all of its run .unknown experiment 'of my own'"),
        ({"settings": {**told["settings"], "learner": {"type": "Mine"}}}, "Mine is not one of those of metaleader"),
        ({"settings": {**told["settings"], "scores": {}}}, "its scores are others now"),
        ({"data": {"digits": "0"}}, "was made with other data: digits is not what it was"),
    ):
        config.write_text(json.dumps({**told, **changed}))
        with pytest.raises(UserError, match=message):
            from_run(config.parent, tmp_path / "new")
    config.write_text(json.dumps(told))
    (config.parent / "outcome.json").unlink()
    with pytest.raises(UserError, match="has not finished: its outcome is not there yet"):
        from_run(config.parent, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("blank_figures")
def test_what_cannot_be_kept_is_one_line(tmp_path_factory: pytest.TempPathFactory, refused: Refused) -> None:
    out, hidden = finished(tmp_path_factory.mktemp("runs") / "sinusoid"), tmp_path_factory.mktemp("hidden")
    run = out / "ftml" / "seed-0"
    (hidden / ".gitkeep").touch()
    for options, message in (
        ([str(out), "--out", "new"], "holds runs of ftml, scratch: choose one with --learner"),
        ([str(out), "--learner", "ftlm", "--out", "new"], "unknown learner 'ftlm': did you mean ftml"),
        ([str(out), "--learner", "ftml", "--seed", "7", "--out", "new"], "holds no run of seed 7"),
        ([str(out / "nothing"), "--out", "new"], "holds no run of seed 0"),
        ([str(out), "--learner", "ftml", "--out", str(out)], "is not empty: choose a new folder with --out"),
        (
            [str(run), "--learner", "nosuch", "--out", "new"],
            "ftml/seed-0 is the run of learner ftml, seed 0, got --learner nosuch: leave --learner out, or name the",
        ),
        ([str(run), "--learner", "ftml", "--seed", "7", "--out", "new"], "seed 0, got --seed 7: leave --seed out"),
        ([str(run), "--out", "."], "is the working directory, which would be replaced: choose a new folder with --out"),
        ([str(run), "--out", str(hidden)], "holds '.gitkeep', and would be replaced: remove that, or choose a new"),
        ([str(out)], "--out"),
    ):
        refused("live", "keep", *options, message=message)
    assert run_folder(run, "ftml", 0) == run_folder(run) == run


def test_a_learner_is_begun_where_a_link_leads(tmp_path: Path) -> None:
    tasks, protocol = stream(), ml.OnlineProtocol(chunk=3)
    ml.run(PROBLEM, tasks, {"ftml": LEARNER}, protocol=protocol, seeds=[3], out=tmp_path / "runs", progress=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    run = run_folder(tmp_path / "runs" / "ftml" / "seed-3", "ftml", 3)
    assert run_folder(run) == run  # whatever its seed
    from_run(run, tmp_path / "link", made_of=RunParts(PROBLEM, LEARNER, tasks, protocol))
    assert (tmp_path / "link").is_symlink()
    assert check(tmp_path / "empty").datapoints == 28


def test_what_arrived_must_be_known(tmp_path: Path) -> None:
    tasks, protocol = stream(test=False), ml.OnlineProtocol(chunk=3, threshold=1e9, move_on=True)
    ml.run(PROBLEM, tasks, {"ftml": LEARNER}, protocol=protocol, out=tmp_path / "runs", progress=False)
    with pytest.raises(UserError, match="does not record all that arrived"):
        from_run(run_folder(tmp_path / "runs"), tmp_path / "new", made_of=RunParts(PROBLEM, LEARNER, tasks, protocol))
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="holds no run: name the folder of one"):
        from_run(tmp_path, tmp_path / "new")
