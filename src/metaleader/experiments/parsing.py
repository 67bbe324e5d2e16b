"""Options are the fields of settings: a preset and what is changed in it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import field
from typing import Annotated, Any, get_type_hints

import tyro

from metaleader.errors import UserError, unknown
from metaleader.experiments.experiment import Experiment, Preset
from metaleader.experiments.settings import replaced, setting
from metaleader.learners import Learner

FLAGS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)
VALUES = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)  # --flag True, for a grid of settings


def parse_with_settings(
    base: type[Any],
    experiment: Experiment,
    preset: Preset,
    arguments: list[str],
    program: str,
) -> tuple[Any, Preset]:
    """The options of a command, and the preset with the settings that were given.

    Args:
        base: a frozen dataclass, the options of the command itself; the fields of the preset join them.
        experiment: what is run.
        preset: the settings to begin with.
        arguments: of the command line.
        program: what the command is called.

    The learners that have options are those that run: named by `--learner`, or else those that the experiment compares.

    Raises:
        UserError: see `parse`; or a learner is unknown.
    """
    run = _learners(arguments) or experiment.compared
    for name in run:
        if name not in preset.learners:
            raise UserError(unknown("learner", name, preset.learners))
    settings: dict[str, Any] = {
        "stream": preset.stream,
        "model": preset.model,
        "loss": preset.loss,
        "protocol": preset.protocol,
        **{name.replace("-", "_"): preset.learners[name] for name in run},
    }
    settable = {key: value for key, value in settings.items() if dataclasses.is_dataclass(value)}
    own = {f.name for f in dataclasses.fields(base)}
    fields: list[Any] = [(key, type(value), field(default=value)) for key, value in settable.items()]
    fields.append(("gradients", Annotated[int, tyro.conf.arg(help=_GRADIENTS)], field(default=preset.gradients)))
    options_type = dataclasses.make_dataclass(base.__name__, fields, bases=(base,), frozen=True)
    others = [name for name in preset.learners if name not in run]
    shown = f" Other learners, whose options `--learner NAME --help` shows: {', '.join(others)}." if others else ""
    options_type.__doc__ = f"{base.__doc__}\n\n{experiment.name}: {experiment.summary}.{shown}"
    given_options = parse(options_type, arguments, program)
    settings.update({key: getattr(given_options, key) for key in settable})
    learners = {**preset.learners, **{name: settings[name.replace("-", "_")] for name in run}}
    own_steps = {name for name in learners if _steps(learners[name]) != _steps(preset.learners[name])}
    given = Preset(
        settings["stream"],
        settings["model"],
        settings["loss"],
        settings["protocol"],
        learners,
        given_options.gradients,
        tuple(sorted(own_steps.union(preset.own_steps))),
    )
    return base(**{key: getattr(given_options, key) for key in own}), given


_GRADIENTS = (
    "Per-example gradients that every learner takes to learn whenever datapoints arrive: its steps are as many as that "
    "pays for, but for learners whose steps are set. 0: as many as the settings of each learner say."
)


def _steps(learner: Learner) -> tuple[Any, Any]:
    return getattr(learner, "steps", None), getattr(learner, "meta_steps", None)


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
        name = name.strip().removeprefix("--").replace("_", "-")
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


def parse(options: type[Any], arguments: list[str], program: str, config: tuple[Any, ...] = FLAGS) -> Any:
    """`tyro.cli`, with what it refuses in one line.

    Raises:
        UserError: what was refused, and the nearest options.
    """
    refused = io.StringIO()
    try:
        with contextlib.redirect_stderr(refused):
            return tyro.cli(options, args=arguments, prog=program, config=config)
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(_one_line(refused.getvalue(), program)) from None


def _one_line(box: str, program: str) -> str:
    """What a framed message says, without the frame, the help of the option and the advice on --help."""
    text = " ".join(line.strip("│╭╮╰╯─ ") for line in box.splitlines()[1:])
    message, _, rest = re.sub(r"\s+", " ", text).partition(" Perhaps you meant:")
    message = re.split(r" ?(?:Argument helptext|For full helptext|Similar)", message)[0].strip()
    near = list(dict.fromkeys(re.findall(r"(?<=\s)--[\w.-]+", f" {rest.split('For full helptext')[0]}")))
    meant = f"; did you mean {' or '.join(near[:3])}?" if near else ""
    return f"{message}{meant} (`{program} --help` lists all options)"


def _learners(arguments: list[str]) -> tuple[str, ...]:
    """The learners named by `--learner`, which takes several names and may be given several times."""
    named, within = [], False
    for word in arguments:
        if word.startswith("--"):
            option, _, value = word.partition("=")
            within = option == "--learner"
            named += [value] if within and value else []
        elif within:
            named.append(word)
    return tuple(dict.fromkeys(named))


def option_of(option: str, arguments: list[str]) -> str | None:
    """The value of an option that must be known before the others can be parsed."""
    for given, following in itertools.zip_longest(arguments, arguments[1:]):
        if given == option:
            return following
        if given.startswith(f"{option}="):
            return given.partition("=")[2]
    return None
