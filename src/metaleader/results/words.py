"""Verdicts as tables, as JSON, and as what a reader may believe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metaleader.results.advantage import EQUAL, LAST_THIRD, WHOLE, Compute, Span
from metaleader.results.claims import EFFICIENCY, NAMES, Claim
from metaleader.results.formats import p_value, significant, with_interval
from metaleader.results.verdicts import Reading, Verdict

_OF_SPAN = ("p (Holm)", "p (flips)", "verdict")
HEADINGS = (
    "claim", "source", "measure", "last third", *_OF_SPAN, "whole stream", *_OF_SPAN, "not reached", "gradients",
)  # fmt: skip
BRIEF = (0, 3, 6, 7, 10)  # the columns that fit into 80 characters

NOTE = (
    "Every claim is a paired comparison over seeds (task order, split of the data and weights): datapoints saved, or "
    "score gained or error avoided, by the learner named first, mean over seeds with the 95 % t interval, over the "
    "last third of the rounds and over the whole stream. What a task needs to become proficient is known to lie "
    "between two sizes at which it was judged: 'a to b' are the means if every task needed what is least and most "
    "favourable to the claim, the interval covers both, and a verdict needs both. A task that did not become "
    "proficient counts with all datapoints of its round, the least that it needs; 'not reached' is how many there "
    "were of the two learners in the last third. A measure with n compares the n tasks of the last third on which "
    "both learners were judged at that size. Verdicts: Student's t test at 0.05, corrected by Holm over the claims of"
    " the experiment, for the last third and for the whole stream each by itself: 'holds' is shown, 'does not hold' "
    "shown to be false, 'undecided' neither. Intervals are not corrected, so that one may leave out 0 where the "
    "verdict is 'undecided'. Beside it stands the exact p-value by flips of signs, uncorrected, which n seeds cannot "
    "bring below 2 / 2^n (0.25 for three, 0.031 for six) and which stands in for t where all seeds agree to the last "
    "digit. Claims that say 'no better' or 'about equal' name the margin that they mean, in the unit of the measure, "
    "and are tested against the nearer end of it; those that say 'as rounds pass' compare the last third with the "
    "first. Gradients: per-example gradients to learn of the first learner as a multiple of the other's, least and "
    "most over rounds, those to adapt in order to be judged left out, a Hessian-vector product counting as two."
)
SAID = {"holds": "shown", "does not hold": "shown to be false"}
EQUALLY, UNEQUALLY = "Shown at equal gradients to learn", "Shown, but not at equal gradients to learn"


def rows(verdicts: Sequence[Verdict]) -> list[list[str]]:
    """A row of text for every verdict, under `HEADINGS`; a claim with fewer seeds than others says so."""
    most = max((len(v.seeds) for v in verdicts), default=0)
    return [
        [
            v.claim.text + (f" ({len(v.seeds)} of {most} seeds)" if len(v.seeds) < most else ""),
            v.claim.source,
            v.claim.measure + (f" (n = {v.compared} of {v.tasks} tasks)" if v.compared < v.tasks else ""),
            *_cells(v.readings.get(LAST_THIRD)),
            *_cells(v.readings.get(WHOLE)),
            f"{v.never[0]} : {v.never[1]} of {v.tasks}" if v.claim.measure == EFFICIENCY and v.claim.worse else "",
            "" if v.claim.worse is None else compute_text(v.compute, v.claim),
        ]
        for v in verdicts
    ]


def _cells(reading: Reading | None) -> list[str]:
    if reading is None:
        return [""] * 4
    return [advantage_text(reading), p_value(reading.adjusted), p_value(reading.sign_flip), reading.answer]


def advantage_text(reading: Reading) -> str:
    """The advantage with its interval: of datapoints, both ends and the interval that covers both."""
    (least, low, least_high), (most, most_low, high) = reading.least, reading.most
    if least is None or most is None or reading.least == reading.most:
        return with_interval(reading.least, sign=True)
    ends = [end for end in (low, least_high, most_low, high, least, most) if end is not None]
    covered = f" [{significant(min(ends), True)}, {significant(max(ends), True)}]" if len(ends) > 2 else ""
    return f"{significant(least, True)} to {significant(most, True)}{covered}"


def compute_text(compute: Compute | None, claim: Claim) -> str:
    """Whether the learners are compared at equal compute, and if not, which is favoured and by how much."""
    if compute is None:
        return "unknown"
    span = f"{significant(compute.least)} to {significant(compute.most)}"
    idle = f", none in {compute.idle} round{'s' * (compute.idle > 1)}" if compute.idle else ""
    counted = ", adapting included" if compute.adapting else ""
    return f"{span}{idle}{counted}: {'equal' if compute.equal else _favoured(compute, claim)}"


def _favoured(compute: Compute, claim: Claim) -> str:
    if compute.adapting and 1 / EQUAL <= compute.total <= EQUAL:
        return "about equal, as far as the records tell"
    more, fewer, ratio = claim.better, str(claim.worse), compute.total
    if ratio < 1:
        more, fewer, ratio = fewer, more, 1 / ratio
    return (
        f"{_name(more)} takes {significant(ratio)} times the gradients of {_name(fewer)}, which favours {_name(more)}"
    )


def _name(learner: str) -> str:
    return NAMES.get(learner, learner)


def believed(verdicts: Sequence[Verdict]) -> list[str]:
    """What a reader may believe of one experiment, in sentences that follow from the verdicts alone."""
    groups: dict[str, list[str]] = {
        "Shown": [],
        EQUALLY: [],
        UNEQUALLY: [],
        "Shown to be false": [],
        "Not shown, nor its opposite": [],
        "Not judged": [],
    }
    for v in verdicts:
        answer, equal = v.readings[LAST_THIRD].answer, v.compute is not None and v.compute.equal
        if answer == "holds":
            group = "Shown" if v.claim.worse is None else EQUALLY if equal else UNEQUALLY
        elif answer == "does not hold":
            group = "Shown to be false"
        else:
            group = "Not shown, nor its opposite" if answer == "undecided" else "Not judged"
        groups[group].append(v.claim.text + _beside(v))
    return [f"{group}: {'; '.join(claims)}." for group, claims in groups.items() if claims] + _adapting(verdicts)


def _adapting(verdicts: Sequence[Verdict]) -> list[str]:
    """How much the learners compared spend when the gradients to adapt are counted, too, where that is not equal."""
    ratios: dict[tuple[str, str], float] = {}
    for v in verdicts:
        better, worse = v.claim.better, v.claim.worse
        if worse and v.compute and not v.compute.adapting and (worse, better) not in ratios:
            ratios[better, worse] = v.compute.with_adapting
    times = [
        f"{_name(better)} takes {significant(ratio)} times those of {_name(worse)}"
        for (better, worse), ratio in ratios.items()
        if not 1 / EQUAL <= ratio <= EQUAL
    ]
    return [f"Of gradients to learn and to adapt in order to be judged, {', '.join(times)}."] if times else []


def _beside(v: Verdict) -> str:
    """What must be said with the claim: another answer over the whole stream, or unequal compute."""
    said, last, whole = [], v.readings[LAST_THIRD].answer, v.readings.get(WHOLE)
    if whole is not None and whole.answer != last:
        said.append(f"over the whole stream: {SAID.get(whole.answer, whole.answer)}")
    if v.compute is not None and not v.compute.equal and last in ("holds", "does not hold"):
        said.append(_favoured(v.compute, v.claim))
    return f" ({'; '.join(said)})" if said else ""


def as_json(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Plain JSON, for `verdicts.json`."""
    return [
        {
            "claim": v.claim.text,
            "source": v.claim.source,
            "measure": v.claim.measure,
            "kind": v.claim.kind,
            "margin": v.claim.margin,
            "learners": [v.claim.better, v.claim.worse],
            "seeds": list(v.seeds),
            **{span.replace(" ", "_"): _reading_json(v.readings.get(span)) for span in _SPANS},
            "never_proficient": list(v.never),
            "tasks": v.tasks,
            "tasks_compared": v.compared,
            "learning_gradients": None
            if v.compute is None
            else {
                "least": v.compute.least,
                "most": v.compute.most,
                "total": v.compute.total,
                "idle_rounds": v.compute.idle,
                "adapting_included": v.compute.adapting,
                "total_with_adapting": v.compute.with_adapting,
                "equal": v.compute.equal,
            },
        }
        for v in verdicts
    ]


_SPANS: tuple[Span, ...] = (LAST_THIRD, WHOLE)


def _reading_json(reading: Reading | None) -> dict[str, Any] | None:
    if reading is None:
        return None
    return {
        "advantage": {"least": reading.least, "most": reading.most},
        "p": reading.p,
        "p_holm": reading.adjusted,
        "p_sign_flip": reading.sign_flip,
        "verdict": reading.answer,
    }
