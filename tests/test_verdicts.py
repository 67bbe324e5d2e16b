"""Verdicts on the paper's claims: by hand on records with known answers, and the command that makes them."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import call
from metaleader import EXPERIMENTS, Record, figures, metrics, verdicts
from metaleader.experiments import find
from metaleader.metrics import Run
from metaleader.verdicts import EFFICIENCY, FEW, FINAL, Claim, judge

CLAIM = Claim("made-up", "a ends better than b", "nowhere", FINAL, "a", "b")


def run_of(learner: str, seed: int, finals: list[float], cost: int = 1, outcome: str | None = "finished") -> Run:
    """Rounds of two sizes, 10 and 20; the score at 10 is half of that at 20, and a round costs `cost` gradients."""
    config: Any = {
        "experiment": "made-up",
        "learner": learner,
        "seed": seed,
        "rounds": len(finals),
        "settings": {"protocol": {"threshold": 0.5}},
        "score": {"name": "accuracy", "higher_is_better": True},
    }
    records = [
        Record(t, "", size, 0.0, final * size / 20, False, cost * t, 0.0, 0.0)
        for t, final in enumerate(finals, start=1)
        for size in (10, 20)
    ]
    return Run(config, tuple(records), outcome)


def test_the_paired_difference_over_seeds_decides() -> None:
    a = [run_of("a", seed, [0, 0, 0.6 + 0.1 * seed]) for seed in range(3)]
    b = [run_of("b", seed, [0, 0, 0.4 + 0.1 * seed]) for seed in range(3)]
    verdict = judge(CLAIM, [*a, *b])
    assert verdict is not None
    assert verdict.seeds == (0, 1, 2)
    # Seeds differ by more than the learners do, and still each pair differs by 0.2: pairing makes it certain.
    np.testing.assert_allclose(np.array(verdict.equal_datapoints.difference, float), 0.2)
    assert verdict.equal_datapoints.verdict == "holds"
    swapped = judge(replace(CLAIM, better="b", worse="a"), [*a, *b])
    assert swapped is not None
    assert swapped.equal_datapoints.verdict == "does not hold"
    mixed = judge(CLAIM, [run_of("a", 0, [0.5]), run_of("b", 0, [0.4]), run_of("a", 1, [0.4]), run_of("b", 1, [0.5])])
    assert mixed is not None
    assert mixed.equal_datapoints.verdict == "undecided"


def test_no_better_holds_unless_it_is_better() -> None:
    runs = [run_of(name, seed, [score]) for seed in range(2) for name, score in (("a", 0.5), ("b", 0.6))]
    claim = replace(CLAIM, no_better=True)
    for tested, expected in ((claim, "holds"), (replace(claim, better="b", worse="a"), "does not hold")):
        verdict = judge(tested, runs)
        assert verdict is not None
        assert verdict.equal_datapoints.verdict == expected


def test_equal_compute_stops_the_dearer_learner_early() -> None:
    dear, cheap = [0.1, 0.2, 0.3, 0.4, 0.5, 0.9], [0.1, 0.2, 0.3, 0.4, 0.4, 0.6]
    runs = [run_of("a", seed, dear, cost=2) for seed in (0, 1)] + [run_of("b", seed, cheap) for seed in (0, 1)]
    verdict = judge(CLAIM, runs)
    assert verdict is not None
    assert verdict.equal_datapoints.difference[0] == pytest.approx((0.5 + 0.9) / 2 - (0.4 + 0.6) / 2)
    # With six gradients `a` has completed three rounds, of which the last third is one: 0.3.
    assert verdict.equal_compute.difference[0] == pytest.approx(0.3 - (0.4 + 0.6) / 2)
    assert verdict.equal_compute.verdict == "does not hold"
    assert verdict.gradient_evaluations == (12, 6)


def test_efficiency_counts_censored_tasks_with_all_their_datapoints() -> None:
    runs = [run_of("a", 0, [0.1, 0.1, 1.0]), run_of("b", 0, [0.1, 0.1, 0.1])]  # a reaches 0.5 at 10, b never does
    verdict = judge(replace(CLAIM, measure=EFFICIENCY), runs)
    assert verdict is not None
    assert verdict.equal_datapoints.difference == [10.0, None, None]
    assert verdict.equal_datapoints.verdict == "not judged"
    itself = judge(replace(CLAIM, measure=EFFICIENCY, worse=None), runs)
    assert itself is not None
    assert itself.equal_datapoints.difference[0] == 10  # 20 datapoints in the first third, 10 in the last
    few = judge(replace(CLAIM, measure=FEW), runs)
    assert few is not None
    assert few.equal_datapoints.difference[0] == pytest.approx(0.45)


def test_unfinished_runs_and_other_experiments_are_not_judged() -> None:
    assert judge(CLAIM, [run_of("a", 0, [0.5]), run_of("b", 1, [0.5])]) is None
    assert judge(CLAIM, [run_of("a", 0, [0.5], outcome=None), run_of("b", 0, [0.5])]) is None
    assert judge(replace(CLAIM, experiment="other"), [run_of("a", 0, [0.5]), run_of("b", 0, [0.5])]) is None
    lost = judge(CLAIM, [run_of("a", 0, [0.5], outcome="diverged"), run_of("b", 0, [0.5])])
    assert lost is not None
    assert lost.equal_datapoints.difference[0] is None


def test_every_claim_is_about_learners_that_its_experiment_compares() -> None:
    for claim in verdicts.CLAIMS:
        if claim.experiment in EXPERIMENTS:
            compared = find(claim.experiment).compared
            assert {claim.better, claim.worse or claim.better} <= set(compared), claim


def test_reproduce_ends_in_a_page_of_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--experiment", "sinusoid", "--preset", "smoke", "--seeds", "2", "--out", str(out)]
    assert call("reproduce", *arguments) == 0
    (out / "notes.md").write_text("Three rounds are too few.\n\nSee a < b.\n")  # written once the verdicts were seen
    assert call("reproduce", *arguments, "--resume") == 0
    found = json.loads((out / "verdicts.json").read_text())
    assert [(v["experiment"], v["seeds"]) for v in found] == [("sinusoid", [0, 1])] * 2
    page = (out / "index.html").read_text()
    assert 'href="sinusoid/report.html"' in page
    assert "<p>Three rounds are too few.</p><p>See a &lt; b.</p>" in page
    text = (out / "verdicts.md").read_text()
    assert all(v["claim"] in page and v["claim"] in text for v in found)
    assert "## Looked into\n\nThree rounds are too few.\n\nSee a < b.\n\n" in text
    (link,) = re.findall(r"\]\((.*\.md)\)", text)
    pictures = re.findall(r"!\[.*\]\((.*)\)", (out / link).read_text())
    assert len(pictures) == 4
    assert all((out / link).with_name("figures").joinpath(Path(picture).name).exists() for picture in pictures)
    assert (out / "sinusoid" / "report.html").exists()
    assert "index.html" in capsys.readouterr().out
    runs = metrics.load([out])
    assert figures.style(runs[0].learner).name == "FTML"


def test_reproduce_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("reproduce", "--experiment", "sinusoids") == 2
    assert "unknown experiment 'sinusoids': did you mean sinusoid" in capsys.readouterr().err
