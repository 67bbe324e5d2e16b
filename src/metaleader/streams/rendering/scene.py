"""A table with an object on it, seen by a camera."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from metaleader.streams.rendering.objects import HEIGHT, RADIUS, colours, halves, primitives
from metaleader.streams.rendering.off import Mesh
from metaleader.streams.rendering.settings import Paint

REACH = 0.4  # an object's centre is within +- REACH in x and y; the table spans +- 1
DOT, DOT_RADIUS = (0.88, 0.88), 0.12
FIELD_OF_VIEW = 45.0  # degrees
# What must be in view: the cylinder that an object fits in, wherever it stands, and the dot.
_CIRCLE = [(np.cos(angle), np.sin(angle)) for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False)]
IN_VIEW = np.array(
    [
        [x + RADIUS * cosine, y + RADIUS * sine, z]
        for x in (-REACH, REACH)
        for y in (-REACH, REACH)
        for cosine, sine in _CIRCLE
        for z in (0, HEIGHT)
    ]
    + [[DOT[0] + DOT_RADIUS * cosine, DOT[1] + DOT_RADIUS * sine, 0] for cosine, sine in _CIRCLE]
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
    <geom type="cylinder" size="{dot_radius} .004" pos="{dot[0]} {dot[1]} .004" rgba="1 0 0 1" contype="0"
     conaffinity="0"/>
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
    """A camera from any side, 40 to 70 degrees above the table, close up but with all of `IN_VIEW` in view.

    A point with coordinates (x, y) along the image's axes and z against the viewing direction is in view of a camera at
    (a, b, d) if |x - a| <= t (d - z) and |y - b| <= t (d - z), where t is the tangent of half of the field of view. The
    smallest d for which all points are, and its a and b, follow from the extremes of x +- t z and y +- t z. Images are
    of a wider view, by 2 to 10 %, than that for which the camera is placed.
    """
    azimuth, elevation = random.uniform(0, 2 * np.pi), np.radians(random.uniform(40, 70))
    back = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0])
    axes = np.stack([right, np.cross(back, right)])
    tangent = np.tan(np.radians(FIELD_OF_VIEW) / 2) / random.uniform(1.02, 1.1)
    across, nearer = IN_VIEW @ axes.T, tangent * (IN_VIEW @ back)[:, None]
    most, least = (across + nearer).max(axis=0), (across - nearer).min(axis=0)
    distance = ((most - least) / (2 * tangent)).max()
    return Camera((most + least) / 2 @ axes + distance * back, *axes)


def draw_pose(random: np.random.Generator) -> Float[np.ndarray, " 3"]:
    """Where an object stands, x and y within `REACH`, and its azimuth in radians, each uniform."""
    return random.uniform([-REACH, -REACH, 0], [REACH, REACH, 2 * np.pi])


class Scene:
    """A scene that MuJoCo draws; one OpenGL context must be current in the process."""

    def __init__(
        self, thing: Mesh | None, camera: Camera, pixels: int, paint: Paint, appearance: np.random.Generator
    ) -> None:
        """Put `thing` on the table, or where it is None, an object of primitives; `appearance` draws its looks."""
        import mujoco

        axes = " ".join(map(repr, map(float, [*camera.right, *camera.up])))
        position = " ".join(map(repr, map(float, camera.position)))
        xml = TABLE.format(pixels=pixels, dot=DOT, dot_radius=DOT_RADIUS, pos=position, axes=axes, fovy=FIELD_OF_VIEW)
        spec = mujoco.MjSpec.from_string(xml)
        body = spec.body("object")
        front, rear = colours(paint, appearance)
        if thing is None:
            for geom in primitives(appearance):
                kind = getattr(mujoco.mjtGeom, f"mjGEOM_{geom.pop('type').upper()}")
                body.add_geom(type=kind, rgba=front if geom["pos"][1] > 0 else rear, contype=0, conaffinity=0, **geom)
        else:
            for name, half, rgba in zip(("front", "rear"), halves(thing), (front, rear), strict=True):
                self._add(spec, body, name, half, rgba)
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
        self._dot = int(_red(self.image(99, 99, 0)).sum())

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

    def shows_dot(self, image: UInt8[np.ndarray, "p p 3"]) -> bool:
        """Whether at least half of the dot can be seen: of the pixels that are red where no object hides it."""
        return 2 * int(_red(image).sum()) >= self._dot

    def close(self) -> None:
        """Free what the scene holds in OpenGL."""
        self._context.free()

    @staticmethod
    def _add(spec: Any, body: Any, name: str, mesh: Mesh, rgba: list[float]) -> None:
        """Add a mesh whose faces are seen from both sides, each shaded as a plane.

        Faces of CAD models are wound either way. Every triangle gets vertices of its own, twice: sharing them would
        average the normals of both sides to nothing.
        """
        import mujoco

        corners = mesh.vertices[mesh.faces]
        both = np.concatenate([corners, corners[:, ::-1]]).reshape(-1, 3)
        faces = np.arange(len(both), dtype=np.int32)
        spec.add_mesh(
            name=name, uservert=both.ravel(), userface=faces, inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
        )
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, rgba=rgba, contype=0, conaffinity=0)


def _red(image: UInt8[np.ndarray, "p p 3"]) -> Bool[np.ndarray, "p p"]:
    """Which pixels are the dot's, at least in part: nothing else has so little green and blue."""
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    return red > 2 * np.maximum(green, blue)
