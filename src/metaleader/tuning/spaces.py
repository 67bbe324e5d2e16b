"""Search spaces: which settings of a learner are searched, and between which values."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from metaleader.errors import UserError, unknown
from metaleader.experiments import Experiment, Preset
from metaleader.experiments.parsing import by_name, check_used, parsed, with_settings
from metaleader.experiments.settings import has_setting, setting
from metaleader.learners import Learner

# Searched by default, where a learner has it: this factor either side of the preset.
FACTORS = {
    "optimizer.learning_rate": 10,
    "update.step_size": 5,
    "update.optimizer.step_size": 5,
    "update.regulariser": 30,
}
FORM = "NAME=LOW:HIGH such as ftml.meta-steps=1:8, or NAME=A|B|... such as 'ftml.update.first-order=false|true'"
FACTOR = 3  # by which a single number is changed around the best
NEAR_END = 0.05  # of the width of a range: so near, and the best may lie beyond


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

    def changes(self, value: float | None) -> list[float]:
        """Other values near to one: a third of it and three times as much, whether they are in the range or not.

        Integers change by one at least; where 0 is an end of the range, as it is where 0 means something of its own,
        it is among them. None, a setting that the preset does not have, stays.
        """
        if value is None:
            return []
        if not self.integer:
            return [_rounded(value / FACTOR), _rounded(value * FACTOR)]
        zero = {0} if self.low == 0 else set()
        near = {max(1, min(value - 1, round(value / FACTOR))), max(value + 1, value * FACTOR)}
        return sorted((zero | near) - {value})

    def stated(self, value: Any) -> Any:
        """How a setting's value is stored: as it is."""
        return value

    def meant(self, stated: Any) -> Any:
        """The value of the setting that was stored."""
        return stated

    def end(self, value: float | None) -> str:
        """`low` or `high` where the value lies at an end of the range, `outside`, or nothing."""
        if value is None or value not in self:
            return "outside"
        low, at, high = (math.log(x) if self.log else float(x) for x in (self.low, value, self.high))
        share = (at - low) / (high - low)
        return "low" if share < NEAR_END else "high" if share > 1 - NEAR_END else ""

    def description(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Choices:
    """The values between which a setting is chosen, in no order.

    Attributes:
        texts: as they are given on the command line.
        values: what each of them means.

    Raises:
        ValueError: there are fewer than two, or two mean the same.
    """

    texts: tuple[str, ...]
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.texts) < 2:
            raise ValueError(f"give at least two choices, got {'|'.join(self.texts)}")
        if any(value in self.values[:i] for i, value in enumerate(self.values)):
            raise ValueError(f"two of the choices {'|'.join(self.texts)} mean the same")

    def __contains__(self, text: object) -> bool:
        return text in self.texts

    def nearest(self, text: Any) -> Any:
        """The choice itself."""
        return text

    def changes(self, text: str) -> list[str]:
        """All other choices."""
        return [other for other in self.texts if other != text]

    def stated(self, value: Any) -> str:
        """How a setting's value is stored: as the text of the choice that means it, or of the value."""
        same = [text for text, meant in zip(self.texts, self.values, strict=True) if meant == value]
        return same[0] if same else str(value)

    def meant(self, stated: str) -> Any:
        """The value that a choice means."""
        return self.values[self.texts.index(stated)]

    def end(self, text: Any) -> str:
        """`outside` for what is none of the choices; nothing otherwise, since choices have no ends."""
        return "" if text in self else "outside"

    def description(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"choices": list(self.texts)}


Space: TypeAlias = Mapping[str, Range | Choices]  # by the name of the option


def spaces(
    experiment: Experiment, preset: Preset, learners: Collection[str], search: Iterable[str], fixed: Collection[str]
) -> dict[str, Space]:
    """What is searched of every learner.

    First learning rates and step sizes around the preset's; then what the experiment says should be searched
    (`Experiment.search`), of the learners here; then what the user names. The later takes the place of the earlier.

    Args:
        experiment: what is run.
        preset: the settings around which to search.
        learners: names.
        search: settings of learners as `NAME=LOW:HIGH` or `NAME=A|B|...`.
        fixed: settings that are not searched.

    Raises:
        UserError: a name is unknown, a range or choice is impossible, or a learner has nothing to search.
    """
    found: dict[str, dict[str, Range | Choices]] = {
        name: {**_derived(name, preset.learners[name])} for name in learners
    }
    known = dict.fromkeys(name for each in experiment.presets.values() for name in each.learners)
    for option, text in experiment.search.items():
        option = option.replace("_", "-")
        owner = option.partition(".")[0]
        if owner not in known:
            raise UserError(f"the search of {experiment.name}, {option}: {unknown('learner', owner, known)}")
        if not any(has_setting(each, option) for each in experiment.presets.values()):
            raise UserError(f"the search of {experiment.name}, {option}: no preset has a setting of that name")
        if owner in found and has_setting(preset, option):
            found[owner][option] = _parsed(experiment, preset, option, text, f"the search of {experiment.name}")
    for option, text in by_name(search, "--search", FORM).items():
        if (owner := option.partition(".")[0]) not in found:
            parsed(experiment, preset, option, re.split(r"[:|]", text)[0])  # refuses what is unknown
            check_used([option], "--search", preset.learners, learners)
            raise UserError(f"--search takes settings of learners: {option} is the same for all of them, so --set it")
        if option in fixed:
            raise UserError(f"{option} is fixed by --set: leave out that or --search {option}")
        found[owner][option] = _parsed(experiment, preset, option, text, "--search")
    for name, space in found.items():
        for option in space.keys() & fixed:
            del space[option]
        if not space:
            raise UserError(
                f"nothing of {name} is searched: name a setting of it, as --search {name}.NAME=LOW:HIGH, or only the "
                "other learners, by --learner"
            )
    return {**found}


def _parsed(experiment: Experiment, preset: Preset, option: str, text: str, source: str) -> Range | Choices:
    """A range or choices, each value read as `metaleader run` reads it, and refused where that would refuse it."""
    texts = text.split("|") if "|" in text else text.split(":")
    if len(texts) < 2 or ("|" not in text and len(texts) > 2) or not all(each.strip() for each in texts):
        raise UserError(f"{source} takes {FORM}; got {f'{option}={text}'!r}")
    texts = [each.strip() for each in texts]
    values = [setting(with_settings(experiment, preset, {option: each}), option) for each in texts]
    if "|" not in text and any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        raise UserError(
            f"{source} takes LOW:HIGH for numbers, and {option} is none: name choices, as {option}={'|'.join(texts)}"
        )
    try:
        return Choices(tuple(texts), tuple(values)) if "|" in text else Range(*values)
    except ValueError as error:
        raise UserError(f"{source} {option}: {error}") from None


def stated(space: Space, preset: Preset) -> dict[str, Any]:
    """The values that a preset has for what is searched, as they are stored: plain JSON."""
    return {option: entry.stated(setting(preset, option)) for option, entry in space.items()}


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
