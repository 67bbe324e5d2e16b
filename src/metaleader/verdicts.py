"""What the paper claims of its experiments, and what runs say of each claim (paper, section 6).

A claim compares two learners on the same seeds, each a task order, a split of the data and a draw of the weights. The
verdict rests on the paired differences over seeds and their bootstrap interval, in two readings: at equal datapoints,
and at equal compute, where the learner that took more gradients is judged at the rounds it had completed when it had
spent as much as the other in its whole run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from metaleader import metrics
from metaleader.metrics import Interval, Run

Measure: TypeAlias = Literal["datapoints to proficiency", "score after few datapoints", "final score"]
EFFICIENCY: Measure = "datapoints to proficiency"
FEW: Measure = "score after few datapoints"
FINAL: Measure = "final score"


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper as a comparison.

    Attributes:
        experiment: its name.
        text: the claim.
        source: where the paper makes it.
        measure: in which the learners are compared, over the last third of the rounds.
        better: the learner said to be better.
        worse: the learner it is compared with; None: with itself over the first third of the rounds.
        no_better: the claim is that `better` is *no* better than `worse`.
    """

    experiment: str
    text: str
    source: str
    measure: Measure
    better: str
    worse: str | None
    no_better: bool = False


def _beats(experiment: str, source: str, measure: Measure, better: str, *others: str) -> tuple[Claim, ...]:
    words = {
        EFFICIENCY: "needs fewer datapoints than",
        FEW: "is better after few datapoints than",
        FINAL: "ends better than",
    }
    return tuple(Claim(experiment, f"{better} {words[measure]} {o}", source, measure, better, o) for o in others)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "rainbow-mnist",
        "ftml needs fewer datapoints as rounds pass",
        "section 6.1, figure 3",
        EFFICIENCY,
        "ftml",
        None,
    ),
    *_beats("rainbow-mnist", "section 6.1, figure 3", EFFICIENCY, "ftml", "toe", "ftl", "scratch"),
    *_beats("rainbow-mnist", "section 6.1, figure 3", FINAL, "ftml", "toe", "ftl", "scratch"),
    *_beats("cifar100", "section 6.2, figure 4", FEW, "ftml", "scratch"),
    *_beats("cifar100", "section 6.2, figure 4", FINAL, "ftml", "ftml-last-layer"),
    *_beats("pose", "section 6.3, figure 5", EFFICIENCY, "toe", "scratch"),
    *_beats("pose", "section 6.3, figure 5", EFFICIENCY, "ftml", "toe", "scratch"),
    *_beats("pose", "section 6.3, figure 5", FINAL, "ftml", "toe", "scratch"),
    Claim("pose", "ftl is no better than toe", "section 6.3, figure 5", FINAL, "ftl", "toe", no_better=True),
    *_beats("sinusoid", "figure 1", FINAL, "ftml", "ftl", "toe"),
    *_beats("coloured-mnist", "figure 1", FINAL, "ftml", "ftl", "toe"),
)


@dataclass(frozen=True)
class Reading:
    """One way of comparing, over seeds.

    Attributes:
        difference: mean and 95 % bootstrap interval of the paired advantage of `claim.better`: datapoints saved, or
            score gained (error avoided); None where there is too little to tell.
        verdict: `holds`, `does not hold`, `undecided` (the interval holds 0), or `not judged` (fewer than two seeds).
    """

    difference: Interval
    verdict: str


@dataclass(frozen=True)
class Verdict:
    """What runs say of a claim.

    Attributes:
        claim: the claim.
        seeds: those that both learners have.
        equal_datapoints: the learners at the end of the stream.
        equal_compute: the learners when both had spent the same number of gradients.
        gradient_evaluations: mean over seeds, of `better` and of `worse`.
    """

    claim: Claim
    seeds: tuple[int, ...]
    equal_datapoints: Reading
    equal_compute: Reading
    gradient_evaluations: tuple[int, int]


def judge(claim: Claim, runs: Sequence[Run]) -> Verdict | None:
    """The verdict on a claim, or None where no seed has complete runs of both learners."""
    ended = [run for run in runs if run.outcome in ("finished", "diverged") and run.records]
    of = {(run.learner, int(run.config["seed"])): run for run in ended if run.config["experiment"] == claim.experiment}
    worse = claim.worse or claim.better
    seeds = tuple(sorted(seed for learner, seed in of if learner == claim.better and (worse, seed) in of))
    if not seeds:
        return None
    pairs = [(of[claim.better, seed], of[worse, seed]) for seed in seeds]
    at_end = [_advantage(claim, a, b, None) for a, b in pairs]
    budgets = [min(_spent(a), _spent(b)) for a, b in pairs]
    at_budget = [_advantage(claim, a, b, budget) for (a, b), budget in zip(pairs, budgets, strict=True)]
    spent = tuple(int(np.mean([_spent(pair[i]) for pair in pairs])) for i in range(2))
    return Verdict(claim, seeds, _reading(claim, at_end), _reading(claim, at_budget), (spent[0], spent[1]))


def _reading(claim: Claim, differences: Sequence[float]) -> Reading:
    mean, low, high = metrics.interval(np.array(differences))
    if low is None or high is None:
        return Reading([mean, low, high], "not judged")
    if claim.no_better:
        return Reading([mean, low, high], "does not hold" if low > 0 else "holds")
    return Reading([mean, low, high], "holds" if low > 0 else "does not hold" if high < 0 else "undecided")


def _advantage(claim: Claim, better: Run, worse: Run, budget: int | None) -> float:
    """By how much `better` is better, in the unit of the measure."""
    own = _over_rounds(claim.measure, better, budget)
    other = _over_rounds(claim.measure, worse, budget, first_third=claim.worse is None)
    higher = claim.measure != EFFICIENCY and better.config["score"]["higher_is_better"]
    return own - other if higher else other - own


def _over_rounds(measure: Measure, run: Run, budget: int | None, first_third: bool = False) -> float:
    """The mean of a measure over the last (or first) third of the rounds completed within a budget of gradients.

    A task that never became proficient counts with all datapoints of its round, which favours learners with many
    such tasks; a learner that diverged has no score.
    """
    ends = {record.round: record.gradient_evaluations for record in run.records}
    completed = sum(1 for spent in ends.values() if budget is None or spent <= budget)
    if completed == 0 or (run.diverged and measure != EFFICIENCY):
        return float("nan")
    third = -(-completed // 3)
    counted = slice(0, third) if first_third else slice(completed - third, completed)
    sizes = metrics.sizes([run])
    if measure == EFFICIENCY:
        needed = metrics.datapoints_to_proficiency([run])[0, counted]
        return float(np.minimum(needed, sizes[-1]).mean())
    values = metrics.final_scores([run])[0] if measure == FINAL else metrics.scores([run], sizes[:1])[0, :, 0]
    return float(values[counted].mean())


def _spent(run: Run) -> int:
    return run.records[-1].gradient_evaluations


HEADINGS = ("claim", "source", "measure", "equal datapoints", "verdict", "equal compute", "verdict", "gradients")
BRIEF = (0, 3, 4, 5, 6)  # the columns that fit into 80 characters


def rows(verdicts: Sequence[Verdict]) -> list[list[str]]:
    """A row of text for every verdict, under `HEADINGS`."""
    return [
        [
            f"{v.claim.experiment}: {v.claim.text}",
            v.claim.source,
            v.claim.measure,
            _text(v.equal_datapoints.difference),
            v.equal_datapoints.verdict,
            _text(v.equal_compute.difference),
            v.equal_compute.verdict,
            " : ".join(f"{count:.2g}" for count in v.gradient_evaluations),
        ]
        for v in verdicts
    ]


def _text(interval: Interval) -> str:
    mean, low, high = interval
    if mean is None:
        return "-"
    digits = 0 if abs(mean) >= 10 else 3
    text = f"{mean:+.{digits}f}"
    return text if low is None or high is None else f"{text} [{low:+.{digits}f}, {high:+.{digits}f}]"


def as_json(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Plain JSON, for `verdicts.json`."""
    return [
        {
            "experiment": v.claim.experiment,
            "claim": v.claim.text,
            "source": v.claim.source,
            "measure": v.claim.measure,
            "seeds": list(v.seeds),
            "equal_datapoints": {"difference": v.equal_datapoints.difference, "verdict": v.equal_datapoints.verdict},
            "equal_compute": {"difference": v.equal_compute.difference, "verdict": v.equal_compute.verdict},
            "gradient_evaluations": list(v.gradient_evaluations),
        }
        for v in verdicts
    ]
