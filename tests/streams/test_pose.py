"""Pose: objects, cameras, targets and pixels; the same bytes however many processes; what is missing or broken."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from command import Refused
from metaleader import Batch, Pose, PoseNet, UserError
from metaleader.commands import main as cli
from metaleader.experiments.pose import angle_error, pose_error, position_error
from metaleader.models import layers
from metaleader.models.pose import spatial_soft_argmax
from metaleader.streams import rendering
from metaleader.streams.rendering import Rendering, backend, objects, render, room, scene

TINY = Rendering("primitives", pixels=16, tasks=2, images=4, held_out=2, objects=2)

CUBE = """OFF
9 14 0
-1 -1 -1
1 -1 -1
1 1 -1
-1 1 -1
-1 -1 1
1 -1 1
1 1 1
-1 1 1
-1 -1 -1
3 0 1 2
3 0 2 3
3 4 5 6
3 4 6 7
3 0 1 5
3 0 5 4
3 1 2 6
3 1 6 5
3 2 3 7
3 2 7 6
3 8 3 7
3 8 7 4
3 0 8 1
3 2 1 0
"""


@pytest.fixture(scope="session")
def opengl() -> str:
    """The OpenGL that works, or a skip with the reason."""
    try:
        return backend.working()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def rendered(opengl: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(TINY, tmp_path_factory.mktemp("data"), workers=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("task-*.npz")}


def test_the_same_bytes_however_many_processes_and_after_a_stop(rendered: Path, tmp_path: Path) -> None:
    again = tmp_path / "pose" / TINY.folder
    again.mkdir(parents=True)
    shutil.copy(rendered / "task-001.npz", again)  # as a rendering that was stopped would leave it
    (again / "task-000.npz.tmp").write_bytes(b"torn")
    kept = (again / "task-001.npz").stat().st_mtime_ns
    assert render(TINY, tmp_path, workers=2) == again
    assert contents(again) == contents(rendered)
    assert (again / "task-001.npz").stat().st_mtime_ns == kept
    assert (again / "manifest.json").read_text() == (rendered / "manifest.json").read_text()


def test_what_is_rendered_is_found_and_seen(rendered: Path) -> None:
    assert rendering.locate(TINY, rendered.parents[1]) == rendered
    assert (rendered / "contact-sheet.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((rendered / "manifest.json").read_text())["settings"]["pixels"] == 16
    with np.load(rendered / "task-000.npz") as task:
        images = task["inputs"]
        assert images.shape == (6, 16, 16, 3)
        assert len({image.tobytes() for image in images}) == 6  # every pose is another image
        red = (images[0, ..., 0] > 150) & (images[0, ..., 1] < 90)
        camera = scene.Camera(*task["camera"])
    (right, up), *_ = camera.project(np.array([[*scene.DOT, 0.0]]))
    row, column = np.argwhere(red).mean(axis=0)
    assert abs(column - ((right + 1) * 8 - 0.5)) < 1.5  # the dot is where the camera says
    assert abs(row - ((1 - up) * 8 - 0.5)) < 1.5


def test_the_dot_is_never_hidden(rendered: Path) -> None:
    for file in rendered.glob("task-*.npz"):
        red, green, blue = np.moveaxis(np.load(file)["inputs"].astype(int), -1, 0)
        pixels = (red > 2 * np.maximum(green, blue)).sum(axis=(1, 2))
        assert pixels.min() >= max(pixels.max() / 2, 1)


def test_a_stream_of_poses(rendered: Path) -> None:
    settings = Pose(rounds=2, examples_per_task=3, test_examples=2, rendering=TINY)
    first, again, other = (settings.stream(seed, rendered.parents[1]) for seed in (0, 0, 3))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.train.inputs, b.train.inputs)
        assert a.train.inputs.shape == (3, 16, 16, 3)
        train, test = ({image.tobytes() for image in batch.inputs} for batch in (a.train, a.held_out))
        assert not train & test
        targets = np.concatenate([a.train.targets, a.held_out.targets])
        np.testing.assert_allclose(np.hypot(targets[:, 2], targets[:, 3]), 1, atol=1e-6)
        assert np.abs(targets[:, :2]).max() <= scene.REACH
    assert {task.name for task in first} == {task.name for task in other}
    tuning = Pose(rounds=2, examples_per_task=3, test_examples=1, rendering=TINY, held_out="validation")
    with pytest.raises(UserError, match="test_examples must be below 4"):
        Pose(rounds=2, examples_per_task=3, test_examples=4, rendering=replace(TINY, held_out=4), held_out="validation")
    for task in tuning.stream(0, rendered.parents[1]):
        kept = [np.load(rendered / rendering.task_file(i)) for i in range(2)]
        of = next(each for each in kept if str(each["name"]) == task.name)
        images = [image.tobytes() for image in of["inputs"]]
        assert [image.tobytes() for image in task.held_out.inputs] == images[3:4]  # the last to learn from
        assert {image.tobytes() for image in task.train.inputs} == set(images[:3])
    assert [name for name, _ in first.sources] == [f"pose/{TINY.folder}/manifest.json"]


def test_the_smoke_preset_runs_on_rendered_images(opengl: str, tmp_path: Path) -> None:
    learners = ["--learner", "ftml", "toe", "--model.depth", "2"]  # compiling takes longest
    arguments = ["run", "pose-primitives", "--preset", "smoke", *learners, "--data-dir", str(tmp_path), "--out"]
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments, str(tmp_path / "out")])
    assert end.value.code == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    for numbers in summary["learners"].values():
        others = numbers["final_others"]
        assert others["position error (table lengths)"][0] > 0
        assert 0 < others["angle error (degrees)"][0] <= 180


@pytest.mark.slow
def test_a_script_without_a_guard_renders_once(opengl: str, tmp_path: Path) -> None:
    """Processes that are spawned would otherwise run it again."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom metaleader.streams.rendering import Rendering, render\nprint('begun')\n"
        "render(Rendering('primitives', pixels=16, tasks=1, images=1, held_out=1, objects=1), Path('.'), workers=1)\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "begun\n"), done.stderr
    assert list(tmp_path.rglob("contact-sheet.png"))


def test_targets_point_where_the_front_is(opengl: str, tmp_path: Path) -> None:
    """The nose of an object of azimuth 0 is towards +y; at 90 degrees counter-clockwise, towards -x.

    In two tones, the light half is where the nose is.
    """
    code = """
import numpy as np, mujoco
from metaleader.streams.rendering import scene, off
context = mujoco.GLContext(64, 64)
context.make_current()
back = np.array([0.0, -0.05, 1.0]) / np.linalg.norm([0.0, -0.05, 1.0])
camera = scene.Camera(2.5 * back, np.array([1.0, 0, 0]), np.cross(back, [1.0, 0, 0]))  # from above; +y is up
corners = np.array([[-.3, -.3, .1], [.3, -.3, .1], [0, .5, .1], [0, 0, .2]])
arrow = off.Mesh(corners, np.array([[0, 1, 2], [0, 1, 3]]))
for paint in ("two-tone", "one-colour"):
    drawn = scene.Scene(arrow, camera, 64, paint, np.random.default_rng(0))
    images = [drawn.image(0, 0, azimuth) for azimuth in (0, np.pi / 2, np.pi)]
    empty = drawn.image(9, 9, 0)
    for image in images:
        rows, columns = np.nonzero(np.abs(image.astype(int) - empty).sum(axis=2) > 60)
        print((rows.min() + rows.max()) / 2 - rows.mean(), (columns.min() + columns.max()) / 2 - columns.mean())
    print(*(image[row, 32].mean() for image in images[::2] for row in (28, 36)))
    drawn.close()
"""
    environment = {**os.environ, **backend.environment_of(opengl)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    # A triangle's mass lies towards its base: the middle of its extent lies from there towards the point.
    lines = [list(map(float, line.split())) for line in done.stdout.splitlines()]
    for (north, _), (_, west), (south, _) in (lines[:3], lines[4:7]):
        assert north < -1  # up is towards smaller rows
        assert west < -1
        assert south > 1
    (front, rear, turned_rear, turned_front), one_colour = lines[3], lines[7]
    assert front > 2 * rear
    assert turned_front > 2 * turned_rear
    assert max(one_colour) < 1.2 * min(one_colour)


def test_cameras_have_all_places_in_view() -> None:
    for seed in range(30):
        camera = scene.draw_camera(np.random.default_rng(seed))
        assert np.abs(camera.project(scene.IN_VIEW)).max() <= 1
        np.testing.assert_allclose(np.stack(camera[1:]) @ np.stack(camera[1:]).T, np.eye(2), atol=1e-9)


def test_a_mesh_is_cleaned_and_stood_on_the_table(tmp_path: Path) -> None:
    (tmp_path / "cube.off").write_text(CUBE)
    pytest.importorskip("trimesh")
    mesh = objects.load_mesh(tmp_path / "cube.off")
    assert mesh.faces.shape == (12, 3)  # of 14, one was degenerate and one a duplicate
    assert mesh.vertices.shape == (8, 3)  # of 9, one was a duplicate
    assert mesh.vertices[:, 2].min() == 0
    assert mesh.vertices[:, 2].max() <= objects.HEIGHT + 1e-9
    np.testing.assert_allclose(mesh.vertices[:, :2].mean(axis=0), 0, atol=1e-9)
    assert np.hypot(*mesh.vertices[:, :2].T).max() <= objects.RADIUS + 1e-9
    for half, y in zip(objects.halves(mesh), (1, -1), strict=True):
        assert (half.vertices[:, 1] * y).min() == pytest.approx(0)  # cut, not torn along its triangles
    (tmp_path / "cube.off").write_text(CUBE.replace("\n1 1 1\n-1 1 1\n", "\n1 1 2\n-1 1 2\n"))
    vertices = objects.load_mesh(tmp_path / "cube.off").vertices
    assert vertices[vertices[:, 2].argmax(), 1] < 0  # files have the front at -y


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no mesh", "cannot be read: line 1: expected OFF, got 'no mesh'"),
        ("", "cannot be read: the file ends after line 0: expected OFF"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", "has 1 non-degenerate faces"),
        ("OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n", "has no extent"),
        ("OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "has no faces"),
        (CUBE.replace("9 14 0", "9 14.5 0"), "line 2: expected the numbers of vertices and faces, got '9 14.5 0'"),
        (CUBE.replace("\n1 1 1\n", "\nnan 1 1\n"), "line 9: expected vertex 7 of 9, got 'nan 1 1'"),
        (CUBE.replace("\n1 1 1\n", "\n1 1\n"), "line 9: expected vertex 7 of 9, got '1 1'"),
        (CUBE.replace("3 0 1 2\n", "3 0 1 9\n"), "line 12: expected face 1 of 14, of vertices from 0 to 8"),
        (CUBE.replace("3 0 1 2\n", "3 0 1 -1\n"), "line 12: expected face 1 of 14, of vertices from 0 to 8"),
        (CUBE[: CUBE.index("3 8 3 7")], "the file ends after line 21: expected face 11 of 14"),
        (CUBE.removesuffix("2 1 0\n") + "2 1\n", "line 25: expected face 14 of 14"),
        (CUBE.replace("9 14 0", "9 13 0"), "line 25: expected the end, after 13 faces"),
        (CUBE.replace("9 14 0", "8 14 0"), "line 11: expected face 1 of 14"),
    ],
)
def test_broken_meshes_are_told(tmp_path: Path, content: str, reason: str) -> None:
    pytest.importorskip("trimesh")
    (tmp_path / "broken.off").write_text(content)
    with pytest.raises(ValueError, match=re.escape(reason)):
        objects.load_mesh(tmp_path / "broken.off")


def test_comments_colours_and_polygons_are_read(tmp_path: Path) -> None:
    """None of them changes the shape: it is that of the file without."""
    pytest.importorskip("trimesh")
    written = CUBE.replace("OFF\n9 14 0", "# a cube\nCOFF 9 13 0  # counts\n")
    written = written.replace("\n1 1 1\n", "\n1 1 1 255 0 0 255  # 1 of 8\n")
    written = written.replace("3 0 1 2\n3 0 2 3\n", "\n4 0 1 2 3 0.5 0.5 0.5  # 2 triangles\n")
    for name, content in (("plain", CUBE), ("rich", written)):
        (tmp_path / f"{name}.off").write_text(content)
    plain, rich = (objects.load_mesh(tmp_path / f"{name}.off") for name in ("plain", "rich"))
    np.testing.assert_array_equal(rich.vertices, plain.vertices)
    np.testing.assert_array_equal(rich.faces, plain.faces)


def test_edges_are_smooth(rendered: Path) -> None:
    """Where the table ends, pixels are between its colours and the sky's: smaller images say more of what is there."""
    with np.load(rendered / "task-000.npz") as task:
        colours = task["inputs"][0].reshape(-1, 3).astype(int)
    sky = np.median(colours[[0, 15, -16, -1]], axis=0)
    assert ((np.abs(colours - sky).max(axis=1) > 5) & (np.abs(colours - sky).max(axis=1) < 60)).sum() > 5


def cad(tmp_path: Path, sound: int, broken: int) -> Path:
    """A data folder with so many models."""
    folder = tmp_path / "pascal3d" / "CAD" / "car"
    folder.mkdir(parents=True)
    for i in range(sound + broken):
        (folder / f"{i:02d}.off").write_text(CUBE if i < sound else "broken")
    return tmp_path


def test_a_broken_model_is_left_out_by_name_and_another_takes_its_place(
    opengl: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Rendering(pixels=16, tasks=2, images=1, held_out=1, objects=2)
    folder = render(settings, cad(tmp_path, sound=2, broken=6), workers=1)
    assert "is left out: it cannot be read" in capfd.readouterr().err
    assert folder.name == settings.folder
    names = {str(np.load(path)["name"]) for path in folder.glob("task-*.npz")}
    assert names == {"car/00", "car/01"}


def test_too_few_sound_models_are_an_error(opengl: str, tmp_path: Path) -> None:
    settings = Rendering(pixels=16, tasks=2, images=1, held_out=1, objects=2)
    with pytest.raises(UserError, match="of 3 CAD models only 1 are sound, 2 are asked for"):
        render(settings, cad(tmp_path, sound=1, broken=2), workers=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pose"], "there are no CAD models, none of"),
        (["pose", "--objects", "99"], "there are no CAD models"),
        (["poes"], "unknown experiment to render 'poes': did you mean pose"),
        (["pose", "--classes", "chiar"], "unknown class of CAD models 'chiar': did you mean chair"),
        (["pose-primitives", "--workers", "0"], "workers must be at least 1, got 0"),
        (["pose-primitives", "--pixels", "0"], "pixels must be at least 1, got 0"),
        (["pose-primitives", "--pixels", "60000"], "of disk and"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("METALEADER_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    refused("data", "render", *arguments, "--data-dir", str(tmp_path), message=message)


def test_without_opengl_the_message_names_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    failed = subprocess.CompletedProcess([], 1, "", "no such library")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError) as error:
        backend.working()
    assert "egl: no such library; osmesa: no such library" in str(error.value)
    assert "apt-get install libegl1 libopengl0 libgl1-mesa-dri for EGL, or libosmesa6 for OSMesa" in str(error.value)


def test_the_backend_that_works_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco")
    monkeypatch.delenv("MUJOCO_GL", raising=False)

    def only_osmesa(*_: Any, env: dict[str, str], **__: Any) -> Any:
        return subprocess.CompletedProcess([], int(env["MUJOCO_GL"] != "osmesa"), "", "")

    monkeypatch.setattr(subprocess, "run", only_osmesa)
    assert backend.working() == "osmesa"


def test_too_little_memory_is_said_before_the_work_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(room, "available_memory", lambda: 10_000_000)
    with pytest.raises(UserError, match=r"rendering by 2 processes needs about 1\.0 GB of memory and 10 MB are"):
        render(TINY, tmp_path, workers=2)
    with pytest.raises(UserError, match=r"keeping 90 x 1000 images needs about 3\.3 GB of memory"):
        Pose().stream(0, tmp_path)


@pytest.mark.parametrize("setting", [{"rounds": 91}, {"examples_per_task": 1001}, {"test_examples": 0}])
def test_more_than_is_rendered_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(setting))} must be from 1 to"):
        Pose(**setting)


def test_soft_argmax_finds_a_peak_and_is_the_mean_elsewhere() -> None:
    maps = np.zeros((1, 5, 9, 2), np.float32)
    maps[0, 1, 8, 0] = 50  # row 1 of 5, column 8 of 9
    np.testing.assert_allclose(spatial_soft_argmax(maps), [[1, 0, -0.5, 0]], atol=1e-5)
    random = np.random.default_rng(0).normal(size=(2, 3, 4, 1)).astype(np.float32)
    share = np.exp(random) / np.exp(random).sum(axis=(1, 2), keepdims=True)
    x = sum(share[:, i, j, 0] * (2 * j / 3 - 1) for i in range(3) for j in range(4))
    np.testing.assert_allclose(spatial_soft_argmax(random)[:, 0], x, rtol=1e-4)


def test_the_paper_s_net() -> None:
    params = PoseNet(image=(125, 125, 3)).init(jax.random.key(0))
    assert [layer["kernel"].shape for layer in params["conv"]] == [(75, 16)] + [(400, 16)] * 3
    assert [layer["kernel"].shape for layer in params["hidden"]] == [(32, 200), (200, 200)]
    assert params["head"]["kernel"].shape == (200, 4)
    assert [set(layer) for layer in (*params["conv"], *params["hidden"])] == [{"kernel", "scale", "offset"}] * 6


def test_fully_connected_layers_are_normalised_too() -> None:
    """By the statistics of the weighted examples, which `calibrate` keeps."""
    net = PoseNet(depth=1, filters=4, width=16, image=(8, 8, 3), norm="task")
    images = np.random.default_rng(0).random((30, 8, 8, 3)).astype(np.float32)
    params, weights = net.init(jax.random.key(0)), (np.arange(30) < 20).astype(np.float32)
    maps, _ = layers.normalised_convolutions(params["conv"], images, weights, 5, 2)
    x = np.asarray(spatial_soft_argmax(maps))
    for layer in params["hidden"]:
        y = x @ np.asarray(layer["kernel"])
        x = np.maximum((y - y[:20].mean(0)) / np.sqrt(y[:20].var(0) + 1e-3), 0)
    expected = x @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(net.apply(params, images, weights)[:20], expected[:20], rtol=1e-3, atol=1e-4)
    kept = net.calibrate(params, Batch(images, np.zeros((30, 4), np.float32), weights))
    np.testing.assert_allclose(net.apply(kept, images[:1], weights[:1]), expected[:1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "task"])
def test_padding_changes_no_prediction(norm: Any) -> None:
    net = PoseNet(depth=2, filters=4, width=8, image=(8, 8, 3), norm=norm)
    images = np.random.default_rng(0).random((4, 8, 8, 3)).astype(np.float32)
    params, weights = net.init(jax.random.key(0)), np.array([1, 1, 1, 0], np.float32)
    np.testing.assert_allclose(
        net.apply(params, images, weights)[:3], net.apply(params, images[:3], weights[:3]), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"set image=\(9, 8, 3\)"):
        net.apply(params, np.zeros((1, 9, 8, 3), np.float32), weights[:1])


def test_what_the_report_says_of_the_squared_error_is_so() -> None:
    square = scene.REACH**2 / 3  # of a position along one axis
    assert f"constant predictor scores {(2 * square + 2 * 0.5) / 4:.3f}" in pose_error.note
    assert f"without any position scores {2 * square / 4:.3f}" in pose_error.note


def test_errors_a_person_can_judge() -> None:
    degrees = np.radians([10.0, 350.0, 90.0])
    true = np.stack([0 * degrees, 0 * degrees, np.sin(degrees), np.cos(degrees)], axis=1).astype(np.float32)
    turned = np.radians([350.0, 20.0, 270.0])
    predicted = np.stack([0 * turned + 0.6, 0 * turned + 0.8, 2 * np.sin(turned), 2 * np.cos(turned)], axis=1)
    np.testing.assert_allclose(angle_error.function(jnp.asarray(predicted), true), [20, 30, 180], atol=1e-3)
    np.testing.assert_allclose(position_error.function(jnp.asarray(predicted), true), 0.5, rtol=1e-5)


def test_classes_are_part_of_what_is_rendered(tmp_path: Path) -> None:
    folder = cad(tmp_path, sound=2, broken=0) / "pascal3d" / "CAD"
    assert [path.parent.name for path in objects.cad_files(folder, ["car", "bus"])] == ["car", "car"]
    with pytest.raises(UserError, match=r"holds no such CAD model: expected files such as .*bus/01\.off"):
        objects.cad_files(folder, ["bus"])
    assert (
        Rendering(classes=("sofa", "chair")).folder == "cad-chair-sofa-two-tone-64px-90x1000+200-50objects-seed0-scene2"
    )
    assert Rendering(paint="one-colour").folder == "cad-one-colour-64px-90x1000+200-50objects-seed0-scene2"


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="classes must name at least one of aeroplane, "):
        Rendering(classes=())
    with pytest.raises(UserError, match="seed must be at least 0, got -1"):
        Rendering(seed=-1)
