"""Optuna storage, sampling and pruning."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from metaleader.errors import UserError
from metaleader.files import whole_lines, write_whole
from metaleader.tuning.spaces import Choices, Space


def optuna() -> Any:
    """Optuna, imported when something is tuned.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("Optuna is not installed: pip install 'metaleader[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def studies(path: Path, names: Iterable[str], higher_is_better: bool) -> dict[str, Any]:
    """A study for every name, kept in one journal, with the trials that it has.

    Raises:
        UserError: a line of the journal is damaged.
    """
    if path.exists():  # a power cut may have torn the last line
        lines = whole_lines(path)
        for number, line in enumerate(lines, 1):
            try:
                json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{path}, line {number}, is damaged ({error}): restore it, or delete the folder"
                ) from error
        write_whole(path, lambda file: file.writelines(lines))
    # The folder has one owner, so that the journal needs no lock, which would outlive a process that is killed.
    unlocked = SimpleNamespace(acquire=lambda: True, release=lambda: None)
    backend = optuna().storages.journal.JournalFileBackend(str(path), lock_obj=unlocked)
    storage = optuna().storages.JournalStorage(backend)
    direction = "maximize" if higher_is_better else "minimize"
    return {
        name: optuna().create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
        for name in names
    }


@dataclass(frozen=True)
class Rungs:
    """Where trials of a learner are compared, so that most of them end early (successive halving; ASHA).

    After `first`, `first * reduction`, `first * reduction^2`, ... rounds, a trial goes on only if its score so far is
    among the best `1 / reduction` of all that came so far (Li et al., "A System for Massively Parallel Hyperparameter
    Tuning", 2020). The whole stream is the last rung.

    Attributes:
        rounds: of the stream.
        first: rounds to the first rung.
        reduction: the factor between rungs, and one in how many goes on.
        prune: whether trials end early; otherwise rungs only show how stable ranks are.

    Raises:
        ValueError: `first` is not from 1 to `rounds`, or `reduction` is below 2.
    """

    rounds: int
    first: int
    reduction: int = 3
    prune: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.rounds:
            raise ValueError(
                f"the first rung must be from 1 to {self.rounds}, the rounds of the stream; got {self.first}"
            )
        if self.reduction < 2:
            raise ValueError(f"the reduction factor must be at least 2, got {self.reduction}")

    @property
    def ends(self) -> tuple[int, ...]:
        """The rounds at which trials are compared, the end of the stream left out."""
        powers = itertools.count()
        rungs = (self.first * self.reduction**power for power in powers)
        return tuple(itertools.takewhile(lambda rung: rung < self.rounds, rungs))


@dataclass(frozen=True)
class Ended:
    """How a trial ended.

    Attributes:
        outcome: `finished`, `pruned at round N`, `diverged` or `failed: ...`.
        score: of the whole stream; None, unless it finished.
        rungs: the score so far at each rung that was reached, by its rounds; None where it was not finite.
        gradient_evaluations: of all its runs.
        seconds: of all its runs, in learning and judging.
        made: `commit` of the source, `machine` and, by seed, `records_sha256`, the checksum of each run's records;
            empty, if there are no runs.
    """

    outcome: str
    score: float | None
    rungs: Mapping[int, float | None]
    gradient_evaluations: int
    seconds: float
    made: Mapping[str, Any] = field(default_factory=dict)


def drawn(study: Any, space: Space, number: int) -> dict[str, Any]:
    """The settings of the trial of that number, by a tree-structured Parzen estimator (TPE).

    They follow from the trials before, the study's name and the number alone: there is no state of a sampler that a
    stop could lose. Trials that were pruned count as Optuna has it: behind all that finished, by how far they got and
    by their last score.
    """
    sampler = optuna().samplers.TPESampler(seed=zlib.crc32(f"{study.study_name} {number}".encode()))
    copy = optuna().create_study(direction=study.direction, sampler=sampler)
    copy.add_trials([trial for trial in study.trials if trial.params])
    values = copy.ask(_distributions(space)).params
    return {option: entry.nearest(values[option]) for option, entry in space.items()}


def pruned(ended: Iterable[Any], direction: Any, rungs: Rungs, scores: Mapping[int, float]) -> bool:
    """Whether a trial stops at the last of the rungs that it reached, by Optuna's `SuccessiveHalvingPruner`.

    It follows from the trials that ended before and the scores alone: there is no state of a pruner that a stop could
    lose.

    Args:
        ended: the trials that ended before, as Optuna keeps them.
        direction: of the study.
        rungs: where trials are compared.
        scores: of the trial, by rung, from the first that it reached on.
    """
    return _contest(ended, direction, rungs, scores)[0]


def _contest(
    ended: Iterable[Any], direction: Any, rungs: Rungs, scores: Mapping[int, float]
) -> tuple[bool, Mapping[str, Any]]:
    """Whether the trial stops, and what the pruner notes of it, against which later trials are compared."""
    pruner = optuna().pruners.SuccessiveHalvingPruner(min_resource=rungs.first, reduction_factor=rungs.reduction)
    copy = optuna().create_study(direction=direction, pruner=pruner)
    copy.add_trials(ended)
    trial, stops = copy.ask(), False
    for rounds, score in scores.items():
        trial.report(score, rounds)
        stops = bool(trial.should_prune())
    return stops, copy.trials[-1].system_attrs


def keep(
    study: Any, space: Space, settings: Mapping[str, Any], rungs: Rungs, ended: Ended, around: bool = False
) -> None:
    """Add a trial that has ended, in one line of the journal; `around`: one that was not drawn.

    One without a score that was not pruned, as it diverged or failed, counts as the worst: for Optuna it is pruned
    before it reported anything. One outside of the space, as a preset may be, is kept and tells the sampler nothing.
    """
    states = optuna().trial.TrialState
    reached = itertools.takewhile(lambda rung: rung[1] is not None, ended.rungs.items())
    scores = {rounds: score for rounds, score in reached if score is not None}
    inside = all(settings[option] in entry for option, entry in space.items())
    if ended.score is not None:
        told = {"state": states.COMPLETE, "value": ended.score, "intermediate_values": scores}
    elif ended.outcome.startswith("pruned"):
        told = {"state": states.PRUNED, "value": list(scores.values())[-1], "intermediate_values": scores}
    else:
        told = {"state": states.PRUNED}
    study.add_trial(
        optuna().create_trial(
            **told,
            params=dict(settings) if inside else {},
            distributions=_distributions(space) if inside else {},
            user_attrs={
                "settings": dict(settings),
                "around": around,
                **asdict(ended),
                "rungs": {str(rounds): score for rounds, score in ended.rungs.items()},
            },
            system_attrs=dict(_contest(study.trials, study.direction, rungs, scores)[1]) if rungs.prune else {},
        )
    )


def _distributions(space: Space) -> dict[str, Any]:
    kinds, found = optuna().distributions, {}
    for option, entry in space.items():
        if isinstance(entry, Choices):
            found[option] = kinds.CategoricalDistribution(entry.texts)
        else:
            kind = kinds.IntDistribution if entry.integer else kinds.FloatDistribution
            found[option] = kind(entry.low, entry.high, log=entry.log)
    return found
