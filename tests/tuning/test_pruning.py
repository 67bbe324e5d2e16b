"""Pruned searches: what an independent account makes of the rungs, stops, workers, choices, and what the page says."""

import json
import math
import os
import re
import shlex
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_tune import EXPERIMENT, account, planned, untimed

import tunable
from command import call
from made_up import made
from metaleader import EXPERIMENTS, Experiment, UserError
from metaleader.commands.run import RunOptions
from metaleader.experiments.parsing import as_arguments, parse_with_settings, with_settings
from metaleader.experiments.plans import Selection
from metaleader.runs.run import RunInterrupted, run
from metaleader.runs.workers import LocalWorkers
from metaleader.tuning import figure as tuning_figure
from metaleader.tuning import page as tuning_page
from metaleader.tuning.found import neighbours, next_change, ranks, single_changes
from metaleader.tuning.plan import Pruning, Tuning, prepare, trial_of
from metaleader.tuning.search import tune
from metaleader.tuning.spaces import Choices, Range, Space, spaces
from metaleader.tuning.studies import Ended, Rungs
from metaleader.tuning.trials import TrialJob, perform, score_after

RUNGS = Pruning(first=1, reduction=3)  # of 6 rounds: after 1 and 3
SEARCH = ("guess.helped=false|true", "guess.steps=1:20")


def pruned(out: Path, *search: str, **settings: Any) -> Tuning:
    return planned(out, *(search or SEARCH), pruning=RUNGS, rounds=6, **settings)


def journal(out: Path) -> dict[str, list[dict[str, Any]]]:
    """What the journal holds of the trials of every learner, but for the time."""
    lines = [json.loads(line) for line in (out / "optuna-journal.log").read_text().splitlines()]
    names = [line["study_name"] for line in lines if "study_name" in line]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for line in lines:
        if "study_id" in line:
            kept = {key: value for key, value in line.items() if key not in ("worker_id",) and "datetime" not in key}
            kept["user_attrs"].pop("seconds")
            kept["user_attrs"]["made"].pop("records_sha256")  # records say how long they took
            found[names[line["study_id"]]].append(kept)
    return found


pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("pruned")
    return tune(pruned(out)), out


def test_a_trial_goes_on_from_a_rung_if_it_is_among_the_best_that_came_there(
    whole: tuple[dict[str, Any], Path],
) -> None:
    tuned, out = whole
    assert (tuned["rounds"], tuned["rungs"], tuned["reduction"]) == (6, [1, 3], 3)
    for name, of_learner in tuned["learners"].items():
        came: dict[int, list[float]] = {1: [], 3: []}
        for trial in of_learner["trials"]:
            folder, expected = out / name / f"trial-{trial['trial']:03d}", "finished"
            for rung in (1, 3):
                score, _ = account(folder, rung)
                if trial["outcome"] == "diverged" or trial["outcome"].startswith("failed"):
                    expected = trial["outcome"]
                    break
                assert score is not None
                assert trial["rungs"][str(rung)] == pytest.approx(score)
                came[rung].append(score)
                better = sum(other > score for other in came[rung])
                if trial["trial"] and better >= max(1, len(came[rung]) // 3):
                    expected = f"pruned at round {rung}"
                    break
            assert trial["outcome"] == expected
            lines = [line for path in folder.rglob("records.jsonl") for line in path.read_text().splitlines()]
            assert {json.loads(line)["round"] for line in lines} <= {1, 3, 5, 6}  # the last thirds of 1, 3 and 6 rounds
            score, spent = account(folder)
            assert trial["gradient_evaluations"] == spent
            assert trial["score"] == (pytest.approx(score) if expected == "finished" else None)
    outcomes = [trial["outcome"] for trial in tuned["learners"]["guess"]["trials"]]
    assert {"pruned at round 1", "pruned at round 3", "finished"} == set(outcomes)


def test_the_preset_is_never_pruned_even_where_it_is_the_worst(tmp_path: Path) -> None:
    tuning = pruned(tmp_path, learners=("guess",), trials=4)
    best = replace(tunable.experiment.presets["smoke"].learners["guess"], steps=5, helped=True)  # type: ignore[type-var]
    tune(replace(tuning, trials=1))
    before = json.loads((tmp_path / "tune.json").read_text())["learners"]["guess"]["trials"][0]
    assert before["outcome"] == "finished"
    assert list(before["rungs"]) == ["1", "3"]
    assert best != tuning.plan.preset.learners["guess"]
    trials = tune(tuning, resume=True)["learners"]["guess"]["trials"]
    assert trials[0] == before  # it is what later trials are compared with


def test_stopped_at_rungs_and_within_trials_it_makes_the_same_journal(
    tmp_path: Path, whole: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A trial tells once before it begins and after each of two chunks a round: the third time, it stops at a rung.
    told, stops = 0, (3, 6, 31, 52, 90)

    def interrupt(*_: Any) -> None:
        nonlocal told
        told += 1
        if told in stops:
            os.kill(os.getpid(), signal.SIGINT)

    tuning, stopped = pruned(tmp_path, learners=("guess",)), 0
    while True:
        try:
            tuned = tune(tuning, resume=stopped > 0, show=interrupt)
            break
        except RunInterrupted:
            stopped += 1
    assert stopped == len(stops)
    assert untimed(tuned)["guess"] == untimed(whole[0])["guess"]
    assert journal(tmp_path)["guess"] == journal(whole[1])["guess"]
    assert not list(tmp_path.rglob("checkpoints"))


def test_a_kill_between_the_end_of_a_trial_and_its_line_in_the_journal_costs_nothing(
    tmp_path: Path, whole: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt  # unlike a signal, it leaves no time to save

    tuning = pruned(tmp_path, trials=4)
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr("metaleader.tuning.search.keep", killed)
            with pytest.raises(KeyboardInterrupt):
                tune(tuning, resume=True)
        made = json.loads((tmp_path / "tune.json").read_text()).get("learners", {})
        total = sum(len(of_learner["trials"]) for of_learner in made.values())

        def stop(label: str, done: float, _: float, total: int = total) -> None:
            if done > total + 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            tune(tuning, resume=True, show=stop)
    assert untimed(tune(tuning, resume=True)) == {name: trials[:4] for name, trials in untimed(whole[0]).items()}


def test_the_folders_of_ended_trials_are_not_needed_to_go_on(
    tmp_path: Path, whole: tuple[dict[str, Any], Path]
) -> None:
    tune(pruned(tmp_path, learners=("guess",), trials=8))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "tune.json", tmp_path / "optuna-journal.log")}
    bare = tmp_path / "bare"
    bare.mkdir()
    for name, content in kept.items():
        (bare / name).write_bytes(content)
    assert untimed(tune(pruned(bare, learners=("guess",)), resume=True))["guess"] == untimed(whole[0])["guess"]
    with pytest.raises(UserError, match=r"rungs = \[1, 3\], now it is \[2, 4\]"):
        tune(replace(pruned(bare, learners=("guess",)), pruning=Pruning(first=2, reduction=2)), resume=True)


@pytest.mark.slow  # by default: the test after this one
def test_two_workers_make_the_trials_of_one(tmp_path: Path, whole: tuple[dict[str, Any], Path]) -> None:
    workers = LocalWorkers[TrialJob, Ended | None](2, 1, perform)
    said: list[str] = []
    tuned = tune(pruned(tmp_path), show=lambda label, *_: said.append(label), workers=workers)
    assert untimed(tuned) == untimed(whole[0])
    assert journal(tmp_path) == journal(whole[1])
    assert any("guess" in label and "fragile" in label for label in said)  # at the same time


@pytest.mark.slow  # by default: in one process, above
def test_ctrl_c_stops_workers_and_resume_goes_on(tmp_path: Path, whole: tuple[dict[str, Any], Path]) -> None:
    def interrupt(_: str, done: float, __: float) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(RunInterrupted):
        tune(pruned(tmp_path, trials=6), show=interrupt, workers=LocalWorkers(2, 1, perform))
    made = json.loads((tmp_path / "tune.json").read_text())["learners"]
    assert 3 <= sum(len(of_learner["trials"]) for of_learner in made.values()) <= 5  # those under way may have ended
    tuned = untimed(tune(pruned(tmp_path, trials=6), resume=True))
    assert tuned == {name: trials[:6] for name, trials in untimed(whole[0]).items()}


def test_settings_that_do_not_go_together_are_a_failed_trial(tmp_path: Path) -> None:
    tuned = tune(planned(tmp_path, "guess.steps=1:20", "guess.most=4:5", learners=("guess",), trials=6))
    for trial in tuned["learners"]["guess"]["trials"][1:]:
        steps, most = trial["settings"]["guess.steps"], trial["settings"]["guess.most"]
        message = f"steps must be at most {most}, got {steps}"
        assert message in trial["outcome"] if steps > most else trial["outcome"] == "finished"
    assert {trial["outcome"].partition(":")[0] for trial in tuned["learners"]["guess"]["trials"]} >= {"failed"}


def test_a_plan_pauses_after_so_many_rounds_and_goes_on_to_the_same_records(tmp_path: Path) -> None:
    def records(folder: Path) -> list[Any]:
        text = next(folder.rglob("records.jsonl")).read_text()
        return [{k: v for k, v in json.loads(line).items() if "seconds" not in k} for line in text.splitlines()]

    experiment = EXPERIMENTS["sinusoid"]
    plan = Selection(experiment, "smoke", experiment.presets["smoke"], ("ftml",), (0,), tmp_path / "paused").plan()
    assert set(run(replace(plan, out=tmp_path / "whole")).values()) == {"finished"}
    for _ in range(2):  # there already, it stays there
        assert set(run(replace(plan, until_round=2), resume=True).values()) == {"paused"}
        assert records(plan.out)[-1]["round"] == 2
        assert not list(plan.out.rglob("outcome.json"))
    assert set(run(replace(plan, until_round=3), resume=True).values()) == {"finished"}
    assert records(plan.out) == records(tmp_path / "whole")


def test_trials_are_judged_on_validation_data_unless_told_otherwise(tmp_path: Path) -> None:
    tuned = tune(planned(tmp_path, learners=("guess",), trials=1))
    (config,) = [json.loads(path.read_text()) for path in tmp_path.rglob("config.json")]
    assert config["settings"]["stream"]["held_out"] == "validation" == tuned["held_out"]
    assert "validation split of the training images" in tuning_page.note(tuned)
    assert "held-out" not in " ".join(tuned["run"])
    out = tmp_path / "test"
    arguments = ["--preset", "smoke", "--learner", "guess", "--trials", "1", "--set", "stream.held-out=test"]
    assert call("tune", EXPERIMENT, *arguments, "--out", str(out)) == 0
    assert json.loads((out / "tune.json").read_text())["held_out"] == "test"
    assert "test images, which results are judged on as well" in (out / "tune.md").read_text()
    assert tune(pruned_of("sinusoid", tmp_path / "sinusoid"))["held_out"] is None


def test_a_lock_or_a_torn_line_that_a_killed_search_left_is_no_obstacle(
    whole: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole[1], tmp_path / "search")
    log = tmp_path / "search" / "optuna-journal.log"
    log.with_name(log.name + ".lock").symlink_to(log)
    log.write_bytes(log.read_bytes() + b'{"op_co')
    monkeypatch.chdir(tmp_path)
    assert untimed(tune(pruned(Path("search")), resume=True)) == untimed(whole[0])
    log.write_bytes(log.read_bytes()[:-9] + b"\n")
    lines = log.read_bytes().count(b"\n")
    with pytest.raises(UserError, match=rf"optuna-journal.log, line {lines}, is damaged"):
        tune(pruned(Path("search")), resume=True)


def pruned_of(name: str, out: Path) -> Tuning:
    return prepare(EXPERIMENTS[name], "smoke", ["toe"], 1, 1, [], ["stream.rounds=1"], out)


def test_choices_are_read_as_settings_and_tried(whole: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    tuned, out = whole
    tried = {trial["settings"]["guess.helped"] for trial in tuned["learners"]["guess"]["trials"]}
    assert tried == {"false", "true"}
    assert tuned["learners"]["guess"]["trials"][0]["settings"]["guess.helped"] == "false"
    for trial in tuned["learners"]["guess"]["trials"]:
        (path,) = (out / "guess" / f"trial-{trial['trial']:03d}").rglob("config.json")
        config = json.loads(path.read_text())
        assert config["settings"]["learner"]["helped"] == (trial["settings"]["guess.helped"] == "true")
    assert tuned["learners"]["guess"]["best"]["settings"]["guess.helped"] == "true"
    # A preset that is none of the choices is kept, and tells the sampler nothing.
    steps = planned(tmp_path, "guess.steps=5|8", learners=("guess",), trials=3)
    settings = [trial["settings"]["guess.steps"] for trial in tune(steps)["learners"]["guess"]["trials"]]
    assert settings[0] == "3"
    assert set(settings[1:]) <= {"5", "8"}
    around = planned(tmp_path / "around", "guess.steps=5|8", learners=("guess",), trials=1, around=1)
    changed = tune(around)["learners"]["guess"]["trials"][-1]
    assert (changed["around"], changed["outcome"], changed["settings"]["guess.steps"]) == (True, "finished", "3")


@dataclass(frozen=True)
class _Searching(Experiment):
    search: Mapping[str, str] = field(default_factory=dict)


def searching(**search: str) -> Experiment:
    """An experiment with a search of its own."""
    sinusoid = EXPERIMENTS["sinusoid"]
    return _Searching(sinusoid.name, sinusoid.summary, sinusoid.score, sinusoid.presets, search=search)


def test_an_experiment_says_what_is_searched_and_the_user_has_the_last_word() -> None:
    experiment = searching(
        **{
            "ftml.update.step-size": "0.0003:1",
            "ftml.update.steps": "1:5",
            "ftml.update.first_order": "false|true",
            "ftl.update.steps": "1:200",
        }
    )
    preset = EXPERIMENTS["sinusoid"].presets["smoke"]
    (space,) = spaces(experiment, preset, ["ftml"], ["ftml.update.steps=2:4"], []).values()  # ftl is not tuned
    assert space == {
        "ftml.optimizer.learning-rate": Range(0.0003, 0.03),
        "ftml.update.step-size": Range(0.0003, 1.0),
        "ftml.update.steps": Range(2, 4),
        "ftml.update.first-order": Choices(("false", "true"), (False, True)),
    }
    fixed = spaces(experiment, preset, ["ftml"], [], ["ftml.update.first-order", "ftml.update.steps"])["ftml"]
    assert [option.rpartition(".")[2] for option in fixed] == ["learning-rate", "step-size"]
    with pytest.raises(UserError, match="unknown learner 'ftlm': did you mean"):
        spaces(searching(**{"ftlm.update.steps": "1:5"}), preset, ["ftml"], [], [])


def test_the_command_of_the_page_runs_with_the_best_settings(whole: tuple[dict[str, Any], Path]) -> None:
    tuned, _ = whole
    words = shlex.split(" ".join(tuned["run"]))
    assert words[:3] == ["metaleader", "run", EXPERIMENT]
    preset = tunable.experiment.presets["smoke"]
    _, parsed = parse_with_settings(RunOptions, tunable.experiment, words[3:], "metaleader run")
    for name, of_learner in tuned["learners"].items():
        settings = {option: str(value) for option, value in of_learner["best"]["settings"].items()}
        assert parsed.learners[name] == with_settings(tunable.experiment, preset, settings).learners[name]
    assert parsed.stream == replace(preset.stream, rounds=6)  # type: ignore[type-var]
    on = with_settings(tunable.experiment, preset, {"guess.helped": "true"})
    assert as_arguments(on, {"guess.helped": "false"}) == ["--guess.no-helped"]
    assert as_arguments(on, {"guess.helped": "True"}) == []


def a_trial(number: int, score: float | None, rungs: dict[str, float], **settings: Any) -> dict[str, Any]:
    return {"trial": number, "score": score, "outcome": "finished", "rungs": rungs, "settings": settings}


def test_rank_correlations_are_those_of_the_ranks() -> None:
    rng = np.random.default_rng(0)
    first, second, final = rng.permutation(40)[:12], rng.permutation(40)[:12], rng.permutation(40)[:12]
    trials = [
        a_trial(
            i, float(final[i]) if i < 8 else None, {"2": float(first[i]), **({"4": float(second[i])} if i < 10 else {})}
        )
        for i in range(12)
    ]

    def rho(a: Any, b: Any) -> float:
        """Spearman's coefficient without ties: 1 - 6 sum d^2 / (n (n^2 - 1))."""
        d = np.argsort(np.argsort(a)) - np.argsort(np.argsort(b))
        return float(1 - 6 * (d**2).sum() / (len(d) * (len(d) ** 2 - 1)))

    at_2, at_4 = ranks(trials, Rungs(6, 2, 2))
    assert (at_2["round"], at_2["reached"], at_4["round"], at_4["reached"]) == (2, 12, 4, 10)
    assert at_2["next"] == {"round": 4, "trials": 10, "spearman": pytest.approx(rho(first[:10], second[:10]))}
    assert at_2["final"] == {"trials": 8, "spearman": pytest.approx(rho(first[:8], final[:8]))}
    assert at_4["next"] is None
    assert at_4["final"] == {"trials": 8, "spearman": pytest.approx(rho(second[:8], final[:8]))}
    assert ranks(trials[:2], Rungs(6, 2, 2))[0]["final"] == {"trials": 2, "spearman": None}
    same = [a_trial(i, 1.0, {"2": float(i)}) for i in range(4)]
    assert ranks(same, Rungs(3, 2))[0]["final"]["spearman"] is None


def test_neighbours_are_the_next_values_that_were_tried() -> None:
    space: Space = {"x": Range(0.01, 1.0), "c": Choices(("a", "b", "d"), ("a", "b", "d"))}
    trials = [
        a_trial(i, score, {}, x=x, c=c)
        for i, (score, x, c) in enumerate(
            [(0.5, 0.1, "a"), (0.9, 0.2, "a"), (0.7, 0.1, "b"), (None, 0.5, "d"), (0.3, 0.9, "b")]
        )
    ]
    found = neighbours(trials, trials[1], space, higher_is_better=True)
    assert found["x"] == [2, 3]  # 0.1, the better of two, and 0.5
    assert found["c"] == [2, 3]  # the best of "b", and what there is of "d"
    lower = neighbours(trials, trials[1], space, higher_is_better=False)
    assert lower["x"] == [0, 3]


@pytest.mark.parametrize(
    ("entry", "value", "changes"),
    [
        (Range(0.01, 0.1), 0.05, [0.0167, 0.15]),
        (Range(1, 9), 6, [2, 18]),
        (Range(1, 9), 2, [1, 6]),
        (Range(1, 9), 1, [3]),
        (Range(0, 9), 3, [0, 1, 9]),
        (Range(0, 9), 0, [1]),
        (Range(0, 9), None, []),
        (Choices(("a", "b", "d"), ("a", "b", "d")), "b", ["a", "d"]),
    ],
)
def test_a_single_change_is_by_a_factor_of_3_or_to_another_choice(entry: Any, value: Any, changes: list[Any]) -> None:
    assert entry.changes(value) == changes
    settings = {"other": 1, "x": value}
    assert [each["x"] for each in single_changes(settings, {"x": entry})] == changes
    assert all(each["other"] == 1 for each in single_changes(settings, {"x": entry}))


def test_what_was_changed_least_is_changed_next_and_both_ways() -> None:
    space: Space = {"x": Range(0.01, 10.0), "y": Choices(("a", "b"), ("a", "b"))}
    trials = [{"trial": 0, "around": False, "settings": {"x": 1.0, "y": "a"}, "score": 0.5}]

    def change(score: float) -> dict[str, Any]:
        settings = next_change(trials, space, higher_is_better=True)
        assert settings is not None
        trials.append({"trial": len(trials), "around": True, "settings": settings, "score": score})
        return settings

    assert change(0.4) == {"x": 0.333, "y": "a"}
    assert change(0.6) == {"x": 1.0, "y": "b"}  # better, so that x could be made smaller again
    assert change(0.4) == {"x": 3.0, "y": "b"}
    assert change(0.4) == {"x": 0.333, "y": "b"}
    assert next_change(trials, space, higher_is_better=True) is None


@pytest.mark.slow
def test_the_best_is_changed_one_setting_at_a_time_until_nothing_is_better(tmp_path: Path) -> None:
    first = tune(pruned(tmp_path, trials=3, around=0))
    tuned = tune(pruned(tmp_path, trials=3, around=16), resume=True)  # what was there is kept
    anew = tune(pruned(tmp_path / "anew", trials=3, around=16))
    assert untimed(anew) == untimed(tuned)
    for name, found in tuned["learners"].items():
        trials, space = found["trials"], pruned(tmp_path).spaces[name]
        assert trials[:3] == first["learners"][name]["trials"]
        assert [trial["around"] for trial in trials] == [False] * 3 + [True] * (len(trials) - 3)
        for at, trial in enumerate(trials[3:], 3):
            best = max((each for each in trials[:at] if each["score"] is not None), key=lambda each: each["score"])
            differ = [option for option in space if trial["settings"][option] != best["settings"][option]]
            assert len(differ) == 1
        tried = [trial["settings"] for trial in trials]
        assert len(trials) == 19 or all(each in tried for each in single_changes(found["best"]["settings"], space))
        assert sorted(i for pairs in found["changed"].values() for i, _ in pairs) == list(range(3, len(trials)))
        for option, pairs in found["changed"].items():
            for i, before in pairs:
                differ = [name for name in space if trials[i]["settings"][name] != trials[before]["settings"][name]]
                assert differ == [option]
    assert tuned["learners"]["guess"]["best"]["score"] > first["learners"]["guess"]["best"]["score"]
    table = {row[1]: row for row in tuning_page.around(tuned) if row[0] == "guess"}
    assert re.search(r"0\.\d+: 0\.\d+ \(0\.\d+\)", table["`--guess.update.step-size`"][4])
    assert "changed at a time" in tuning_page.around_note(tuned)


@pytest.mark.parametrize(
    ("low", "high", "value", "end"),
    [
        (0.001, 0.1, 0.01, ""),
        (0.001, 0.1, 0.0011, "low"),
        (0.001, 0.1, 0.095, "high"),
        (0.001, 0.1, 0.2, "outside"),
        (1, 5, 1, "low"),
        (1, 5, 4, ""),
        (0.0, 1.0, 0.04, "low"),
        (0.0, 1.0, 0.06, ""),
        (0.001, 0.1, None, "outside"),
    ],
)
def test_a_best_at_an_end_of_its_range_is_flagged(low: float, high: float, value: float | None, end: str) -> None:
    assert Range(low, high).end(value) == end


def test_the_page_says_how_the_search_was_made(whole: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    tuned, _ = whole
    text = tuning_page.write(tuned, tmp_path).read_text()
    assert "After 1 and 3 rounds" in text
    assert "best 1/3" in text
    guess = tuned["learners"]["guess"]
    stopped = sum(trial["outcome"].startswith("pruned") for trial in guess["trials"])
    assert f"| guess | 12 ({stopped} pruned) |" in text
    assert "Nothing was noted in `by-hand.md`." in text
    (tmp_path / "by-hand.md").write_text("Two rates were tried: neither was better.\n")
    again = tuning_page.write(tuned, tmp_path).read_text()
    assert "## Tried by hand\n\nTwo rates were tried: neither was better.\n" in again
    at_end = {**guess, "ends": {**guess["ends"], "guess.steps": "high"}}
    # The command of the page is one that a shell reads whole.
    assert shlex.split(text.split("With the best of every learner:\n\n```\n")[1].split("\n```")[0].replace("\\\n", ""))
    flagged = tuning_page.around({**tuned, "learners": {**tuned["learners"], "guess": at_end}})
    assert [row[-1] for row in flagged if "guess.steps" in row[1]] == ["at the high end of the range: widen it"]


def test_rungs_begin_at_a_sixth_of_the_stream() -> None:
    assert Pruning().rungs(56).ends == (9, 27)
    assert Pruning().rungs(90).ends == (15, 45)
    assert Pruning().rungs(1).ends == ()
    assert Pruning(first=8, reduction=2).rungs(64).ends == (8, 16, 32)
    assert math.isclose(Pruning().rungs(2).ends[0], 1)


def test_every_preset_can_be_searched() -> None:
    """Of what an experiment says should be searched, a preset may have only a part."""
    for experiment in EXPERIMENTS.values():
        for preset in experiment.presets.values():
            assert all(spaces(experiment, preset, experiment.compared, [], []).values())
    with pytest.raises(UserError, match=r"no preset has a setting of that name"):
        spaces(searching(**{"ftml.update.stps": "1:5"}), EXPERIMENTS["sinusoid"].presets["smoke"], ["ftml"], [], [])


def test_steps_that_are_said_hold_even_if_they_are_those_of_the_preset() -> None:
    experiment = EXPERIMENTS["rainbow-digits"]
    before: Any = experiment.preset("laptop").learners["ftml"]
    for said in (["--ftml.meta-steps", str(before.meta_steps)], [f"--ftml.meta_steps={before.meta_steps}"], []):
        arguments = [*said, "--ftml.meta-batch", str(4 * before.meta_batch)]
        found: Any = parse_with_settings(RunOptions, experiment, arguments, "metaleader run")[1].learners["ftml"]
        assert (found.meta_steps == before.meta_steps) is bool(said)


def test_a_trial_with_the_steps_of_the_preset_has_them_of_its_own(tmp_path: Path) -> None:
    """Else its steps would be as many as the gradients pay for with its other settings."""
    digits = EXPERIMENTS["rainbow-digits"]
    tuning = prepare(digits, "laptop", ["ftml"], 1, 1, ["ftml.meta-steps=1:50"], [], tmp_path)
    own = digits.presets["laptop"].learners["ftml"].meta_steps  # type: ignore[attr-defined]
    trial = trial_of(tuning, "ftml", 1, {"ftml.meta-batch": 8, "ftml.meta-steps": own})
    assert trial.preset.learners["ftml"].meta_steps == own  # type: ignore[attr-defined]


def test_where_no_score_is_defined_a_trial_is_not_compared() -> None:
    run = made([[None], [0.5], [0.7]], sizes=(10,))
    run = replace(run, records=tuple(replace(record, diverged=False, loss=1.0) for record in run.records))
    other = replace(run, records=(replace(run.records[0], score=0.3), *run.records[1:]))
    assert score_after([run], 1) is None
    assert score_after([run, other], 1) == 0.3
    assert score_after([run, other], 3) == 0.7
    assert math.isnan(score_after([made([[None]], sizes=(10,))], 1) or 0.0)


def test_errors_below_zero_are_shown() -> None:
    """Log losses of densities, say: no error is many times the best."""
    trials = [{"trial": i, "score": score} for i, score in enumerate((-3.0, -1.0, None, 2.0))]
    found = {"trials": trials, "best": trials[0]}
    assert [trial["score"] for trial in tuning_figure._on_one_scale(found, False)] == [-3.0, -1.0, 2.0]
    positive = {"trials": [{"score": 1.0}, {"score": 1e6}], "best": {"score": 1.0}}
    assert len(tuning_figure._on_one_scale(positive, False)) == 1
