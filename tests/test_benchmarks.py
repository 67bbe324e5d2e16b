"""The studies in `benchmarks`: pages whose numbers are those of the runs, at a size of seconds."""

import importlib
import importlib.util
import io
import json
import pkgutil
import re
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest

import benchmarks
import benchmarks.__main__ as program
import tables
from benchmarks import (
    adaptation,
    cases,
    compute,
    defaults,
    floor,
    goals,
    memory,
    outcome,
    real_tables,
    table_sources,
    updates,
)
from benchmarks.adaptation import AdaptationOptions, Task
from benchmarks.compute import ComputeOptions, overtaking
from benchmarks.memory import MemoryOptions
from benchmarks.paired import Measure, decide, differences
from benchmarks.trajectories import Procedure, scores, start
from benchmarks.updates import UpdatesOptions, searched
from made_up import made
from metaleader import (
    FTML,
    MLP,
    TOE,
    Adam,
    Batch,
    ConvNet,
    MetaSGD,
    MultiHeadFTL,
    Problem,
    Retention,
    UserError,
    mean_squared_error,
    play,
    squared_error,
)
from metaleader.experiments import find
from metaleader.experiments.plans import Job
from metaleader.models import Shifted
from metaleader.results import metrics
from metaleader.results.formats import with_interval
from metaleader.results.metrics import Run
from metaleader.results.statistics import t_interval
from metaleader.runs.run import run
from metaleader.update import (
    GradientDescent,
    HeadFirst,
    Identity,
    InnerAdam,
    InnerMomentum,
    OptimizerSteps,
    UpdateProcedure,
)
from metaleader.update.meta import adapt
from problems import CURVES, points

TINY: Any = {"experiment": "sinusoid", "preset": "smoke", "rounds": 2, "seeds": 2}


class Here:
    """Runs jobs in this process, one after another, but for those of which `spared` says so."""

    slots = 1

    def __init__(self, *spared: tuple[str, int]) -> None:
        self.spared = spared

    def submit(self, job: Job) -> Future[str]:
        future: Future[str] = Future()
        left_out = (job.learner, job.seed) in self.spared
        future.set_result("failed: spared" if left_out else next(iter(run(job.plan(), resume=True).values())))
        return future

    def stop(self) -> None: ...

    def close(self) -> None: ...


def here(tasks: Sequence[Task], workers: int) -> int:
    for task in tasks:
        adaptation.perform(task)
    return 0


def table(page: Path, heading: str) -> list[dict[str, str]]:
    """The rows of the first table of a page whose first column has that heading."""
    lines = page.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    names = [cell.strip() for cell in lines[at].strip("|").split("|")]
    rows = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(names, (cell.strip() for cell in line.strip("|").split("|")), strict=True)))
    return rows


def made_up(
    learner: str, seed: int, scores: Sequence[float | None], outcome: str = "finished", higher: bool = True
) -> Run:
    """A round for every score, judged after 5 datapoints, where it is half, and after 10."""
    rows = [[None if score is None else score / 2, score] for score in scores]
    return made(rows, outcome, sizes=(5, 10), learner=learner, seed=seed, higher=higher)


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(benchmarks.__path__)])
def test_every_module_can_be_imported(name: str) -> None:
    try:
        module = importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("benchmarks", "metaleader"):
            raise
        pytest.skip(f"benchmarks.{name} needs {error.name}, of the extra [bench]")
    assert module.__doc__


def test_measures_are_means_over_rounds() -> None:
    run = made_up("a", 0, [0.1, 0.2, 0.3, 0.8])
    assert Measure(None, whole=True).of(run) == pytest.approx(0.35)
    assert Measure(5, whole=True).of(run) == pytest.approx(0.175)
    assert Measure(None, whole=False).of(run) == pytest.approx(0.55)  # the last two of four
    assert np.isnan(Measure(None, whole=False).of(made_up("a", 0, [0.1, 0.2, None])))
    assert Measure(None, whole=False).of(made_up("a", 0, [None, 0.2, 0.3])) == pytest.approx(0.3)
    assert np.isnan(Measure(None, whole=True).of(made_up("a", 0, [0.1, 0.2], "diverged")))


def test_differences_are_paired_by_seed_and_positive_where_better() -> None:
    for higher in (True, False):
        ours = [made_up("a", seed, [0.5 + 0.1 * seed], higher=higher) for seed in (2, 0, 1)]
        theirs = [made_up("b", seed, [0.3 + 0.1 * seed], higher=higher) for seed in (1, 2)]
        found = differences(Measure(None, True), ours, theirs)
        np.testing.assert_allclose(found, [0.2, 0.2] if higher else [-0.2, -0.2])


def test_decisions_are_corrected_over_their_family() -> None:
    alone = np.array([1.0, 1.1, 0.9, 1.4, 0.2, 1.3])
    weak = np.array([0.5, 0.0, 0.6, 0.3, 0.0, 0.5])  # p = 0.032 by itself
    assert decide({"weak": weak})["weak"].answer == "ahead"
    several = decide({"weak": weak, "strong": alone, "noise": weak - weak.mean(), "one seed": alone[:1]})
    assert [several[name].answer for name in ("strong", "weak", "noise", "one seed")] == ["ahead", *["undecided"] * 3]
    assert decide({"strong": -alone})["strong"].answer == "behind"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("bbaa", "overtakes between 1 and 3"),
        ("buaa", "overtakes between 0.3 and 3"),
        ("uuaa", "is shown to be ahead from 3 times the gradients on"),
        ("aaaa", "is ahead at every multiple tried"),
        ("aabb", "is ahead up to 1 times the gradients, and not shown to be beyond"),
        ("uubb", "is nowhere shown to be ahead"),
        ("abab", "is ahead at 0.3, 3; behind at 1, 10"),
    ],
)
def test_where_a_learner_overtakes_is_said(answers: str, said: str) -> None:
    meant: Any = {"a": "ahead", "b": "behind", "u": "undecided"}
    found = {factor: meant[answer] for factor, answer in zip((0.3, 1, 3, 10), answers, strict=True)}
    assert said in overtaking(found, "FTML")


@pytest.mark.slow
def test_compute_shows_the_scores_of_its_runs_and_says_what_is_missing(tmp_path: Path) -> None:
    options = ComputeOptions(
        **TINY, out=tmp_path / "runs", page=tmp_path / "page.md", factors=(0.2, 0.6), learners=("ftml", "toe")
    )
    assert compute.main(options, Here(("toe", 1))) == 1
    assert "**Not complete.** 2 of 8 runs have not ended" in options.page.read_text()
    assert "`toe` gradients=300: seed 1" in options.page.read_text()
    folders = sorted(path.parent for path in options.out.rglob("config.json"))
    before = {path: (path / "records.jsonl").stat().st_mtime_ns for path in folders if (path / "outcome.json").exists()}
    assert compute.main(options, Here()) == 0
    assert "Not complete" not in options.page.read_text()
    # What had ended was not made again, and the page can be written without running anything.
    assert before == {path: (path / "records.jsonl").stat().st_mtime_ns for path in before}
    assert compute.main(replace(options, page_only=True)) == 0
    rows = table(options.page, "learner")
    assert [(row["learner"], row["times"]) for row in rows] == [
        (learner, times) for learner in ("FTML", "TOE") for times in ("0.2", "0.6")
    ]
    runs = metrics.load([options.out])
    for row, (gradients, learner) in zip(rows, [(g, n) for n in ("ftml", "toe") for g in (300, 900)], strict=True):
        own = [r for r in runs if r.learner == learner and r.about.gradients == gradients]
        summary = metrics.summary(own)["learners"][f"{learner}"]
        assert row["at the end of rounds, last third"] == with_interval(summary["final_score"])
        assert row["after 5 datapoints, last third"] == with_interval(summary["score_at"]["5"])
        whole = metrics.final_scores(own).mean(axis=1)
        assert row["at the end of rounds, whole stream"] == with_interval(t_interval(whole))
        assert float(row["gradients, M"]) == pytest.approx(own[0].records[-1].learning_evaluations / 1e6, rel=0.01)
        assert int(row["steps"]) == own[0].about.settings["learner"]["meta_steps" if learner == "ftml" else "steps"]
    first = next(row for row in table(options.page, "against") if row["measure"] == "at the end of rounds, last third")
    finals = {
        name: [metrics.final_scores([r])[0, -1] for r in runs if r.learner == name and r.about.gradients == 300]
        for name in ("ftml", "toe")
    }
    better = -(np.array(finals["ftml"]) - np.array(finals["toe"]))  # an error: lower is better
    assert first["better by"] == with_interval(t_interval(better), sign=True)
    assert (tmp_path / "figures" / "page.png").stat().st_size > 10_000


@pytest.mark.slow
def test_compute_in_worker_processes_keeps_small_files_alone(tmp_path: Path) -> None:
    options = ComputeOptions(
        **{**TINY, "seeds": 1, "workers": 1}, out=tmp_path / "runs", page=tmp_path / "page.md", factors=(0.2,),
        learners=("toe",),
    )  # fmt: skip
    assert compute.main(options) == 0
    (folder,) = [path.parent for path in options.out.rglob("config.json")]
    kept = {path.name for path in folder.iterdir()}
    assert kept == {"config.json", "records.jsonl", "outcome.json"}


def test_studies_refuse_what_makes_no_sense(tmp_path: Path) -> None:
    compared = ComputeOptions(**TINY, out=tmp_path / "runs", page=tmp_path / "page.md")
    for options, message in (
        (replace(compared, factors=(0.0,)), "--factors must be positive, got 0"),
        (replace(compared, learners=("ftlm",)), "unknown learner 'ftlm': did you mean"),
        (replace(compared, seeds=0), "--seeds must be at least 1, got 0"),
        (replace(compared, experiment="cifar100", examples=5), "has no examples_per_task"),
        (replace(compared, experiment="rainbow-mnist", preset="paper", rounds=2), "the preset sets no gradients"),
        (replace(compared, page_only=True), "no run has ended"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            compute.main(options, Here())
    for changes, message in (
        ({"held_out": "tset"}, "did you mean test"),
        ({"sizes": (7,)}, "--sizes must be multiples of 5 up to 10, or 10; got 7"),
        ({"steps": (-1,)}, "--steps must be at least 0"),
        ({"page_only": True}, "nothing was measured"),
    ):
        given: Any = {**TINY, "out": tmp_path / "a", "page": tmp_path / "page.md", **changes}
        with pytest.raises(UserError, match=re.escape(message)):
            adaptation.main(AdaptationOptions(**given), here)
    assert not (tmp_path / "page.md").exists()


def problem() -> tuple[Problem, Any, Batch, Batch]:
    random = np.random.default_rng(0)
    x = random.uniform(-2, 2, (20, 1)).astype(np.float32)
    whole = Batch.of(x, np.sin(x))
    mlp = Problem(MLP(), squared_error, mean_squared_error)
    return mlp, mlp.init(jax.random.key(1)), whole[:12], whole[12:]


@pytest.mark.parametrize("kind", ["descent", "momentum", "adam", "head first"])
def test_one_pass_judges_as_adapting_anew_does(kind: Any) -> None:
    mlp, params, train, test = problem()
    marks = (0, 1, 3, 8)
    head = HeadFirst(3, 0.05) if kind == "head first" else None
    procedure = Procedure("descent" if head else kind, head)
    found = scores(mlp, procedure, 0.02, marks, params, train, test)
    for mark, score in zip(marks, found, strict=True):
        anew: dict[str, UpdateProcedure] = {
            "descent": GradientDescent(mark, 0.02),
            "momentum": OptimizerSteps(mark, InnerMomentum(0.02)),
            "adam": OptimizerSteps(mark, InnerAdam(0.02)),
            "head first": replace(head or HeadFirst(), steps=mark, step_size=0.02),
        }
        outputs = mlp.predict(adapt(mlp, anew[kind], params, train), test.inputs)
        _, expected = mlp.judge(outputs, test)
        np.testing.assert_allclose(score, expected["squared error"], rtol=1e-4)


@pytest.mark.slow
def test_adaptation_agrees_with_the_protocol_at_the_learners_own_steps(tmp_path: Path) -> None:
    """The preset's own adaptation, judged by the protocol, is a point on the curve of its own procedure."""
    experiment = find("coloured-digits")
    ftml = experiment.preset("smoke").learners["ftml"]
    assert isinstance(ftml, FTML)
    assert isinstance(ftml.update, GradientDescent)
    own_steps, own_size = ftml.adapt_steps or ftml.update.steps, ftml.update.step_size
    options = AdaptationOptions(
        experiment="coloured-digits", preset="smoke", rounds=2, seeds=1, learners=("ftl", "ftml"), sizes=(10,),
        steps=(0, own_steps), descent=(own_size,), momentum=(0.1,), adam=(0.01,), out=tmp_path / "a",
        page=tmp_path / "page.md",
    )  # fmt: skip
    assert adaptation.main(options, here) == 0
    results = {path.stem: json.loads(path.read_text()) for path in options.out.rglob("*.json")}
    assert sorted(results) == ["ftl-seed-1000", "ftml-seed-1000"]
    assert results["ftml-seed-1000"]["settings"]["stream"]["held_out"] == "validation"
    of_ftml = results["ftml-seed-1000"]
    at_own_steps = np.array(of_ftml["found"]["descent"])[0, :, :, 1]
    np.testing.assert_allclose(at_own_steps, of_ftml["own"], atol=0.021)  # one of 50 images, by rounding
    # FTL begins with a fresh head where labels are permuted.
    assert "head first, descent" in results["ftl-seed-1000"]["found"]
    rows = [row for row in table(options.page, "learner") if row["learner"] == "FTML" and row["datapoints"] == "10"]
    shown = {row["procedure"]: row for row in rows}["descent"]
    curve = np.array(of_ftml["found"]["descent"])[0, :, 0].mean(axis=0)  # over rounds
    assert shown["score"] == with_interval([float(curve.max()), None, None])
    assert shown["steps"] == (f"{own_steps}*" if curve[1] > curve[0] else "0")
    with pytest.raises(UserError, match="was made with steps"):
        adaptation.main(replace(options, steps=(0, 1)), here)


def test_updates_take_searched_settings_and_say_which_were_not(tmp_path: Path) -> None:
    found = {
        "experiment": "sinusoid",
        "learners": {
            "ftml-first-order": {"best": {"settings": {"ftml-first-order.update.step-size": 0.007}}},
            "ftml-reptile": {"best": None},
            "toe": {"best": {"settings": {"toe.steps": 3}}},
        },
    }
    tuned = tmp_path / "tune.json"
    tuned.write_text(json.dumps(found))
    options = UpdatesOptions(
        **TINY, out=tmp_path / "runs", page=tmp_path / "page.md", tuned=(tuned, tmp_path / "absent.json"),
        learners=("ftml-second-order", "ftml-first-order"),
    )  # fmt: skip
    assert updates.main(options, Here()) == 0
    runs = {r.learner: r.about.settings["learner"] for r in metrics.load([options.out])}
    assert runs["ftml-first-order"]["update"]["step_size"] == 0.007
    assert runs["ftml-first-order"]["update"]["first_order"]
    assert runs["ftml-second-order"]["update"]["step_size"] == 0.003
    text = options.page.read_text()
    assert "`ftml-second-order` ran with the preset's settings, **which were not searched for them**" in text
    assert "- First order against second order, " in text
    (first, second) = sorted(table(options.page, "learner"), key=lambda row: row["learner"])
    assert int(first["meta-steps"]) > int(second["meta-steps"])
    summary = metrics.summary(metrics.load([options.out]))["learners"]
    assert first["final"] == with_interval(summary["ftml-first-order"]["final_score"])
    with pytest.raises(UserError, match="is a search of sinusoid"):
        searched([tuned], find("pose"), ["ftml"])


def test_memory_counts_draws_at_the_steps_that_gradients_pay_for(tmp_path: Path) -> None:
    options = MemoryOptions(
        **{**TINY, "seeds": 1},
        out=tmp_path / "runs",
        page=tmp_path / "page.md",
        percent=(50,),
        policies=("reservoir",),
        shift=0,
    )
    assert memory.main(options, Here()) == 0
    rows = {row["learner"]: row for row in table(options.page, "learner")}
    ftml = find("sinusoid").preset("smoke").learners["ftml"]
    assert isinstance(ftml, FTML)
    assert ftml.meta_steps != FTML().meta_steps
    draws = 4 * ftml.meta_steps * ftml.meta_batch * (ftml.train_size + ftml.validation_size)  # 2 rounds of 2 chunks
    assert rows["`ftml`"]["datapoints kept"] == "20"
    assert rows["`ftml`"]["draws of each"] == f"{draws / 20:.0f}"
    assert rows["`ftml-reservoir-50`"]["draws of each"] == f"{draws / 10:.0f}"
    # Streaming keeps one task of 10 datapoints, and has drawn from all of them by the end.
    assert rows["`streaming`"]["datapoints kept"] == "10"
    streaming = find("sinusoid").preset("smoke").learners["streaming"]
    assert rows["`streaming`"]["draws of each"] == f"{4 * memory.drawn(streaming) / 20:.0f}"
    half = 4 * (ftml.meta_steps // 2) * ftml.meta_batch * (ftml.train_size + ftml.validation_size)
    assert rows["`ftml-reservoir-50-half`"]["draws of each"] == f"{half / 10:.0f}"


def test_a_goal_stands_next_to_what_the_best_of_the_variants_reached(tmp_path: Path) -> None:
    def summary(experiment: str, preset: str, **learners: dict[str, Any]) -> None:
        folder = tmp_path / "results" / f"{experiment}-{preset}"
        folder.mkdir(parents=True)
        about = {"experiment": experiment, "preset": preset, "title": f"{experiment} ({preset})"}
        (folder / "summary.json").write_text(json.dumps({**about, "learners": learners}))

    def learner(final: float, few: float) -> dict[str, Any]:
        return {"final_score": [final, 0, 1], "score_at": {n: [few, 0, 1] for n in ("20", "50", "250", "2000")}}

    summary("rainbow-mnist", "laptop", ftml=learner(0.96, 0.93), **{"ftml-ridge": learner(0.97, 0.98)})
    summary("cifar100", "full", ftml=learner(0.9, 0.5), scratch=learner(0.9, 0.4))
    summary("cifar100", "laptop", ftml=learner(0.9, 0.9), scratch=learner(0.9, 0.1))  # no goal for this
    page = tmp_path / "goals.md"
    assert goals.main(goals.Options((tmp_path / "results", tmp_path / "absent"), page)) == 0
    rows = [row.split(" | ") for row in page.read_text().splitlines() if row.startswith("| ")][2:]
    assert [row[2:] for row in rows] == [
        ["0.98", "at least 0.97", "reached |"],
        ["0.97", "at least 0.98", "not reached |"],
        ["10", "at least 15", "not reached |"],
        ["10", "at least 15", "not reached |"],
        ["10", "at least 0", "reached |"],
        ["-", "at most 60", "not run |"],
    ]
    assert rows[0][0] == "| [rainbow-mnist (laptop)](results/rainbow-mnist-laptop/report.md)"


def test_the_goal_for_a_tenth_of_the_memory_is_measured_by_the_policy_that_loses_least(tmp_path: Path) -> None:
    options = MemoryOptions(
        **TINY,
        out=tmp_path / "runs",
        page=tmp_path / "page.md",
        percent=(10,),
        policies=("reservoir", "last"),
        shift=0,
        halve=False,
    )
    memory.main(options, Here())
    text = options.page.read_text()
    (least,) = re.findall(r"Goal: at most 1.5 points lost with a tenth. The least is lost by `(.*?)`", text)
    lost = {row["learner"].strip("`"): row for row in table(options.page, "learner")}
    assert least in {"ftml-reservoir-10", "ftml-last-10"} & set(lost)
    gained = {name: float(by) for name, by in re.findall(r"^- `(.*?)`: ([+-][\d.]+)", text, re.MULTILINE)}
    assert least == max(gained, key=lambda name: gained[name])


def test_memory_shifts_images_only(tmp_path: Path) -> None:
    preset = find("rainbow-digits").preset("smoke")
    options = MemoryOptions(percent=(30, 10, 1), policies=("last",), shift=1)
    moved = memory.shifted(preset, memory.learners(preset, options, 100), options)
    assert moved is not None
    assert moved.model == Shifted(preset.model, 1)
    assert list(moved.learners) == ["ftml-shifted", "ftml-last-10-shifted"]
    with pytest.raises(UserError, match="--shift 2 needs images, which sinusoid has not"):
        memory.main(MemoryOptions(**TINY, out=tmp_path / "runs"), Here())


def test_a_memory_of_tasks_keeps_the_largest_neighbours() -> None:
    for budget, kept in ((1, 9), (2, 13), (5, 20)):
        assert memory.datapoints_kept(FTML(retention=Retention("last", budget, "tasks")), [4, 9, 3, 4]) == kept


def test_adapting_sets_out_from_what_was_learned_for_the_task_observed_last() -> None:
    own = MultiHeadFTL(steps=2, batch_size=4, tasks=3, optimizer=Adam(0.1, average=0.5), update=Identity())
    state = own.init(CURVES, jax.random.key(0), points(1))
    for seed, task in enumerate(("a", "b", "a")):
        state, _ = own.observe(CURVES, state, task, points(6, seed))
    found = start(CURVES, own, state, "a", points(6))
    of_a, of_b = (own.adapt(CURVES, state, task, points(6))[0] for task in ("a", "b"))
    assert jax.tree.all(jax.tree.map(np.array_equal, found, of_a))
    assert not np.array_equal(found["head"]["kernel"], of_b["head"]["kernel"])
    with pytest.raises(UserError, match="step sizes that are learned cannot be replaced"):
        start(CURVES, FTML(MetaSGD()), state, "a", points(6))
    with pytest.raises(UserError, match="TOE has no update procedure"):
        start(CURVES, TOE(), state, "a", points(6))


def run_part(part: str, *arguments: str) -> str:
    """What `python -m benchmarks.PART ARGUMENTS` prints, made in this process."""
    file = f"{benchmarks.__path__[0]}/{part}.py"
    with mock.patch.object(sys, "argv", [file, *arguments]), redirect_stdout(io.StringIO()) as said:
        runpy.run_path(file, run_name="__main__")
    return said.getvalue()


@pytest.fixture
def small_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts measure a small net, all in this process, and take what was compiled before: their figures mean nothing."""
    monkeypatch.setitem(cases.CASES, "rainbow-mnist", cases.Case("small net", ConvNet(depth=2, filters=4, stride=2)))
    of_part: Any = lambda part, *arguments: json.loads(run_part(part, *arguments).splitlines()[-1])  # noqa: E731
    monkeypatch.setattr(outcome, "in_own_process", of_part)
    monkeypatch.setattr(jax.config, "update", lambda name, _: None)


def started_by(run: Callable[..., None]) -> SimpleNamespace:
    """`subprocess` for the program alone: others, `platform` among them, start processes too."""
    errors = {name: getattr(subprocess, name) for name in ("CalledProcessError", "TimeoutExpired")}
    return SimpleNamespace(run=run, **errors)


@pytest.mark.slow  # a quarter of a minute
def test_all_parts_make_a_page(
    small_net: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def part_of(command: Sequence[str], **_: Any) -> None:
        module, *arguments = command[2:]
        run_part(module.removeprefix("benchmarks."), *arguments)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "subprocess", started_by(part_of))
    assert program.run(program.Options(parts=("rounds", "scaling"), quick=True)) == 0
    folder = tmp_path / "runs" / "benchmarks"
    found = {path.stem: outcome.load(path) for path in folder.rglob("*.json")}
    assert sorted(found) == ["rounds", "scaling"]
    text, said = (folder / "benchmarks.md").read_text(), capsys.readouterr().out
    assert "At a reduced size" in text
    for name, of_part in found.items():
        assert (folder / "figures" / "benchmarks" / f"{name}.png").stat().st_size > 10_000
        assert all(outcome.as_text(each).strip() in text for each in of_part.tables)
        assert all(outcome.sentence(bar) in said for bar in of_part.bars)
    (stored,) = found["rounds"].tables
    held = {tuple(row[:2]): float(row[-1]) for row in stored.rows}
    assert held["FTML, reservoir of 1000", "60"] == held["FTML, last 1000", "60"] == held["FTML, last 1000", "2"]
    assert held["FTML", "60"] > 1.5 * held["FTML", "2"]  # 20 of each task, and what was observed since
    by_steps, by_datapoints = found["scaling"].tables
    assert [row[0] for row in by_steps.rows] == ["5", "80"]
    assert [row[0] for row in by_datapoints.rows] == ["10", "100"]


def test_a_part_that_fails_is_said_and_one_that_does_not_exist_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(command: Sequence[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(3, command)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "subprocess", started_by(failing))
    assert program.run(program.Options(parts=("runs", "speed"))) == 2
    assert "there is no part speed: choose from " in capsys.readouterr().err
    assert program.run(program.Options(parts=("runs", "rounds"), quick=True)) == 1
    said = capsys.readouterr().err
    assert "runs failed: " in said
    assert "rounds failed: " in said
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def in_processes(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of their own find the benchmarks and the data."""
    monkeypatch.setenv("PYTHONPATH", str(Path(benchmarks.__path__[0]).parent))


def test_the_page_of_real_tables_says_how_much_is_lost_by_ftmls_own_settings(tmp_path: Path) -> None:
    made_up: dict[str, list[float | None]] = {
        "Exam": [1.1, 1.0, None],
        "Milk": [2.0, 3.0, 4.0],
        "Wafer": [None, 3.0, 4.0],
    }
    for name, errors in made_up.items():
        (tmp_path / name).mkdir()
        trials: list[dict[str, Any]] = [{"settings": {}, "error": error} for error in errors]
        found = {"tasks": 39, "learners": {"ftml-linear": trials}}
        (tmp_path / name / "defaults.json").write_text(json.dumps(found))
    text = real_tables.write(tmp_path).read_text()
    assert "best of 3 that its search would try" in text
    assert "| Milk | 39 | 0.0 % |\n| Wafer | 39 | diverges |\n| Exam | 39 | 10.0 % |" in text


def test_tables_that_are_made_have_the_tasks_that_they_are_said_to_have() -> None:
    digits = table_sources.writers()
    assert digits.groupby("block").size().between(138, 139).all()
    assert (digits.block.nunique(), digits.digit.nunique(), len(digits.columns)) == (13, 10, 66)


def test_a_watch_is_cut_into_windows() -> None:
    pytest.importorskip("seglearn", reason="needs the extra [data]")
    watch = table_sources.watch()
    assert (watch.person.nunique(), watch.exercise.nunique(), len(watch.columns)) == (10, 7, 27)
    assert (watch.acceleration_x_min <= watch.acceleration_x_mean).all()
    assert (watch.acceleration_x_mean <= watch.acceleration_x_max).all()


@pytest.mark.slow
def test_own_settings_are_the_first_to_be_measured(in_processes: None) -> None:
    source = table_sources.Source("", "task", "y", "", made=lambda: tables.table("common", 0, tasks=12, rows=9))
    options = defaults.Defaults(trials=2, tasks=10, workers=1)
    found = defaults.measure("made-up", source, options)
    assert found["tasks"] == 8  # of 10, without the first
    first, second = found["learners"]["ftml-linear"]
    assert first["settings"] == {}
    assert second["settings"] != {}
    assert 0.2 < first["error"] < 2


@pytest.mark.slow
@pytest.mark.parametrize("part", ["assessing", "large_table"])
def test_what_tables_take_is_measured_in_processes_of_their_own(
    part: str, in_processes: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run_part(part, "--quick", "--result", str(tmp_path / "found.json"))
    bars = outcome.load(tmp_path / "found.json").bars
    assert all(0.1 < bar.value < 2 for bar in bars if bar.unit == " GB")  # the time says how busy the machine is
    assert [path.name for path in (tmp_path / "runs").rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_the_time_to_the_first_answer_is_that_of_processes_which_end_well(tmp_path: Path) -> None:
    run_part("starting", "--quick", "--result", str(tmp_path / "found.json"))
    (found,) = outcome.load(tmp_path / "found.json").tables
    assert {"metaleader list", "first record, cold", "first record, warm"} < {row[0] for row in found.rows}
    assert all(float(cpu) > 0 for _, cpu, _ in found.rows)


@pytest.mark.slow
def test_a_served_learner_is_measured_beside_what_it_is_compared_with(tmp_path: Path) -> None:
    run_part("serving", "--quick", "--result", str(tmp_path / "found.json"))
    answers, adapting = outcome.load(tmp_path / "found.json").tables
    assert [row[0] for row in answers.rows] == ["live", "floor", "river"]
    assert all(float(row[1]) > 0 and float(row[4]) > 0 for row in answers.rows)
    assert len(adapting.rows) == 1


def test_what_a_checkpoint_writes_is_measured(tmp_path: Path) -> None:
    run_part("saving", "--quick", "--result", str(tmp_path / "found.json"))
    (table,) = outcome.load(tmp_path / "found.json").tables
    assert [row[0] for row in table.rows] == ["10", "100"]
    for _, whole, written, _ in table.rows:
        assert 0 < float(written) <= float(whole)


@pytest.mark.slow
def test_a_run_compiles_its_programs_once(in_processes: None, tmp_path: Path) -> None:
    run_part("compiling", "--quick", "--learners", "toe", "--result", str(tmp_path / "found.json"))
    cold, warm = outcome.load(tmp_path / "found.json").tables[0].rows
    assert (cold[:2], warm[:2]) == (("toe", "cold"), ("toe", "warm"))
    assert int(cold[-1]) == int(warm[-1]) > 5
    assert float(cold[2]) > 0


@pytest.mark.slow
def test_a_run_whose_time_is_taken_gives_what_it_gives_otherwise(
    in_processes: None, data_dir: Path, tmp_path: Path
) -> None:
    run_part("runs", "--quick", "--learners", "toe", "--result", str(tmp_path / "found.json"))
    ((name, rounds, total, *spent, score),) = outcome.load(tmp_path / "found.json").tables[0].rows
    experiment = find("rainbow-mnist")
    preset = experiment.preset("smoke")
    stream = preset.stream.stream(0, data_dir)
    ends = {
        record.round: record.score
        for record in play(experiment.problem(preset), stream, preset.learners["toe"], preset.protocol)
    }
    assert (name, rounds) == ("toe", str(len(stream)))
    assert score == f"{np.mean([of for t, of in ends.items() if of is not None and t > len(stream) / 2]):.3f}"
    assert sum(float(each.split()[0]) for each in spent) == pytest.approx(float(total), abs=0.3)  # rounded to 0.1


def test_all_libraries_agree_on_the_meta_gradient(small_net: None, tmp_path: Path) -> None:
    for needed in ("torch", "higher", "torchopt", "metalearn"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"benchmarks.meta_gradient needs {needed}, of the extra [bench]")
        with warnings.catch_warnings(action="ignore"):  # compiling their sources for the first time
            importlib.import_module(needed)
    sizes = ["--cases", "rainbow-mnist", "--train", "4", "--validation", "4", "--steps", "1"]
    run_part("meta_gradient", "--quick", *sizes, "--result", str(tmp_path / "found.json"))
    measured = outcome.load(tmp_path / "found.json")
    (found,) = measured.tables
    apart = {row[0]: row[4:6] for row in found.rows if not row[0].startswith("floor")}
    assert len(apart) == 5
    assert all(float(each) < 1e-6 for pair in apart.values() for each in pair)
    times = {row[0]: float(row[1]) for row in found.rows}
    (own,) = [bar for bar in measured.bars if bar.what.endswith("XLA's own products")]
    assert own.value == pytest.approx(times["metaleader"] / times[floor.XLA], rel=0.1)


def test_the_floor_is_the_products_of_the_definition() -> None:
    """A gradient takes three products a layer, two in the first; a Hessian-vector product twice as many, and two."""
    case = cases.Case("small", MLP(inputs=3, outputs=2, width=5, depth=1), regression=True)
    layers = floor.layers(case, case.model.init(jax.random.key(0)))
    assert [layer[1:] for layer in layers] == [(3, 5), (5, 2)]
    train, validation, steps = 7, 11, 4
    products = floor.meta_gradient_products(layers, train, validation, steps)
    first = 2 * 3 * 5 * (steps * train * (2 + 2) + validation * 2)
    second = 2 * 5 * 2 * (steps * train * (3 + 6) + validation * 3)
    assert floor.operations(products) == first + second
    for contender in (floor._by_xla, floor._by_numpy):
        contender(dict(products), jax.local_device_count())()


@pytest.mark.parametrize("study", ["adaptation", "compute", "memory", "updates"])
def test_a_mistake_is_one_line_and_exit_code_2(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_part(study, "--seeds", "0")
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: --seeds must be at least 1, got 0\n"
