"""What the paper claims of its experiments: section 6 and figure 1, the inconvenient claims too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Measure: TypeAlias = Literal["datapoints to proficiency", "score after few datapoints", "final score"]
EFFICIENCY: Measure = "datapoints to proficiency"
FEW: Measure = "score after few datapoints"
FINAL: Measure = "final score"

Kind: TypeAlias = Literal["better", "no_better", "about_equal"]

NAMES = {
    "ftml": "FTML",
    "ftml-last-layer": "FTML of the last layer",
    "ftl": "FTL",
    "toe": "TOE",
    "scratch": "training from scratch",
}
"""What learners are called in sentences; others by their name on the command line."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper as a comparison of two learners.

    Attributes:
        experiment: its name.
        source: where the paper makes it.
        measure: in which the learners are compared.
        better: the learner that the claim is about.
        worse: the learner it is compared with; None: with itself, the last third of the rounds with the first.
        kind: `better` is better than `worse` by more than the margin, no better than it by more than the margin, or
            differs from it by no more than the margin either way.
        margin: a difference too small to matter, in the unit of the measure.
    """

    experiment: str
    source: str
    measure: Measure
    better: str
    worse: str | None
    kind: Kind = "better"
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.margin < float("inf") or (self.margin == 0) != (self.kind == "better"):
            raise ValueError(
                f"a claim of kind {self.kind!r} has margin {self.margin}: give `better` none, since it means any "
                "difference, and the other kinds the difference that is too small to matter"
            )

    @property
    def text(self) -> str:
        """The claim in words."""
        better = NAMES.get(self.better, self.better)
        if self.worse is None:
            return f"{better} {_ALONE[self.measure]} as rounds pass"
        middle = _WORDS[self.kind, self.measure].format(margin=f"{self.margin:g}")
        return f"{better} {middle} {NAMES.get(self.worse, self.worse)}"

    @property
    def boundaries(self) -> tuple[float, ...]:
        """The advantages of `better` at which the claim begins or ceases to be true."""
        return (-self.margin, self.margin) if self.kind == "about_equal" else (self.margin,)

    def true_at(self, advantage: float) -> bool:
        """Whether the claim is true if this is by how much `better` is better."""
        if self.kind == "about_equal":
            return abs(advantage) < self.margin
        return advantage < self.margin if self.kind == "no_better" else advantage > self.margin


_ALONE = {
    EFFICIENCY: "needs fewer datapoints",
    FEW: "becomes better after few datapoints",
    FINAL: "ends better",
}
_WORDS: dict[tuple[Kind, Measure], str] = {
    ("better", EFFICIENCY): "needs fewer datapoints than",
    ("better", FEW): "is better after few datapoints than",
    ("better", FINAL): "ends better than",
    ("no_better", EFFICIENCY): "needs no fewer datapoints (by {margin}) than",
    ("no_better", FEW): "is no better after few datapoints (by {margin}) than",
    ("no_better", FINAL): "ends no better (by {margin}) than",
    ("about_equal", EFFICIENCY): "needs about as many datapoints (within {margin}) as",
    ("about_equal", FEW): "is about equal after few datapoints (within {margin}) to",
    ("about_equal", FINAL): "ends about equal (within {margin}) to",
}

POINT = 0.01
"""Margin of accuracies: one point, less than the width of a line in the paper's figures."""
POSE_MARGIN = 0.005
"""Margin of the squared error of a pose: a tenth of the threshold of proficiency, 0.05."""


def _beats(experiment: str, source: str, measure: Measure, better: str, *others: str) -> tuple[Claim, ...]:
    return tuple(Claim(experiment, source, measure, better, other) for other in others)


CLAIMS: tuple[Claim, ...] = (
    Claim("rainbow-mnist", "section 6.1, figure 3", EFFICIENCY, "ftml", None),
    *_beats("rainbow-mnist", "section 6.1, figure 3", EFFICIENCY, "ftml", "toe", "ftl", "scratch"),
    *_beats("rainbow-mnist", "section 6.1, figure 3", FINAL, "ftml", "toe", "ftl", "scratch"),
    *_beats("cifar100", "section 6.2, figure 4", EFFICIENCY, "ftml", "ftml-last-layer", "scratch"),
    *_beats("cifar100", "section 6.2, figure 4", FEW, "ftml", "ftml-last-layer", "scratch"),
    *_beats("cifar100", "section 6.2, figure 4", FINAL, "ftml", "ftml-last-layer"),
    Claim("cifar100", "section 6.2, figure 4", FINAL, "scratch", "ftml", "about_equal", POINT),
    *_beats("pose", "section 6.3, figure 5", EFFICIENCY, "toe", "scratch"),
    *_beats("pose", "section 6.3, figure 5", EFFICIENCY, "ftml", "toe", "scratch"),
    *_beats("pose", "section 6.3, figure 5", FINAL, "ftml", "toe", "scratch"),
    Claim("pose", "section 6.3, figure 5", FINAL, "ftl", "toe", "no_better", POSE_MARGIN),
    # Joint training does not solve these, and training only on the new data does not do either. The figure shows what
    # is learned from few datapoints: what comes of all of them is this package's question.
    *_beats("sinusoid", "figure 1", FEW, "ftml", "ftl", "toe", "scratch"),
    *_beats("sinusoid", "as figure 1; ours", FINAL, "ftml", "ftl", "toe", "scratch"),
    *_beats("coloured-mnist", "figure 1", FEW, "ftml", "ftl", "toe", "scratch"),
    *_beats("coloured-mnist", "as figure 1; ours", FINAL, "ftml", "ftl", "toe", "scratch"),
    # The same with embedded digits, which is not an experiment of the paper.
    Claim("coloured-digits", "as figure 1", EFFICIENCY, "ftml", None),
    *_beats("coloured-digits", "as figure 1", EFFICIENCY, "ftml", "ftl", "toe", "scratch"),
    *_beats("coloured-digits", "as figure 1", FEW, "ftml", "ftl", "toe", "scratch"),
    *_beats("coloured-digits", "as figure 1", FINAL, "ftml", "ftl", "toe", "scratch"),
)


def claimed() -> list[str]:
    """The experiments about which the paper claims something, in its order."""
    return list(dict.fromkeys(claim.experiment for claim in CLAIMS))
