"""What Optuna is asked: to keep the trials that have ended, and to draw the next one from them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from metaleader.errors import UserError
from metaleader.files import write_text
from metaleader.spaces import Space


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
    """A study for every name, kept in one journal, with the trials that it has."""
    if path.exists():  # a power cut may have torn the last line
        text = path.read_text()
        write_text(path, text[: text.rfind("\n") + 1])
    storage = optuna().storages.JournalStorage(optuna().storages.journal.JournalFileBackend(str(path)))
    direction = "maximize" if higher_is_better else "minimize"
    return {
        name: optuna().create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
        for name in names
    }


def drawn(study: Any, space: Space, number: int) -> dict[str, float]:
    """The settings of the trial of that number, by a tree-structured Parzen estimator (TPE).

    They follow from the trials before, the study's name and the number alone: there is no state of a sampler that a
    stop could lose.
    """
    sampler = optuna().samplers.TPESampler(seed=zlib.crc32(f"{study.study_name} {number}".encode()))
    copy = optuna().create_study(direction=study.direction, sampler=sampler)
    copy.add_trials([trial for trial in study.trials if trial.params])
    values = copy.ask(_distributions(space)).params
    return {option: ends.nearest(values[option]) for option, ends in space.items()}


def keep(study: Any, space: Space, settings: Mapping[str, Any], score: float | None, **attributes: Any) -> None:
    """Add a trial that has ended, in one line of the journal; without a score, it counts as the worst.

    One outside of the space, as a preset may be, is kept and tells the sampler nothing.
    """
    inside = all(settings[option] in ends for option, ends in space.items())
    worst = -math.inf if study.direction.name == "MAXIMIZE" else math.inf
    study.add_trial(
        optuna().create_trial(
            value=worst if score is None else score,
            params=dict(settings) if inside else {},
            distributions=_distributions(space) if inside else {},
            user_attrs={"settings": settings, "score": score, **attributes},
        )
    )


def _distributions(space: Space) -> dict[str, Any]:
    kinds = optuna().distributions
    return {
        option: (kinds.IntDistribution if ends.integer else kinds.FloatDistribution)(ends.low, ends.high, log=ends.log)
        for option, ends in space.items()
    }
