"""What an assessment leaves: a learner that lives in a folder, and how many rows of a new task it saves."""

from __future__ import annotations

import ast
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

import metaleader as ml
import tables
from command import Refused, call
from metaleader import assess
from metaleader.assess import keeping, page
from metaleader.assess.contest import with_settings
from metaleader.assess.inference import resampled
from metaleader.assess.saved import needed, saved
from metaleader.learners import external
from metaleader.live import Live, check

CHEAP = ("linear, pooled", "linear, per task", "task mean")


def test_rows_needed_lie_on_the_line_between_two_sizes() -> None:
    curve, sizes = np.array([8.0, 4.0, 4.0, 1.0]), (0, 2, 5, 10)
    for error, expected in ((9.0, 0.0), (8.0, 0.0), (6.0, 1.0), (4.0, 2.0), (2.5, 7.5), (1.0, 10.0), (0.5, math.inf)):
        assert needed(curve, error, sizes) == expected
    assert needed(np.array([math.inf, 2.0]), 3.0, (0, 4)) == 4.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.floats(0.2, 0.9))
def test_rows_saved_are_those_of_the_mean_curves_and_within_their_interval(seed: int, level: float) -> None:
    random, sizes = np.random.default_rng(seed), (0, 2, 5, 10)
    falling = np.array([[1.0, 0.6, 0.3, 0.1], [1.2, 1.1, 1.0, level]])
    errors = falling[:, None] * random.uniform(0.8, 1.2, (1, 40, 1)) * random.uniform(0.95, 1.05, (2, 40, 4))
    found = saved(resampled(errors, ordered=False), ("a", "b"), sizes, 0, 1)
    assert found is not None
    means = errors.mean(axis=1)
    assert np.interp(found.needed, sizes, means[0]) == pytest.approx(means[1, -1])
    assert (found.winner, found.rival, found.size) == ("a", "b", 10)
    assert found.rows == 10 - found.needed
    assert 0 <= found.low <= found.rows <= found.high <= 10


def test_nothing_is_saved_by_a_learner_that_does_not_get_there() -> None:
    errors = np.random.default_rng(0).uniform(0.9, 1.1, (2, 20, 3)) * np.array([2.0, 1.0])[:, None, None]
    found = saved(resampled(errors, ordered=False), ("a", "b"), (0, 2, 5), 0, 1)
    assert found is not None
    assert (found.needed, found.rows, found.low, found.high) == (math.inf, 0.0, 0.0, 0.0)
    assert saved(resampled(errors, ordered=False), ("a", "b"), (0,), 0, 1) is None
    errors[1, 3] = math.inf
    assert saved(resampled(errors, ordered=False), ("a", "b"), (0, 2, 5), 0, 1) is None


def people(folder: Path, tasks: int = 14, rows: int = 12) -> Path:
    """A table with a column of words, as a file."""
    frame = tables.table("common", 0, tasks=tasks, rows=rows)
    frame["city"] = [("Rome", "Oslo")[i % 2] for i in range(len(frame))]
    file = folder / "people.csv"
    frame.to_csv(file, index=False)
    return file


def command(file: Path, folder: Path, *options: str) -> list[str]:
    named = [word for name in CHEAP for word in ("--learner", name)]
    return ["assess", str(file), "--group", "task", "--target", "y", *named, "--trials", "2", "--workers", "1",
            "--seeds", "1", "--keep", str(folder), *options]  # fmt: skip


@pytest.mark.usefixtures("blank_figures")
def test_what_is_kept_lives_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder, out = people(tmp_path), tmp_path / "new" / "kept", tmp_path / "out"
    name = "linear, pooled"
    assert call(*command(file, folder, "--out", str(out), "--keep-learner", name)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "has learned all 168 rows of 14 tasks" in said
    assert check(folder)[:2] == (168, 14)
    assert check(folder).faults == ()
    told, text = json.loads((out / "assess.json").read_text()), (out / "report.md").read_text()
    assert told["kept"] == {"learner": name, "folder": str(folder), "datapoints": 168}
    assert told["saved"]["winner"] == told["winner"]
    assert told["learners"][name]["state_bytes"] > 0
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    code += "\nprint(live.learner)"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert fresh.stdout.startswith(type(external.compared("regression")[name]).__name__)

    table = ml.streams.from_table(file, group="task", target="y")
    with Live.open(folder) as live:
        live.wait()
        assert live.encoder == table.encoder
        assert set(live.tasks()) == {task.name.removeprefix("task=") for task in table.tasks}
        task = table.tasks[0]
        again = ml.Batch.of(*table.examples(np.asarray(task.rows)))
        ids = [f"row {row}" for row in task.rows]
        assert live.learn_encoded(task.name.removeprefix("task="), again, ids).new == 0
        assert live.score().overall.datapoints == 168


def test_a_learner_of_other_libraries_learns_anew_whenever_it_is_opened(tmp_path: Path) -> None:
    table = ml.streams.from_table(people(tmp_path), group="task", target="y", held_out="none")
    (tmp_path / "tasks").mkdir()
    tasks = assess.store(table, tmp_path / "tasks")
    found = assess.contest(assess.setup(tasks, (0,), trials=1, seeds=1, learners=("trees, pooled", "linear, per task")))
    kept = assess.keep(table, found, "trees, pooled", tmp_path / "kept")
    assert not kept.snapshot
    assert "Its state cannot be stored as plain data" in page.kept_words(found, assess.answer(found), kept)[2]
    rows = {f"x{i}": [0.0, 1.0] for i in range(tables.INPUTS)} | {"city": ["Rome", "Oslo"]}
    predicted = []
    for _ in range(2):
        with Live.open(tmp_path / "kept") as live:
            live.wait()
            predicted.append(live.predict("t3", rows))
    np.testing.assert_array_equal(*predicted)


@pytest.mark.usefixtures("blank_figures")
def test_another_learner_is_kept_as_it_was_in_the_contest(tmp_path: Path) -> None:
    file = people(tmp_path, tasks=10, rows=8)
    table = ml.streams.from_table(file, group="task", target="y", held_out="none")
    (tmp_path / "tasks").mkdir()
    given = assess.setup(
        assess.store(table, tmp_path / "tasks"), (0, 2), trials=2, seeds=1, learners=("ftml-linear", "linear, per task")
    )
    found = assess.contest(given)
    steps: list[tuple[str, float, float]] = []
    kept = assess.keep(table, found, "ftml-linear", tmp_path / "kept", lambda *step: steps.append(step))
    assert steps[-1] == ("keeping ftml-linear", 80, 80)
    assert (kept.datapoints, kept.tasks, kept.snapshot) == (80, 10, True)
    candidate = given.candidates["ftml-linear"]
    learner = with_settings(candidate.learner, found.chosen["ftml-linear"])
    begun = ml.begin(candidate.problem, learner, table.stream(0)[0])
    *_, (run, _) = ml.resume(candidate.problem, table.stream(0), learner, given.protocol, begun)
    with Live.open(tmp_path / "kept") as live:
        assert live._worker is not None
        ours, theirs = (
            [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state.params)]
            for state in (live._worker.progress.state, run.learner)
        )
        assert ours == theirs


@pytest.mark.usefixtures("blank_figures")
def test_where_nothing_can_be_kept_the_page_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(external.TaskMean, "observe", fail)
    options = ["--out", str(tmp_path / "out"), "--keep-learner", "task mean"]
    assert call(*command(people(tmp_path), tmp_path / "kept", *options)) == 2
    assert "the page is there, but no learner was kept: learning ended by an error" in capsys.readouterr().err
    assert (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "kept").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "people.csv"}


@pytest.mark.usefixtures("blank_figures")
def test_whatever_keeping_fails_by_the_page_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> bool:
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / ".gitkeep").touch()
        raise RuntimeError("out of luck")

    monkeypatch.setattr(keeping, "begun_with", fail)
    file, folder = people(tmp_path), tmp_path / "kept"
    assert call(*command(file, folder, "--out", str(tmp_path / "out"))) == 2
    assert "the page is there, but no learner was kept: RuntimeError: out of luck" in capsys.readouterr().err
    assert (tmp_path / "out" / "report.html").exists()


def test_what_cannot_be_kept_is_refused_before_the_contest(
    tmp_path_factory: pytest.TempPathFactory, refused: Refused
) -> None:
    tmp_path = tmp_path_factory.mktemp("data")
    file = people(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".gitkeep").touch()
    (tmp_path / "hollow" / "within").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "hidden")
    for options, message in (
        (command(file, tmp_path / "full"), "full exists already, and is not empty: choose a new folder with --keep"),
        (command(file, file), "people.csv is a file"),
        (command(file, tmp_path / "hidden"), "hidden holds '.gitkeep', and would be replaced: remove that, or choose"),
        (command(file, tmp_path / "hollow"), "hollow holds 'within', and would be replaced: remove that, or choose"),
        (command(file, tmp_path / "link"), "hidden holds '.gitkeep', and would be replaced"),
        (command(file, Path("."), "--out", str(tmp_path / "new")), "is the working directory, which would be replaced"),
        (command(file, Path(".")), ". is the folder of the page as well, or holds it: choose another one with --keep"),
        (command(file, Path("runs")), "runs is the folder of the page as well, or holds it"),
        (command(file, Path("runs", "assess-people")), "is the folder of the page as well"),
        (command(file, tmp_path / "new", "--out", str(tmp_path / "new")), "is the folder of the page as well"),
        (command(file, tmp_path / "new", "--out", str(tmp_path / "new" / "page")), "or holds it: choose another one"),
        (command(file, tmp_path / "new", "--keep-learner", "task men"), "unknown learner that competes 'task men'"),
        (command(file, Path("/proc/new")), "cannot write to /proc/new"),
        (["assess", str(file), "--group", "task", "--target", "y", "--keep-learner", "ftml"], "say where with --keep"),
    ):
        refused(*options, message=message)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("several", [False, True])
def test_code_tells_targets_of_several_labels(several: bool) -> None:
    rows = [{"task": f"t{i % 4}", "x": float(i % 7), "tags": [["a"], ["b"], ["a", "b"]][i % 3]} for i in range(40)]
    labels = [{"a": int("a" in row["tags"]), "b": int("b" in row["tags"])} for row in rows]  # type: ignore[operator]
    data = pd.DataFrame(rows)
    if several:
        data = data.drop(columns="tags").join(pd.DataFrame(labels))
    target = ["a", "b"] if several else "tags"
    table = ml.streams.from_table(data, group="task", target=target, held_out="none")
    (told,) = re.findall(r"live\.adapt\((.*?)\)\.predict", keeping.code(table, Path("kept")))
    assert table.encoder.targets(ast.literal_eval(told)).shape == (1, 2)


@pytest.mark.usefixtures("blank_figures")
def test_ctrl_c_while_a_learner_is_kept_loses_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(keeping, "begun_with", interrupted)
    assert call(*command(people(tmp_path), tmp_path / "kept", "--out", str(tmp_path / "out"))) == 130
    assert (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "kept").exists()
