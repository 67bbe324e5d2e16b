"""Settings of a preset by their dotted names, as in `ftml.update.steps`: read, and replaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from metaleader.errors import UserError, unknown
from metaleader.experiments.experiment import Preset

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
    value: Any = preset
    for owner, part in _path(preset, name):
        value = preset.learners[part] if owner is preset.learners else getattr(value, part)
    return value


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
        (_, first), *rest = _path(preset, name)
        path = [part for _, part in rest]
        if first == "gradients":
            gradients = value
        elif first in parts:
            parts[first] = _replaced(parts[first], path, value)
        else:
            learners[first] = _replaced(learners[first], path, value)
            own |= {first} if path[-1] in ("steps", "meta_steps") and len(path) == 1 else set()
    return Preset(**parts, learners=learners, gradients=gradients, own_steps=tuple(sorted(own)))


def _replaced(owner: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    return dataclasses.replace(owner, **{path[0]: _replaced(getattr(owner, path[0]), path[1:], value)})


def _path(preset: Preset, name: str) -> list[tuple[Any, str]]:
    """The parts of a name, each with what it is a part of.

    Raises:
        UserError: there is no setting of that name.
    """
    first, *rest = name.split(".")
    owner: Any
    path: list[tuple[Any, str]]
    if first in preset.learners:
        path, owner = [(preset.learners, first)], preset.learners[first]
    elif first in PARTS or first == "gradients":
        path, owner = [(preset, first)], getattr(preset, first)
    else:
        raise _unknown(preset, name)
    for word in rest:
        part = word.replace("-", "_")
        if not _is_settings(owner) or part not in {field.name for field in dataclasses.fields(owner)}:
            raise _unknown(preset, name)
        path.append((owner, part))
        owner = getattr(owner, part)
    return path


def _unknown(preset: Preset, name: str) -> UserError:
    listed = unknown("setting", name, names(preset))
    return UserError(f"{listed}: `metaleader run EXPERIMENT --help` shows them")


def _is_settings(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
