"""From an experiment's settings to runs: a plan of several here, or jobs of one run each that travel to workers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metaleader import devices
from metaleader.errors import UserError, failure, unknown
from metaleader.experiments import find, telling_where
from metaleader.experiments.experiment import Experiment, Preset
from metaleader.experiments.parsing import with_settings
from metaleader.learners import Learner
from metaleader.online.description import RunDescription, described
from metaleader.runs.folder import RunFolder
from metaleader.runs.run import Plan, RunInterrupted, run
from metaleader.runs.workers import stop_if_asked


@dataclass(frozen=True)
class Selection:
    """An experiment in chosen settings, and where its runs are kept.

    Attributes:
        experiment: what is run.
        preset_name: which of its presets the settings began as.
        preset: the settings.
        learners: names, in order.
        seeds: each a task order, a split of the data and a draw of the learner's randomness.
        out: the folder that takes a folder for each run.
        data_dir: where to look for data first.
        command: the command that would make these runs again.
        setting: what was set apart from the preset for these runs, each as `NAME=VALUE`.
    """

    experiment: Experiment
    preset_name: str
    preset: Preset
    learners: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path
    data_dir: Path | None = None
    command: str = ""
    setting: tuple[str, ...] = ()

    def plan(self, **options: Any) -> Plan:
        """The runs of these learners on the streams of these seeds; `options` are other fields of `Plan`.

        Raises:
            UserError: a learner is unknown, data is missing, or a user's own file fails.
        """
        experiment, preset = self.experiment, self.preset
        for name in self.learners:
            if name not in preset.learners:
                raise UserError(unknown("learner", name, preset.learners))
        with telling_where():
            streams = devices.on_all(lambda: {seed: preset.stream.stream(seed, self.data_dir) for seed in self.seeds})
            problem = experiment.problem(preset)
        about = RunDescription.of(
            experiment.name,
            self.preset_name,
            problem,
            preset.protocol,
            described(preset.stream),
            gradients=preset.gradients,
            illustration=experiment.illustration,
            report_sizes=tuple(experiment.report_sizes),
            differs=experiment.differs.get(self.preset_name, ""),
            setting=self.setting,
            command=self.command,
        )

        def illustrate(name: str, learner: Learner, state: Any, seed: int) -> Mapping[str, np.ndarray]:
            from metaleader.results import illustrations  # with Matplotlib, which takes a while

            if not experiment.illustration or name not in illustrations.SHOWN:
                return {}
            of_run = problem, preset.stream, learner, state, seed, self.data_dir
            return illustrations.record(experiment.illustration, *of_run)

        learners = {name: preset.learners[name] for name in self.learners}
        return Plan(problem, streams, learners, preset.protocol, self.out, about, illustrate, **options)


@dataclass(frozen=True)
class Job:
    """One run, as it travels to a worker.

    Attributes:
        experiment: its name, or an absolute path to a Python file.
        preset_name: which of its presets the settings began as.
        setting: what was set for this run, each as `NAME=VALUE`.
        learner: name.
        seed: of stream and learner.
        out: the folder that takes LEARNER/seed-SEED.
        data_dir: where to look for data first.
        command: the command that would make the sweep again.
    """

    experiment: str
    preset_name: str
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
        """The run as a plan of one."""
        experiment, learners, seeds = find(self.experiment), (self.learner,), (self.seed,)
        texts = dict(text.split("=", 1) for text in self.setting)
        preset = with_settings(experiment, experiment.preset(self.preset_name), texts)
        selection = Selection(
            experiment, self.preset_name, preset, learners, seeds, self.out, self.data_dir, self.command, self.setting
        )
        return selection.plan(checkpoint_seconds=1.0)


def perform(job: Job, cores: int) -> str:
    """Run a job to its end, in a worker, and say how it ended; it goes on from its last checkpoint, if there is one."""
    devices.start(cores)
    try:
        return next(iter(run(job.plan(), resume=True, progress=stop_if_asked).values()))
    except RunInterrupted:
        return "interrupted"
    except UserError as error:  # its message is all that there is to say; the folder may be another process's
        return failure(error)
    except Exception as error:
        return job.folder.failed(error)


def folder_name(text: str) -> str:
    """A text as the name of a folder; one that is too long, or has other characters, gets a checksum for the rest."""
    name = re.sub(r"[^\w.,=+-]", "_", text)
    if name == text and len(name.encode()) <= 100:  # the system's limit is 255, and a number may follow
        return name
    return f"{name[:25]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
