"""Verdicts on the paper's claims: by hand on records with known answers, and how often they err."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from made_up import made
from metaleader import EXPERIMENTS
from metaleader.experiments import find
from metaleader.results import overtaking, words
from metaleader.results.advantage import LAST_THIRD, WHOLE
from metaleader.results.claims import CLAIMS, EFFICIENCY, FEW, FINAL, Claim, Kind
from metaleader.results.metrics import Run
from metaleader.results.statistics import holm, t_test
from metaleader.results.verdicts import judge, reading

CLAIM = Claim("made-up", "nowhere", FINAL, "a", "b")
EQUAL = replace(CLAIM, kind="about_equal", margin=0.1)
NO_BETTER = replace(CLAIM, kind="no_better", margin=0.1)


def runs(finals: dict[str, list[float]], **settings: Any) -> list[Run]:
    """Three rounds that end with the same score, for every learner and seed; a score at 10 is half of that at 40."""
    return [
        made([[score / 2, score * 0.75, score]] * 3, learner=name, seed=seed, **settings)
        for name, scores in finals.items()
        for seed, score in enumerate(scores)
    ]


def both(values: list[float]) -> np.ndarray:
    return np.repeat(np.array(values)[:, None], 2, axis=1)


def test_the_paired_difference_over_seeds_decides() -> None:
    # Seeds differ by more than the learners do, and still each pair differs by about 0.2: pairing makes it certain.
    finals = {"a": [0.40, 0.61, 0.79], "b": [0.2, 0.4, 0.6]}
    (verdict,) = judge([CLAIM], runs(finals))
    assert verdict.seeds == (0, 1, 2)
    for span in (LAST_THIRD, WHOLE):
        found = verdict.readings[span]
        assert found.answer == "holds"
        assert found.least == found.most
        # By hand: 0.2 -+ 4.303 * 0.01 / sqrt(3).
        assert found.least == pytest.approx([0.2, 0.2 - 0.0248, 0.2 + 0.0248], rel=1e-2)
        assert found.sign_flip == 0.25
    (swapped,) = judge([replace(CLAIM, better="b", worse="a")], runs(finals))
    assert swapped.readings[LAST_THIRD].answer == "does not hold"
    (mixed,) = judge([CLAIM], runs({"a": [0.5, 0.4, 0.45], "b": [0.4, 0.5, 0.45]}))
    assert mixed.readings[LAST_THIRD].answer == "undecided"


def test_the_whole_stream_is_judged_beside_its_end() -> None:
    late = [
        made([[0.0, 0.0, score] for score in finals], learner=name, seed=seed)
        for seed in range(3)
        for name, finals in (("a", [0.1] * 6 + [0.6 + 0.01 * seed] * 3), ("b", [0.4] * 9))
    ]
    (verdict,) = judge([CLAIM], late)
    assert verdict.readings[LAST_THIRD].answer == "holds"
    assert verdict.readings[WHOLE].answer == "does not hold"
    assert "over the whole stream: shown to be false" in words.believed([verdict])[0]


@pytest.mark.parametrize(
    ("values", "equal", "no_better", "better"),
    [
        ([0.0, 0.01, -0.01], "holds", "holds", "undecided"),
        ([0.05, 0.051, 0.049], "holds", "holds", "holds"),
        ([-0.05, -0.051, -0.049], "holds", "holds", "does not hold"),
        ([0.2, 0.21, 0.19], "does not hold", "does not hold", "holds"),
        ([-0.2, -0.21, -0.19], "does not hold", "holds", "does not hold"),
        ([0.09, 0.12, 0.07], "undecided", "undecided", "holds"),
        ([0.5, -0.5, 0.0], "undecided", "undecided", "undecided"),
    ],
)
def test_kinds_of_claims_and_their_margins(values: list[float], equal: str, no_better: str, better: str) -> None:
    expected = {EQUAL: equal, NO_BETTER: no_better, CLAIM: better}
    for claim, answer in expected.items():
        found = reading(claim, both(values))
        assert found.answer == answer, claim.kind
        low, high = found.least[1:]
        assert low is not None
        assert high is not None
        # The same, read off the interval.
        outside = low > 0.1 or high < -0.1 if claim is EQUAL else low > 0.1
        inside = low > -0.1 and high < 0.1 if claim is EQUAL else high < 0.1
        if claim is not CLAIM:
            assert (answer == "holds", answer == "does not hold") == (inside, outside)


@pytest.mark.parametrize(("kind", "margin"), [("better", 0.1), ("no_better", 0.0), ("about_equal", -1.0)])
def test_a_claim_without_a_sensible_margin_is_refused(kind: Kind, margin: float) -> None:
    with pytest.raises(ValueError, match="give `better` none"):
        replace(CLAIM, kind=kind, margin=margin)


def test_needing_fewer_datapoints_must_hold_at_the_unfavourable_ends() -> None:
    claim = replace(CLAIM, measure=EFFICIENCY)
    sure = np.array([[100.0, 150], [110, 150], [105, 150]])
    assert reading(claim, sure).answer == "undecided"  # all highest ends agree to the last digit: p is that of signs
    sure[:, 1] += [0, 10, 5]
    assert reading(claim, sure).answer == "holds"
    assert reading(claim, sure - [101, 0]).answer == "undecided"  # least about 4, in about two of three
    assert reading(claim, sure * [-1, 1]).p == 1
    assert reading(claim, -sure[:, ::-1]).answer == "does not hold"
    text = words.advantage_text(reading(claim, sure))
    assert text.startswith("+105 to +155 [+")
    found = reading(claim, sure)
    assert found.least[1] is not None
    assert found.most[2] is not None
    assert found.least[1] < 105 < 155 < found.most[2]


def test_seeds_that_agree_to_the_last_digit_are_not_certain() -> None:
    assert reading(CLAIM, both([0.2] * 3)).answer == "undecided"
    assert reading(CLAIM, both([0.2] * 5)).answer == "undecided"
    found = reading(CLAIM, both([0.2] * 6))
    assert (found.answer, found.p, found.least[1:]) == ("holds", 0.03125, [None, None])
    assert reading(CLAIM, both([0.0] * 6)).p == 1


def test_what_cannot_be_judged() -> None:
    assert judge([CLAIM], [made([[0.5]], learner="a", seed=0), made([[0.5]], learner="b", seed=1)]) == []
    assert judge([CLAIM], [made([[0.5]], None, learner="a"), made([[0.5]], learner="b")]) == []
    (one,) = judge([CLAIM], runs({"a": [0.5], "b": [0.4]}))
    assert one.readings[LAST_THIRD].answer == "not judged"
    assert one.readings[LAST_THIRD].least == [pytest.approx(0.1), None, None]
    lost = runs({"a": [0.5, 0.6, 0.7], "b": [0.1, 0.2, 0.4]})
    lost[-1] = replace(lost[-1], outcome="diverged")
    verdicts = judge([CLAIM, replace(CLAIM, measure=EFFICIENCY)], lost)
    assert verdicts[0].readings[WHOLE].least == [None, None, None]
    assert [v.readings[WHOLE].answer for v in verdicts] == ["not judged", "undecided"]
    assert words.rows(verdicts)[0][3] == "-"


def test_a_learner_is_compared_with_itself_at_the_beginning() -> None:
    never, first = [0.1, 0.1, 0.1], [0.9, 0.9, 0.9]
    improving = [made([never, never, first if seed else [0.1, 0.9, 0.9]], learner="a", seed=seed) for seed in range(3)]
    (verdict,) = judge([replace(CLAIM, measure=EFFICIENCY, worse=None)], improving)
    assert list(verdict.readings) == [LAST_THIRD]
    assert verdict.readings[LAST_THIRD].least[0] == pytest.approx((20 + 30 + 30) / 3)
    assert verdict.compute is None
    assert verdict.claim.text == "a needs fewer datapoints as rounds pass"


def test_holm_is_over_the_claims_of_the_experiment_that_are_judged() -> None:
    finals = {"a": [0.6, 0.65, 0.7], "b": [0.5, 0.56, 0.57], "c": [0.3, 0.5, 0.2], "d": [0.5]}
    claims = [replace(CLAIM, worse=other) for other in "bcd"]
    verdicts = judge(claims, runs(finals))
    p = [v.readings[LAST_THIRD].p for v in verdicts]
    assert p[2] is None
    assert [v.readings[LAST_THIRD].adjusted for v in verdicts[:2]] == holm([p[0] or 0, p[1] or 0])
    alone = judge(claims[:1], runs(finals))[0].readings[LAST_THIRD]
    assert (alone.p, alone.answer) == (p[0], "holds")
    many = judge([claims[0]] * 5, runs(finals))[0].readings[LAST_THIRD]
    assert many.adjusted == pytest.approx(5 * (alone.p or 0))
    assert many.answer == "undecided"


def test_words_say_what_is_shown_what_is_false_and_at_what_compute() -> None:
    finals = {"a": [0.60, 0.65, 0.70], "b": [0.40, 0.46, 0.49], "c": [0.9, 0.96, 0.99], "d": [0.6, 0.7, 0.6]}
    claims = [replace(CLAIM, worse=other) for other in "bcd"]
    each = [run for name in finals for run in runs({name: finals[name]}, learning=[30 if name == "b" else 20] * 3)]
    verdicts = judge(claims, each)
    assert words.believed(verdicts) == [
        "Shown, but not at equal gradients to learn: "
        "a ends better than b (b takes 1.50 times the gradients of a, which favours b).",
        "Shown to be false: a ends better than c.",
        "Not shown, nor its opposite: a ends better than d.",
    ]
    assert words.rows(verdicts)[1][-1] == "1.00 to 1.00: equal"
    assert [entry["learning_gradients"]["equal"] for entry in words.as_json(verdicts)] == [False, True, True]


def test_words_say_how_many_tasks_are_compared() -> None:
    """Of the last third, one task of two has as many datapoints as few are here."""
    scores: Any = [[0.1, 0.2, 0.3]] * 5 + [[0.1]]
    both = [made(scores, learner=name, seed=seed, report_sizes=(20,)) for name in ("ftml", "b") for seed in range(2)]
    (verdict,) = judge([replace(CLAIM, better="ftml", measure=FEW)], both)
    assert words.rows([verdict])[0][2] == f"{FEW} (n = 2 of 4 tasks)"
    assert words.as_json([verdict])[0]["tasks_compared"] == 2
    assert overtaking.rows(both)[0][1:] == ["never (n = 10 of 12)", "never"]
    drawn = overtaking.figure(both)
    assert drawn is not None
    assert drawn[0].axes[0].get_title() == "after 20 datapoints (n = 10 of 12)"


def test_every_claim_is_about_learners_that_its_experiment_compares() -> None:
    for claim in CLAIMS:
        compared = find(claim.experiment).compared
        assert {claim.better, claim.worse or claim.better} <= set(compared), claim
        assert claim.experiment in EXPERIMENTS
    assert len(set(CLAIMS)) == len(CLAIMS)
    texts = {claim.text for claim in CLAIMS if claim.experiment == "cifar100"}
    assert "training from scratch ends about equal (within 0.01) to FTML" in texts
    assert {claim.measure for claim in CLAIMS if claim.worse == "scratch" and claim.experiment == "sinusoid"} == {
        FEW,
        FINAL,
    }


# Errors of judgement: seeds whose scores differ by chance alone, and seeds with an effect.


def simulated(seeds: int, effect: float, random: np.random.Generator) -> list[Run]:
    """All learners of Rainbow MNIST; scores have a part that a seed's learners share, and FTML's an effect on top.

    Standard deviations, of a mean over the last third (two rounds): about 0.1 shared and 0.01 of each learner.
    """
    shared = random.normal(0, 0.1, (seeds, 1, 1))
    made_runs = []
    for name in EXPERIMENTS["rainbow-mnist"].compared:
        own = random.normal(0, 0.014, (seeds, 6, 1)) + (effect if name == "ftml" else 0)
        scores = 0.5 + shared + own + [-0.05, 0.0, 0.05]
        made_runs += [
            made(each.tolist(), learner=name, seed=seed, experiment="rainbow-mnist") for seed, each in enumerate(scores)
        ]
    return made_runs


OF_RAINBOW = [claim for claim in CLAIMS if claim.experiment == "rainbow-mnist"]


@pytest.mark.parametrize("seeds", [3, *(pytest.param(seeds, marks=pytest.mark.slow) for seeds in (6, 10))])
def test_without_any_effect_at_most_one_experiment_in_twenty_has_a_false_verdict(seeds: int) -> None:
    many, wrong = {3: 80, 6: 60, 10: 40}[seeds], {LAST_THIRD: 0, WHOLE: 0}
    random = np.random.default_rng(seeds)
    for _ in range(many):
        verdicts = judge(OF_RAINBOW, simulated(seeds, 0.0, random))
        for span in wrong:
            answers = {v.readings[span].answer for v in verdicts if span in v.readings}
            wrong[span] += bool(answers & {"holds", "does not hold"})
    for span, count in wrong.items():
        assert count / many <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / many), span


@pytest.mark.parametrize("seeds", [3, 6, 10])
def test_the_correction_keeps_a_family_of_claims_at_one_in_twenty(seeds: int) -> None:
    """The same on the statistics alone, often enough to tell: claims share FTML, and err together or not at all."""
    random, many, false = np.random.default_rng(seeds), 1000, 0
    for _ in range(many):
        learners = random.normal(size=(7, seeds))
        p = [t_test(learners[0] - other) for other in learners[1:]]
        false += min(holm([value for value in p if value is not None])) < 0.05
    assert false / many <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / many)


@pytest.mark.parametrize(("seeds", "effect", "found"), [(3, 0.2, 0.9), (6, 0.04, 0.9), (10, 0.03, 0.9)])
def test_true_effects_are_found(seeds: int, effect: float, found: float) -> None:
    """Of 20, 4 and 3 standard deviations of a learner's own score, with all claims of the experiment corrected."""
    random, many, seen = np.random.default_rng(seeds), 12, []
    for _ in range(many):
        verdicts = judge(OF_RAINBOW, simulated(seeds, effect, random))
        seen += [v.readings[LAST_THIRD].answer == "holds" for v in verdicts if v.claim.measure == FINAL]
    assert np.mean(seen) >= found
