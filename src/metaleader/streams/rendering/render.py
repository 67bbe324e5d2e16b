"""Rendering all tasks of the pose experiment, by several processes, into a folder that can be completed later."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from metaleader import devices
from metaleader.errors import UserError
from metaleader.files import write_text, write_whole
from metaleader.processes import end_with_parent, owned
from metaleader.streams import sources as data
from metaleader.streams.rendering import backend, objects, room
from metaleader.streams.rendering.settings import Rendering
from metaleader.streams.rendering.sheet import write_contact_sheet

MANIFEST = "manifest.json"
PER_WORKER = 500_000_000  # bytes of memory: Python, its libraries, OpenGL, a mesh


def locate(settings: Rendering, data_dir: Path | None = None) -> Path | None:
    """The folder of images rendered under `settings`, complete, in the first data folder that has it."""
    places = (folder / "pose" / settings.folder for folder in data.folders(data_dir))
    return next((place for place in places if (place / MANIFEST).is_file()), None)


def render(settings: Rendering, data_dir: Path | None = None, workers: int | None = None) -> Path:
    """Render what is missing of the images under `settings`, and return their folder.

    A folder holds `task-000.npz`, ... (arrays `inputs` `(n, pixels, pixels, 3)` and `targets` `(n, 4)`: see
    `streams.pose`), a contact sheet, and once all is there `manifest.json` with the settings and the SHA-256 of every
    task. Files are there whole or not at all; a rendering that was stopped goes on where it was.

    Args:
        settings: what to render.
        data_dir: where CAD models are looked for first, and where the images go: `data_dir`, else the cache.
        workers: processes; None: one a core.

    Raises:
        UserError: MuJoCo, OpenGL, CAD models, memory or disk are missing, too few CAD models are sound, or another
            process is rendering them.
    """
    if (folder := locate(settings, data_dir)) is not None:
        return folder
    folder = (data_dir or data.folders(None)[-1]) / "pose" / settings.folder
    workers = devices.available_cores() if workers is None else workers
    if workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    files = objects.cad_files(objects.cad_folder(data_dir), settings.classes) if settings.source == "cad" else []
    if settings.source == "cad" and len(files) < settings.objects:
        raise UserError(f"{settings.objects} CAD models are asked for, {len(files)} of these classes are there")
    missing = [i for i in range(settings.tasks) if not (folder / task_file(i)).is_file()]
    workers = min(workers, max(len(missing), 1))
    room.check_disk(settings.bytes_per_task * len(missing), folder)
    room.check_memory(workers * (PER_WORKER + 2 * settings.bytes_per_task), f"rendering by {workers} processes")
    os.environ.update(backend.environment_of(backend.working()))  # inherited by the workers
    try:
        with owned(folder):
            _work(settings, folder, files, missing, workers)
            checksums = {task_file(i): data.sha256(folder / task_file(i)) for i in range(settings.tasks)}
            write_contact_sheet(folder, [folder / name for name in checksums])
            manifest = {"settings": dataclasses.asdict(settings), "files": checksums}
            write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    except BrokenProcessPool as error:
        raise UserError(
            "a rendering process was ended, perhaps for want of memory: run it again with fewer --workers; tasks that "
            "are complete are kept"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write to {error.filename or folder}: {error.strerror or error}") from error
    return folder


def task_file(task: int) -> str:
    """The name of the file of a task, counted from 0."""
    return f"task-{task:03d}.npz"


def _work(settings: Rendering, folder: Path, files: Sequence[Path], missing: Sequence[int], workers: int) -> None:
    """Prepare the objects, then render the missing tasks."""
    # Not forked: JAX runs threads.
    spawned = multiprocessing.get_context("spawn")
    with _nothing_to_import(), ProcessPoolExecutor(workers, spawned, end_with_parent) as pool, _bar() as bar:
        try:
            if settings.source == "cad":
                names = _sound_objects(settings, folder, files, pool, bar)
            else:
                names = [f"primitives/{i:02d}" for i in range(settings.objects)]
            order = np.random.default_rng([settings.seed, 0])
            rounds = -(-settings.tasks // len(names))
            whose = [names[i] for _ in range(rounds) for i in order.permutation(len(names))]
            line = bar.add_task("rendering", total=settings.tasks, completed=settings.tasks - len(missing))
            jobs = [pool.submit(_render_task, settings, folder, i, whose[i]) for i in missing]
            for job in as_completed(jobs):
                job.result()
                bar.advance(line)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _nothing_to_import() -> Iterator[None]:
    """Let processes that are spawned leave out the script that spawns them.

    They would run it again to have what it defines, of which they need nothing; without `if __name__ == "__main__"`,
    a script that renders would render there too.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _sound_objects(
    settings: Rendering, folder: Path, files: Sequence[Path], pool: ProcessPoolExecutor, bar: Progress
) -> list[str]:
    """The first `objects` models in random order that are sound, each cleaned and kept below `folder`.

    Models that are broken are named, and others take their place.

    Raises:
        UserError: too few are sound.
    """
    (folder / "objects").mkdir(exist_ok=True)
    candidates = [files[i] for i in np.random.default_rng([settings.seed, 1]).permutation(len(files))]
    sound: list[str] = []
    line = bar.add_task("cleaning CAD models", total=settings.objects)
    while len(sound) < settings.objects:
        wanted = settings.objects - len(sound)
        chosen, candidates = candidates[:wanted], candidates[wanted:]
        if len(chosen) < wanted:
            raise UserError(
                f"of {len(files)} CAD models only {len(sound) + len(chosen)} are sound, {settings.objects} are asked "
                "for: repair those named above, or ask for fewer objects"
            )
        done: list[Future[str | None]] = [pool.submit(_prepare, path, folder, settings.pixels) for path in chosen]
        for path, future in zip(chosen, done, strict=True):
            if (reason := future.result()) is None:
                sound.append(_name(path))
                bar.advance(line)
            else:
                bar.console.print(f"{path} is left out: it {reason}", soft_wrap=True, markup=False, highlight=False)
    return sound


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _kept(folder: Path, name: str) -> Path:
    return folder / "objects" / f"{name.replace('/', '-')}.npz"


def _prepare(path: Path, folder: Path, pixels: int) -> str | None:
    """Clean a model and keep it, in a worker; what is wrong with it if that fails."""
    kept = _kept(folder, _name(path))
    if not kept.exists():
        try:
            mesh = objects.load_mesh(path, pixels)
        except ValueError as error:
            return str(error)
        write_whole(kept, partial(objects.save_mesh, mesh=mesh))
    return None


def _render_task(settings: Rendering, folder: Path, task: int, name: str) -> None:
    """Render one task, in a worker."""
    from metaleader.streams.rendering import scene

    _make_context_current(settings.pixels)
    # Generators of their own: objects look the same in all their tasks, and more images leave the first ones.
    kind, _, number = name.rpartition("/")
    appearance = np.random.default_rng([settings.seed, 2, *kind.encode(), *number.encode()])
    camera_random, poses = (np.random.default_rng([settings.seed, 3, task, i]) for i in range(2))
    camera = scene.draw_camera(camera_random)
    thing = objects.read_mesh(_kept(folder, name)) if settings.source == "cad" else None
    drawn = scene.Scene(thing, camera, settings.pixels, settings.paint, appearance)
    images: list[np.ndarray] = []
    targets: list[list[float]] = []
    while len(images) < settings.images + settings.held_out:
        x, y, azimuth = scene.draw_pose(poses)
        image = drawn.image(x, y, azimuth)
        if drawn.shows_dot(image):  # without it, no one could tell which corner of the table is which
            images.append(image)
            targets.append([x, y, np.sin(azimuth), np.cos(azimuth)])
    drawn.close()
    inputs, outputs, seen_by = np.stack(images), np.array(targets, np.float32), np.stack(camera)
    write_whole(
        folder / task_file(task),
        lambda file: np.savez(file, inputs=inputs, targets=outputs, name=np.array(name), camera=seen_by),
    )


_context: tuple[int, Any] | None = None  # of this worker


def _make_context_current(pixels: int) -> None:
    """An OpenGL context for this process, made once: making one takes longer than many images."""
    global _context
    import mujoco

    if _context is None or _context[0] != pixels:
        if _context is not None:
            _context[1].free()
        _context = pixels, mujoco.GLContext(pixels, pixels)
        _context[1].make_current()
        # OSMesa's `__del__` fails at the interpreter's exit; unlike `atexit`, this comes in a worker too.
        Finalize(None, _context[1].free, exitpriority=0)


def _bar() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not sys.stderr.isatty()
    )
