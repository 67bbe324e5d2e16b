"""Search spaces: which settings of a learner are searched, and between which values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeAlias

from metaleader.errors import UserError
from metaleader.experiments import Experiment, Preset
from metaleader.learners import Learner
from metaleader.options import by_name, check_used, with_settings

# What is searched where a learner has it, and how far either way of the preset's value.
FACTORS = {"optimizer.learning_rate": 10, "update.step_size": 5, "update.optimizer.step_size": 5}
FORM = "NAME=LOW:HIGH such as ftml.meta-steps=1:8"


@dataclass(frozen=True)
class Range:
    """Where a setting is searched: integers if both ends are, and on a logarithmic scale if both are positive.

    Raises:
        ValueError: the ends do not ascend, or are not finite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"LOW must be below HIGH and both finite, got {self.low}:{self.high}")

    @property
    def integer(self) -> bool:
        """Whether the values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def log(self) -> bool:
        """Whether the scale is logarithmic."""
        return self.low > 0

    def __contains__(self, value: float | None) -> bool:
        return value is not None and self.low <= value <= self.high

    def nearest(self, value: float) -> float:
        """The value to three digits, so that what a table shows is what ran."""
        return value if self.integer else min(max(_rounded(value), self.low), self.high)


Space: TypeAlias = Mapping[str, Range]  # by the name of the option


def spaces(
    experiment: Experiment, preset: Preset, learners: Collection[str], search: Iterable[str], fixed: Collection[str]
) -> dict[str, Space]:
    """What is searched of every learner: learning rates and step sizes around the preset's, and what is named.

    Args:
        experiment: what is run.
        preset: the settings around which to search.
        learners: names.
        search: settings of learners as `NAME=LOW:HIGH`, beside the others or in their stead.
        fixed: settings that are not searched.

    Raises:
        UserError: a name is unknown, a range is impossible, or a learner has nothing to search.
    """
    found = {name: _derived(name, preset.learners[name]) for name in learners}
    for option, ends in by_name(search, "--search", FORM).items():
        low, colon, high = ends.partition(":")
        if not colon:
            raise UserError(f"--search takes {FORM}; got {f'{option}={ends}'!r}")
        # As `metaleader run` reads them: integers where the setting is one, and refused where it would refuse them.
        low_value, high_value = (
            value_of(with_settings(experiment, preset, {option: end}), option) for end in (low, high)
        )
        check_used([option], "--search", preset.learners, learners)
        if (owner := option.partition(".")[0]) not in found:
            raise UserError(f"--search takes settings of learners: {option} is the same for all of them, so --set it")
        if option in fixed:
            raise UserError(f"{option} is fixed by --set: leave out that or --search {option}")
        if isinstance(low_value, bool) or not isinstance(low_value, (int, float)):
            raise UserError(f"--search takes settings that are numbers, and {option} is none")
        try:
            found[owner][option] = Range(low_value, high_value)
        except ValueError as error:
            raise UserError(f"--search {option}: {error}") from None
    for name, space in found.items():
        for option in space.keys() & fixed:
            del space[option]
        if not space:
            raise UserError(
                f"nothing of {name} is searched: name a setting of it, as --search {name}.NAME=LOW:HIGH, or only the "
                "other learners, by --learner"
            )
    return {**found}


def value_of(preset: Preset, option: str) -> Any:
    """The value of a learner's option; None for any other."""
    learner, _, path = option.partition(".")
    return attrgetter(path.replace("-", "_"))(preset.learners[learner]) if learner in preset.learners else None


def _derived(name: str, learner: Learner) -> dict[str, Range]:
    space = {}
    for path, factor in FACTORS.items():
        value: Any = learner
        for part in path.split("."):
            # A property that is no field, as the update of TOE, is no setting.
            names = {field.name for field in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else ()
            value = getattr(value, part) if part in names else None
        if value is not None:
            space[f"{name}.{path.replace('_', '-')}"] = Range(_rounded(value / factor), _rounded(value * factor))
    return space


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
