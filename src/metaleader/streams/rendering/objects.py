"""Objects to put on the table: CAD models, cleaned, or composed of primitive shapes.

An object is centred over the origin, stands on z = 0, faces along +y, and fits in a cylinder of radius `RADIUS` and
height `HEIGHT`, in half table lengths.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float

from metaleader.errors import UserError
from metaleader.streams import sources as data
from metaleader.streams.rendering.off import Mesh, read_off
from metaleader.streams.rendering.settings import Paint

RADIUS, HEIGHT = 0.6, 0.7


def cad_folder(data_dir: Path | None) -> Path:
    """The folder `pascal3d/CAD` of the first data folder that has it.

    Raises:
        UserError: none has.
    """
    searched = data.cad_folders(data_dir)
    for folder in searched:
        if folder.is_dir():
            return folder
    raise UserError(
        f"there are no CAD models, none of {', '.join(map(str, searched))} is a folder: {data.BY_HAND}, or use "
        "pose-primitives, which needs no download"
    )


def cad_files(folder: Path, classes: Collection[str]) -> list[Path]:
    """The models of the classes, in order.

    Raises:
        UserError: there is none.
    """
    files = [path for name in sorted(set(classes)) for path in sorted((folder / name).glob("*.off"))]
    if not files:
        raise UserError(f"{folder} holds no such CAD model: expected files such as {folder / min(classes) / '01.off'}")
    return files


def load_mesh(path: Path, pixels: int = 0) -> Mesh:
    """The model in an OFF file: cleaned, simplified, scaled and stood on the table.

    Vertices within a cell of a grid are merged, and what becomes a degenerate or a duplicate face goes. There are as
    many cells along the longest side of the model as there are `pixels` across the image, of which the model spans half
    at most; but 96 at least, or spokes and tubes would be lost. The files have z up and, all classes alike, the front
    towards -y: the model is turned by half a turn. Faces may be wound either way.

    Raises:
        ValueError: the file is broken, or too little is left of the model.
    """
    import trimesh

    try:
        vertices, faces = read_off(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    if len(faces) == 0:
        raise ValueError("has no faces")
    low, extent = vertices[faces].min(axis=(0, 1)), np.ptp(vertices[faces].reshape(-1, 3), axis=0).max()
    if not extent > 0:
        raise ValueError("has no extent")
    cells = np.floor((vertices - low) / extent * max(96, pixels)).astype(np.int64)
    _, merged = np.unique(cells, axis=0, return_inverse=True)
    merged = merged.reshape(-1)
    sums = np.stack([np.bincount(merged, vertices[:, axis]) for axis in range(3)], axis=1)
    mesh = trimesh.Trimesh(sums / np.bincount(merged)[:, None], merged[faces], process=False)
    mesh.update_faces(mesh.nondegenerate_faces() & mesh.unique_faces())
    mesh.remove_unreferenced_vertices()
    if len(mesh.faces) < 4:
        raise ValueError(f"has {len(mesh.faces)} non-degenerate faces")
    return Mesh(_placed(np.asarray(mesh.vertices)), np.asarray(mesh.faces, np.int32))


def _placed(vertices: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Centred, standing on z = 0, turned by half a turn, and as large as the cylinder allows."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    moved = (vertices - [*((low + high) / 2)[:2], low[2]]) * [-1, -1, 1]
    radius = np.hypot(moved[:, 0], moved[:, 1]).max()
    return moved * min(RADIUS / max(radius, 1e-9), HEIGHT / max(moved[:, 2].max(), 1e-9))


def halves(mesh: Mesh) -> tuple[Mesh, Mesh]:
    """The front half of a mesh and its rear half: faces are cut where they cross y = 0."""
    from trimesh.intersections import slice_faces_plane

    def half(y: int) -> Mesh:
        vertices, faces, _ = slice_faces_plane(
            mesh.vertices, mesh.faces, plane_normal=[0, y, 0], plane_origin=[0, 0, 0]
        )
        return Mesh(vertices, faces)

    return half(1), half(-1)


def primitives(random: np.random.Generator) -> list[dict[str, Any]]:
    """The geoms of an object that looks different from every side: a body, a nose at its front, a top, a side piece.

    The body comes in two halves. Which geoms are in front is told by the y of their positions.
    """
    half = np.array([random.uniform(0.13, 0.21), random.uniform(0.3, 0.41), random.uniform(0.09, 0.16)])
    kinds = ("box", "ellipsoid", "cylinder")
    body = [{"type": "box", "size": half * [1, 0.5, 1], "pos": [0, y * half[1], half[2]]} for y in (0.5, -0.5)]
    nose = {
        "type": str(random.choice(kinds)),
        "size": np.array([0.6 * half[0], 0.09, 0.6 * half[2]]),
        "pos": [0, half[1] + 0.04, half[2]],
    }
    top = {
        "type": str(random.choice(kinds)),
        "size": random.uniform(0.5, 0.9, 3) * [half[0], 0.5 * half[1], 0.14],
        "pos": [0, random.uniform(-0.7, 0.1) * half[1], 2 * half[2] + 0.1],
    }
    side = {
        "type": "capsule",
        "size": np.array([0.05, 0.07, 0]),
        "pos": [half[0] + 0.03, random.uniform(-0.5, 0.5) * half[1], 1.2 * half[2]],
    }
    return [*body, nose, top, side]


def colours(paint: Paint, random: np.random.Generator) -> tuple[list[float], list[float]]:
    """The colours of an object's front and rear, neither of them the red of the table's dot.

    In two tones they are of any hues, and the front is at least three times as bright as the rear.
    """
    if paint == "one-colour":
        one = _colour(random, (0.3, 0.9), (0.5, 1))
        return one, one
    return _colour(random, (0.1, 0.35), (0.95, 1)), _colour(random, (0.3, 0.9), (0.1, 0.2))


def _colour(random: np.random.Generator, saturations: tuple[float, float], values: tuple[float, float]) -> list[float]:
    from matplotlib.colors import hsv_to_rgb

    hue, saturation, value = random.uniform(0.1, 0.85), random.uniform(*saturations), random.uniform(*values)
    return [*map(float, hsv_to_rgb((hue, saturation, value))), 1.0]


def save_mesh(file: BinaryIO, mesh: Mesh) -> None:
    """Keep a cleaned mesh."""
    np.savez(file, **mesh._asdict())


def read_mesh(path: Path) -> Mesh:
    """A mesh kept by `save_mesh`."""
    with np.load(path) as stored:
        return Mesh(stored["vertices"], stored["faces"])
