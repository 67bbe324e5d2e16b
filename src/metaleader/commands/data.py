"""`metaleader data` and `metaleader data render`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metaleader.errors import UserError, unknown
from metaleader.experiments.parsing import parse
from metaleader.streams import rendering, sources
from metaleader.streams.rendering import Rendering

RENDERED = {"pose": "cad", "pose-primitives": "primitives"}  # experiments, and where their objects come from


@dataclass(frozen=True)
class DataOptions:
    """Show which data is present and where; with a name, fetch what is missing."""

    name: tyro.conf.Positional[str | None] = None
    """A data set to fetch."""
    data_dir: Path | None = None
    """Folder with data sets, searched first."""
    json: bool = False
    """For machines: a list of objects."""


@dataclass(frozen=True)
class RenderOptions:
    """Render the images of the pose experiments, with MuJoCo; what is there already is kept."""

    rendering: Annotated[Rendering, tyro.conf.arg(name="", prefix_name=False)] = Rendering()
    workers: int | None = None
    """Processes that share the work. None: one a core."""
    data_dir: Path | None = None
    """Folder with data sets, searched first for CAD models (pascal3d/CAD) and given the images. None: the cache."""


def _render(arguments: list[str]) -> int:
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "pose"
    if name not in RENDERED:
        raise UserError(unknown("experiment to render", name, RENDERED))
    options = parse(RenderOptions, [*arguments, "--source", RENDERED[name]], f"metaleader data render {name}")
    folder = rendering.render(options.rendering, options.data_dir, options.workers)
    print(f"images: {folder}\ncontact sheet: {folder / rendering.CONTACT_SHEET}")
    return 0


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    if arguments[:1] == ["render"]:
        return _render(arguments[1:])
    options = parse(DataOptions, arguments, "metaleader data")
    if options.name is not None:
        sources.locate(sources.find(options.name), options.data_dir)
    names, rows = ("data set", "file", "status", "size", "sha256", "where"), sources.inventory(options.data_dir)
    if options.json:
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
        return 0
    table = Table(*names, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
    return 0
