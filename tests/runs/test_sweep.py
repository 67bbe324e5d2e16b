"""Sweeps: which runs there are, lost workers, going on, and one line for every mistake."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

import dying
from accounts import recorded
from command import Refused, call
from metaleader import UserError, begin
from metaleader.experiments.plans import Job
from metaleader.experiments.sweeps import grid, jobs
from metaleader.runs.folder import RunFolder
from metaleader.runs.sweep import sweep

EXPERIMENT = str(Path(dying.__file__))
SMOKE = ["sweep", EXPERIMENT, "--preset", "smoke"]


def test_a_grid_is_every_combination() -> None:
    assert grid([]) == [{}]
    assert grid(["a.b=1,2", "--c_d=x"]) == [{"a.b": "1", "c-d": "x"}, {"a.b": "2", "c-d": "x"}]
    assert len(grid(["a=1,2,3", "b=1,2", "c=1,1"])) == 6


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a"], "got 'a'"),
        (["=1"], "got '=1'"),
        (["a=1,,2"], "got 'a=1,,2'"),
        (["a=1", "a=2"], "--set a is given twice"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        grid(texts)


def runs(*settings: str, learners: tuple[str, ...] = ("ftml", "toe")) -> list[Job]:
    return jobs(["sinusoid"], "smoke", learners, range(2), settings, Path("out"))


def test_a_learner_s_settings_do_not_multiply_the_runs_of_others() -> None:
    planned = runs("ftml.meta-steps=2,4,8", "stream.rounds=3,4", "protocol.move-on=true", "protocol.evaluate-at=5 10")
    assert [sum(job.learner == name for job in planned) for name in ("ftml", "toe")] == [2 * 6, 2 * 2]
    assert len({str(job.folder.path) for job in planned}) == len(planned)
    plan = planned[-1].plan()
    assert planned[-1].setting[:2] == ("ftml.meta-steps=8", "stream.rounds=4")
    assert (len(plan.streams[1]), plan.protocol.move_on) == (4, True)  # type: ignore[arg-type]
    assert plan.protocol.evaluate_at == (5, 10)
    steps = {job.plan().learners["ftml"].meta_steps for job in planned if job.learner == "ftml"}  # type: ignore[attr-defined]
    assert steps == {2, 4, 8}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name at least one experiment"),
        (["sinusiod"], "unknown experiment 'sinusiod': did you mean sinusoid"),
        (["sinusoid", "--learner", "ftlm"], "unknown learner 'ftlm': did you mean ftl or ftml"),
        (["sinusoid", "--set", "ftml.meta-stps=2"], "did you mean ftml.meta-steps"),
        (["sinusoid", "--set", "ftml.meta-steps=2,few"], "--ftml.meta-steps: invalid literal for int"),
        (["sinusoid", "--set", "ftml.meta-steps=0"], "meta_steps must be positive and finite, got 0"),
        (["sinusoid", "--set", "ftml.meta-steps"], "--set takes NAME=VALUE,VALUE"),
        (["sinusoid", "--learner", "toe", "--set", "ftml.meta-steps=2"], "changes nothing: the learners are toe"),
        (["sinusoid", "--workers", "0"], "--workers must be at least 1, got 0"),
        (["sinusoid", "--resume"], "there is no runs/sweep-smoke to resume"),
        (["rainbow-mnist", "--data-dir", "/nowhere"], "--data-dir /nowhere is no folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], message: str, refused: Refused) -> None:
    refused("sweep", *arguments, "--preset", "smoke", message=message)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_ray_that_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*SMOKE, "--out", str(tmp_path / "out"), "--set", f"dying.log={tmp_path / 'log'}", "--ray") == 2
    assert "pip install 'metaleader[ray]'" in capsys.readouterr().err


class LosingWorkers:
    """Workers that are lost as soon as they have a job."""

    slots = 2

    def __init__(self) -> None:
        self.submitted: list[Job] = []

    def submit(self, job: Job) -> "Future[str]":
        self.submitted.append(job)
        future: Future[str] = Future()
        future.set_exception(ConnectionError("gone"))
        return future

    def stop(self) -> None: ...
    def close(self) -> None: ...


def test_a_run_that_loses_every_worker_fails_in_the_end() -> None:
    workers = LosingWorkers()
    outcomes = sweep(runs(learners=("toe",)), workers)
    assert sorted(job.seed for job in workers.submitted) == [0, 0, 0, 1, 1, 1]
    assert set(outcomes.values()) == {
        "failed: 3 workers were lost in the same round, the last one so: lost its worker: gone"
    }


WHERE = [
    pytest.param(["--workers", "2"], id="processes"),
    pytest.param(["--workers", "2", "--ray"], id="ray", marks=pytest.mark.slow),
]


@pytest.mark.slow  # by default: kills of one run, in test_kills
@pytest.mark.parametrize("where", WHERE)
def test_a_worker_that_is_killed_costs_only_the_round_under_way_of_its_own_run(
    where: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    arguments = [*SMOKE, "--out", str(out), "--set", f"dying.log={log}", "--set", "toe.steps=2,3", *where]
    assert call(*arguments) == 0
    seen = [line.split() for line in log.read_text().splitlines()]
    assert [int(t) for _, t in seen] == [1, 1, 2, 2, 3, 3, 3, 3, 4, 4]  # two chunks a round; killed in round 3
    assert len({pid for pid, _ in seen}) == 2
    killed, same = next(out.glob("*/dying*/dying")), next(out.glob("*/toe.steps=2/toe"))
    assert recorded(killed / "seed-0") == recorded(same / "seed-0")
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["learners"]) == {f"dying log={log}", "toe steps=2", "toe steps=3"}
    assert not any(numbers["partial"] for numbers in summary["learners"].values())
    assert "report.html" in capsys.readouterr().out

    assert call(*arguments) == 2
    assert "exists already: go on with it by --resume" in capsys.readouterr().err
    written = (killed / "seed-0" / "records.jsonl").stat().st_mtime_ns
    assert call(*arguments[:6], "--learner", "dying", "--set", f"dying.log={log}", "--resume") == 0
    assert (killed / "seed-0" / "records.jsonl").stat().st_mtime_ns == written
    assert len(log.read_text().splitlines()) == len(seen)  # nothing was left to do


@pytest.mark.parametrize("where", WHERE)
def test_ctrl_c_saves_and_says_how_to_go_on(where: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "metaleader", *SMOKE, "--learner", "toe", "--seeds", "2", *where]
    arguments = [*command, "--set", "stream.rounds=5000", "--out", str(out)]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    while len(list(out.rglob("records.jsonl"))) < 2:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130, said
    assert said.count("\n") == 1
    assert "everything is saved" in said
    assert f"--out {out} --resume" in said
    folders = [RunFolder(path.parent) for path in out.rglob("records.jsonl")]
    # Where a run goes on is where its records end: not even the round under way was lost.
    before = [len((folder.path / "records.jsonl").read_text().splitlines()) for folder in folders]
    plan = jobs([EXPERIMENT], "smoke", ["toe"], [0], ["stream.rounds=5000"], out)[0].plan()
    like = begin(plan.problem, plan.learners["toe"], next(iter(plan.streams[0]))).learner
    for folder, count in zip(folders, before, strict=True):
        restored = folder.restore(like)
        assert restored is not None
        assert restored.records == count > 0
