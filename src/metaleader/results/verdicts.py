"""What runs say of each claim of the paper (section 6).

A claim compares two learners on the same seeds, each a task order, a split of the data and a draw of the weights: one
paired advantage a seed. Student's t test of their mean, corrected by Holm over all claims of the experiment, decides at
0.05, and the side on which the mean lies says how. The correction is within a span: the last third of the rounds, where
the paper's figures are read, and the whole stream, as in the sums of Eq. 3, are judged each on its own.

The t test supposes that the advantages, each a mean over rounds, are about normal. Where they are not it decides too
often: of three seeds whose advantages are one of two numbers, give or take little, in a quarter of cases without any
effect. The exact sign-flip p-value, which supposes no more than symmetry, stands beside it for that reason. It cannot
go below 2 / 2^n for n seeds, 0.25 for three, and so cannot decide alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from metaleader.results import advantage
from metaleader.results.advantage import LAST_THIRD, WHOLE, Compute, Span
from metaleader.results.claims import EFFICIENCY, Claim
from metaleader.results.metrics import Run
from metaleader.results.statistics import Interval, holm, nearest, sign_flip, t_interval, t_test

Answer: TypeAlias = Literal["holds", "does not hold", "undecided", "not judged"]
LEVEL = 0.05


@dataclass(frozen=True)
class Reading:
    """What the seeds say of a claim over some rounds.

    Attributes:
        least: mean and 95 % t interval of the paired advantage of `claim.better`, in the unit of the measure; of
            datapoints saved, the least that they may be between the sizes that were judged.
        most: the same of the most that they may be; of scores, the same as `least`.
        p: two-sided p-value of the t test against the nearest advantage at which the claim ceases to be true; the
            larger of both ends, and 1 if these lie on different sides; None for fewer than two seeds, or where a
            learner diverged.
        adjusted: `p` corrected by Holm over the claims of the experiment.
        sign_flip: the exact p-value of the same by flips of signs.
        answer: `holds` or `does not hold`, where `adjusted` is under 0.05; otherwise `undecided`, or `not judged`.
    """

    least: Interval
    most: Interval
    p: float | None
    adjusted: float | None
    sign_flip: float | None
    answer: Answer


@dataclass(frozen=True)
class Verdict:
    """What runs say of a claim.

    Attributes:
        claim: the claim.
        seeds: those that both learners have.
        readings: by the rounds that count; a claim about the first and the last third has no whole stream.
        compute: the gradients of `better` as a multiple of those of `worse`; None for a learner with itself.
        never: how many tasks of the last third never became proficient, of `better` and of `worse`.
        tasks: how many there are, over all seeds.
        compared: how many of them compare the two: fewer, where the measure is at a size that some do not have.
    """

    claim: Claim
    seeds: tuple[int, ...]
    readings: dict[Span, Reading]
    compute: Compute | None
    never: tuple[int, int]
    tasks: int
    compared: int


def judge(claims: Sequence[Claim], runs: Sequence[Run]) -> list[Verdict]:
    """The verdicts on the claims of one experiment, for which some seed has ended runs of both learners.

    Args:
        claims: all that are corrected together.
        runs: of the experiment, all in the same settings.
    """
    judged = [verdict for claim in claims if (verdict := _uncorrected(claim, runs)) is not None]
    for span in (LAST_THIRD, WHOLE):
        tested = {i: p for i, v in enumerate(judged) if span in v.readings and (p := v.readings[span].p) is not None}
        for i, adjusted in zip(tested, holm(list(tested.values())), strict=True):
            reading = replace(judged[i].readings[span], adjusted=adjusted)
            answered = replace(reading, answer=_answer(judged[i].claim, reading))
            judged[i] = replace(judged[i], readings={**judged[i].readings, span: answered})
    return judged


def _uncorrected(claim: Claim, runs: Sequence[Run]) -> Verdict | None:
    paired = advantage.pairs(runs, claim.better, claim.worse or claim.better)
    if not paired:
        return None
    spans: tuple[Span, ...]
    if claim.worse is None:
        if claim.measure != EFFICIENCY:
            raise ValueError(f"a learner is compared with itself by {EFFICIENCY!r} alone, got {claim.measure!r}")
        spans, ends = (LAST_THIRD,), {LAST_THIRD: np.array([advantage.with_itself(run) for run, _ in paired])}
    else:
        spans = (LAST_THIRD, WHOLE)
        ends = {span: np.array([advantage.over_rounds(claim.measure, pair, span) for pair in paired]) for span in spans}
    never = [advantage.never_proficient(pair, LAST_THIRD) for pair in paired]
    return Verdict(
        claim,
        tuple(run.about.seed for run, _ in paired),
        {span: reading(claim, ends[span]) for span in spans},
        None if claim.worse is None else advantage.compute(paired),
        (sum(pair[0] for pair in never), sum(pair[1] for pair in never)),
        *advantage.compared(claim.measure, paired, LAST_THIRD)[::-1],
    )


def reading(claim: Claim, ends: Float[np.ndarray, "seeds 2"]) -> Reading:
    """What the least and the most of every seed's advantage say of a claim, without correction for other claims."""
    least, most = t_interval(ends[:, 0]), t_interval(ends[:, 1])
    tests = [_tests(claim, each) for each in ends.T]
    flips = [flip for _, flip in tests if flip is not None]
    p_values = [p for p, _ in tests if p is not None]
    flip = max(flips) if len(flips) == 2 else None
    if len(p_values) < 2:
        return Reading(least, most, None, None, None, "not judged")
    agree = _side(claim, ends[:, 0]) == _side(claim, ends[:, 1])
    p = max(p_values) if agree else 1.0
    found = Reading(least, most, p, p, flip if agree else 1.0, "undecided")
    return replace(found, answer=_answer(claim, found))


def _tests(claim: Claim, values: Float[np.ndarray, " seeds"]) -> tuple[float | None, float | None]:
    boundary = nearest(float(values.mean()), claim.boundaries)
    return t_test(values, boundary), sign_flip(values, boundary)


def _side(claim: Claim, values: Float[np.ndarray, " seeds"]) -> tuple[bool, float]:
    """Whether the claim is true at the mean, and the boundary that is nearest: both ends must agree on both."""
    mean = float(values.mean())
    true = claim.true_at(mean)
    return true, 0.0 if true else nearest(mean, claim.boundaries)


def _answer(claim: Claim, found: Reading) -> Answer:
    if found.adjusted is None or found.least[0] is None:
        return "not judged"
    if found.adjusted >= LEVEL:
        return "undecided"
    return "holds" if claim.true_at(found.least[0]) else "does not hold"
