"""Whether images tell which way an object faces: half a turn against less than 10 degrees (docs/pose.md).

    python -m benchmarks.azimuth

Prints a table in Markdown: for each class of CAD models and each size and paint, the ratio of `turned`, and in how many
images of random poses the dot is hidden; those are drawn again when a task is rendered.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks.comparison import cli
from metaleader.results.report import markdown_table
from metaleader.streams.rendering import backend, objects, scene
from metaleader.streams.rendering.settings import CLASSES, Paint

NEARLY = np.radians(10)


@dataclass(frozen=True)
class AzimuthOptions:
    """What to measure."""

    pixels: tuple[int, ...] = (32, 64)
    """Heights and widths of images."""
    classes: tuple[str, ...] = CLASSES
    """Classes of the CAD models."""
    poses: int = 60
    """Random poses of each model, under a camera of its own."""
    data_dir: Path | None = None
    """Folder with data sets, searched first for CAD models."""


def turned(drawn: scene.Scene, random: np.random.Generator, poses: int) -> Iterator[tuple[float, float, bool]]:
    """For each of so many random poses, how much an image changes as the object is turned where it stands.

    Yields the mean absolute difference of the image's values, from 0 to 255, after half a turn; the same after a turn
    drawn from -10 to 10 degrees; and whether the dot can be seen. The ratio of the two differences' means is near 1
    where both ends of an object look alike, so that azimuth cannot be told from azimuth + 180 degrees.
    """
    for _ in range(poses):
        x, y, azimuth = scene.draw_pose(random)
        turns = (0, np.pi, random.uniform(-NEARLY, NEARLY))
        image, half, nearly = (drawn.image(x, y, azimuth + turn).astype(float) for turn in turns)
        yield np.abs(half - image).mean(), np.abs(nearly - image).mean(), drawn.shows_dot(image.astype(np.uint8))


def measured(folder: Path, name: str, paint: Paint, pixels: int, poses: int) -> tuple[float, float]:
    """Of all models of a class: the ratio of the differences, and the share of poses in which the dot is hidden."""
    found: list[tuple[float, float, bool]] = []
    for i, path in enumerate(objects.cad_files(folder, [name])):
        random = np.random.default_rng([0, i])
        drawn = scene.Scene(objects.load_mesh(path, pixels), scene.draw_camera(random), pixels, paint, random)
        found += turned(drawn, random, poses)
        drawn.close()
    half, nearly, seen = np.mean(found, axis=0)
    return float(half / nearly), 1 - float(seen)


def main(options: AzimuthOptions) -> int:
    """Measure, and print."""
    os.environ.update(backend.environment_of(backend.working()))
    import mujoco

    context = mujoco.GLContext(max(options.pixels), max(options.pixels))
    context.make_current()
    folder = objects.cad_folder(options.data_dir)
    columns = [(paint, pixels) for paint in get_args(Paint) for pixels in options.pixels]
    rows = []
    for name in options.classes:
        cells = [measured(folder, name, *column, options.poses) for column in columns]
        rows.append(
            [name, *(f"{ratio:.1f}" for ratio, _ in cells), f"{100 * np.mean([share for _, share in cells]):.1f} %"]
        )
    headings = [f"{paint}, {pixels} px" for paint, pixels in columns]
    print(markdown_table(["class", *headings, "dot hidden"], rows))
    context.free()
    return 0


if __name__ == "__main__":
    cli(AzimuthOptions, main, __doc__)
