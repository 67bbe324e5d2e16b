"""Statistics against hand-made cases and an independent account on random records."""

import hashlib
import io
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from made_up import SIZES, folder, made
from metaleader import UserError
from metaleader.online.description import RunDescription, ScoreDescription
from metaleader.results import advantage, claims, figures, metrics, report
from metaleader.results.formats import significant, with_interval


def test_a_summary_by_hand() -> None:
    run = made([[0.1, 0.2, 0.3]] * 4 + [[0.2, 0.6, 0.7], [0.4, 0.45, 0.49]], rounds=6)
    summary = metrics.summary([run])
    assert summary["experiment"] == "made-up"
    numbers = summary["learners"]["ftml"]
    assert numbers["score_at"]["20"] == [pytest.approx(0.525), None, None]  # the mean of 0.6 and 0.45
    assert numbers["final_score"] == [pytest.approx(0.595), None, None]
    # (10, 20], and never by 40: the middle of two is their mean.
    assert numbers["datapoints_to_proficiency"] == {"above": 25, "median": None, "reached": 1, "tasks": 2}
    assert (summary["tasks"], summary["tasks_at"]) == (2, {"10": 2, "20": 2, "40": 2})
    assert (numbers["seeds"], numbers["rounds"]) == (1, 6)
    assert numbers["gradient_evaluations"] == 640
    assert numbers["seconds"] == 9.0


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=6, max_size=6), min_size=1, max_size=3
    ),
    st.booleans(),
)
def test_a_summary_equals_an_independent_account(scores: list[list[list[float]]], higher: bool) -> None:
    runs = [made(each, rounds=6, seed=i, higher=higher) for i, each in enumerate(scores)]
    numbers = metrics.summary(runs)["learners"]["ftml"]
    first = []
    for each in scores:
        for row in each[4:]:
            good = [size for size, s in zip(SIZES, row, strict=True) if (s >= 0.5 if higher else s <= 0.5)]
            first.append(min(good, default=float("inf")))
    median = statistics.median(first)
    assert numbers["datapoints_to_proficiency"]["median"] == (None if median == float("inf") else median)
    assert numbers["datapoints_to_proficiency"]["reached"] == sum(x < 1e9 for x in first)
    mean, low, high = numbers["score_at"]["40"]
    per_seed = [statistics.mean(row[2] for row in each[4:]) for each in scores]
    assert mean == pytest.approx(statistics.mean(per_seed))
    if len(scores) == 1:
        assert low is None
    elif low is not None:
        t = {2: 12.7062, 3: 4.30265}[len(scores)]  # from a table
        assert high - mean == pytest.approx(t * statistics.stdev(per_seed) / len(scores) ** 0.5, rel=1e-4)
        assert mean - low == pytest.approx(high - mean)


def test_a_column_counts_the_same_tasks_for_every_learner() -> None:
    whole, short = [[0.1, 0.2, 0.3], [0.2, 0.4, 0.6]], [[0.1, 0.2, 0.3], [0.8]]
    rounds = [[0.0, 0.0, 0.0]] * 4
    runs = [made([*rounds, *whole]), made([*rounds, *short], learner="toe")]
    summary = metrics.summary(runs)
    assert summary["tasks_at"] == {"10": 2, "20": 1, "40": 1}
    assert summary["tasks"] == 2
    assert [summary["learners"][name]["score_at"]["40"][0] for name in ("ftml", "toe")] == [0.3, 0.3]
    assert [summary["learners"][name]["final_score"][0] for name in ("ftml", "toe")] == pytest.approx([0.45, 0.55])
    headings, _ = report.table_rows(summary)
    assert "at 20 (n = 1)" in headings
    assert "at 10" in headings


def test_learners_that_have_not_played_a_round_do_not_take_it_from_the_others() -> None:
    done, behind = made([[0.1, 0.2, 0.3]] * 6), made([[0.5, 0.6, 0.7]] * 3, None, rounds=6, learner="toe")
    summary = metrics.summary([done, behind])
    assert summary["learners"]["ftml"]["score_at"]["20"][0] == pytest.approx(0.2)
    assert summary["learners"]["toe"]["score_at"]["20"][0] == pytest.approx(0.6)
    assert summary["tasks_at"]["20"] == 2


def test_a_score_that_is_not_finite_leaves_no_mean() -> None:
    numbers = metrics.summary([made([[0.1, 0.2, 0.3], [None, 0.2, 0.3]] * 3)])["learners"]["ftml"]
    assert numbers["score_at"]["10"] == [None, None, None]
    assert numbers["score_at"]["20"][0] == pytest.approx(0.2)


@given(st.floats(1e-30, 1e30), st.booleans())
def test_three_significant_digits(value: float, negative: bool) -> None:
    value = -value if negative else value
    assert abs(float(significant(value)) - value) <= 0.00501 * abs(value)
    assert significant(value, sign=True) == ("" if negative else "+") + significant(value)


def test_small_numbers_are_not_nothing() -> None:
    assert significant(1e-5) == "1.00e-05"
    assert [significant(math.inf, True), significant(math.nan)] == ["+inf", "nan"]
    assert [report.readable(n) for n in (999, 1234, 999_999, 12_345_678)] == ["999", "1.23 k", "1.00 M", "12.3 M"]
    assert with_interval([0.05, 0.00123, 1200]) == "0.0500 [0.00123, 1200]"
    assert with_interval([0.0, None, None], sign=True) == "0"
    assert with_interval([None, None, None]) == "-"


def test_a_learner_that_diverged_has_no_mean_score_and_its_missing_rounds_count_as_not_reached() -> None:
    runs = [made([[0.9, 0.9, 0.9]] * 6, rounds=6), made([[None, None, None]], "diverged", rounds=6, seed=1)]
    numbers = metrics.summary(runs)["learners"]["ftml"]
    assert numbers["diverged"]
    assert numbers["score_at"]["10"] == [None, None, None]
    assert numbers["datapoints_to_proficiency"] == {"above": 20, "median": None, "reached": 2, "tasks": 4}


def undefined(run: metrics.Run) -> metrics.Run:
    """The same, where what has no score is undefined."""
    return replace(run, records=tuple(replace(record, diverged=False, loss=1.0) for record in run.records))


def test_where_a_score_is_undefined_a_task_does_not_count() -> None:
    """Round 5 has no score after 10 datapoints nor at its end, round 6 none after 20."""
    run = undefined(made([[0.5, 0.5, 0.9]] * 4 + [[None, 0.7, None], [0.2, None, 0.8]], rounds=6))
    found = metrics.summary([run])
    numbers = found["learners"]["ftml"]
    assert (found["tasks_without_end"], found["tasks_at"]) == (1, {"10": 1, "20": 1, "40": 1})
    assert [numbers["score_at"][size][0] for size in ("10", "20", "40")] == [0.2, 0.7, 0.8]
    assert numbers["final_score"][0] == 0.8
    np.testing.assert_allclose(metrics.proficiency([run])[0, 4:], [[10, 20], [20, 40]])
    assert "Final scores leave out 1 of 2 tasks" in str(report.terminal_table(found).caption)
    never = undefined(made([[None, None, None]] * 3, rounds=3))
    assert np.isnan(metrics.proficiency([never])).all()
    assert np.isnan(advantage.with_itself(never)).all()
    assert metrics.summary([never])["learners"]["ftml"]["final_score"] == [None, None, None]


def test_a_score_that_one_learner_alone_lacks_is_left_out_for_all() -> None:
    """Else a learner would do well to predict what has no score on hard tasks."""
    easy, hard = [0.5, 0.9, 0.9], [0.1, 0.1, 0.1]
    sound = made([easy] * 4 + [easy, hard], rounds=6)
    evasive = undefined(made([easy] * 4 + [easy, [None, None, None]], rounds=6, learner="toe"))
    numbers = metrics.summary([sound, evasive])["learners"]
    assert [of["final_score"][0] for of in numbers.values()] == [0.9, 0.9]
    assert [of["datapoints_to_proficiency"]["tasks"] for of in numbers.values()] == [1, 1]


def test_a_partial_run_counts_the_rounds_it_completed() -> None:
    run = made([[0.1, 0.2, 0.3], [0.5, 0.6, 0.7], [0.6, 0.6, 0.8], [0.9]], None, rounds=30)
    numbers = metrics.summary([run])["learners"]["ftml"]
    assert numbers["partial"]
    assert numbers["rounds"] == 3
    assert numbers["score_at"]["40"][0] == pytest.approx(0.8)
    assert numbers["datapoints_to_proficiency"] == {"above": 0, "median": 10, "reached": 1, "tasks": 1}


def test_datapoints_to_the_threshold_of_another_score() -> None:
    run = made([[0.9, 0.9, 0.9]] * 3, rounds=3)
    distances: list[float | None] = [8.0, None, 3.0]
    records = tuple(
        replace(record, other_scores={"distance": distance, "time": 1.0})
        for record, distance in zip(run.records, distances * 3, strict=True)
    )
    scores = (ScoreDescription("accuracy", True, note="Chance: 0.5."), ScoreDescription("distance", False, 4.0))
    about = replace(run.about, scores=(*scores, ScoreDescription("time", False)))
    summary = metrics.summary([replace(run, about=about, records=records)])
    numbers = summary["learners"]["ftml"]["datapoints_to_others"]
    assert numbers == {"distance": {"threshold": 4.0, "above": 20, "median": 40, "reached": 1, "tasks": 1}}
    headings, (row,) = report.table_rows(summary)
    assert dict(zip(headings, row, strict=True))["distance to 4"] == "(20, 40], 1 of 1"
    assert "Chance: 0.5." in str(report.terminal_table(summary).caption)
    assert RunDescription.from_json(about.as_json(), "here").scores == about.scores


def test_a_round_that_moved_on_ends_with_its_last_record() -> None:
    run = made([[0.9], [0.2, 0.8], [0.1, 0.2, 0.3]], rounds=3)
    np.testing.assert_allclose(metrics.final_scores([run]), [[0.9, 0.8, 0.3]])
    np.testing.assert_allclose(metrics.datapoints_to_proficiency([run]), [[10, 20, np.inf]])


def test_figures_compare_the_same_tasks_and_draw_short_ones_where_they_end() -> None:
    """Two of six tasks have 10 datapoints: they say nothing of 40, and need more than 10, not infinitely many."""
    sizes = [1, 3, 3, 1, 3, 3]
    runs = {
        "ftml": [made([[0.1, 0.2, 0.1 * t] for t in range(6)])],
        "toe": [made([[0.1, 0.2, 0.9][:n] for n in sizes], learner="toe")],
    }
    first, last = figures.score_at_sizes(runs).axes
    assert (first.get_title(), last.get_title()) == ("after 10 datapoints", "after 40 datapoints (n = 4 of 6)")
    line = {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in last.lines}["FTML"]
    # Means over the seven rounds around each, of 0.1, 0.2, 0.4 and 0.5.
    np.testing.assert_allclose(line, [np.nan, 0.7 / 3, 0.3, np.nan, 0.3, 1.1 / 3])
    panel = figures.efficiency(runs).axes[0]
    hollow = {
        line.get_marker(): np.asarray(line.get_ydata(), float).tolist()
        for line in panel.lines
        if line.get_markerfacecolor() == "none"
    }
    assert hollow == {"o": [40.0] * 5, "^": [10.0, 10.0]}


def test_a_learner_with_fewer_seeds_than_others_says_so() -> None:
    runs = [made([[0.1, 0.2, 0.3]] * 3, seed=seed) for seed in range(2)]
    _, rows = report.table_rows(metrics.summary([*runs, made([[0.1, 0.2, 0.3]] * 3, learner="toe")]))
    assert [row[0] for row in rows] == ["FTML", "TOE (1 of 2 seeds)"]


def test_nine_of_ten_reach_0_9() -> None:
    """As the mean of ten numbers in 32 bits."""
    score = float(np.float32(9) / np.float32(10))
    assert score < 0.9
    assert metrics.datapoints_to_proficiency([made([[0.5, score, 0.5]], threshold=0.9)]).tolist() == [[20.0]]
    run = made([[0.5, float(np.float32(0.7)), 0.9]], threshold=0.7, higher=False)
    assert metrics.datapoints_to_proficiency([run]).tolist() == [[10.0]]


def test_rounds_in_which_the_learner_was_not_judged_count_nowhere() -> None:
    """Such as those of tasks without held-out data that are smaller than all sizes to be judged at."""
    run = made([[0.1, 0.2, 0.7]] * 3 + [[], [0.2, 0.6, 0.8], []], rounds=6)
    assert metrics.datapoints_to_proficiency([run])[0].tolist() == pytest.approx(
        [40, 40, 40, math.nan, 20], nan_ok=True
    )
    numbers = metrics.summary([run])["learners"]["ftml"]
    assert numbers["final_score"] == [pytest.approx(0.8), None, None]
    assert numbers["datapoints_to_proficiency"] == {"above": 10, "median": 20, "reached": 1, "tasks": 1}
    better = made([[0.2, 0.6, 0.7]] * 3 + [[], [0.6, 0.6, 0.9], []], rounds=6)
    assert advantage.over_rounds(claims.FINAL, (better, run), advantage.WHOLE)[0] == pytest.approx(0.1 / 4)
    assert advantage.over_rounds(claims.EFFICIENCY, (better, run), advantage.WHOLE).tolist() == [0, 27.5]
    assert advantage.compared(claims.FINAL, [(better, run)], advantage.WHOLE) == (4, 5)
    assert np.isfinite(advantage.with_itself(run)).all()


def test_running_statistics_skip_what_is_missing() -> None:
    values = np.array([[1.0, np.nan, 3.0, 5.0]])
    np.testing.assert_allclose(figures.running(values, np.mean), [3, np.nan, 3, 3])


# Folders and reports.


def test_runs_are_loaded_as_they_were_written_also_while_a_line_is_being_written(tmp_path: Path) -> None:
    run = made([[0.1, 0.2, 0.3]], None)
    folder(tmp_path / "ftml" / "seed-0", run, tail='{"round": 2, "ta')
    assert metrics.load([tmp_path]) == [run]


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        metrics.load([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="holds no run"):
        metrics.load([tmp_path])


def test_the_papers_learners_stand_in_its_order_and_others_behind_as_they_ran() -> None:
    ran = [("own", 0), ("scratch", 0), ("ftml", 1), ("ftl", 0), ("ftml", 0), ("mine", 0), ("own", 1)]
    (shown,) = report.sectioned([made([[0.1, 0.2, 0.3]], learner=name, seed=seed) for name, seed in ran]).values()
    expected = [("ftml", 0), ("ftml", 1), ("ftl", 0), ("scratch", 0), ("own", 0), ("own", 1), ("mine", 0)]
    assert [(run.learner, run.about.seed) for run in shown] == expected


def test_a_report_has_a_section_for_each_experiment_and_a_line_for_each_setting(tmp_path: Path) -> None:
    for i, scores in enumerate(([[0.1, 0.2, 0.3]], [[0.4, 0.5, 0.6]])):
        run = made(scores, rounds=1, setting=("stream.rounds=1", f"ftml.meta-steps={2 + i}"))
        folder(tmp_path / f"a{i}", run)
    other = made([[0.7, 0.8, 0.9]], learner="toe", rounds=1, experiment="other")
    folder(tmp_path / "b", other)
    page, summaries = report.write_report([tmp_path], tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summaries
    lines = {summary["title"]: list(summary["learners"]) for summary in summaries}
    assert lines == {
        "made-up (laptop) stream.rounds=1": ["ftml meta-steps=2", "ftml meta-steps=3"],
        "other (laptop)": ["toe"],
    }
    assert [summaries[0]["learners"][line]["final_score"][0] for line in summaries[0]["learners"]] == [0.3, 0.6]
    text = page.read_text()
    assert text.count("<h1>") == 2
    assert text.count("data:image/png;base64,") == 8
    assert "FTML meta-steps=2" in text
    assert "the setting whose final score is best" in text
    drawn = (tmp_path / "figures" / "made-up-laptop-stream-rounds-1-learning-curves.svg").exists()
    assert drawn, sorted((tmp_path / "figures").iterdir())


def test_of_a_sweep_the_table_of_overtaking_is_of_the_settings_that_figures_show(tmp_path: Path) -> None:
    """The setting that is named last is the worse one."""
    for i, score in enumerate((0.9, 0.1)):
        run = made([[score] * 3] * 3, rounds=3, setting=(f"ftml.meta-steps={2 + i}",))
        folder(tmp_path / f"ftml{i}", run)
    folder(tmp_path / "toe", made([[0.5] * 3] * 3, rounds=3, learner="toe"))
    page, _ = report.write_report([tmp_path], tmp_path)
    assert (
        "| TOE (train on everything) | from the first round | from the first round |"
        in page.with_suffix(".md").read_text()
    )
    assert page.read_text().count("<td>from the first round</td>") == 2


@pytest.mark.parametrize(("seeds", "higher"), [(3, False), pytest.param(1, True, marks=pytest.mark.slow)])
def test_a_report_is_whole_and_needs_no_other_file(tmp_path: Path, seeds: int, higher: bool) -> None:
    random = np.random.default_rng(0)
    for learner in ("ftml", "scratch", "my-own"):
        for seed in range(seeds):
            scores = random.uniform(0.2, 1.0, (9, 3)).tolist()
            folder(tmp_path / learner / str(seed), made(scores, rounds=9, learner=learner, seed=seed, higher=higher))
    folder(tmp_path / "toe" / "0", made([[None] * 3], "diverged", rounds=9, learner="toe", higher=higher))
    folder(tmp_path / "ftl" / "0", made([], "failed: out of luck", rounds=9, learner="ftl", higher=higher))
    page, (summary,) = report.write_report([tmp_path], tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert set(summary["learners"]) == {"ftml", "scratch", "my-own", "toe", "ftl"}
    names = {"learning-curves", "score-against-datapoints", "datapoints-to-proficiency"}
    names |= {"score-after-few-and-all", "overtaking"}
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        f"{n}.{kind}" for n in names for kind in ("png", "svg")
    }
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 5
    assert "http://" not in text
    assert "https://" not in text
    assert "&lt;name&gt;" in text  # what comes from settings is escaped
    assert "out of luck" in text
    markdown = page.with_suffix(".md").read_text()
    assert "**FTL (joint + fine-tuning): failed: out of luck**" in markdown
    assert all(f"(figures/{name}.png)" in markdown for name in names)
    assert "metaleader run made-up" in markdown
    assert "metaleader run made-up" in text
    assert list(tmp_path.rglob("*.tmp")) == []
    svg = (tmp_path / "figures" / "learning-curves.svg").read_bytes()
    report.write_report([tmp_path], tmp_path)
    assert (tmp_path / "figures" / "learning-curves.svg").read_bytes() == svg


def test_the_records_behind_a_report_can_be_told(tmp_path: Path) -> None:
    path = folder(tmp_path / "ftml" / "seed-0", made([[0.1, 0.2, 0.3]]), extra={"commit": "0123abc"})
    page, _ = report.write_report([tmp_path], tmp_path)
    checksum = hashlib.sha256((path / "records.jsonl").read_bytes()).hexdigest()
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert checksum in text
        assert "ftml/seed-0" in text
        assert "0123abc" in text


@pytest.mark.parametrize("scores", [[[-2.0, -3.0, -4.0]] * 3, [[0.0, 0.0, 0.0]] * 3])
def test_errors_of_at_most_zero_are_drawn(scores: list[list[float]]) -> None:
    figure = figures.score_at_sizes({"ftml": [made(scores, higher=False)]})
    for panel in figure.axes:
        assert panel.get_yscale() == "linear"
        low, high = panel.get_ylim()
        drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in panel.lines[:-1]])
        assert ((low < drawn) & (drawn < high)).all()
        assert len(drawn) > 3
    assert figures.score_at_sizes({"ftml": [made([[0.1, 0.2, 0.3]], higher=False)]}).axes[0].get_yscale() == "log"


def test_the_schema_of_the_summary(tmp_path: Path) -> None:
    folder(tmp_path / "a", made([[0.1, 0.2, 0.3]] * 3))
    _, (summary,) = report.write_report([tmp_path], tmp_path)
    numbers = summary["learners"]["ftml"]
    assert {"experiment", "preset", "learners"} <= summary.keys()
    assert {
        "seeds", "rounds", "score_at", "datapoints_to_proficiency", "final_score", "gradient_evaluations", "seconds",
    } <= numbers.keys()  # fmt: skip
    assert set(numbers["score_at"]) == {"10", "20", "40"}


def test_where_only_the_time_before_the_first_datapoint_was_judged_there_is_no_axis_of_datapoints() -> None:
    runs = {name: [made([[0.2], [0.4], [0.6]], sizes=(0,), learner=name)] for name in ("ftml", "toe")}
    assert list(figures.all_figures(runs)) == ["score-after-few-and-all"]
    later = {**runs, "toe": [made([[0.2, 0.5]] * 3, sizes=(0, 10), learner="toe")]}
    drawn = figures.all_figures(later)
    assert len(drawn) == 4
    for figure, _ in drawn.values():
        figure.savefig(io.BytesIO())
