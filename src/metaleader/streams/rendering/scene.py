"""A table with an object on it, seen by a camera."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from metaleader.streams.rendering.objects import HEIGHT, RADIUS, colour, primitives
from metaleader.streams.rendering.off import Mesh

REACH = 0.5  # an object's centre is within +- REACH in x and y; the table spans +- 1
DOT = (0.88, 0.88)
FIELD_OF_VIEW = 45.0  # degrees
# What must be in view wherever the object stands: the box it can reach, and the dot.
_EDGE = REACH + RADIUS
CORNERS = np.array(
    [[x, y, z] for x in (-_EDGE, _EDGE) for y in (-_EDGE, _EDGE) for z in (0, HEIGHT)] + [[*DOT, 0]], float
)

TABLE = """
<mujoco>
  <visual>
    <global offwidth="{pixels}" offheight="{pixels}"/>
    <quality shadowsize="0" offsamples="4"/>
    <headlight ambient=".45 .45 .45" diffuse=".3 .3 .3" specular="0 0 0"/>
    <map znear="0.05" zfar="20"/>
  </visual>
  <statistic extent="1" center="0 0 0"/>
  <asset>
    <texture name="wood" type="2d" builtin="checker" width="128" height="128" rgb1=".62 .47 .32" rgb2=".54 .40 .27"
     mark="random" random="0.2" markrgb=".45 .33 .22"/>
    <material name="wood" texture="wood" texrepeat="4 4" specular="0"/>
    <texture name="sky" type="skybox" builtin="flat" rgb1=".80 .84 .88" rgb2=".80 .84 .88" width="8" height="8"/>
  </asset>
  <worldbody>
    <light directional="true" pos="0 0 4" dir="-.4 .3 -1" diffuse=".55 .55 .55" specular="0 0 0" castshadow="false"/>
    <geom type="box" size="1 1 .03" pos="0 0 -.03" material="wood" contype="0" conaffinity="0"/>
    <geom type="cylinder" size=".09 .004" pos="{dot[0]} {dot[1]} .004" rgba="1 0 0 1" contype="0" conaffinity="0"/>
    <body name="object"/>
    <camera name="camera" pos="{pos}" xyaxes="{axes}" fovy="{fovy}"/>
  </worldbody>
</mujoco>
"""


class Camera(NamedTuple):
    """A pinhole camera.

    Attributes:
        position: in half table lengths; the origin is the middle of the table, z is up.
        right: unit vector of the image's x axis.
        up: unit vector against the image's y axis.
    """

    position: Float[np.ndarray, " 3"]
    right: Float[np.ndarray, " 3"]
    up: Float[np.ndarray, " 3"]

    def project(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Image coordinates, from -1 to 1 across the image: right and up; infinite behind the camera."""
        from_camera = points - self.position
        depth = from_camera @ np.cross(self.up, self.right)  # the viewing direction
        scale = np.tan(np.radians(FIELD_OF_VIEW) / 2) * np.where(depth > 0, depth, np.nan)
        image = np.stack([from_camera @ self.right, from_camera @ self.up], axis=1) / scale[:, None]
        return np.where(np.isnan(image), np.inf, image)


def draw_camera(random: np.random.Generator) -> Camera:
    """A camera from any side, 35 to 70 degrees above the table, close up but with all of `CORNERS` in view."""
    azimuth, elevation = random.uniform(0, 2 * np.pi), np.radians(random.uniform(35, 70))
    middle = np.array([*random.uniform(-0.1, 0.1, 2), 0.1])
    stretch = random.uniform(1.0, 1.15)
    back = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0])
    distance = 1.5
    while np.abs(Camera(middle + distance * back, right, np.cross(back, right)).project(CORNERS)).max() > 0.98:
        distance += 0.02
    return Camera(middle + stretch * distance * back, right, np.cross(back, right))


class Scene:
    """A scene that MuJoCo draws; one OpenGL context must be current in the process."""

    def __init__(self, thing: Mesh | None, camera: Camera, pixels: int, appearance: np.random.Generator) -> None:
        """Put `thing` on the table, or where it is None, an object of primitives drawn by `appearance`."""
        import mujoco

        axes = " ".join(map(repr, map(float, [*camera.right, *camera.up])))
        position = " ".join(map(repr, map(float, camera.position)))
        xml = TABLE.format(pixels=pixels, dot=DOT, pos=position, axes=axes, fovy=FIELD_OF_VIEW)
        spec = mujoco.MjSpec.from_string(xml)
        body = spec.body("object")
        if thing is None:
            for geom in primitives(appearance):
                kind = getattr(mujoco.mjtGeom, f"mjGEOM_{geom.pop('type').upper()}")
                body.add_geom(type=kind, contype=0, conaffinity=0, **geom)
        else:
            self._add(spec, body, thing, colour(appearance))
        self._mujoco, self._pixels = mujoco, pixels
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._body, self._camera = self._model.body("object").id, mujoco.MjvCamera()
        self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
        self._scene, self._option = mujoco.MjvScene(self._model, maxgeom=50), mujoco.MjvOption()
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)

    def image(self, x: float, y: float, azimuth: float) -> UInt8[np.ndarray, "p p 3"]:
        """The table with the object at (x, y), turned by `azimuth` (radians, counter-clockwise from above)."""
        mujoco, model, data = self._mujoco, self._model, self._data
        model.body_pos[self._body] = x, y, 0
        model.body_quat[self._body] = np.cos(azimuth / 2), 0, 0, np.sin(azimuth / 2)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, everything, self._scene)
        view, pixels = mujoco.MjrRect(0, 0, self._pixels, self._pixels), np.empty((self._pixels,) * 2 + (3,), np.uint8)
        mujoco.mjr_render(view, self._scene, self._context)
        mujoco.mjr_readPixels(pixels, None, view, self._context)
        return pixels[::-1]  # OpenGL counts rows from below

    def close(self) -> None:
        """Free what the scene holds in OpenGL."""
        self._context.free()

    @staticmethod
    def _add(spec: Any, body: Any, mesh: Mesh, rgba: list[float]) -> None:
        """Add a mesh whose faces are seen from both sides, each shaded as a plane.

        Faces of CAD models are wound either way. Every triangle gets vertices of its own, twice: sharing them would
        average the normals of both sides to nothing.
        """
        import mujoco

        corners = mesh.vertices[mesh.faces]
        both = np.concatenate([corners, corners[:, ::-1]]).reshape(-1, 3)
        faces = np.arange(len(both), dtype=np.int32)
        spec.add_mesh(
            name="mesh", uservert=both.ravel(), userface=faces, inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
        )
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname="mesh", rgba=rgba, contype=0, conaffinity=0)
