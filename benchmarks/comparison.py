"""What the studies here share: sizes, runs in parallel that go on where they stopped, and a page with tables."""

from __future__ import annotations

import dataclasses
import pickle
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from matplotlib.figure import Figure

from metaleader import Preset, UserError
from metaleader.errors import unknown
from metaleader.experiments import Experiment, find, plans
from metaleader.experiments.plans import Selection
from metaleader.experiments.sweeps import check_all
from metaleader.files import write_text
from metaleader.results import figures, metrics, provenance, report
from metaleader.results.figures import style
from metaleader.results.metrics import Run
from metaleader.runs.progress import live_sweep
from metaleader.runs.run import ENDED, Plan, RunInterrupted
from metaleader.runs.sweep import Workers, sweep
from metaleader.runs.workers import LocalWorkers, slots


@dataclass(frozen=True)
class Options:
    """How large a study is."""

    out: Path
    """Folder for the runs; what has ended there is kept."""
    page: Path
    """The page to write; its figures go beside it, under figures/."""
    experiment: str = "rainbow-mnist"
    """Experiment, or a Python file that defines one."""
    preset: str = "laptop"
    """Preset of the experiment."""
    seeds: int = 6
    """Number of seeds."""
    rounds: int | None = None
    """Rounds, to try things; None: all."""
    examples: int | None = None
    """Datapoints a task, to try things; None: all."""
    evaluate_at: tuple[int, ...] = ()
    """Sizes of D_t at which to judge. None named: those of the preset."""
    data_dir: Path | None = None
    """Folder with data sets, searched first."""
    workers: int | None = None
    """Runs at a time, each on one core. None: one a core."""
    page_only: bool = False
    """Run nothing: write the page of the runs that have ended."""


@dataclass(frozen=True)
class Job(plans.Job):
    """A run whose settings travel whole: a study may have learners that no preset has.

    Attributes:
        given: all settings, a pickled `Preset`.
    """

    given: bytes

    def plan(self) -> Plan:
        """The run as a plan of one."""
        experiment, preset = find(self.experiment), pickle.loads(self.given)
        of_run = (self.learner,), (self.seed,), self.out, self.data_dir, self.command, self.setting
        return Selection(experiment, self.preset_name, preset, *of_run).plan()


def settings_of(experiment: Experiment, options: Options) -> Preset:
    """The preset, reduced as the options ask.

    Raises:
        UserError: an option does not apply, or is impossible.
    """
    if options.seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {options.seeds}")
    preset = experiment.preset(options.preset)
    stream: Any = preset.stream
    for option, name in (("rounds", "rounds"), ("examples", "examples_per_task")):
        if (value := getattr(options, option)) is not None:
            if name not in {field.name for field in dataclasses.fields(stream)}:
                raise UserError(f"--{option} does not apply: the stream of {experiment.name} has no {name}")
            stream = dataclasses.replace(stream, **{name: value})
    protocol = preset.protocol
    if options.evaluate_at:
        protocol = dataclasses.replace(protocol, evaluate_at=options.evaluate_at)
    return dataclasses.replace(preset, stream=stream, protocol=protocol)


def planned(
    experiment: Experiment, preset: Preset, names: Sequence[str], options: Options, setting: tuple[str, ...] = ()
) -> list[Job]:
    """A run for every learner and seed.

    Args:
        experiment: what is run.
        preset: all settings.
        names: the learners.
        options: where to put the runs, and how many seeds.
        setting: what sets these runs apart from others in the folder, each as `NAME=VALUE`.

    Raises:
        UserError: a learner is unknown.
    """
    for name in names:
        if name not in preset.learners:
            raise UserError(unknown("learner", name, preset.learners))
    source = options.experiment
    where = str(Path(source).absolute()) if source.endswith(".py") else source
    folder = options.out.absolute() / f"{experiment.name}-{options.preset}" / ",".join(setting)
    given, data = pickle.dumps(preset), options.data_dir and options.data_dir.absolute()
    return [
        Job(where, options.preset, setting, name, seed, folder, data, command(), given)
        for name in names
        for seed in range(options.seeds)
    ]


def command() -> str:
    """What was typed."""
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]])


def perform(job: Job, cores: int) -> str:
    """Run a job in a worker; of one that has ended, only its small files stay."""
    outcome = plans.perform(job, cores)
    if outcome in ENDED:
        shutil.rmtree(job.folder.path / "checkpoints", ignore_errors=True)
    return outcome


def study(jobs: Sequence[Job], options: Options, write: Callable[[], None], workers: Workers | None = None) -> int:
    """Make the runs that have not ended, then the page of those that have; the exit code.

    Args:
        jobs: all runs of the study.
        options: see `Options`.
        write: writes the page from what has ended.
        workers: what makes the runs; None: processes of one core each.

    Raises:
        UserError: runs in the folder were made with other settings, data is missing, or no run has ended.
    """
    code = 0
    if not options.page_only:
        check_all(jobs, options.out, resume=True)
        workers = workers or LocalWorkers(slots(options.workers), 1, perform)
        try:
            with live_sweep(jobs) as show:
                outcomes = sweep(jobs, workers, show)
            for folder, outcome in outcomes.items():
                if outcome not in ENDED:
                    code = 1
                    print(f"{folder}: {outcome}", file=sys.stderr)
        except RunInterrupted:
            code = 130
            print(f"stopped; everything is saved in {options.out}: the same command goes on", file=sys.stderr)
    if not any(job.folder.outcome in ENDED for job in jobs):
        if code:
            return code
        raise UserError(f"no run has ended in {options.out}: there is nothing to write a page of")
    write()
    print(f"page: {options.page}")
    return code


def ended(jobs: Sequence[Job]) -> dict[Job, Run]:
    """The runs that have ended."""
    return {job: metrics.load([job.folder.path])[0] for job in jobs if job.folder.outcome in ENDED}


def by_learner(found: Mapping[Job, Run]) -> dict[str, list[Run]]:
    """The runs by the name of their learner."""
    return {name: [r for r in found.values() if r.learner == name] for name in dict.fromkeys(j.learner for j in found)}


def missing(jobs: Sequence[Job], found: Mapping[Job, Run]) -> list[str]:
    """What the page lacks, as a paragraph; none where all runs have ended."""
    lacking: dict[str, list[str]] = {}
    for job in jobs:
        if job not in found:
            lacking.setdefault(" ".join([f"`{job.learner}`", *job.setting]), []).append(str(job.seed))
    if not lacking:
        return []
    cells = "; ".join(f"{cell}: seed{'s' * (len(of) > 1)} {', '.join(of)}" for cell, of in lacking.items())
    count = sum(map(len, lacking.values()))
    return [f"**Not complete.** {count} of {len(jobs)} runs have not ended, and take no part in what follows: {cells}."]


def save(figure: Figure, page: Path, name: str) -> str:
    """Write the figure beside the page, and return its path from there."""
    folder = page.parent / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    with figures.drawing():
        figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
    return f"figures/{name}.png"


def write_page(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a page of paragraphs, tables and lists, with a blank line between them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n\n".join([f"# {title}", *(part.strip("\n") for part in parts)]) + "\n")


def summary_table(summary: Mapping[str, Any], columns: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The table of a summary, with more columns by learner, and what it says."""
    headings, rows = report.table_rows(dict(summary))
    headings = [headings[0], *columns, *headings[1:]]
    rows = [
        [f"`{name}`", *(column[name] for column in columns.values()), *row[1:]]
        for name, row in zip(summary["learners"], rows, strict=True)
    ]
    note = (
        f"Held-out {summary['score']['name']} over the last third of the rounds, with 95 % t intervals over seeds; "
        f"median of the datapoints to {summary['threshold']:g}, and tasks that reached it. Gradients are per-example "
        "gradient evaluations in learning and adapting, a Hessian-vector product counting as two."
    )
    return [report.markdown_table(headings, rows), note]


def differs(run: Run) -> str:
    """Which experiment this is, how its preset differs from the paper's, and how many rounds were run."""
    title = run.section.partition(" gradients=")[0]
    return " ".join(filter(None, [f"{title}, {run.planned} rounds.", provenance.differs(run)]))


def made(found: Mapping[Job, Run], options: Options) -> list[str]:
    """Command, commit, machine, time and the checksum of every run."""
    runs = list(found.values())
    lines = [f"{name}:\n\n```\n{text}\n```" for name, text in provenance.made(runs).items()]
    checksums = report.markdown_table(provenance.HEADINGS, provenance.rows(runs, options.out))
    return [
        "## How this was made",
        *lines,
        f"<details><summary>Checksums of {len(runs)} runs</summary>\n\n{checksums}\n</details>",
    ]


def label(learner: str) -> str:
    """A learner's short name in a sentence."""
    return style(learner).short


def cli(options: type[Any], study: Callable[[Any], int], description: str | None) -> None:
    """Parse the options, make the study and end with its exit code; what the user got wrong is one line."""
    given = tyro.cli(options, description=description, config=(tyro.conf.FlagCreatePairsOff,))
    try:
        code = study(given)
    except ValueError as error:
        code = 2
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(code)
