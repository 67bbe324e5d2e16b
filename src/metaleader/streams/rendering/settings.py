"""What determines the rendered images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from metaleader.errors import UserError, check_word, unknown

# Nine of the twelve classes of PASCAL3D+: those whose azimuth can be seen. Bottles and dining tables look alike from
# several sides, monitors from front and back.
CLASSES = ("aeroplane", "bicycle", "boat", "bus", "car", "chair", "motorbike", "sofa", "train")
SCENE = 2
"""Raised whenever the same settings draw another scene, so that images of the old one are not taken for the new."""

Paint = Literal["two-tone", "one-colour"]
Origin = Literal["cad", "primitives"]


@dataclass(frozen=True)
class Rendering:
    """What is rendered: `tasks` tasks, each of one object seen by one camera.

    Objects come `objects` in a random order, then again in another, each time under a new camera. The same settings
    give the same bytes, on one machine and with one version of MuJoCo and Mesa, however many processes share the work.

    Raises:
        UserError: a number is not positive, or a class or another word is unknown.
    """

    source: Origin = "cad"
    """`cad`: CAD models of PASCAL3D+. `primitives`: objects built from MuJoCo's own shapes, without a download."""
    classes: tuple[str, ...] = CLASSES
    """Classes of the CAD models."""
    paint: Paint = "two-tone"
    """`two-tone`: the front half of an object is light and its rear half dark, each in a hue of the object's own.
    `one-colour`: front and rear differ in shape only, which is harder, and for some classes cannot be seen."""
    pixels: int = 64
    """Height and width of an image; the authors used 125."""
    tasks: int = 90
    """Tasks: a camera each."""
    images: int = 1000
    """Images of a task to learn from."""
    held_out: int = 200
    """Images of a task to be judged on."""
    objects: int = 50
    """Objects among the tasks."""
    seed: int = 0
    """Of objects, cameras, positions and azimuths."""

    def __post_init__(self) -> None:
        check_word("source", self.source, get_args(Origin))
        check_word("paint", self.paint, get_args(Paint))
        for name in ("pixels", "tasks", "images", "held_out", "objects"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise UserError(f"seed must be at least 0, got {self.seed}")
        if not self.classes:
            raise UserError(f"classes must name at least one of {', '.join(CLASSES)}")
        for name in self.classes:
            if name not in CLASSES:
                raise UserError(unknown("class of CAD models", name, CLASSES))

    @property
    def folder(self) -> str:
        """The name of the folder that holds the images, below `pose/`."""
        numbers = f"{self.pixels}px-{self.tasks}x{self.images}+{self.held_out}-{self.objects}objects-seed{self.seed}"
        some = self.source == "cad" and set(self.classes) != set(CLASSES)
        return "-".join(
            [self.source, *(sorted(set(self.classes)) if some else ()), self.paint, numbers, f"scene{SCENE}"]
        )

    @property
    def bytes_per_task(self) -> int:
        """Bytes of a task's images."""
        return (self.images + self.held_out) * self.pixels**2 * 3
