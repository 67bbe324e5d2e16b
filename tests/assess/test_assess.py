"""From a table to an answer: the tasks as stored, the search, the contest, the words and the page."""

from __future__ import annotations

import json
import math
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import metaleader as ml
import tables
from command import Refused, call
from metaleader import assess
from metaleader.assess import page
from metaleader.assess.answer import between, rows_of
from metaleader.assess.contest import Contest, Place, Plan, Played, Setup, settings_to_try, with_settings
from metaleader.errors import UserError
from metaleader.learners import external

SCORE = ml.mean_squared_error
CHEAP = ("linear, pooled", "linear, per task", "task mean")


def stored(folder: Path, kind: str = "common", held_out: str | None = None, **sizes: int) -> assess.Stored:
    table = ml.streams.from_table(tables.table(kind, 0, **sizes), group="task", target="y", held_out=held_out)
    return assess.store(table, folder)


@pytest.mark.parametrize("held_out", [None, "none"])
@pytest.mark.parametrize("order", [None, "x0"])
def test_stored_tasks_are_those_of_the_table(tmp_path: Path, held_out: str | None, order: str | None) -> None:
    table = ml.streams.from_table(
        tables.table("common", 0, tasks=8, rows=9), group="task", target="y", held_out=held_out, order=order
    )
    tasks = assess.store(table, tmp_path)
    for seed in (0, 1):
        for ours, theirs in zip(tasks.stream(seed), table.stream(seed), strict=True):
            assert ours.name == theirs.name
            jax.tree.map(np.testing.assert_array_equal, (ours.train, ours.test), (theirs.train, theirs.test))
    assert len(pickle.dumps(tasks)) < 5_000  # other processes read the arrays themselves
    assert tasks.judged_up_to == tuple(len(task.train) - (task.test is None) for task in table.tasks)


def test_sizes_are_those_that_most_tasks_reach(tmp_path: Path) -> None:
    given = assess.setup(stored(tmp_path, tasks=20, rows=30))  # 21 rows to learn from
    assert given.sizes == (0, 2, 3, 5, 10, 20, assess.END)
    assert given.protocol.arrive_at == (2, 3, 5, 10, 20)
    assert len(given.judged) == 16
    assert (given.seeds, set(given.learners)) == (3, set(given.candidates))


def test_settings_to_try_begin_with_the_learners_own_and_do_not_repeat() -> None:
    learner = external.ShrunkenLinear()
    candidate = assess.Candidate("", learner, None, external.SEARCHED[external.ShrunkenLinear])  # type: ignore[arg-type]
    found = settings_to_try(candidate, 20)
    assert found[0] == {}
    assert len(found) == 20
    assert len({with_settings(learner, settings) for settings in found}) == 20
    assert found[:5] == settings_to_try(candidate, 5)
    few = assess.Candidate("", external.TaskMean(), None, {"prior_strength": (1.0, 3.0)})  # type: ignore[arg-type]
    assert settings_to_try(few, 8) == [{}, {"prior_strength": 3.0}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": (5, 50)}, r"at least two tasks after the first 4 have; got 5, 50, .* 21 rows"),
        ({"sizes": (-1,)}, "from 0"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"learners": ("ftml", "scrach")}, "unknown learner 'scrach': did you mean scratch"),
        ({"learners": ("ftml",)}, "no learner of one task alone was chosen: add one of scratch"),
        ({"learners": ("scratch",)}, "no learner across tasks was chosen: add one of ftml"),
    ],
)
def test_what_cannot_be_played_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        assess.setup(stored(tmp_path, tasks=20, rows=30), **settings)


@pytest.mark.slow
def test_a_search_finds_the_better_settings_and_pooling_wins_where_all_tasks_are_one(tmp_path: Path) -> None:
    tasks = stored(tmp_path, tasks=40, rows=20)
    given = assess.setup(tasks, learners=CHEAP, trials=6, seeds=2)
    said: list[tuple[str, float, float]] = []
    found = assess.contest(given, show=lambda *step: said.append(step))
    assert found.errors.shape == (3, 32, len(given.sizes))
    assert said[-1][1:] == (len(said), len(said))
    answer = assess.answer(found)
    assert answer.winner == "linear, pooled"
    assert all(comparison.ratio.shown for comparison in answer.pays)
    assert assess.in_words(found, answer)[0].startswith("Learning across tasks pays at every number of rows")

    own = assess.contest(replace(given, trials=1))
    assert own.chosen == {name: {} for name in CHEAP}
    assert assess.contest(replace(given, trials=1)).errors.tolist() == own.errors.tolist()


def test_a_search_counts_tasks_that_do_not_reach_every_size(tmp_path: Path) -> None:
    frame = tables.table("common", 0, tasks=30, rows=20)
    some = frame.task.isin([f"t{i}" for i in range(0, 30, 2)])
    short = frame[~some | (frame.groupby("task").cumcount() < 9)]
    tasks = assess.store(ml.streams.from_table(short, group="task", target="y"), tmp_path)
    assert min(tasks.learned[: tasks.first]) < 10
    given = assess.setup(tasks, sizes=(2, 10), learners=("linear, shrunken", "linear, per task"), seeds=1)
    assert assess.contest(given).chosen["linear, shrunken"]  # other settings than its own, which are not the best here


def contest_of(errors: np.ndarray, learners: tuple[str, ...], failed: str = "") -> Contest:
    """A contest with these errors."""
    names = tuple(f"t{i}" for i in range(errors.shape[1] + 2))
    tasks = assess.Stored(
        "y by task",
        "",
        names,
        (9,) * len(names),
        (3,) * len(names),
        2,
        True,
        "regression",
        2,
        1,
        ml.squared_error,
        SCORE,
    )
    sizes = (0, 2, 5, assess.END)[-errors.shape[2] :]
    played = {name: (Played({}, 7, 1.0, 2.0, failed if name == learners[0] else ""),) for name in learners}
    setup = Setup(tasks, sizes, 3, 1, learners)
    nothing: dict[str, Any] = {name: {} for name in learners}
    return Contest(setup, nothing, dict.fromkeys(learners, 3), dict.fromkeys(learners, 0.5), errors, played)


def test_every_job_comes_once_nets_first_and_a_final_after_its_trials(tmp_path: Path) -> None:
    plan = Plan(assess.setup(stored(tmp_path), trials=3, seeds=2))
    came: list[Place] = []
    while (place := plan.next("", ())) is not None:
        came.append(place)
        plan.found[place] = Played({"a task": (float(place.number),)}, 0, 1.0, 1.0)
    assert len(came) == len(set(came)) == plan.size
    rivals = [plan.given.candidates[place.name].rival for place in came]
    assert rivals == sorted(rivals)
    assert any(rivals)
    for name, settings in plan.tried.items():
        assert [place.number for place in came if place.name == name] == [*range(len(settings)), 0, 1]
        assert plan.chosen(name) == {}  # the defaults, whose error is the least


def test_a_process_goes_on_with_the_net_that_it_played_or_one_that_no_other_plays(tmp_path: Path) -> None:
    plan = Plan(assess.setup(stored(tmp_path), trials=2, seeds=1))
    first, second = plan.next("", ()), plan.next("", {"ftml"})
    assert first is not None
    assert second is not None
    assert (first.name, second.name) == ("ftml", "ftml-ridge")
    assert plan.next("ftml-ridge", {"ftml"}) == Place("ftml-ridge", True, 1)
    assert plan.next("ftml-ridge", {"ftml"}) == Place("ftml-linear", True, 0)  # its trials are still being played


def test_the_words_say_where_it_pays_who_is_best_and_whether_learning_to_adapt_does() -> None:
    random = np.random.default_rng(0)
    hard = random.uniform(0.9, 1.1, size=(1, 30, 4))
    means = np.array([[0.5, 0.5, 0.9, 1.0], [0.8, 0.8, 0.9, 1.0], [1.0, 1.0, 1.0, 1.0]])  # of three learners, by size
    errors = hard * means[:, None] * random.uniform(0.98, 1.02, size=(3, 30, 4))
    found = contest_of(errors, ("ftml", "linear, pooled", "linear, per task"))
    answer = assess.answer(found)
    pays, best, meta = assess.in_words(found, answer)
    assert re.match(
        r"Learning across tasks pays up to 5 rows: before the first row of a new task, FTML, gradient steps has "
        r"(49|50|51) % less error \(95 % interval \d+ to \d+ %\) than the best learner of one task alone "
        r"\(linear, per task\), over 30 tasks",
        pays,
    )
    assert pays.endswith("Elsewhere no gain is shown.")
    assert "Best of 3: up to 2 rows FTML, gradient steps, with 37" in best or "with 38" in best
    assert best.endswith(
        "To keep: FTML, gradient steps, which errs least over all sizes; before the first row it errs no more than "
        "linear, per task does after 5 rows, and so saves at least 5 rows of a new task (95 % interval from 5 on)."
    )
    assert meta.startswith("Learning to adapt pays up to 2 rows")
    assert answer.best_at[0] == ("ftml",)
    assert set(answer.best_at[3]) == {"ftml", "linear, pooled", "linear, per task"}


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (
            [1.4, 1.2, 0.8, 0.5],
            r"after 4 rows it has the error that .* and so saves about 1.5 rows .* 1\.\d to 1\.\d\)",
        ),
        (
            [0.8, 0.7, 0.5],
            r"after 2 rows it errs no more than .* does after 5 rows, and so saves at least 3 rows .*from 3 on",
        ),
        ([1.4, 1.2, 1.1, 0.5], r"with no fewer rows does it reach the error that linear, per task has after 5 rows"),
    ],
)
def test_the_words_say_how_many_rows_are_saved(own: list[float], said: str) -> None:
    rival, (tasks, pairs) = [1.5, 1.4, 1.0, 1.0][-len(own) :], map(np.random.default_rng, range(2))
    hard = tasks.uniform(0.9, 1.1, size=(1, 30, len(own))) * pairs.uniform(0.99, 1.01, size=(2, 30, len(own)))
    errors = hard * np.array([own, rival])[:, None]
    found = contest_of(errors, ("linear, pooled", "linear, per task"))
    assert re.search(said, assess.in_words(found, assess.answer(found))[1])


def test_numbers_of_rows_in_words() -> None:
    assert [rows_of(size) for size in (0, 1, 5, assess.END)] == [
        "before the first row", "after 1 row", "after 5 rows", "after all rows"
    ]  # fmt: skip
    assert [between(*ends) for ends in ((0, 1), (1, 5), (5, assess.END), (0, assess.END), (3, 3))] == [
        "up to 1 row", "from 1 to 5 rows", "from 5 rows on", "at every number of rows", "after 3 rows"
    ]  # fmt: skip


def test_nothing_is_said_of_others_by_few_tasks() -> None:
    errors = np.random.default_rng(0).uniform(size=(2, 5, 3))
    found = contest_of(errors, ("ftml", "linear, per task"))
    (only,) = assess.in_words(found, assess.answer(found))
    assert only.startswith("Only 5 tasks could be judged, too few")


def test_a_learner_that_fails_does_so_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(external.PooledLinear, "observe", fail)
    found = assess.contest(assess.setup(stored(tmp_path, tasks=20, rows=9), learners=CHEAP, trials=1, seeds=1))
    assert found.played["linear, pooled"][0].failed == "failed: out of luck"
    assert assess.answer(found).winner != "linear, pooled"


def test_a_learner_that_diverged_is_named_on_the_page_and_takes_no_part(tmp_path: Path) -> None:
    errors = np.random.default_rng(0).uniform(0.5, 1.0, size=(3, 12, 3))
    errors[0, 4] = math.inf
    found = contest_of(errors, ("ftml", "linear, pooled", "linear, per task"), failed="diverged")
    answer = assess.answer(found)
    assert answer.winner != "ftml"
    written = page.write(found, answer, "a table\nof rows", {"command": "metaleader assess x.csv"}, tmp_path)
    text = written.with_suffix(".md").read_text()
    assert "FTML, gradient steps (diverged)" in text
    assert json.loads((tmp_path / "assess.json").read_text())["learners"]["ftml"]["errors"][4] == [None] * 3


def test_a_kind_of_learner_that_failed_is_not_compared_and_named(tmp_path: Path) -> None:
    """Neither as a finding of 100 % less error, nor as one of 1e304 % more, nor as numbers that JSON does not have."""
    learners = ("ftml", "linear, pooled", "linear, per task")
    ftml, alone = "FTML, gradient steps", "linear, per task"
    for failed, unknown_pays, unknown_meta in (
        ([2], f"where {alone} failed.", None),
        ([0], None, f"where {ftml} failed."),
        ([0, 2], f"where {ftml}, {alone} failed.", f"where {ftml}, {alone} failed."),
        ([0, 1, 2], f"where {ftml}, linear, pooled, {alone} failed.", f"{alone} failed."),
    ):
        errors = np.random.default_rng(0).uniform(0.9, 1.0, size=(3, 12, 4))
        errors[failed, 3] = math.inf
        found = contest_of(errors, learners, failed="diverged" if 0 in failed else "")
        answer = assess.answer(found)
        pays, best, meta = assess.in_words(found, answer)
        assert not re.search(r"nan|inf|100 %|\d{6}", pays + best + meta)
        begins = "Whether learning across tasks pays cannot be told here. Not compared: at every number of rows, "
        assert pays.startswith(begins) == bool(unknown_pays)
        assert pays.endswith(unknown_pays or "linear, per task.")
        begins = "Learning to adapt (FTML) cannot be compared with simpler ways"
        assert meta.startswith(begins) == bool(unknown_meta)
        assert meta.endswith(unknown_meta or "at any number of rows.")
        assert all(learners[i] not in able for able in answer.best_at for i in failed)
        folder = tmp_path / "".join(map(str, failed))
        folder.mkdir()
        page.write(found, answer, "a table", {}, folder)
        told = json.loads((folder / "assess.json").read_text())["comparisons"]["pays"][0]
        nothing = {"gain": None, "low": None, "high": None}
        assert (told["ratio"] == nothing) == bool(unknown_pays)
        assert told["failed"] == ([learners[i] for i in failed] if unknown_pays else [])
    assert best == (
        f"Best of 3: at every number of rows none, as {ftml}, linear, pooled, {alone} failed. To keep: {ftml}, though "
        "every learner failed at some number of rows."
    )


def test_a_learner_that_failed_at_some_sizes_is_compared_at_the_others() -> None:
    random = np.random.default_rng(0)
    errors = random.uniform(0.9, 1.1, size=(1, 12, 4)) * random.uniform(0.99, 1.01, size=(2, 12, 4))
    errors[0] /= 2
    errors[1, 3, 1] = math.inf
    found = contest_of(errors, ("linear, pooled", "linear, per task"))
    answer = assess.answer(found)
    pays, best = assess.in_words(found, answer)
    assert pays.startswith("Learning across tasks pays before the first row and from 5 rows on: ")
    assert pays.endswith(". Not compared: after 2 rows, where linear, per task failed.")
    assert "after 2 rows linear, pooled, as linear, per task failed; from 5 rows on linear, pooled, with 50 " in best
    few = contest_of(np.full((2, 5, 3), math.inf), ("linear, pooled", "linear, per task"))
    assert assess.in_words(few, assess.answer(few))[0].endswith("On these, every learner failed.")


@pytest.mark.usefixtures("blank_figures")
def test_from_a_file_to_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "people.csv"
    tables.table("common", 0, tasks=40, rows=20).to_csv(file, index=False)
    out = tmp_path / "out"
    options = [word for name in CHEAP for word in ("--learner", name)]
    assert call("assess", str(file), "--group", "task", "--target", "y", *options, "--trials", "2", "--workers", "1",
                "--out", str(out)) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert said.startswith("40 tasks, one for each 'task'")
    assert "Learning across tasks pays at every number of rows" in said
    assert f"page: {out / 'report.html'}" in said
    text = (out / "report.html").read_text()
    assert text.index("Learning across tasks pays") < text.index("<h2>Errors")
    assert {path.name for path in (out / "figures").glob("*.png")} == {
        "error-against-rows.png", "gain-across-tasks.png", "where-the-gain-comes-from.png"
    }  # fmt: skip
    kept = json.loads((out / "assess.json").read_text())
    assert kept["winner"] == "linear, pooled"
    assert call("assess", str(file), "--group", "task", "--target", "y", "--out", str(out)) == 2
    assert "holds an assessment already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--group", "taks", "--target", "y"], "unknown column 'taks': did you mean task"),
        (["--group", "task", "--target", "task"], "group and target are the same column"),
        (["--group", "task", "--target", "y", "--sizes", "500"], "at least two tasks"),
        (["--group", "task", "--target", "y", "--learner", "scrach"], "unknown learner 'scrach': did you mean scratch"),
        (["--group", "task", "--target", "y", "--column", "x0"], "NAME=KIND"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], message: str, tmp_path_factory: pytest.TempPathFactory, refused: Refused
) -> None:
    file = tmp_path_factory.mktemp("data") / "people.csv"
    tables.table("common", 0, tasks=10, rows=8).to_csv(file, index=False)
    refused("assess", str(file), *options, message=message)


@pytest.mark.slow
def test_tasks_that_share_nothing_are_rarely_said_to_gain(tmp_path: Path) -> None:
    said = 0
    for seed in range(200):
        table = tables.table("nothing", seed, tasks=40, rows=20)
        (folder := tmp_path / str(seed)).mkdir()
        tasks = assess.store(ml.streams.from_table(table, group="task", target="y"), folder)
        found = assess.contest(assess.setup(tasks, sizes=(5, 10), learners=CHEAP, seeds=1))
        said += any(comparison.ratio.shown for comparison in assess.answer(found).pays)
    assert said <= 10
