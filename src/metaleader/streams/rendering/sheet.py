"""A contact sheet: what was rendered, for a person to see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metaleader.files import write_whole
from metaleader.streams.rendering.objects import RADIUS
from metaleader.streams.rendering.scene import Camera

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTACT_SHEET = "contact-sheet.png"
COLUMNS = 10
ARROW = np.array([RADIUS, RADIUS + 0.35])  # its ends, in half table lengths from the object's centre


def write_contact_sheet(folder: Path, files: Sequence[Path]) -> Path:
    """Write `contact-sheet.png` into `folder`: the first image of every task, its object, and its targets as an arrow.

    The arrow lies on the table, on the line from (x, y) to where the azimuth says that the front is; it begins beyond
    the object, which it would hide otherwise.
    """
    import matplotlib.style  # takes a while, and streams import this module

    path = folder / CONTACT_SHEET
    with matplotlib.style.context("default"):  # whatever the user's matplotlibrc says
        figure = _drawn(files)
        write_whole(path, lambda file: figure.savefig(file, format="png", dpi=130))
    return path


def _drawn(files: Sequence[Path]) -> Figure:
    from matplotlib.figure import Figure

    rows = -(-len(files) // COLUMNS)
    figure = Figure(figsize=(1.15 * COLUMNS, 1.3 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, file in zip(panels, files, strict=False):
        with np.load(file) as task:
            image, (x, y, sine, cosine), name = _first_image(file), task["targets"][0], str(task["name"])
            camera = Camera(*task["camera"])
        line = np.stack([x - ARROW * sine, y + ARROW * cosine, 0 * ARROW], axis=1)  # azimuth 0 faces along +y
        start, end = (camera.project(line) * [1, -1] + 1) / 2 * len(image) - 0.5
        panel.imshow(image)
        panel.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "black", "lw": 1})
        panel.set_title(name.replace("$", r"\$"), fontsize=6, pad=2)
    figure.suptitle(
        "first image of every task; arrows: targets, on the line from (x, y) to where the object's front faces",
        fontsize=8,
    )
    return figure


def _first_image(file: Path) -> np.ndarray:
    """Without reading the others."""
    with np.load(file, mmap_mode="r") as task:
        return np.asarray(task["inputs"][0])
