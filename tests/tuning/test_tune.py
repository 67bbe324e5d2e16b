"""Tuning: equal budgets, trials that any account of the records agrees with, stops, and one line for every mistake."""

import json
import math
import os
import signal
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

import tunable
from command import Refused, call
from metaleader import EXPERIMENTS, Experiment, UserError
from metaleader.results.formats import significant
from metaleader.runs.folder import RunFolder
from metaleader.runs.run import RunInterrupted
from metaleader.streams.sources import sha256
from metaleader.tuning import figure as tuning_figure
from metaleader.tuning import page
from metaleader.tuning.plan import Pruning, Tuning, prepare
from metaleader.tuning.search import tune
from metaleader.tuning.spaces import Range, spaces

EXPERIMENT = str(Path(tunable.__file__))
SMOKE = ["tune", EXPERIMENT, "--preset", "smoke"]
TRIALS = 12  # the first ten are drawn at random, the others from what was found


WHOLE = Pruning(prune=False)


def planned(
    out: Path,
    *search: str,
    learners: tuple[str, ...] = (),
    trials: int = TRIALS,
    seeds: int = 1,
    pruning: Pruning = WHOLE,
    rounds: int = 2,
    around: int = 0,
) -> Tuning:
    settings = [f"stream.rounds={rounds}"]
    return prepare(
        tunable.experiment,
        "smoke",
        learners,
        seeds,
        trials,
        search,
        settings,
        out,
        pruning=pruning,
        source=EXPERIMENT,
        around=around,
    )


def untimed(tuned: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The trials of every learner, without how long they took, which records say, too."""
    timed = ("seconds", "made")
    return {
        name: [{key: value for key, value in trial.items() if key not in timed} for trial in of_learner["trials"]]
        for name, of_learner in tuned["learners"].items()
    }


def account(folder: Path, rounds: int | None = None) -> tuple[float | None, int]:
    """Score, after so many rounds or all, and gradients of a trial from nothing but the lines of its records."""
    means, spent = [], 0
    for path in folder.rglob("records.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        planned = rounds or json.loads(path.with_name("config.json").read_text())["rounds"]
        counted = [line["score"] for line in lines if planned - math.ceil(planned / 3) < line["round"] <= planned]
        means.append(None if None in counted or not counted else sum(counted) / len(counted))
        spent += lines[-1]["gradient_evaluations"] if lines else 0
    return (None if None in means or not means else sum(means) / len(means)), spent  # type: ignore[arg-type]


pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "save", lambda *_: None)  # most of the time, and for stops alone
        return tune(planned(out)), out


def test_every_learner_has_the_same_trials_and_the_first_is_the_preset(whole: tuple[dict[str, Any], Path]) -> None:
    tuned, _ = whole
    assert [len(of_learner["trials"]) for of_learner in tuned["learners"].values()] == [TRIALS, TRIALS]
    for name, of_learner in tuned["learners"].items():
        first = {f"{name}.optimizer.learning-rate": 0.01, f"{name}.update.step-size": 0.3}
        assert of_learner["trials"][0]["settings"] == first
        for option, low, high in zip(first, (0.001, 0.06), (0.1, 1.5), strict=True):
            values = [trial["settings"][option] for trial in of_learner["trials"]]
            assert min(values) >= low
            assert max(values) <= high
            assert len(set(values)) > TRIALS // 2
            assert all(value == float(f"{value:.3g}") for value in values)


def test_the_best_is_the_best_of_what_the_records_say(whole: tuple[dict[str, Any], Path]) -> None:
    tuned, out = whole
    for name, of_learner in tuned["learners"].items():
        accounts = [account(out / name / f"trial-{i:03d}") for i in range(TRIALS)]
        for trial, (score, spent) in zip(of_learner["trials"], accounts, strict=True):
            assert trial["gradient_evaluations"] == spent
            assert trial["score"] == (None if score is None else pytest.approx(score))
        assert of_learner["gradient_evaluations"] == sum(spent for _, spent in accounts)
        best = int(np.argmax([-math.inf if score is None else score for score, _ in accounts]))
        assert of_learner["best"] == of_learner["trials"][best]
        for i, trial in enumerate(of_learner["trials"]):
            records = (out / name / f"trial-{i:03d}").rglob("records.jsonl")
            assert list(trial["made"]["records_sha256"].values()) == [sha256(path) for path in records]
    assert tuned["learners"]["guess"]["best"]["score"] > 1.5 * tuned["learners"]["guess"]["trials"][0]["score"]


def test_trials_that_diverge_or_fail_are_kept_and_count_as_the_worst(whole: tuple[dict[str, Any], Path]) -> None:
    tuned, out = whole
    trials = tuned["learners"]["fragile"]["trials"]
    assert Counter(trial["outcome"] for trial in trials).keys() == {"finished", "diverged", "failed: no room"}
    for trial in trials:
        rate = trial["settings"]["fragile.optimizer.learning-rate"]
        expected = "diverged" if rate > 0.05 else "failed: no room" if rate < 0.002 else "finished"
        assert trial["outcome"] == expected
        assert (trial["score"] is None) == (expected != "finished")
    # The sampler counts what was pruned before it reported anything as the worst.
    journal = [json.loads(line) for line in (out / "optuna-journal.log").read_text().splitlines()]
    lost = [line for line in journal if line.get("user_attrs", {}).get("score", 0) is None]
    assert len(lost) == sum(trial["score"] is None for trial in trials)
    assert all(line["state"] == TrialState.PRUNED and not line["intermediate_values"] for line in lost)


def test_tuning_seeds_are_none_of_the_results(tmp_path: Path) -> None:
    tune(planned(tmp_path, learners=("guess",), trials=1, seeds=2))
    configs = [json.loads(path.read_text()) for path in tmp_path.rglob("config.json")]
    assert sorted(config["seed"] for config in configs) == [1000, 1001]
    assert all(config["setting"] == ["stream.rounds=2", "stream.held-out=validation"] for config in configs)
    score, _ = account(tmp_path / "guess" / "trial-000")
    assert json.loads((tmp_path / "tune.json").read_text())["seeds"] == [1000, 1001]
    assert score is not None


def test_stopped_and_resumed_makes_the_trials_of_an_uninterrupted_search(
    tmp_path: Path, whole: tuple[dict[str, Any], Path]
) -> None:
    told, stops = 0, (4, 30, 61)  # a trial tells five times: in the first trial, and in two of those that follow

    def interrupt(*_: Any) -> None:
        nonlocal told
        told += 1
        if told in stops:
            os.kill(os.getpid(), signal.SIGINT)

    made = []
    for i in range(len(stops)):
        # The other learner and more trials to come make no difference.
        tuning = planned(tmp_path, learners=("guess",), trials=TRIALS - 1 if i == 0 else TRIALS)
        with pytest.raises(RunInterrupted):
            tune(tuning, resume=i > 0, show=interrupt)
        made.append(len(list((tmp_path / "guess").iterdir())))
        with (tmp_path / "optuna-journal.log").open("a") as journal:
            journal.write('{"torn')
    tuned = tune(tuning, resume=True)
    assert made == [1, 6, 12]
    assert untimed(tuned)["guess"] == untimed(whole[0])["guess"]
    with pytest.raises(UserError, match=r"seeds = \[1000\], now it is \[1000, 1001\]"):
        tune(replace(tuning, plan=replace(tuning.plan, seeds=(1000, 1001))), resume=True)
    with pytest.raises(UserError, match="holds 12 trials of guess: --trials must be at least that"):
        tune(replace(tuning, trials=3), resume=True)


def unsearched(experiment: Experiment) -> Experiment:
    """The experiment, without what it says should be searched."""
    return Experiment(experiment.name, experiment.summary, experiment.score, experiment.presets)


def test_what_is_searched_is_learning_rates_and_step_sizes_around_the_preset() -> None:
    for experiment in map(unsearched, EXPERIMENTS.values()):
        for preset in experiment.presets.values():
            for name, space in spaces(experiment, preset, list(preset.learners), [], []).items():
                first, *others = [option.removeprefix(f"{name}.") for option in space]
                assert first == "optimizer.learning-rate"
                assert set(others) <= {"update.step-size", "update.optimizer.step-size", "update.regulariser"}
                assert len(others) == (0 if name in ("toe", "scratch") else 1), name
    sinusoid = unsearched(EXPERIMENTS["sinusoid"])
    preset = sinusoid.presets["laptop"]
    assert spaces(sinusoid, preset, ["ftml", "ftml-momentum"], [], []) == {
        "ftml": {
            "ftml.optimizer.learning-rate": Range(0.000501, 0.0501),
            "ftml.update.step-size": Range(0.000788, 0.0197),
        },
        "ftml-momentum": {
            "ftml-momentum.optimizer.learning-rate": Range(0.000501, 0.0501),
            "ftml-momentum.update.optimizer.step-size": Range(0.000394, 0.00985),
        },
    }
    search = ["ftml.meta-steps=1:8", "ftml.update.prior-strength=0:10"]
    (space,) = spaces(sinusoid, preset, ["ftml"], search, ["ftml.optimizer.learning-rate"]).values()
    assert space == {
        "ftml.update.step-size": Range(0.000788, 0.0197),
        "ftml.meta-steps": Range(1, 8),
        "ftml.update.prior-strength": Range(0.0, 10.0),
    }
    ranges = [ends for ends in space.values() if isinstance(ends, Range)]
    assert [(ends.log, ends.integer) for ends in ranges] == [(True, False), (True, True), (False, False)]


def test_integers_stay_integers_and_the_preset_may_lie_outside(tmp_path: Path) -> None:
    tuned = tune(planned(tmp_path, "guess.steps=5:8", learners=("guess",), trials=4))
    steps = [trial["settings"]["guess.steps"] for trial in tuned["learners"]["guess"]["trials"]]
    assert steps[0] == 3
    assert all(isinstance(value, int) and 5 <= value <= 8 for value in steps[1:])


def test_the_command_ends_in_a_table_a_page_and_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    fixed = ["--set", "stream.rounds=1", "--set", "toe.steps=2"]
    command = ["tune", "sinusoid", "--preset", "smoke", "--learner", "toe", "--trials", "2", *fixed, "--out", str(out)]
    assert call(*command) == 0
    said = capsys.readouterr()
    assert said.err == ""
    tuned = json.loads((out / "tune.json").read_text())
    scores = [trial["score"] for trial in tuned["learners"]["toe"]["trials"]]
    assert tuned["learners"]["toe"]["best"]["score"] == min(scores)  # an error: lower is better
    assert [account(out / "toe" / f"trial-{i:03d}")[0] for i in range(2)] == pytest.approx(scores)
    written, first = (out / "tune.md").read_text(), tuned["learners"]["toe"]["trials"][0]["made"]
    assert all(text in written for text in (" ".join(["metaleader", *command]), first["machine"]["system"]))
    assert first["commit"] is None or first["commit"] in written
    assert all(significant(score) in said.out for score in (scores[0], min(scores)))
    assert {path.name for path in (out / "figures").iterdir()} == {"tune.png", "tune.svg"}
    assert call(*command) == 2
    assert "exists already: go on with it by --resume" in capsys.readouterr().err
    assert call(*command, "--resume") == 0  # nothing left to do; the table is made again
    assert call("report", str(out / "toe" / "trial-001")) == 0


def test_failed_trials_are_named_and_the_exit_code_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = [*SMOKE, "--learner", "fragile", "--trials", "1", "--out", str(out)]
    assert call(*arguments, "--set", "fragile.fails-below=1") == 1
    said = capsys.readouterr()
    assert "trial-000: failed: no room" in said.err
    assert "1 (1 failed)" in said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an experiment: metaleader tune EXPERIMENT"),
        (["sinusiod"], "unknown experiment 'sinusiod': did you mean sinusoid"),
        (["sinusoid", "--preset", "smoky"], "unknown preset 'smoky': did you mean smoke?"),
        (["sinusoid", "--learner", "ftlm"], "unknown learner 'ftlm': did you mean ftl"),
        (["sinusoid", "--trials", "0"], "--trials must be at least 1, got 0"),
        (["sinusoid", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["sinusoid", "--around", "-1"], "--around must not be negative, got -1"),
        (["sinusoid", "--set", "stream.ronds=2"], "did you mean stream.rounds"),
        (
            ["sinusoid", "--set", "stream.rounds"],
            "--set takes NAME=VALUE such as stream.rounds=20; got 'stream.rounds'",
        ),
        (["sinusoid", "--set", "stream.rounds=2", "--set", "stream.rounds=3"], "--set stream.rounds is given twice"),
        (
            ["sinusoid", "--set", "streaming.meta-steps=2"],
            "--set streaming.meta-steps changes nothing: the learners are",
        ),
        (["sinusoid", "--search", "ftml.meta-stps=1:8"], "did you mean ftml.meta-steps"),
        (
            ["sinusoid", "--search", "ftml.meta-steps=8:1"],
            "ftml.meta-steps: LOW must be below HIGH and both finite, got 8:1",
        ),
        (["sinusoid", "--search", "ftml.meta-steps=0:8"], "meta_steps must be positive and finite, got 0"),
        (["sinusoid", "--search", "ftml.meta-steps=few:8"], "--ftml.meta-steps: invalid literal for int"),
        (
            ["sinusoid", "--search", "ftml.meta-steps=8"],
            "--search takes NAME=LOW:HIGH such as ftml.meta-steps=1:8, or NAME=A|B|... such as",
        ),
        (
            ["sinusoid", "--search", "ftml.past-only=False:True"],
            "takes LOW:HIGH for numbers, and ftml.past-only is none: name choices, as ftml.past-only=False|True",
        ),
        (["sinusoid", "--search", "ftml.past-only=true|True"], "two of the choices true|True mean the same"),
        (["sinusoid", "--search", "ftml.past-only=true|"], "--search takes NAME=LOW:HIGH"),
        (["sinusoid", "--search", "ftml.past-only=true|few"], "invalid choice 'few' for argument '--ftml.past-only'"),
        (["sinusoid", "--rungs", "0"], "the first rung must be from 1 to"),
        (["sinusoid", "--reduction", "1"], "the reduction factor must be at least 2, got 1"),
        (["sinusoid", "--workers", "0"], "--workers must be at least 1, got 0"),
        (["sinusoid", "--search", "stream.rounds=2:3"], "--search takes settings of learners"),
        (
            ["sinusoid", "--search", "streaming.meta-steps=2:3"],
            "changes nothing: the learners are ftml, ftl, toe, scratch",
        ),
        (
            [
                *(EXPERIMENT, "--preset", "smoke", "--learner", "guess"),
                *("--set", "guess.optimizer.learning-rate=1e-3", "--set", "guess.update.step-size=0.1"),
            ],
            "nothing of guess is searched",
        ),
        (["sinusoid", "--set", "toe.steps=2", "--search", "toe.steps=1:3"], "toe.steps is fixed by --set"),
        (["rainbow-mnist", "--data-dir", "/nowhere"], "--data-dir /nowhere is no folder"),
        (["sinusoid", "--resume"], "there is no runs/tune-sinusoid-laptop to resume"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], message: str, refused: Refused) -> None:
    refused("tune", *arguments, message=message)


def test_optuna_that_is_missing_is_said(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    refused(*SMOKE, message="pip install 'metaleader[tune]'")


def test_an_error_far_above_the_best_does_not_set_the_scale_of_the_figure() -> None:
    trials = [
        {"trial": i, "score": score, "outcome": "finished", "settings": {"toe.optimizer.learning-rate": rate}}
        for i, (score, rate) in enumerate([(0.2, 0.01), (0.3, 0.02), (1e33, 0.1)])
    ]
    tuned = {
        "score": {"name": "squared error", "higher_is_better": False},
        "spaces": {"toe": {"toe.optimizer.learning-rate": {"low": 0.01, "high": 0.1, "log": True}}},
        "learners": {"toe": {"best": trials[0], "trials": trials}},
    }
    figure, caption = tuning_figure.search(tuned)
    (panel,) = figure.axes
    assert panel.get_ylim()[1] < 1
    crosses = next(line for line in panel.lines if line.get_marker() == "x")
    assert np.asarray(crosses.get_xdata()).tolist() == [0.1]
    assert "more than 10 times the best" in caption


def test_a_best_without_a_score_at_a_rung_is_compared_with_nothing() -> None:
    lost = {"score": None, "outcome": "pruned at round 9", "rungs": {"9": 0.5}}
    assert page._against(lost, {"score": 0.7, "rungs": {"9": None}}) == "0.500 (-) at round 9"
    assert page._against(lost, {"score": 0.7, "rungs": {}}) == "0.500 (-) at round 9"
