"""Many runs at once: experiments x settings x learners x seeds, in processes of this machine or on a Ray cluster."""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import re
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from metaleader import devices
from metaleader.errors import UserError
from metaleader.experiments import find
from metaleader.experiments.options import by_name, check_used, with_settings
from metaleader.play.record import RunFolder
from metaleader.runs.run import ENDED, Plan, RunInterrupted, check, interrupts, run
from metaleader.runs.workers import LOSSES, stop_if_asked


@dataclass(frozen=True)
class Job:
    """One run of a sweep, as it travels to a worker.

    Attributes:
        experiment: its name, or an absolute path to a Python file.
        preset_name: which of its presets the settings began as.
        preset: the settings, pickled: a worker can read them once it has found the experiment.
        setting: what was set for this run, each as `NAME=VALUE`.
        learner: name.
        seed: of stream and learner.
        out: the folder that takes LEARNER/seed-SEED.
        data_dir: where to look for data first.
        command: the command that would make the sweep again.
    """

    experiment: str
    preset_name: str
    preset: bytes
    setting: tuple[str, ...]
    learner: str
    seed: int
    out: Path
    data_dir: Path | None
    command: str

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.out / self.learner / f"seed-{self.seed}")

    def plan(self) -> Plan:
        """The run as a plan of one, checkpointed every round."""
        return Plan(
            find(self.experiment),
            self.preset_name,
            pickle.loads(self.preset),
            (self.learner,),
            (self.seed,),
            self.out,
            self.data_dir,
            self.command,
            checkpoint_rounds=True,
            setting=self.setting,
        )


Show: TypeAlias = Callable[[Mapping[str, str], Collection[Job]], None]


def grid(settings: Sequence[str]) -> list[dict[str, str]]:
    """All combinations of settings given as `NAME=VALUE,VALUE,...`; one empty combination where none is given.

    Raises:
        UserError: a text is not of that form, or a name comes twice.
    """
    form = "NAME=VALUE,VALUE,... such as ftml.meta-steps=2,4,8"
    values: dict[str, list[str]] = {}
    for name, listed in by_name(settings, "--set", form).items():
        each = [value.strip() for value in listed.split(",")]
        if not all(each):
            raise UserError(f"--set takes {form}; got {f'{name}={listed}'!r}")
        values[name] = list(dict.fromkeys(each))
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def jobs(
    experiments: Sequence[str],
    preset_name: str,
    learners: Sequence[str],
    seeds: Sequence[int],
    settings: Sequence[str],
    out: Path,
    data_dir: Path | None = None,
    command: str = "",
) -> list[Job]:
    """The runs of a sweep, each once: a learner's own settings do not multiply the runs of the others.

    Args:
        experiments: names or Python files.
        preset_name: with which settings to begin.
        learners: names; none: those that each experiment compares.
        seeds: each a run.
        settings: see `grid`.
        out: the folder of the sweep; a run lies in EXPERIMENT-PRESET/SETTING/LEARNER/seed-SEED.
        data_dir: where to look for data first.
        command: the command that would make the sweep again.

    Raises:
        UserError: an experiment, preset, learner or setting is unknown or impossible, or used by no learner.
    """
    found: dict[tuple[Path, str, int], Job] = {}
    points = grid(settings)
    for name in dict.fromkeys(experiments):
        experiment = find(name)
        preset = experiment.preset(preset_name)
        chosen = tuple(learners) or experiment.compared
        check_used(points[0], "--set", preset.learners, chosen)
        for point, learner in itertools.product(points, chosen):
            others = preset.learners.keys() - {learner}
            own = {key: value for key, value in point.items() if key.partition(".")[0] not in others}
            setting = tuple(f"{key}={value}" for key, value in own.items())
            folder = out.absolute() / f"{experiment.name}-{preset_name}" / re.sub(r"[^\w.,=+-]", "_", ",".join(setting))
            given = pickle.dumps(with_settings(experiment, preset, own))
            for seed in seeds:
                where = str(Path(name).absolute()) if name.endswith(".py") else name
                job = Job(where, preset_name, given, setting, learner, seed, folder, data_dir, command)
                found.setdefault((folder, learner, seed), job)
    return list(found.values())


def check_all(planned: Sequence[Job], out: Path, resume: bool) -> None:
    """Make sure, before anything runs, that the runs of a sweep can.

    Raises:
        UserError: there is something to overwrite (or, resuming, runs with other settings), or data is missing.
    """
    if not resume:
        RunFolder(out).refuse_existing()
    seen = set()
    for job in planned:
        # Without a folder, only the learner, the setting and the data can be wrong, whatever the seed.
        begun = (job.folder.path / "config.json").exists()
        if begun or (job.out, job.learner) not in seen:
            check(job.plan(), resume)
        seen.add((job.out, job.learner))


@runtime_checkable
class Workers(Protocol):
    """What runs jobs: processes of this machine, or a cluster."""

    slots: int

    def submit(self, job: Job) -> Future[str]:
        """Begin a job; the future gives how it ended, and raises where its worker was lost."""
        ...

    def stop(self) -> None:
        """Ask all jobs to save and stop."""
        ...

    def close(self) -> None:
        """End all workers, at once where they still work."""
        ...


def sweep(planned: Sequence[Job], workers: Workers, show: Show | None = None) -> dict[str, str]:
    """Run all jobs that have not ended before, and return how each ended, by folder.

    A job whose worker is lost goes on from its last checkpoint, the end of the round before, on another one.

    Args:
        planned: see `jobs`.
        workers: where to run them.
        show: is told now and then what has ended and what is running.

    Raises:
        RunInterrupted: on Ctrl-C; every job under way has saved its state.
    """
    waiting, running, outcomes = deque[Job](), dict[Future[str], Job](), dict[str, str]()
    lost: dict[Job, list[int]] = {}  # for every job, the rounds in which it lost a worker
    for job in planned:
        if (outcome := job.folder.outcome) in ENDED:
            outcomes[str(job.folder.path)] = outcome
        else:
            waiting.append(job)
    try:
        with interrupts() as interrupted:
            while (waiting or running) and not interrupted.is_set():
                while waiting and len(running) < workers.slots:
                    job = waiting.popleft()
                    running[workers.submit(job)] = job
                if show is not None:
                    show(outcomes, running.values())
                for future in wait(running, timeout=0.5, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    outcome = f"lost its worker: {future.exception()}" if future.exception() else future.result()
                    if outcome.startswith(("lost", "interrupted")):
                        lost.setdefault(job, []).append(job.folder.rounds[0])
                        if lost[job].count(lost[job][-1]) < LOSSES:
                            waiting.appendleft(job)
                            continue
                        outcome = f"failed: {LOSSES} workers were lost in the same round, the last one so: {outcome}"
                    outcomes[str(job.folder.path)] = outcome
            if interrupted.is_set():
                workers.stop()
                wait(running)
                raise RunInterrupted
        if show is not None:
            show(outcomes, ())
    finally:
        workers.close()
    return outcomes


def perform(job: Job, cores: int) -> str:
    """Run a job to its end, in a worker, and say how it ended; it goes on from its last checkpoint, if there is one."""
    devices.start(cores)
    try:
        return next(iter(run(job.plan(), resume=True, progress=stop_if_asked).values()))
    except RunInterrupted:
        return "interrupted"
    except Exception as error:
        return f"failed: {' '.join(str(error).split()) or type(error).__name__}"


class RayWorkers:
    """The workers of a Ray cluster; run folders must lie on a file system that all its machines share."""

    def __init__(self, address: str | None, slots: int | None, cores: int, gpus: float = 0.0) -> None:
        """Start Ray on this machine, with room for `slots` jobs, or join the cluster at `address`.

        Raises:
            UserError: Ray is not installed, or the cluster cannot be joined.
        """
        try:
            import ray
        except ImportError:
            raise UserError("Ray is not installed: pip install 'metaleader[ray]', or leave out --ray") from None
        self.slots, self._ray, self._cores = 1 << 20, ray, cores  # Ray queues what does not fit
        known = {name: value for name, value in os.environ.items() if name == "METALEADER_DATA"}
        try:
            ray.init(
                address or "local",
                num_cpus=slots * cores if slots is not None and address is None else None,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": known} if known else None,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"cannot join the Ray cluster at {address}: {' '.join(str(error).split())}") from error
        # The sweep itself begins a lost job again, so that it can tell a crash that repeats itself.
        self._perform = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=0)(perform)
        self._references: list[Any] = []

    def submit(self, job: Job) -> Future[str]:
        """Queue a job."""
        reference = self._perform.remote(job, self._cores)
        self._references.append(reference)
        future: Future[str] = reference.future()
        return future

    def stop(self) -> None:
        """Ask all jobs to save and stop."""
        for reference in self._references:
            self._ray.cancel(reference)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()
