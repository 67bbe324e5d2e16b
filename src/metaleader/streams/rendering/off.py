"""OFF files, in which PASCAL3D+ has its CAD models."""

from __future__ import annotations

import itertools
import math
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int

T = TypeVar("T")


class Mesh(NamedTuple):
    """A triangle mesh.

    Attributes:
        vertices: positions.
        faces: three vertices each.
    """

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]


def read_off(path: Path) -> Mesh:
    """The model in an OFF file; polygons are cut into triangles that share the first corner.

    The form is Geomview's: `OFF`; the numbers of vertices, faces and edges; a line for each vertex (x y z); a line for
    each face (how many corners, and which vertices they are, from 0). Colours may follow on these lines. What follows
    a `#` is a comment.

    Not by trimesh, which takes no notice of what is missing or left over, so that the model would have another shape.

    Raises:
        ValueError: the file is not of that form, or holds more or less than it counts; the message names the line.
        OSError: the file cannot be read.
    """
    text = path.read_text("utf-8", errors="replace").splitlines()
    lines = deque((i, words) for i, line in enumerate(text, start=1) if (words := line.partition("#")[0].split()))

    def take(what: str, parse: Callable[[list[str]], T | None]) -> T:
        """What `parse` makes of the next line; `what` is named where it makes nothing of it."""
        if not lines:
            raise ValueError(f"the file ends after line {len(text)}: expected {what}")
        line, words = lines.popleft()
        try:
            parsed = parse(words)
        except ValueError:  # a word is not a number
            parsed = None
        if parsed is None:
            raise ValueError(f"line {line}: expected {what}, got {' '.join(words)[:60]!r}")
        return parsed

    first = lines[0][0] if lines else 0
    if same_line := take("OFF", _header):
        lines.appendleft((first, same_line))
    vertex_count, face_count = take("the numbers of vertices and faces", _counts)
    vertices = [take(f"vertex {i} of {vertex_count}", _vertex) for i in range(1, vertex_count + 1)]
    faces = [
        take(f"face {i} of {face_count}, of vertices from 0 to {vertex_count - 1}", lambda w: _face(w, vertex_count))
        for i in range(1, face_count + 1)
    ]
    if lines:
        raise ValueError(f"line {lines[0][0]}: expected the end, after {face_count} faces")
    triangles = [(face[0], *pair) for face in faces for pair in itertools.pairwise(face[1:])]
    return Mesh(np.array(vertices, float).reshape(-1, 3), np.array(triangles, np.int64).reshape(-1, 3))


def _header(words: list[str]) -> list[str] | None:
    """What follows OFF on its line: in some files, the counts."""
    form = re.fullmatch(r"C?OFF(\d*)", words[0])
    return form and [word for word in (form[1], *words[1:]) if word]


def _counts(words: list[str]) -> tuple[int, int] | None:
    vertices, faces = int(words[0]), int(words[1]) if len(words) in (2, 3) else -1
    return (vertices, faces) if min(vertices, faces) >= 0 else None


def _vertex(words: list[str]) -> list[float] | None:
    numbers = list(map(float, words))
    return numbers[:3] if len(numbers) in (3, 6, 7) and all(map(math.isfinite, numbers)) else None


def _face(words: list[str], vertices: int) -> list[int] | None:
    corners = list(map(int, words[1 : int(words[0]) + 1]))
    complete = len(corners) == int(words[0]) > 0
    return corners if complete and all(0 <= corner < vertices for corner in corners) else None
