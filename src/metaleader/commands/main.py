"""The command `metaleader`: its options are the fields of the settings."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import tyro
from rich.console import Console
from rich.table import Table

from metaleader import devices
from metaleader.commands import reproduce as reproduction
from metaleader.commands.progress import live, live_sweep, steps
from metaleader.errors import UserError, unknown
from metaleader.experiments import EXPERIMENTS, find, sweeps
from metaleader.experiments.parsing import option_of, parse, parse_with_settings
from metaleader.experiments.plans import Selection, perform
from metaleader.results import report, verdict_page, words
from metaleader.runs import sweep as pool
from metaleader.runs.run import RunFailed, RunInterrupted, run
from metaleader.runs.workers import LocalWorkers, slots
from metaleader.streams import rendering
from metaleader.streams import sources as data
from metaleader.streams.rendering import Rendering
from metaleader.tuning import page as tuning_page
from metaleader.tuning import trials
from metaleader.tuning.plan import Pruning, prepare
from metaleader.tuning.search import failures, tune

MAIN_JOB = "coloured-digits"
USAGE = """usage: metaleader COMMAND ...

  run [EXPERIMENT]   run learners on an experiment, then report (coloured-digits, if none is named)
  sweep EXPERIMENT.. many runs at once: experiments, settings, learners and seeds, in processes or on Ray
  tune EXPERIMENT    search the settings of learners, each with the same number of trials
  reproduce          every experiment of the paper, and a verdict on each of its claims
  report DIR...      table, figures and page of runs, finished or not
  list               the experiments, their presets and learners
  data [NAME]        which data is present, where; with a name, fetch it
  data render NAME   render the images of pose or pose-primitives
  theory             check the theorem and the regret bounds on convex streams; table, figures and a page

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
    coordinator: str | None = None
    """HOST:PORT of process 0, where several processes share every meta-batch: give the same command to each, and
    its number as --process-id. `auto`: JAX finds all three on SLURM, Open MPI, Kubernetes and Cloud TPU."""
    processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this one is, from 0."""


@dataclass(frozen=True)
class SweepOptions:
    """Run experiments x settings x learners x seeds, several at a time, and report on all of them."""

    experiments: tyro.conf.Positional[tuple[str, ...]]
    """Names of experiments, or Python files that define one."""
    learner: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Learners to run, by name; may be given several times. None: those that each experiment compares."""
    seeds: int = 1
    """Number of seeds, from 0."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=VALUE,VALUE,... as in --set ftml.meta-steps=2,4,8; given several times, every combination runs. NAME is
    an option of `metaleader run EXPERIMENT`."""
    preset: str = "laptop"
    """The preset of every experiment to begin with."""
    out: Path | None = None
    """Folder for the results. None: a new one under runs/."""
    data_dir: Path | None = None
    """Folder with data sets, searched first."""
    cores: int = 1
    """CPU cores for each run."""
    workers: int | None = None
    """Runs at a time. None: as many as there are cores for."""
    ray: bool = False
    """Start Ray on this machine and run there. Otherwise: in processes of this machine."""
    ray_address: str | None = None
    """Run on the Ray cluster at this address (auto: the one this machine belongs to)."""
    gpus: float = 0.0
    """GPUs for each run on Ray; 0.5: two runs share one."""
    resume: bool = False
    """Go on with the sweep in the folder (without --out, the newest): what has ended is kept, the rest goes on."""


@dataclass(frozen=True)
class TuneOptions:
    """Search the settings of every learner with the same number of trials, on seeds that results never use.

    Trial 0 is the preset, and never pruned. What is searched: learning rates within a factor of 10 either way of the
    preset's, step sizes of update procedures within a factor of 5, and what the experiment names. Where a stream can
    hold out a part of the training images (stream.held-out), learners are judged on that. A file by-hand.md in the
    folder of the results, on what was tried by hand, goes into the page.
    """

    experiment: tyro.conf.Positional[str | None] = None
    """Name of an experiment, or a Python file that defines one."""
    learner: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Learners to tune, by name; may be given several times. None: those that the experiment compares."""
    preset: str = "laptop"
    """The settings to begin with."""
    trials: int = 24
    """Trials of every learner, the preset among them."""
    around: int = 0
    """Afterwards, as many trials of every learner at most that change a single setting of the best: a number by a
    factor of 3 either way, a choice to each other one. What is better takes its place, until no change is."""
    rungs: int | None = None
    """Rounds after which trials are first compared, and most of them end; again after --reduction times as many, and so
    on. None: a sixth of the stream."""
    reduction: int = 3
    """One in so many trials goes on from each rung."""
    prune: bool = True
    """Whether trials end early. Otherwise each takes the whole stream."""
    seeds: int = 1
    """Runs of every trial: seeds from 1000, while results have seeds from 0."""
    search: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=LOW:HIGH, as in --search ftml.meta-steps=1:8: a setting of a learner to search too, or between other ends;
    NAME=A|B|..., as in --search 'ftml.update.first-order=false|true': one to choose. May be given several times. NAME
    is an option of `metaleader run EXPERIMENT`."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=VALUE, as in --set stream.rounds=20: a setting of all trials, which is not searched; may be given several
    times."""
    out: Path | None = None
    """Folder for the results. None: a new one under runs/."""
    data_dir: Path | None = None
    """Folder with data sets, searched first."""
    cores: int = 1
    """CPU cores for each trial."""
    workers: int | None = None
    """Learners that are tuned at the same time, which does not change the trials. None: as many as there are cores
    for."""
    resume: bool = False
    """Go on in the folder (without --out, the newest): trials that have ended are kept. More --trials and --around may
    be given."""


@dataclass(frozen=True)
class ReproduceOptions:
    """Run every experiment of the paper with all its learners, and judge each of the paper's claims.

    Runs go on side by side, each on one core. Paragraphs in a file notes.md in the folder of the results go into the
    page: those below a heading such as `## rainbow-mnist` with that experiment, others at its end.
    """

    experiment: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Experiments to run, by name; may be given several times. None: all about which the paper claims something."""
    preset: str = "laptop"
    """The preset of every experiment."""
    seeds: int | None = None
    """Number of seeds, from 0, of every experiment; a verdict needs at least two. None: what each asks for, 6 or 3."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=VALUE, a setting of all learners alike, as in --set model.norm=batch, the authors' normalisation. Runs go
    into a folder of their own beside those of the preset, and the page shows both; experiments in which it changes
    nothing are left out. May be given several times."""
    workers: int | None = None
    """Runs at a time, each on one core. None: as many as there are cores."""
    out: Path | None = None
    """Folder for the results. None: a new one under runs/."""
    data_dir: Path | None = None
    """Folder with data sets, searched first."""
    resume: bool = False
    """Go on in the folder (without --out, the newest): what has ended is kept, the rest goes on."""
    report_only: bool = False
    """Run nothing: make the pages again from what is in the folder (without --out, the newest)."""


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
    commands = {
        "run": _run,
        "sweep": _sweep,
        "tune": _tune,
        "reproduce": _reproduce,
        "theory": _theory,
        "report": _report,
        "list": _list,
        "data": _data,
    }
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
        _end(2)
    except OSError as error:  # a report, say, that cannot be written
        _say(f"error: {error.filename or 'the system'}: {error.strerror or error}; make room or choose another --out")
        _end(2)
    except RunFailed as error:
        _say(str(error))
        _end(1)
    except KeyboardInterrupt:
        _say("stopped at once; add --resume to go on from the last checkpoint")
        _end(130)


def _run(arguments: list[str]) -> int:
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else MAIN_JOB
    experiment = find(name)
    preset_name = option_of("--preset", arguments) or RunOptions.preset
    options, preset = parse_with_settings(
        RunOptions, experiment, experiment.preset(preset_name), arguments, f"metaleader run {name}"
    )
    if options.seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {options.seeds}")
    learners = _chosen(options.learner) or experiment.compared
    devices.start()
    if options.coordinator is not None:
        devices.join(options.coordinator, options.processes, options.process_id)
    elif options.processes is not None or options.process_id is not None:
        raise UserError("--processes and --process-id need --coordinator HOST:PORT")
    out = options.out or devices.on_first(lambda: _folder(f"{experiment.name}-{preset_name}", options.resume))
    selection = Selection(
        experiment,
        preset_name,
        preset,
        learners,
        tuple(range(options.seeds)),
        out,
        options.data_dir,
        shlex.join(["metaleader", "run", name, *arguments]),
    )
    plan = selection.plan(checkpoint_seconds=options.checkpoint_seconds)
    try:
        with live(plan, quiet=not devices.is_first()) as progress:
            outcomes = run(plan, options.resume, progress)
    except RunInterrupted:
        return _stopped(["run", name, *arguments], options.out, out)
    if not devices.is_first():
        return int(any(outcome.startswith("failed") for outcome in outcomes.values()))
    return _finish(out, outcomes)


def _sweep(arguments: list[str]) -> int:
    options: SweepOptions = parse(SweepOptions, arguments, "metaleader sweep")
    if not options.experiments:
        raise UserError("name at least one experiment: metaleader sweep EXPERIMENT...")
    for name in ("seeds", "cores", "workers"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    out = options.out or _folder(f"sweep-{options.preset}", options.resume)
    learners = _chosen(options.learner)
    command = shlex.join(["metaleader", "sweep", *arguments])
    data_dir = options.data_dir and options.data_dir.absolute()
    jobs = sweeps.jobs(
        options.experiments, options.preset, learners, range(options.seeds), options.set, out, data_dir, command
    )
    sweeps.check_all(jobs, out, options.resume)
    workers: pool.Workers
    if options.ray or options.ray_address is not None:
        workers = pool.RayWorkers(options.ray_address, options.workers, options.cores, perform, options.gpus)
    else:
        workers = LocalWorkers(slots(options.workers, options.cores), options.cores, perform)
    try:
        with live_sweep(jobs) as show:
            outcomes = pool.sweep(jobs, workers, show)
    except RunInterrupted:
        return _stopped(["sweep", *arguments], options.out, out)
    return _finish(out, outcomes)


def _tune(arguments: list[str]) -> int:
    options: TuneOptions = parse(TuneOptions, arguments, "metaleader tune")
    if options.experiment is None:
        raise UserError("name an experiment: metaleader tune EXPERIMENT")
    for name in ("seeds", "trials", "cores", "workers"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    if options.around < 0:
        raise UserError(f"--around must not be negative, got {options.around}")
    devices.start(options.cores)
    experiment = find(options.experiment)
    out = options.out or _folder(f"tune-{experiment.name}-{options.preset}", options.resume)
    planned = prepare(
        experiment,
        options.preset,
        _chosen(options.learner),
        options.seeds,
        options.trials,
        options.search,
        options.set,
        out,
        options.data_dir,
        shlex.join(["metaleader", "tune", *arguments]),
        Pruning(options.rungs, options.reduction, options.prune),
        options.experiment,
        options.around,
    )
    at_once = min(slots(options.workers, options.cores), len(planned.plan.learners))
    workers = LocalWorkers(at_once, options.cores, trials.perform) if at_once > 1 else None
    try:
        with steps() as show:
            tuned = tune(planned, options.resume, show, workers)
    except RunInterrupted:
        return _stopped(["tune", *arguments], options.out, out)
    table = _table(tuning_page.HEADINGS, tuning_page.rows(tuned), tuning_page.title(tuned), tuning_page.note(tuned))
    exit_code = _told([table], tuning_page.write(tuned, out), failures(tuned, out))
    print(f"with the best of every learner:\n{tuning_page.run_command(tuned)}")
    return exit_code


def _reproduce(arguments: list[str]) -> int:
    options: ReproduceOptions = parse(ReproduceOptions, arguments, "metaleader reproduce")
    for name in ("seeds", "workers"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    out = options.out or _folder(f"reproduce-{options.preset}", options.resume or options.report_only)
    outcomes: dict[str, str] = {}
    if not options.report_only:
        command = shlex.join(["metaleader", "reproduce", *arguments])
        data_dir = options.data_dir and options.data_dir.absolute()
        chosen = _chosen(options.experiment)
        jobs = reproduction.jobs(chosen, options.preset, options.seeds, options.set, out, data_dir, command)
        reproduction.check(jobs, options.resume)
        workers = LocalWorkers(slots(options.workers), 1, perform)
        try:
            with live_sweep(jobs) as show:
                outcomes = pool.sweep(jobs, workers, show)
        except RunInterrupted:
            return _stopped(["reproduce", *arguments], options.out, out)
    page, judged = verdict_page.conclude(out)
    tables = []
    for title, of_section in judged:
        headings, *rows = [[row[i] for i in words.BRIEF] for row in (words.HEADINGS, *words.rows(of_section))]
        tables.append(_table(headings, rows, title))
    return _told(tables, page, outcomes)


def _finish(out: Path, outcomes: Mapping[str, str]) -> int:
    """Report on the runs in `out`."""
    page, summaries = report.write_report([out], out)
    return _told(map(report.terminal_table, summaries), page, outcomes)


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]], title: str = "", note: str = "") -> Table:
    """A table for the terminal."""
    table = Table(*headings, title=title or None, caption=note or None, box=None, pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    for column in table.columns:
        column.overflow = "fold"  # an option is of use only whole
    for row in rows:
        table.add_row(*row)
    return table


def _told(tables: Iterable[Table], page: Path, outcomes: Mapping[str, str]) -> int:
    """Show the tables, name the runs that did not finish and the page; the exit code: 1 if a run failed."""
    console = Console()
    for table in tables:
        console.print(table)
    for folder, outcome in outcomes.items():
        if outcome != "finished":
            _say(f"{folder}: {outcome}")
    console.print(f"report: {page}", soft_wrap=True)
    return int(any(outcome.startswith("failed") for outcome in outcomes.values()))


def _stopped(command: list[str], given: Path | None, out: Path) -> int:
    """Say how to go on after Ctrl-C; `given` is the folder that the user named, if any."""
    again = [word for word in command if word != "--resume"] + ([] if given else ["--out", str(out)])
    if devices.is_first():
        _say(f"stopped; everything is saved in {out}. Go on with: {shlex.join(['metaleader', *again, '--resume'])}")
    return 130


def _chosen(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """The names of an option that may be given several times, each once, in order."""
    return tuple(dict.fromkeys(name for names in groups for name in names))


def _report(arguments: list[str]) -> int:
    options = parse(ReportOptions, arguments, "metaleader report")
    if not options.dirs:
        raise UserError("name at least one folder of runs: metaleader report DIR...")
    page, summaries = report.write_report(list(options.dirs), options.out or options.dirs[0])
    return _told(map(report.terminal_table, summaries), page, {})


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
    options = parse(DataOptions, arguments, "metaleader data")
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
    options = parse(RenderOptions, [*arguments, "--source", RENDERED[name]], f"metaleader data render {name}")
    folder = rendering.render(options.rendering, options.data_dir, options.workers)
    print(f"images: {folder}\ncontact sheet: {folder / rendering.CONTACT_SHEET}")
    return 0


def _theory(arguments: list[str]) -> int:
    from metaleader import theory

    options = parse(theory.TheoryOptions, arguments, "metaleader theory")
    out = options.out or _folder("theory", resume=False)
    theory.check_free(out)
    devices.start()
    began, console = time.monotonic(), Console()
    with steps() as show:
        for step in theory.run_checks(options):
            show(step.name, step.done, step.total)
    command = shlex.join(["metaleader", "theory", *arguments])
    page = theory.write(step.found, options, out, command, time.monotonic() - began)
    console.print(theory.terminal_table(step.found))
    console.print(f"page: {page}", soft_wrap=True)
    for claim in step.found.failed:
        _say(f"does not hold: {claim.claim}")
    return int(bool(step.found.failed))


def _folder(name: str, resume: bool) -> Path:
    """A new folder runs/NAME, runs/NAME-2, ...; the newest that exists, to resume."""
    root = Path("runs")
    candidates = [root / name] + [root / f"{name}-{i}" for i in range(2, 1000)]
    free = next(i for i, path in enumerate(candidates) if not path.exists())
    if resume and free == 0:
        raise UserError(f"there is no {candidates[0]} to resume: name the folder with --out")
    return candidates[free - 1] if resume else candidates[free]


def _end(code: int) -> NoReturn:
    """Exit after a sudden stop; one of several processes tells the others nothing, as they may be waiting for it."""
    if devices.joined():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
