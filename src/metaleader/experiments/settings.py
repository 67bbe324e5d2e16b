"""Settings of a preset by their dotted names, as in `ftml.update.steps`: read, and replaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from metaleader.errors import UserError, unknown
from metaleader.experiments.experiment import Preset

STEPS = ("steps", "meta_steps")  # of a learner, when datapoints arrive
PARTS = ("stream", "model", "loss", "protocol")  # of a preset, beside its learners and `gradients`


def names(preset: Preset) -> list[str]:
    """The names of all settings, as the command line writes them."""
    found = ["gradients"]
    for owner in (*PARTS, *preset.learners):
        value = preset.learners[owner] if owner in preset.learners else getattr(preset, owner)
        found += _names(owner, value)
    return found


def _names(prefix: str, value: Any) -> Iterator[str]:
    for field in dataclasses.fields(value) if _is_settings(value) else ():
        name, inner = f"{prefix}.{field.name.replace('_', '-')}", getattr(value, field.name)
        if _is_settings(inner):
            yield from _names(name, inner)
        else:
            yield name


def setting(preset: Preset, name: str) -> Any:
    """The value of a setting.

    Raises:
        UserError: there is none of that name.
    """
    return _found(preset, name)[1]


def has_setting(preset: Preset, name: str) -> bool:
    """Whether the preset has a setting of that name."""
    try:
        setting(preset, name)
    except UserError:
        return False
    return True


def replaced(preset: Preset, values: Mapping[str, Any]) -> Preset:
    """The preset with other values of settings, by name.

    A learner whose number of steps is among them keeps it, whatever `gradients` would pay for.

    Raises:
        UserError: there is no setting of a name.
        ValueError: a value is impossible.
    """
    parts: dict[str, Any] = {part: getattr(preset, part) for part in PARTS}
    learners, gradients, own = dict(preset.learners), preset.gradients, set(preset.own_steps)
    for name, value in values.items():
        (first, *path), _ = _found(preset, name)
        if first == "gradients":
            gradients = value
        elif first in parts:
            parts[first] = replaced_in(parts[first], path, value)
        else:
            learners[first] = replaced_in(learners[first], path, value)
            own |= {first} if path[-1] in STEPS and len(path) == 1 else set()
    return Preset(**parts, learners=learners, gradients=gradients, own_steps=tuple(sorted(own)))


def replaced_in(owner: Any, path: list[str], value: Any) -> Any:
    """A dataclass with another value of the field that the names lead to, one field within another."""
    if not path:
        return value
    return dataclasses.replace(owner, **{path[0]: replaced_in(getattr(owner, path[0]), path[1:], value)})


def _found(preset: Preset, name: str) -> tuple[list[str], Any]:
    """The parts of a name, first that of the preset's own part or learner, and the value there.

    Raises:
        UserError: there is no setting of that name.
    """
    first, *words = name.split(".")
    path: list[str] = [first]
    value: Any = preset.learners.get(first)
    if value is None:
        if first not in (*PARTS, "gradients"):
            raise _unknown(preset, name)
        value = getattr(preset, first)
    for part in (word.replace("-", "_") for word in words):
        if not _is_settings(value) or part not in {field.name for field in dataclasses.fields(value)}:
            raise _unknown(preset, name)
        path.append(part)
        value = getattr(value, part)
    return path, value


def _unknown(preset: Preset, name: str) -> UserError:
    listed = unknown("setting", name, names(preset))
    return UserError(f"{listed}: `metaleader run EXPERIMENT --help` shows them")


def _is_settings(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
