"""Which runs a sweep makes: experiments x settings x learners x seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from metaleader.errors import UserError
from metaleader.experiments import find
from metaleader.experiments.parsing import by_name, check_used, values_of
from metaleader.experiments.plans import Job, folder_name
from metaleader.runs.folder import RunFolder
from metaleader.runs.run import check


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
        UserError: an experiment, preset, learner or setting is unknown or impossible, or used by no learner; or two
            experiments have one name.
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
            folder = out.absolute() / folder_name(f"{experiment.name}-{preset_name}") / folder_name(",".join(setting))
            values_of(experiment, preset, own)  # refuses what is impossible
            for seed in seeds:
                where = str(Path(name).absolute()) if name.endswith(".py") else name
                job = Job(where, preset_name, setting, learner, seed, folder, data_dir, command)
                same = found.setdefault((folder, learner, seed), job)
                if same.experiment != where:
                    raise UserError(
                        f"the experiments of {same.experiment} and {where} are both named {experiment.name!r}, and so "
                        "would their folders be: rename one, or give each a sweep of its own"
                    )
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
