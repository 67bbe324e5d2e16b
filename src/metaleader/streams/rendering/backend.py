"""Which OpenGL works on this machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

from metaleader.errors import UserError

BACKENDS = ("egl", "osmesa")
# Draws one image, so that what only fails in use counts as failed.
PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco/>")
context = mujoco.GLContext(16, 16)
context.make_current()
drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, drawing)
assert drawing.currentBuffer == mujoco.mjtFramebuffer.mjFB_OFFSCREEN
"""


def working() -> str:
    """The first of EGL and OSMesa that draws; the one in MUJOCO_GL, if that is set.

    Each is tried in a process of its own: a library that is missing or broken may end it.

    Raises:
        UserError: MuJoCo is not installed, or none works.
    """
    if missing := [name for name in ("mujoco", "trimesh") if importlib.util.find_spec(name) is None]:
        raise UserError(f"rendering needs {' and '.join(missing)}: pip install 'metaleader[pose]'")
    asked = os.environ.get("MUJOCO_GL", "").lower()
    reasons = []
    for backend in (asked,) if asked else BACKENDS:
        environment = {**os.environ, **environment_of(backend)}
        tried = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True)
        if tried.returncode == 0:
            return backend
        last = tried.stderr.strip().splitlines()[-1:] or [f"ended with {tried.returncode}"]
        reasons.append(f"{backend}: {last[0][:100]}")
    raise UserError(
        f"no OpenGL to render with ({'; '.join(reasons)}): on Debian or Ubuntu, apt-get install libegl1 libopengl0 "
        f"libgl1-mesa-dri for EGL, or libosmesa6 for OSMesa{'; or unset MUJOCO_GL' if asked else ''}"
    )


def environment_of(backend: str) -> dict[str, str]:
    """The variables under which MuJoCo uses `backend`, and Mesa one thread: the processes share the cores."""
    return {"MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend, "LP_NUM_THREADS": "0"}
