"""Options are the fields of settings: a preset and what is changed in it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

from metaleader.errors import UserError, unknown
from metaleader.experiments.experiment import Experiment, Preset
from metaleader.experiments.settings import PARTS, STEPS, replaced, setting

FLAGS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff)
VALUES = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)  # --flag True, for a grid of settings
LARGEST = 2**63 - 1  # what NumPy, JAX and Optuna take for an integer


def parse_with_settings(
    base: type[Any], experiment: Experiment, arguments: list[str], program: str
) -> tuple[Any, Preset]:
    """The options of a command, and the preset with the settings that were given.

    Args:
        base: a frozen dataclass, the options of the command itself, `preset` and `learner` among them; the fields of
            the preset join them.
        experiment: what is run.
        arguments: of the command line.
        program: what the command is called.

    The learners that have options are those that run: named by `--learner`, or else those that the experiment compares.

    Raises:
        UserError: see `parse`; or the preset or a learner is unknown.
    """
    # Which options there are depends on two of them.
    words = [word for word in arguments if word not in ("-h", "--help")]
    known, _ = parse(base, words, program, return_unknown_args=True)
    preset, run = experiment.preset(known.preset), chosen(known.learner) or experiment.compared
    for name in run:
        if name not in preset.learners:
            raise UserError(unknown("learner", name, preset.learners))
    settings: dict[str, Any] = {part: getattr(preset, part) for part in PARTS}
    settings.update({name: preset.learners[name] for name in run})
    # Fields of these names, as a learner's may be no identifier, or that of an option of the command.
    fields = {name: f"of_{i}" for i, (name, value) in enumerate(settings.items()) if dataclasses.is_dataclass(value)}
    made: list[Any] = [
        (key, Annotated[type(settings[name]), tyro.conf.arg(name=name)], field(default=settings[name]))
        for name, key in fields.items()
    ]
    made.append(("gradients", Annotated[int, tyro.conf.arg(help=_GRADIENTS)], field(default=preset.gradients)))
    options_type = dataclasses.make_dataclass(base.__name__, made, bases=(base,), frozen=True)
    others = [name for name in preset.learners if name not in run]
    shown = f" Other learners, whose options `--learner NAME --help` shows: {', '.join(others)}." if others else ""
    options_type.__doc__ = f"{base.__doc__}\n\n{experiment.name}: {experiment.summary}.{shown}"
    try:
        options = parse(options_type, arguments, program)
    except UserError as error:
        raise UserError(_with_names(str(error), fields)) from None
    settings.update({name: getattr(options, key) for name, key in fields.items()})
    parts = {part: settings.pop(part) for part in PARTS}
    learners = {**preset.learners, **settings}
    said = {word.partition("=")[0].replace("_", "-") for word in words}
    own_steps = {name for name in run if said & {f"--{name}.{steps}".replace("_", "-") for steps in STEPS}}
    given = Preset(
        **parts,
        learners=learners,
        gradients=options.gradients,
        own_steps=tuple(sorted(own_steps.union(preset.own_steps))),
    )
    return base(**{f.name: getattr(options, f.name) for f in dataclasses.fields(base)}), given


def _with_names(message: str, fields: Mapping[str, str]) -> str:
    """What an object of settings refused, with the name that it has for the user."""
    names = {key.replace("_", "-"): name for name, key in fields.items()}
    of_object = rf"^Error parsing ({'|'.join(names)})(?=[.:])"
    return re.sub(of_object, lambda found: f"--{names[found[1]]}", message)


def chosen(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """The names of an option that may be given several times, each once, in order."""
    return tuple(dict.fromkeys(name for names in groups for name in names))


_GRADIENTS = (
    "Per-example gradients that every learner takes to learn whenever datapoints arrive: its steps are as many as that "
    "pays for, but for learners whose steps are set. 0: as many as the settings of each learner say."
)


def with_settings(experiment: Experiment, preset: Preset, texts: Mapping[str, str]) -> Preset:
    """The preset with what was set, by name, parsed as `metaleader run` would.

    Raises:
        UserError: a setting is unknown, or a value impossible.
    """
    return replaced(preset, values_of(experiment, preset, texts))


def values_of(experiment: Experiment, preset: Preset, texts: Mapping[str, str]) -> dict[str, Any]:
    """The values of settings that texts stand for, by name, made sure that they go together.

    Raises:
        UserError: a setting is unknown, or a value impossible.
    """
    try:
        values = {name: parsed(experiment, preset, name, text) for name, text in texts.items()}
        replaced(preset, values)
        return values
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        named = f"{', '.join(texts)}: " if len(texts) <= 3 else ""
        raise UserError(f"{named}{error}") from error


def parsed(experiment: Experiment, preset: Preset, name: str, text: str) -> Any:
    """The value of a setting that a text stands for.

    Raises:
        UserError: there is no such setting, or it takes no such text.
    """
    before = setting(preset, name)
    if dataclasses.is_dataclass(before):
        raise UserError(f"{name} has settings of its own: name one, as {name}.{dataclasses.fields(before)[0].name}")
    option: Any = Annotated[_type_of(preset, name), tyro.conf.arg(name=name)]
    options = dataclasses.make_dataclass("Options", [("value", option, field(default=before))], frozen=True)
    words = [word.capitalize() if word in ("true", "false") else word for word in shlex.split(text)]
    return parse(options, [f"--{name}", *words], f"metaleader run {experiment.name}", VALUES).value


def _type_of(preset: Preset, name: str) -> Any:
    owner, _, last = name.rpartition(".")
    return get_type_hints(type(setting(preset, owner)))[last.replace("-", "_")] if owner else int


def as_arguments(preset: Preset, texts: Mapping[str, str]) -> list[str]:
    """What was set, by name, as arguments of `metaleader run` with that preset; flags that change nothing are left out.

    Raises:
        UserError: the preset has no such setting.
    """
    arguments = []
    for name, text in texts.items():
        before = setting(preset, name)
        if not isinstance(before, bool):
            arguments += [f"--{name}", *shlex.split(text)]
        elif (text.lower() == "true") != before:
            first, dot, last = name.rpartition(".")
            arguments.append(f"--{first}{dot}{'no-' if before else ''}{last}")
    return arguments


def by_name(texts: Iterable[str], option: str, form: str) -> dict[str, str]:
    """What was given as `NAME=VALUE`, by name.

    Args:
        texts: the values of an option that may be given several times.
        option: the option.
        form: what it takes, for messages.

    Raises:
        UserError: a text is not of that form, or a name comes twice.
    """
    values: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        owner, dot, rest = name.strip().removeprefix("--").partition(".")
        name = f"{owner}.{rest.replace('_', '-')}" if dot else owner.replace("_", "-")  # learners keep their names
        if not name or not value.strip():
            raise UserError(f"{option} takes {form}; got {text!r}")
        if name in values:
            raise UserError(f"{option} {name} is given twice: it takes {form}")
        values[name] = value.strip()
    return values


def check_used(names: Iterable[str], option: str, known: Collection[str], chosen: Collection[str]) -> None:
    """Refuse settings of learners that do not run.

    Raises:
        UserError: naming the first.
    """
    for name in names:
        if (owner := name.partition(".")[0]) in known and owner not in chosen:
            raise UserError(
                f"{option} {name} changes nothing: the learners are {', '.join(chosen)}; add --learner {owner}"
            )


def parse(
    options: type[Any], arguments: list[str], program: str, config: tuple[Any, ...] = FLAGS, **others: Any
) -> Any:
    """`tyro.cli`, which takes `others` too, with what it refuses in one line; `~` in a path is the home folder.

    Raises:
        UserError: what was refused, and the nearest options.
    """
    refused = io.StringIO()
    try:
        with contextlib.redirect_stderr(refused):
            return tyro.cli(options, args=arguments, prog=program, config=config, registry=_REGISTRY, **others)
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(_one_line(refused.getvalue(), program)) from None


def _integer(words: list[str]) -> int:
    value = int(words[0])
    if abs(value) > LARGEST:
        raise ValueError(f"must be at most {LARGEST}, got {value}")
    return value


def _path(words: list[str]) -> Path:
    return Path(os.path.expanduser(words[0]))


def _constructor(made: type[Any], metavar: str, of_words: Callable[[list[str]], Any]) -> PrimitiveConstructorSpec[Any]:
    """How tyro makes a value of one word."""
    return PrimitiveConstructorSpec(1, metavar, of_words, lambda value: isinstance(value, made), lambda v: [str(v)])


_CONSTRUCTORS = {int: _constructor(int, "INT", _integer), Path: _constructor(Path, "PATH", _path)}
_REGISTRY = ConstructorRegistry()
_REGISTRY.primitive_rule(lambda info: _CONSTRUCTORS.get(info.type) if isinstance(info.type, type) else None)


def _one_line(box: str, program: str) -> str:
    """What a framed message says, without the frame, the help of the option and the advice on --help."""
    lines = [line.strip("│| ") for line in box.splitlines()[1:]]
    text = " ".join(line for line in lines if line.strip("╭╮╰╯─+-"))  # frames are of - and | where the locale is ASCII
    message, _, rest = re.sub(r"\s+", " ", text).partition(" Perhaps you meant:")
    message = re.split(r" ?(?:Argument helptext|For full helptext|Similar)", message)[0].strip()
    near = list(dict.fromkeys(re.findall(r"(?<=\s)--[\w.-]+", f" {rest.split('For full helptext')[0]}")))
    meant = f"; did you mean {' or '.join(near[:3])}?" if near else ""
    return f"{message}{meant} (`{program} --help` lists all options)"
