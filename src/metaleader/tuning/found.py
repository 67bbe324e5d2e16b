"""What a search found of a learner: its best trial, what lies around it, and whether ranks at the rungs held."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy import stats

from metaleader.tuning.spaces import Choices, Space
from metaleader.tuning.studies import Rungs

Trial: TypeAlias = Mapping[str, Any]  # as `tune.json` has it


def summary(trials: Sequence[Trial], space: Space, rungs: Rungs, higher_is_better: bool) -> dict[str, Any]:
    """What `tune.json` says of a learner.

    Args:
        trials: all of them, in order.
        space: what was searched.
        rungs: where they were compared.
        higher_is_better: which way scores are compared.
    """
    best = best_of(trials, higher_is_better)
    return {
        "best": best,
        "ends": {option: entry.end(best["settings"][option]) for option, entry in space.items()} if best else {},
        "changed": changed(trials, space, higher_is_better),
        "neighbours": neighbours(trials, best, space, higher_is_better) if best else {},
        "ranks": ranks(trials, rungs),
        "gradient_evaluations": sum(trial["gradient_evaluations"] for trial in trials),
        "seconds": round(sum(trial["seconds"] for trial in trials), 1),
        "trials": list(trials),
    }


def best_of(trials: Sequence[Trial], higher_is_better: bool) -> Trial | None:
    """The trial with the best score, the first of several, so that the preset goes first; None without any."""
    scored = [trial for trial in trials if trial["score"] is not None]
    better = max if higher_is_better else min
    return better(scored, key=lambda trial: float(trial["score"])) if scored else None


def single_changes(settings: Mapping[str, Any], space: Space) -> Iterator[dict[str, Any]]:
    """The same settings with one of them changed: a number by a factor of 3 either way, a choice to each other one."""
    for option, entry in space.items():
        for value in entry.changes(settings[option]):
            yield {**settings, option: value}


def next_change(trials: Sequence[Trial], space: Space, higher_is_better: bool) -> dict[str, Any] | None:
    """The settings of the best trial with a single change that was not tried; None if there is none, or no best trial.

    What was changed least often goes first, so that a small gain does not begin the round of all settings anew; and of
    its values, those that were tried least often, so that a number is changed both ways.
    """
    best = best_of(trials, higher_is_better)
    if best is None:
        return None
    tried = {trial["trial"]: trial["settings"] for trial in trials}
    left = [settings for settings in single_changes(best["settings"], space) if settings not in tried.values()]
    before = changed(trials, space, higher_is_better)

    def times(settings: Mapping[str, Any]) -> tuple[int, int]:
        option = next(option for option in space if settings[option] != best["settings"][option])
        values = [tried[trial][option] for trial, _ in before[option]]
        return len(values), values.count(settings[option])

    return min(left, key=times, default=None)


def changed(trials: Sequence[Trial], space: Space, higher_is_better: bool) -> dict[str, list[list[int]]]:
    """For every setting searched, the trials that changed it alone, each with the one that was the best until then."""
    found: dict[str, list[list[int]]] = {option: [] for option in space}
    for i, trial in enumerate(trials):
        if trial["around"] and (best := best_of(trials[:i], higher_is_better)) is not None:
            (option,) = (name for name in space if trial["settings"][name] != best["settings"][name])
            found[option].append([trial["trial"], best["trial"]])
    return found


def neighbours(trials: Sequence[Trial], best: Trial, space: Space, higher_is_better: bool) -> dict[str, list[int]]:
    """For every setting searched, the trials beside the best one, whatever their other settings are.

    Those with the next smaller and the next larger number, if there are any; of every other choice, the best trial, or
    the first where none has a score. Of several trials with the same value, the same holds.
    """
    sign = 1 if higher_is_better else -1

    def rank(trial: Trial) -> float:
        return -np.inf if trial["score"] is None else sign * float(trial["score"])

    found: dict[str, list[int]] = {}
    for option, entry in space.items():
        by_value: dict[Any, Trial] = {}
        for trial in trials:
            value = trial["settings"][option]
            if value is not None and (value not in by_value or rank(trial) > rank(by_value[value])):
                by_value[value] = trial
        own = best["settings"][option]
        if isinstance(entry, Choices):
            near = [value for value in entry.texts if value in by_value and value != own]
        elif own is None:
            near = []
        else:
            below, above = [v for v in by_value if v < own], [v for v in by_value if v > own]
            near = [*([max(below)] if below else []), *([min(above)] if above else [])]
        found[option] = [by_value[value]["trial"] for value in near]
    return found


def ranks(trials: Sequence[Trial], rungs: Rungs) -> list[dict[str, Any]]:
    """How well the score at each rung foretold what came later.

    Spearman's rank correlation of the score at the rung with the score at the next rung, over the trials that reached
    that, and with the final score, over the trials that finished; None for fewer than three trials, or where all
    scores of one kind are the same. Pruning leaves trials that are alike, which makes these correlations smaller than
    they are over all trials.
    """
    found = []
    for rung, later in itertools.zip_longest(rungs.ends, rungs.ends[1:]):
        at, following = str(rung), None if later is None else str(later)
        next_pairs = [(trial["rungs"].get(at), trial["rungs"].get(following)) for trial in trials]
        final_pairs = [(trial["rungs"].get(at), trial["score"]) for trial in trials]
        found.append(
            {
                "round": rung,
                "reached": sum(pair[0] is not None for pair in final_pairs),
                "next": None if later is None else {"round": later, **_correlation(next_pairs)},
                "final": _correlation(final_pairs),
            }
        )
    return found


def _correlation(pairs: Sequence[tuple[float | None, float | None]]) -> dict[str, Any]:
    both = np.array([pair for pair in pairs if None not in pair], float).reshape(-1, 2)
    told = len(both) >= 3 and bool((both != both[0]).any(axis=0).all())
    return {"trials": len(both), "spearman": float(stats.spearmanr(both).statistic) if told else None}
