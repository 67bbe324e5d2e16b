"""Folders as streams: images in class folders, arrays in files, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metaleader as ml
from metaleader import UserError
from metaleader.streams import from_folder

Image = pytest.importorskip("PIL.Image")
CLASSES = {"bear": 0, "cat": 1}


def pixels(task: int, name: str, i: int, size: tuple[int, int] = (6, 4)) -> np.ndarray:
    random = np.random.default_rng([task, CLASSES.get(name, 7), i])
    return random.integers(0, 256, (*size, 3)).astype(np.uint8)


def photos(path: Path, tasks: int = 3, n: int = 5, suffix: str = ".png") -> Path:
    """Each image is told by its pixels: of which task, class and place it is."""
    for task in range(tasks):
        for name in CLASSES:
            (path / f"zoo {task + 9}" / name).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(pixels(task, name, i)).save(path / f"zoo {task + 9}" / name / f"{i}{suffix}")
    return path


def test_images_are_read_as_they_are(tmp_path: Path) -> None:
    folder = from_folder(photos(tmp_path), tasks="name", held_out="last 30%")
    assert folder.describe().splitlines() == [
        f"3 tasks, in {tmp_path}, of 10 to 10 examples (median 10)",
        "target: binary, 2 classes: bear, cat",
        "inputs: images of 6 x 4 pixels, rgb",
        "held out: last 30%, 9 examples",
        "order: tasks by name",
    ]
    assert [task.name for task in folder.stream(5)] == ["zoo 9", "zoo 10", "zoo 11"]
    for number, task in enumerate(folder.stream(0)):
        assert task.train.inputs.dtype == np.uint8
        assert (len(task.train), len(task.held_out)) == (7, 3)
        shown = [(task.train, i) for i in range(7)] + [(task.held_out, i) for i in range(3)]
        found = sorted((int(batch.targets[i]), batch.inputs[i].tobytes()) for batch, i in shown)
        there = [(label, pixels(number, name, i).tobytes()) for name, label in CLASSES.items() for i in range(5)]
        assert found == sorted(there)
        assert len(set(task.train.targets.tolist())) == 2  # they do not arrive class by class
    drawn = from_folder(tmp_path)
    orders = {tuple(task.name for task in drawn.stream(seed)) for seed in range(9)}
    assert len(orders) > 2
    assert [t.checksum for t in drawn.stream(1)] == [t.checksum for t in from_folder(tmp_path).stream(1)]


def test_sizes_and_colours(tmp_path: Path) -> None:
    photos(tmp_path)
    grey = next(iter(from_folder(tmp_path, colour="grey", image_size=(3, 2), tasks="name").stream(0)))
    assert grey.train.inputs.shape == (7, 3, 2, 1)
    Image.fromarray(pixels(0, "cat", 9, (8, 8))).save(tmp_path / "zoo 9" / "cat" / "9.png")
    with pytest.raises(UserError, match=r"images are of 2 sizes, such as 6 x 4 pixels .* image_size=\(6, 4\)"):
        from_folder(tmp_path)
    folder = from_folder(tmp_path, image_size=8, tasks="name")
    inputs = np.concatenate([batch.inputs for batch in (folder.stream(0)[0].train, folder.stream(0)[0].held_out)])
    assert any((image == pixels(0, "cat", 9, (8, 8))).all() for image in inputs)  # of that size already
    assert folder.shape == (8, 8, 3)


def test_classes_that_are_in_some_tasks_and_other_files_are_told(tmp_path: Path) -> None:
    photos(tmp_path)
    (tmp_path / "zoo 9" / "cat").rename(tmp_path / "zoo 9" / "dog")
    (tmp_path / "notes.txt").write_text("of the keeper")
    (tmp_path / "zoo 9" / "dog" / "list.txt").write_text("of dogs")
    (tmp_path / ".hidden").mkdir()
    folder = from_folder(tmp_path)
    lines = folder.describe().splitlines()
    assert folder.classes == ("bear", "cat", "dog")
    assert "classes that are not in each of the 3 tasks: cat in 2, dog in 1" in lines
    assert "  notes.txt: no folder" in lines
    assert f"  {tmp_path / 'zoo 9' / 'dog' / 'list.txt'}: no image" in lines


def read_all(path: Path) -> None:
    for source in from_folder(path).sources:
        source.read(np.arange(len(source.targets)))


def test_bad_images_are_refused(tmp_path: Path) -> None:
    photos(tmp_path, suffix=".jpg")
    good = (tmp_path / "zoo 9" / "cat" / "0.jpg").read_bytes()
    for content in (b"", b"no image", good[: len(good) - 40]):
        (tmp_path / "zoo 9" / "cat" / "0.jpg").write_bytes(content)
        with pytest.raises(UserError, match=r"0\.jpg is damaged, or no image"):
            read_all(tmp_path)
    Image.fromarray(np.zeros((6, 4), np.uint16)).save(tmp_path / "zoo 9" / "cat" / "deep.png")
    (tmp_path / "zoo 9" / "cat" / "0.jpg").unlink()
    with pytest.raises(UserError, match=r"deep\.png has more than 8 bits a pixel"):
        from_folder(tmp_path)


def test_bad_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "zoos")
    with pytest.raises(UserError, match="unknown folder 'zoo': did you mean zoos"):
        from_folder(tmp_path / "zoo")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no folder and no \.npz file: give one folder of images a task"):
        from_folder(tmp_path / "empty")
    with pytest.raises(UserError, match=r"0 of 3 tasks in .* can be learned, .*: 10 examples, fewer than 11"):
        from_folder(tmp_path / "zoos", smallest=11)
    with pytest.raises(UserError, match=r"held_out must be 'last 30%' or .*, or 'none'; got 'half'"):
        from_folder(tmp_path / "zoos", held_out="half")
    with pytest.raises(UserError, match="smallest must be from 2"):
        from_folder(tmp_path / "zoos", smallest=1)
    with pytest.raises(UserError, match="image_size must be from 1 to 100000, got 0"):
        from_folder(tmp_path / "zoos", image_size=0)
    bare: Any = getattr(from_folder, "__wrapped__", from_folder)
    with pytest.raises(UserError, match="unknown order of tasks 'time'"):
        bare(tmp_path / "zoos", tasks="time")
    with pytest.raises(UserError, match="unknown colour 'gray': did you mean grey"):
        bare(tmp_path / "zoos", colour="gray")
    np.savez(tmp_path / "zoos" / "a.npz", x=[1], y=[1])
    with pytest.raises(UserError, match=r"holds 3 folders and 1 \.npz files: give one folder"):
        from_folder(tmp_path / "zoos")
    (tmp_path / "zoos" / "a.npz").unlink()
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "PIL", None)
        with pytest.raises(UserError, match=r"Pillow reads images.*: pip install 'metaleader\[images\]'"):
            from_folder(tmp_path / "zoos")
    (tmp_path / "zoos" / "zoo 9" / "dog").mkdir()
    with pytest.raises(UserError, match="dog holds no image"):
        from_folder(tmp_path / "zoos")
    (tmp_path / "zoos" / "zoo 9" / "dog").rmdir()
    (tmp_path / "zoos" / "zoo 99").mkdir()
    with pytest.raises(UserError, match=r"zoo 99 holds no class: .*CLASS.IMAGE\.png"):
        from_folder(tmp_path / "zoos")
    photos(tmp_path / "one", n=6)
    for zoo in (tmp_path / "one").iterdir():
        for image in (zoo / "cat").iterdir():
            image.unlink()
        (zoo / "cat").rmdir()
    with pytest.raises(UserError, match="all examples are of one class, 'bear'"):
        from_folder(tmp_path / "one")


def arrays(path: Path, tasks: int = 4, n: int = 10, **changes: Mapping[int, Any]) -> Path:
    """Files of points; `changes` replaces an array in some of them, None removes it."""
    path.mkdir(exist_ok=True)
    for task in range(tasks):
        random = np.random.default_rng(task)
        held: dict[str, Any] = {"x": random.normal(size=(n, 2)), "y": random.integers(3, 6, n)}
        held |= {name: of[task] for name, of in changes.items() if task in of}
        np.savez(path / f"{task}.npz", **{name: value for name, value in held.items() if value is not None})
    return path


@pytest.mark.parametrize("held_out", ["random 30%", "none"])
def test_arrays_are_read_as_they_are(held_out: str, tmp_path: Path) -> None:
    own = np.random.default_rng(9).normal(size=(4, 2))
    arrays(tmp_path, x_test={2: own}, y_test={2: np.array([3, 4, 5, 5])})
    folder = from_folder(tmp_path, held_out=held_out, tasks="name")
    assert (folder.classes, folder.kind, folder.shape, folder.outputs) == (("3", "4", "5"), "multi-class", (2,), 3)
    assert f"held out: {held_out}, in 1 tasks as their files say, " in folder.describe()
    for number, task in enumerate(folder.stream(0)):
        whole = np.load(tmp_path / f"{number}.npz")
        if number == 2:
            np.testing.assert_array_equal(task.train.inputs, whole["x"].astype(np.float32))
            np.testing.assert_array_equal(task.held_out.inputs, own.astype(np.float32))
            np.testing.assert_array_equal(task.held_out.targets, [0, 1, 2, 2])
        elif held_out == "none":
            assert task.test is None
            np.testing.assert_array_equal(task.train.targets + 3, whole["y"])
        else:
            rows = np.concatenate([task.train.inputs, task.held_out.inputs])
            assert len(task.held_out) == 3
            np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(whole["x"].astype(np.float32), axis=0))
    results = ml.run(folder.problem(), folder.stream, ml.FTL(steps=2), progress=False)
    assert results.runs[0].outcome == "finished"


def test_targets_of_arrays(tmp_path: Path) -> None:
    for i, (y, kind, classes) in enumerate(
        (
            (np.arange(10) / 3, "regression", ()),
            (np.array(["b", "a"] * 5), "binary", ("a", "b")),
            (np.arange(10) % 2 == 0, "binary", ("False", "True")),
            (np.arange(10) + 5, "multi-class", tuple(map(str, range(5, 15)))),  # by value, not by letter
        )
    ):
        folder = from_folder(arrays(tmp_path / str(i), y=dict.fromkeys(range(4), y)), held_out="none")
        assert (folder.kind, folder.classes) == (kind, classes)
        targets = folder.stream(0)[0].train.targets
        expected = y[:, None].astype(np.float32) if not classes else [classes.index(str(label)) for label in y]
        np.testing.assert_array_equal(targets, expected)
    several = arrays(tmp_path / "two", y=dict.fromkeys(range(4), np.random.default_rng(0).normal(size=(10, 2))))
    folder = from_folder(several)
    assert (folder.outputs, folder.score.name) == (2, "RMSE")
    assert ml.run(folder.problem(), folder.stream, ml.FTL(steps=1), rounds=1, progress=False).runs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": {1: np.zeros((10, 3))}}, r"x must be alike in all files: .*0\.npz has float32 of shape \(2,\) .*1\.npz"),
        ({"x": {1: np.zeros((10, 2), np.uint8)}}, r"x must be alike in all files: .* uint8 of shape \(2,\)"),
        ({"x": {1: np.zeros((9, 2))}}, r"1\.npz must hold as many x as y, .* got shapes \(9, 2\) and \(10,\)"),
        ({"x": {1: None}}, r"1\.npz holds y, but no x: save it by np\.savez"),
        ({"x_test": {1: np.zeros((4, 2))}}, r"1\.npz must hold both x_test and y_test, or neither; got x, x_test, y"),
        ({"x": {1: np.full((10, 2), np.nan)}}, r"1\.npz: x must be finite"),
        ({"x": {1: np.array(["a"] * 10)}}, r"1\.npz: x must hold numbers, got <U1"),
        ({"y": {1: np.zeros((10, 2), int)}}, r"1\.npz: y must hold one class an example, got shape \(10, 2\)"),
        ({"y": {1: np.zeros(10, complex)}}, r"1\.npz: y must hold"),
        ({"y": {1: np.zeros(10)}}, "y of 1 holds decimal numbers, others classes: write the same everywhere"),
        (
            {"x_test": {1: np.zeros((4, 2))}, "y_test": {1: np.zeros(4)}},
            "y_test of 1 holds decimal numbers, others classes",
        ),
        ({"y": {1: np.array([{}] * 10)}}, r"1\.npz holds Python objects \(pickled\), which may run code"),
    ],
)
def test_bad_arrays_are_refused(changes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        from_folder(arrays(tmp_path, **changes))


def test_damaged_arrays_are_refused(tmp_path: Path) -> None:
    whole = (arrays(tmp_path) / "1.npz").read_bytes()
    for content in (b"", whole[:200], b"x" * 100, whole[:100] + b"....." + whole[105:]):
        (tmp_path / "1.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"1\.npz (is damaged|holds Python objects)"):
            from_folder(tmp_path)


def test_images_are_learned(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for task in range(4):
        for name, light in (("dark", 40), ("light", 200)):
            (tmp_path / str(task) / name).mkdir(parents=True)
            for i in range(8):
                image = np.clip(random.normal(light, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(image).save(tmp_path / str(task) / name / f"{i}.png")
    folder = from_folder(tmp_path)
    assert isinstance(folder.problem().model, ml.ConvNet)
    results = ml.run(folder.problem(ml.MLP(768, 2)), folder.stream, ml.FTL(steps=100), progress=False)
    assert (results.runs[0].records[-1].score or 0) > 0.8
