"""Score against the number of adaptation steps, from the same trained weights (docs/adaptation.md).

    python -m benchmarks.adaptation

Interrupt it and start it again at will: learners and seeds that are done are kept, the others begin anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.adaptation_page import write
from benchmarks.comparison import Options, cli, command, settings_of
from benchmarks.trajectories import Procedure, scores, start
from metaleader import Preset, UserError, begin, devices, resume
from metaleader.errors import unknown
from metaleader.experiments import Experiment, find
from metaleader.files import write_json
from metaleader.online.description import described, differences
from metaleader.online.protocol import key_of
from metaleader.results import figures, metrics
from metaleader.runs import source
from metaleader.runs.folder import changed
from metaleader.runs.workers import slots
from metaleader.update import HeadFirst

FIRST_SEED = {"validation": 1000, "test": 0}  # results take 0, 1, ...; what chooses settings takes others


@dataclass(frozen=True)
class AdaptationOptions(Options):
    """Score against adaptation steps, at the same trained weights."""

    learners: tuple[str, ...] = ("ftl", "ftml")
    """Learners, each trained once a seed."""
    seeds: int = 3
    """Number of seeds."""
    first_seed: int | None = None
    """The first seed. None: 1000 for validation images, 0 for test images."""
    held_out: str = "validation"
    """Which images to judge on, where the stream has both: validation to choose settings by, or test."""
    sizes: tuple[int, ...] = ()
    """Sizes of D_t at which to adapt. None named: those that the experiment shows, or three from few to all."""
    judged_rounds: int = 6
    """Rounds to adapt in, spread over the last third of the stream."""
    steps: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50, 100, 200)
    """Numbers of steps."""
    descent: tuple[float, ...] = (0.03, 0.1, 0.3)
    """Step sizes of gradient descent."""
    momentum: tuple[float, ...] = (0.01, 0.03, 0.1)
    """Step sizes with momentum 0.9."""
    adam: tuple[float, ...] = (0.001, 0.003, 0.01)
    """Step sizes of Adam."""
    out: Path = Path("runs/adaptation")
    """Folder for what was found."""
    page: Path = Path("docs/adaptation.md")
    """The page to write; its figure goes beside it, under figures/."""


@dataclass(frozen=True)
class Task:
    """A learner and a seed, as they travel to a worker.

    Attributes:
        experiment: its name, or an absolute path to a Python file.
        preset: all settings, pickled.
        learner: name.
        seed: of stream and learner.
        sizes: of D_t at which to adapt.
        rounds: in which to adapt, from 1.
        steps: numbers of steps.
        procedures: with their step sizes.
        path: the file that takes what is found.
        data_dir: where to look for data first.
        command: what was typed.
    """

    experiment: str
    preset: bytes
    learner: str
    seed: int
    sizes: tuple[int, ...]
    rounds: tuple[int, ...]
    steps: tuple[int, ...]
    procedures: tuple[tuple[Procedure, tuple[float, ...]], ...]
    path: Path
    data_dir: Path | None
    command: str

    def determinants(self) -> dict[str, Any]:
        """What determines what is found."""
        experiment, preset = find(self.experiment), pickle.loads(self.preset)
        return {
            "experiment": experiment.name,
            "learner": self.learner,
            "seed": self.seed,
            "settings": {
                name: described(getattr(preset, name)) for name in ("stream", "model", "loss", "protocol", "gradients")
            }
            | {"learner": described(preset.learners[self.learner])},
            "score": {"name": experiment.score.name, "higher_is_better": experiment.score.higher_is_better},
            "sizes": list(self.sizes),
            "rounds": list(self.rounds),
            "steps": list(self.steps),
            "procedures": {str(procedure): list(sizes) for procedure, sizes in self.procedures},
        }


def settings(experiment: Experiment, options: AdaptationOptions) -> Preset:
    """The preset, judged on the images asked for.

    Raises:
        UserError: `--held-out` is unknown.
    """
    if options.held_out not in FIRST_SEED:
        raise UserError(unknown("held-out data", options.held_out, FIRST_SEED))
    preset = settings_of(experiment, options)
    stream: Any = preset.stream
    if "held_out" in {field.name for field in dataclasses.fields(stream)}:
        stream = dataclasses.replace(stream, held_out=options.held_out)
    return dataclasses.replace(preset, stream=stream)


def tasks(experiment: Experiment, preset: Preset, options: AdaptationOptions) -> list[Task]:
    """One for every learner and seed.

    Raises:
        UserError: an option is impossible.
    """
    for name in options.learners:
        if name not in preset.learners:
            raise UserError(unknown("learner", name, preset.learners))
    if not options.steps or min(options.steps) < 0:
        raise UserError(f"--steps must be at least 0, got {options.steps}")
    first = FIRST_SEED[options.held_out] if options.first_seed is None else options.first_seed
    data_dir = options.data_dir and options.data_dir.absolute()
    stream = preset.stream.stream(first, data_dir)
    most, chunk = len(stream[0].train), preset.protocol.chunk
    judged = preset.protocol.evaluate_at or range(chunk, most, chunk)
    known = sorted({*(n for n in judged if n < most), most})
    sizes = options.sizes or tuple(n for n in experiment.report_sizes if n in known) or tuple(figures.thinned(known, 3))
    if wrong := [n for n in sizes if n != most and (n % chunk or not 0 < n < most)]:
        raise UserError(f"--sizes must be multiples of {chunk} up to {most}, or {most}; got {wrong[0]}")
    begin = metrics.last_third_from(len(stream))
    spread = np.linspace(begin, len(stream), min(max(options.judged_rounds, 1), len(stream) - begin + 1))
    # Judging of the learner itself, for the line that says what it does today, happens at these sizes alone.
    evaluate_at = tuple(n for n in sizes if n % chunk == 0)
    preset = dataclasses.replace(preset, protocol=dataclasses.replace(preset.protocol, evaluate_at=evaluate_at))
    where = str(Path(options.experiment).absolute()) if options.experiment.endswith(".py") else options.experiment
    folder = options.out.absolute() / f"{experiment.name}-{options.preset}-{options.held_out}"
    return [
        Task(
            where,
            pickle.dumps(preset),
            name,
            seed,
            tuple(sizes),
            tuple(sorted({round(t) for t in spread})),
            tuple(sorted(set(options.steps))),
            tuple(procedures(preset, options)),
            folder / f"{name}-seed-{seed}.json",
            data_dir,
            command(),
        )
        for name in options.learners
        for seed in range(first, first + options.seeds)
    ]


def procedures(preset: Preset, options: AdaptationOptions) -> Iterable[tuple[Procedure, tuple[float, ...]]]:
    """Gradient descent, momentum and Adam; where FTL begins with a fresh head, as labels are permuted, that too."""
    yield Procedure("descent"), options.descent
    yield Procedure("momentum"), options.momentum
    yield Procedure("adam"), options.adam
    fresh = getattr(preset.learners.get("ftl"), "update", None)
    if isinstance(fresh, HeadFirst):
        yield Procedure("descent", fresh), options.descent


def measure(task: Task) -> dict[str, Any]:
    """Train the learner on the whole stream; in the rounds and at the sizes asked for, adapt by every procedure."""
    experiment, preset = find(task.experiment), pickle.loads(task.preset)
    problem, learner = experiment.problem(preset), preset.learners[task.learner]
    stream = preset.stream.stream(task.seed, task.data_dir)
    shape = (len(task.rounds), len(task.sizes))
    own = np.full(shape, np.nan)
    found = {
        str(procedure): np.full((len(sizes), *shape, len(task.steps)), np.nan) for procedure, sizes in task.procedures
    }
    state = begin(problem, learner, stream[0], task.seed)
    for reached, record in resume(problem, stream, learner, preset.protocol, state):
        state = reached
        if record is None or record.round not in task.rounds or record.datapoints not in task.sizes:
            continue
        of_task, cell = stream[record.round - 1], (task.rounds.index(record.round), task.sizes.index(record.datapoints))
        own[cell] = np.nan if record.score is None else record.score
        train = of_task.train[: record.datapoints]
        params = start(problem, learner, state.learner, key_of(of_task, record.round), train)
        for procedure, sizes in task.procedures:
            for i, step_size in enumerate(sizes):
                judged = scores(problem, procedure, step_size, task.steps, params, train, of_task.held_out)
                found[str(procedure)][(i, *cell)] = judged
    return {
        **task.determinants(),
        "command": task.command,
        "commit": source.commit(),
        "machine": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "diverged": state.diverged,
        "seconds": round(state.train_seconds + state.evaluation_seconds, 1),
        "own": _plain(own),
        "found": {name: _plain(values) for name, values in found.items()},
    }


def _plain(values: np.ndarray) -> Any:
    """Nested lists, None for NaN."""
    plain = values.astype(object)
    plain[np.isnan(values)] = None
    return plain.tolist()


def perform(task: Task) -> None:
    """`measure` in a worker, into the task's file."""
    write_json(task.path, measure(task))


def main(options: AdaptationOptions, in_parallel: Callable[[Sequence[Task], int], int] | None = None) -> int:
    """Measure what has not been measured yet, then write the page and its figure; the exit code.

    Raises:
        UserError: an option is impossible, a file was made with other settings, or nothing was measured.
    """
    experiment = find(options.experiment)
    planned = tasks(experiment, settings(experiment, options), options)
    waiting = []
    for task in planned:
        if task.path.exists():
            now = task.determinants()
            if found := differences(json.loads(task.path.read_text()), now, tuple(now)):
                raise UserError(changed(task.path, *found[0]))
        else:
            task.path.parent.mkdir(parents=True, exist_ok=True)
            waiting.append(task)
    code = 0 if options.page_only or not waiting else (in_parallel or _in_parallel)(waiting, slots(options.workers))
    contents = [task.path.read_bytes() for task in planned if task.path.exists()]
    results = [{**json.loads(content), "sha256": hashlib.sha256(content).hexdigest()} for content in contents]
    if not results:
        raise UserError(f"nothing was measured in {options.out}: there is nothing to write a page of")
    lacking = [f"`{task.learner}`, seed {task.seed}" for task in planned if not task.path.exists()]
    write(results, lacking, options.page, options.held_out, f"{experiment.name} ({options.preset})")
    print(f"page: {options.page}")
    return code


def _in_parallel(waiting: Sequence[Task], workers: int) -> int:
    """Measure in processes of one core each; 1 if one failed."""
    code = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=devices.start, initargs=(1,)) as pool:
        under_way: Mapping[Any, Task] = {pool.submit(perform, task): task for task in waiting}
        try:
            for done, future in enumerate(as_completed(under_way), start=1):
                task, error = under_way[future], future.exception()
                code = 1 if error else code
                outcome = f"failed: {' '.join(str(error).split()) or type(error).__name__}" if error else "done"
                print(f"{done}/{len(waiting)} {task.learner}, seed {task.seed}: {outcome}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            print("stopped; what is done is kept: the same command goes on", flush=True)
            return 130
    return code


if __name__ == "__main__":
    cli(AdaptationOptions, main, __doc__)
