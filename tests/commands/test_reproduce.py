"""Reproducing the paper: which runs that takes, going on, and the page of verdicts."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import call
from made_up import folder, made
from metaleader import EXPERIMENTS, UserError
from metaleader.commands import reproduce as reproduction
from metaleader.results import overtaking, verdict_page
from metaleader.results.claims import claimed

LEARNERS = ("ftml", "ftl", "toe", "scratch")

pytestmark = pytest.mark.usefixtures("blank_figures")  # reports are drawn in results/test_metrics.py


def planned(names: tuple[str, ...] = (), settings: tuple[str, ...] = (), seeds: int | None = None) -> Any:
    return reproduction.planned_jobs(names, "smoke", seeds, settings, Path("out"), None, "")


def test_a_run_for_every_experiment_learner_and_seed() -> None:
    jobs = planned()
    for name in claimed():
        own = [job for job in jobs if job.experiment == name]
        experiment = EXPERIMENTS[name]
        assert len(own) == len(experiment.compared) * experiment.seeds
        assert {job.out for job in own} == {Path("out").absolute() / name}
        assert own[0].setting == ()
    assert len(planned(("sinusoid",), seeds=2)) == 2 * len(LEARNERS)


@pytest.mark.parametrize("value", ["batch", "task"])
def test_a_setting_has_folders_of_its_own_in_the_experiments_that_it_changes(value: str) -> None:
    # Where the preset has that value already, there would be nothing new; sinusoids have no normalisation.
    models = {name: EXPERIMENTS[name].preset("smoke").model for name in claimed()}
    differing = {name for name, model in models.items() if getattr(model, "norm", value) != value}
    if not differing:
        with pytest.raises(UserError, match="changes nothing in rainbow-mnist, cifar100"):
            planned(settings=(f"model.norm={value}",))
        return
    jobs = planned(settings=(f"model.norm={value}",), seeds=1)
    assert {job.experiment for job in jobs} == differing
    assert {job.out.name for job in jobs} == {f"model.norm={value}"}
    assert all(job.setting == (f"model.norm={value}",) for job in jobs)


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (("sinusoids",), (), "unknown experiment 'sinusoids': did you mean sinusoid"),
        (("sinusoid",), ("model.norm=batch",), "--set model.norm=batch changes nothing in sinusoid"),
        ((), ("ftml.meta-steps=4",), "--set ftml.meta-steps is a setting of ftml"),
        (("coloured-mnist",), ("model.norm=bath",), "model.norm"),
        ((), ("model.norm",), "--set takes NAME=VALUE"),
    ],
)
def test_what_makes_no_sense_is_refused(names: tuple[str, ...], settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        planned(names, settings)


def test_a_command_that_makes_no_sense_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--experiment", "sinusoids"], "unknown experiment 'sinusoids': did you mean sinusoid"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--workers", "0"], "--workers must be at least 1, got 0"),
        (["--report-only", "--out", str(tmp_path)], "holds no run of an experiment of the paper"),
    ):
        assert call("reproduce", *arguments) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_reproduce_ends_in_a_page_and_keeps_what_has_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--experiment", "sinusoid", "--preset", "smoke", "--seeds", "1", "--out", str(out)]
    assert call("reproduce", *arguments) == 0
    assert "index.html" in capsys.readouterr().out
    found = json.loads((out / "verdicts.json").read_text())["sections"]
    assert [(section["experiment"], len(section["claims"])) for section in found] == [("sinusoid", 6)]
    assert all(claim["seeds"] == [0] for claim in found[0]["claims"])
    for run in found[0]["runs"]:
        records = out / run["run"] / "records.jsonl"
        assert run["records_sha256"] == hashlib.sha256(records.read_bytes()).hexdigest()
    (link,) = re.findall(r"\]\((.*\.md)\)", (out / "verdicts.md").read_text())
    pictures = re.findall(r"!\[.*\]\((.*)\)", (out / link).read_text())
    assert len(pictures) == 6
    assert all(((out / link).parent / picture).exists() for picture in pictures)

    # A clone has the small files alone; one run more is missing.
    for kept in out.rglob("checkpoints"):
        shutil.rmtree(kept)
    shutil.rmtree(out / "sinusoid" / "toe" / "seed-0")
    written = {path: path.stat().st_mtime_ns for path in out.rglob("records.jsonl")}
    assert call("reproduce", *arguments, "--resume") == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert (out / "sinusoid" / "toe" / "seed-0" / "outcome.json").exists()
    assert call("reproduce", *arguments) == 2
    assert "exists already: go on with it by --resume" in capsys.readouterr().err


# Pages, from made-up runs.


def sinusoids(path: Path, name: str = "sinusoid", setting: str = "", differs: str = "") -> Path:
    """Runs in which FTML is 0.3 behind in the first five of nine rounds, and 0.6 ahead afterwards."""
    random, higher = np.random.default_rng(0), EXPERIMENTS[name].score.higher_is_better
    lead = np.where(np.arange(9) < 5, -0.3, 0.6)[:, None]
    for learner in LEARNERS:
        for seed in range(3):
            scores = 2 + (1 if higher else -1) * (lead * (learner == "ftml") + random.normal(0, 0.01, (9, 3)))
            run = made(scores.tolist(), experiment=name, learner=learner, seed=seed, higher=higher)
            extra = {"setting": [setting] if setting else [], "commit": "0123abc", "differs": differs}
            folder(path / name / setting / learner / f"seed-{seed}", run, extra=extra)
    return path


def test_the_page_begins_with_what_a_reader_may_believe(tmp_path: Path) -> None:
    sinusoids(sinusoids(tmp_path), "coloured-mnist", "model.norm=batch")
    page, judged = verdict_page.conclude(tmp_path)
    assert [title for title, _ in judged] == ["sinusoid (laptop)", "coloured-mnist (laptop) model.norm=batch"]
    text, html = (tmp_path / "verdicts.md").read_text(), page.read_text()
    checksum = hashlib.sha256((tmp_path / "sinusoid" / "ftml" / "seed-0" / "records.jsonl").read_bytes()).hexdigest()
    for each in (text, html.replace("&#x27;", "'")):
        assert each.index("What a reader may believe") < each.index("Shown") < each.index("p (Holm)")
        assert "3 seeds, 2 cores, laptop preset" in each
        assert "the authors' normalisation, in which held-out images help to predict one another" in each
        assert "from round 8" in each  # in the mean of rounds 2 to 8, 4 of -0.3 and 3 of 0.6
        assert each.count(checksum) == 1
        assert "0123abc" in each
    pictures = re.findall(r"\((\S+\.png)\)", text)
    assert len(pictures) == 2
    assert all((tmp_path / picture).exists() and f'src="{picture}"' in html for picture in pictures)


def test_notes_stand_with_their_experiment(tmp_path: Path) -> None:
    notes = "General.\n\n## sinusoid\n\nThree rounds are few.\n\nSee a < b.\n\n## Machines\n\nTwo.\n"
    (tmp_path / "notes.md").write_text(notes)
    (sinusoids(tmp_path, differs="16 of 96 rounds") / "sinusoid" / "toe" / "seed-2" / "outcome.json").unlink()
    page, judged = verdict_page.conclude(tmp_path)
    text, html = (tmp_path / "verdicts.md").read_text(), page.read_text()
    parts = ["## sinusoid (laptop): 16 of 96 rounds\n", "Three rounds are few.\n\nSee a < b.", "## Notes", "General."]
    places = [text.index(part) for part in [*parts, "## Machines\n\nTwo."]]
    assert places == sorted(places)
    assert "<p>Three rounds are few.</p><p>See a &lt; b.</p>" in html
    assert (tmp_path / "sinusoid" / "report.md").read_text().startswith(f"# {parts[0][3:]}")
    # One run is under way.
    assert {v.claim.worse: v.seeds for v in judged[0][1]} == {"ftl": (0, 1, 2), "toe": (0, 1), "scratch": (0, 1, 2)}
    assert "FTML ends better than TOE (2 of 3 seeds)" in text
    assert "1 of 12 runs have not ended and are left out." in text


def test_overtaking_is_drawn_and_said() -> None:
    runs = [
        made([[score, score, score] for score in finals], learner=name, seed=seed)
        for seed in range(3)
        for name, finals in (
            ("ftml", [0.1, 0.5, 0.9]),
            ("ftl", [0.0] * 3),
            ("toe", [0.2 + 0.1 * seed] * 3),
            ("x", [1.0] * 3),
        )
    ]
    assert [row[1:] for row in overtaking.rows(runs)] == [
        ["from the first round"] * 2, ["from round 3"] * 2, ["never"] * 2,
    ]  # fmt: skip
    drawn = overtaking.figure(runs)
    assert drawn is not None
    for panel in drawn[0].axes:
        lines = {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in panel.lines}
        np.testing.assert_allclose(lines["over TOE"], [-0.2, 0.0, 0.2], atol=1e-9)
    assert overtaking.figure([run for run in runs if run.learner != "ftml"]) is None
