"""Rendering the images of the pose experiment (paper, section 6.3) with MuJoCo; needs the extra `[pose]`."""

from metaleader.streams.rendering.render import MANIFEST, locate, render, task_file
from metaleader.streams.rendering.room import check_memory
from metaleader.streams.rendering.settings import Rendering
from metaleader.streams.rendering.sheet import CONTACT_SHEET

__all__ = ["CONTACT_SHEET", "MANIFEST", "Rendering", "check_memory", "locate", "render", "task_file"]
