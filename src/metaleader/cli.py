"""The command `metaleader`: its options are the fields of the settings."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn

import jax
import platformdirs
import tyro
from rich.console import Console
from rich.table import Table

from metaleader import data, devices, rendering, report
from metaleader.errors import UserError, unknown
from metaleader.experiments import EXPERIMENTS, Experiment, Preset, find
from metaleader.progress import live
from metaleader.rendering import Rendering
from metaleader.run import Plan, RunInterrupted, run

MAIN_JOB = "rainbow-digits"
OPTIONS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)
USAGE = """usage: metaleader COMMAND ...

  run [EXPERIMENT]   run learners on an experiment, then report (rainbow-digits, if none is named)
  report DIR...      table, figures and page of runs, finished or not
  list               the experiments, their presets and learners
  data [NAME]        which data is present, where; with a name, fetch it
  data render NAME   render the images of pose or pose-primitives

metaleader COMMAND --help tells more; metaleader run EXPERIMENT --help lists every setting."""


@dataclass(frozen=True)
class RunOptions:
    """Run learners on an experiment, one after another on the same streams, and report."""

    learner: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Learners to run, by name; may be given several times. None: those that the experiment compares."""
    seeds: int = 1
    """Number of seeds, from 0: each is an order of the tasks, a split of the data and a draw of the weights."""
    preset: str = "laptop"
    """smoke (seconds, to try things), laptop (minutes on 2 cores) or paper (the authors' schedule)."""
    out: Path | None = None
    """Folder for the results. None: a new one under runs/."""
    data_dir: Path | None = None
    """Folder with data sets, searched first."""
    checkpoint_seconds: float = 20.0
    """Time between checkpoints, which is what a kill may cost; Ctrl-C costs nothing."""
    resume: bool = False
    """Go on with the runs in the folder (without --out, the newest) from their last checkpoints."""


@dataclass(frozen=True)
class ReportOptions:
    """Make the table, the figures and the page again from the records of runs, finished or not."""

    dirs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs, or folders that hold some."""
    out: Path | None = None
    """Where to put the report. None: into the first folder."""


@dataclass(frozen=True)
class DataOptions:
    """Show which data is present and where; with a name, fetch what is missing."""

    name: tyro.conf.Positional[str | None] = None
    """A data set to fetch."""
    data_dir: Path | None = None
    """Folder with data sets, searched first."""


@dataclass(frozen=True)
class RenderOptions:
    """Render the images of the pose experiments, with MuJoCo; what is there already is kept."""

    rendering: Annotated[Rendering, tyro.conf.arg(name="", prefix_name=False)] = Rendering()
    workers: int | None = None
    """Processes that share the work. None: one a core."""
    data_dir: Path | None = None
    """Folder with data sets, searched first for CAD models (pascal3d/CAD) and given the images. None: the cache."""


RENDERED = {"pose": "cad", "pose-primitives": "primitives"}  # experiments, and where their objects come from


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end with its exit code: 0, 1 if a run failed, 2 if the user erred, 130 on Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"run": _run, "report": _report, "list": _list, "data": _data}
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(USAGE)
            sys.exit(0)
        if arguments[0] == "--version":
            from importlib import metadata

            print(f"metaleader {metadata.version('metaleader')}")
            sys.exit(0)
        if arguments[0] not in commands:
            raise UserError(unknown("command", arguments[0], commands))
        sys.exit(commands[arguments[0]](arguments[1:]))
    except ValueError as error:  # UserError, and what the library says of settings and data
        _say(f"error: {' '.join(str(error).split())}")
        sys.exit(2)
    except KeyboardInterrupt:
        _say("stopped at once; add --resume to go on from the last checkpoint")
        sys.exit(130)


def _run(arguments: list[str]) -> int:
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else MAIN_JOB
    experiment = find(name)
    preset_name = _value_of("--preset", arguments) or RunOptions.preset
    options, preset = _parse_run(name, experiment, experiment.preset(preset_name), arguments)
    if options.seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {options.seeds}")
    learners = tuple(dict.fromkeys(n for names in options.learner for n in names)) or experiment.compared
    out = options.out or _folder(f"{experiment.name}-{preset_name}", options.resume)
    _start_jax()
    plan = Plan(
        experiment,
        preset_name,
        preset,
        learners,
        tuple(range(options.seeds)),
        out,
        options.data_dir,
        shlex.join(["metaleader", "run", name, *arguments]),
        options.checkpoint_seconds,
    )
    console = Console()
    try:
        with live(plan) as progress:
            outcomes = run(plan, options.resume, progress)
    except RunInterrupted:
        resume = [a for a in arguments if a != "--resume"]
        again = shlex.join(["metaleader", "run", name, *resume, *(["--out", str(out)] if not options.out else [])])
        _say(f"stopped; everything is saved in {out}. Go on with: {again} --resume")
        return 130
    page, summary = report.write_report([out], out)
    console.print(report.terminal_table(summary))
    for folder, outcome in outcomes.items():
        if outcome != "finished":
            _say(f"{folder}: {outcome}")
    console.print(f"report: {page}", soft_wrap=True)
    return int(any(outcome.startswith("failed") for outcome in outcomes.values()))


def _report(arguments: list[str]) -> int:
    options = _parse(ReportOptions, arguments, "metaleader report")
    if not options.dirs:
        raise UserError("name at least one folder of runs: metaleader report DIR...")
    page, summary = report.write_report(list(options.dirs), options.out or options.dirs[0])
    console = Console()
    console.print(report.terminal_table(summary))
    console.print(f"report: {page}", soft_wrap=True)
    return 0


def _list(arguments: list[str]) -> int:
    if arguments:
        raise UserError(f"list takes no arguments, got {shlex.join(arguments)}")
    table = Table("experiment", "presets", "learners", "what it is", box=None, pad_edge=False)
    for experiment in EXPERIMENTS.values():
        learners = dict.fromkeys(name for preset in experiment.presets.values() for name in preset.learners)
        table.add_row(experiment.name, " ".join(experiment.presets), " ".join(learners), experiment.summary)
    Console().print(table)
    return 0


def _data(arguments: list[str]) -> int:
    if arguments[:1] == ["render"]:
        return _render(arguments[1:])
    options = _parse(DataOptions, arguments, "metaleader data")
    if options.name is not None:
        data.locate(data.find(options.name), options.data_dir)
    table = Table("data set", "file", "status", "size", "sha256", "where", box=None, pad_edge=False)
    for row in data.inventory(options.data_dir):
        table.add_row(*row)
    Console().print(table)
    return 0


def _render(arguments: list[str]) -> int:
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "pose"
    if name not in RENDERED:
        raise UserError(unknown("experiment to render", name, RENDERED))
    options = _parse(RenderOptions, [*arguments, "--source", RENDERED[name]], f"metaleader data render {name}")
    folder = rendering.render(options.rendering, options.data_dir, options.workers)
    print(f"images: {folder}\ncontact sheet: {folder / rendering.CONTACT_SHEET}")
    return 0


def _parse_run(name: str, experiment: Experiment, preset: Preset, arguments: list[str]) -> tuple[RunOptions, Preset]:
    """The options of a run, and the preset with the settings that were given."""
    settings: dict[str, Any] = {
        "stream": preset.stream,
        "model": preset.model,
        "loss": preset.loss,
        "protocol": preset.protocol,
        **{name.replace("-", "_"): learner for name, learner in preset.learners.items()},
    }
    settable = {key: value for key, value in settings.items() if dataclasses.is_dataclass(value)}
    own = {f.name: f for f in dataclasses.fields(RunOptions)}
    fields = [(key, type(value), field(default=value)) for key, value in settable.items()]
    options_type = dataclasses.make_dataclass("RunOptions", fields, bases=(RunOptions,), frozen=True)
    options_type.__doc__ = f"{RunOptions.__doc__}\n\n{experiment.name}: {experiment.summary}."
    parsed = _parse(options_type, arguments, f"metaleader run {name}")
    settings.update({key: getattr(parsed, key) for key in settable})
    learners = {name: settings[name.replace("-", "_")] for name in preset.learners}
    given = Preset(settings["stream"], settings["model"], settings["loss"], settings["protocol"], learners)
    return RunOptions(**{key: getattr(parsed, key) for key in own}), given


def _parse(options: type[Any], arguments: list[str], program: str) -> Any:
    """`tyro.cli`, with what it refuses in one line."""
    refused = io.StringIO()
    try:
        with contextlib.redirect_stderr(refused):
            return tyro.cli(options, args=arguments, prog=program, config=OPTIONS)
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


def _value_of(option: str, arguments: list[str]) -> str | None:
    """The value of an option that must be known before the others can be parsed."""
    for given, following in zip(arguments, [*arguments[1:], None], strict=True):
        if given == option:
            return following
        if given.startswith(f"{option}="):
            return given.partition("=")[2]
    return None


def _folder(name: str, resume: bool) -> Path:
    """A new folder runs/NAME, runs/NAME-2, ...; the newest that exists, to resume."""
    root = Path("runs")
    candidates = [root / name] + [root / f"{name}-{i}" for i in range(2, 1000)]
    free = next(i for i, path in enumerate(candidates) if not path.exists())
    if resume and free == 0:
        raise UserError(f"there is no {candidates[0]} to resume: name the folder with --out")
    return candidates[free - 1] if resume else candidates[free]


def _start_jax() -> None:
    devices.use_all_cores()
    jax.config.update("jax_compilation_cache_dir", str(platformdirs.user_cache_path("metaleader") / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
