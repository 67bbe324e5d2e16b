"""Streams: transformations pixel by pixel, splits, orders, seeds."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from metaleader import RainbowDigits, RainbowMnist, Sinusoid, Stream, Task, UserError
from metaleader.streams import sources as data
from metaleader.streams.rainbow import COLOURS, TRANSFORMATIONS, Transformation
from problems import STREAMS


@settings(max_examples=40)
@given(st.sampled_from(TRANSFORMATIONS), st.integers(0, 99), st.integers(0, 7), st.integers(0, 7), st.integers(0, 2))
def test_every_pixel_of_a_transformation(task: Transformation, seed: int, row: int, column: int, channel: int) -> None:
    """An independent account of one pixel: where it came from, and how it was coloured."""
    image = np.random.default_rng(seed).integers(0, 256, (1, 8, 8)).astype(np.uint8)
    got = task(image)[0, row, column, channel]
    for _ in range(task.rotation // 90):  # counter-clockwise, so go back clockwise: (r, c) came from (c, 7 - r)
        row, column = column, 7 - row
    if task.scale == "full":
        grey = float(image[0, row, column])
    elif 2 <= row < 6 and 2 <= column < 6:
        r, c = 2 * (row - 2), 2 * (column - 2)
        grey = np.rint(image[0, r : r + 2, c : c + 2].mean())
    else:
        grey = 0.0
    background = COLOURS[task.colour][channel]
    assert abs(float(got) - (background + (255 - background) * grey / 255)) <= 0.5 + 1e-9


def test_there_are_56_tasks() -> None:
    assert len(set(TRANSFORMATIONS)) == 56 == 7 * 2 * 4


@pytest.mark.parametrize("order", ["colour", "scale", "rotation"])
def test_grouped_orders_are_grouped(order: Any) -> None:
    field = {"colour": 0, "scale": 1, "rotation": 2}[order]
    stream = RainbowDigits(order=order, examples_per_task=1, test_examples=1).stream(0)
    values = [task.name.split("/")[field] for task in stream]
    assert len({task.name for task in stream}) == 56
    changes = sum(a != b for a, b in itertools.pairwise(values))
    assert changes == len(set(values)) - 1


@pytest.mark.parametrize("settings", STREAMS.values(), ids=STREAMS)
def test_the_same_seed_is_the_same_stream(settings: Any) -> None:
    first, second, other = settings.stream(1), settings.stream(1), settings.stream(2)
    for a, b in zip(first, second, strict=True):
        assert a.name == b.name
        np.testing.assert_array_equal(a.train.inputs, b.train.inputs)
        np.testing.assert_array_equal(a.held_out.targets, b.held_out.targets)
    assert [t.name for t in first] != [t.name for t in other]
    np.testing.assert_array_equal(first[2].train.inputs, first[2].train.inputs)  # whenever it is asked


@pytest.mark.parametrize("settings", STREAMS.values(), ids=STREAMS)
def test_fewer_rounds_are_the_first_rounds(settings: Any) -> None:
    whole, part = settings.stream(5), replace(settings, rounds=2).stream(5)
    assert [task.name for task in part] == [task.name for task in whole[:2]]
    np.testing.assert_array_equal(part[1].train.inputs, whole[1].train.inputs)
    np.testing.assert_array_equal(part[1].held_out.inputs, whole[1].held_out.inputs)


def test_the_order_of_the_tasks_leaves_the_split_as_it_is() -> None:
    random, grouped = (RainbowDigits(order=order).stream(6) for order in ("random", "scale"))
    assert [task.name for task in random] != [task.name for task in grouped]
    for a, b in zip(random, grouped, strict=True):
        np.testing.assert_array_equal(a.train.targets, b.train.targets)
        np.testing.assert_array_equal(a.held_out.targets, b.held_out.targets)


def strokes(images: np.ndarray, task: str) -> np.ndarray:
    """The grey images under colour and rotation, which are undone."""
    colour, _, rotation = task.split("/")
    channel = COLOURS[colour].index(0)  # every colour has one: there, a pixel is the grey value
    return np.rot90(images[..., channel], -int(rotation) // 90, axes=(1, 2))


def halves(images: np.ndarray, task: str) -> list[bytes]:
    """The original images at half size, whatever the task: what identifies them in all tasks."""
    grey = strokes(images, task)
    if "/half/" in task:
        quarter = grey.shape[1] // 4
        return [image.tobytes() for image in grey[:, quarter:-quarter, quarter:-quarter]]
    return list(shrunk(grey))


def shrunk(grey: np.ndarray) -> Iterator[bytes]:
    """The mean of every 2 x 2 pixels, from the sum of the four."""
    corners = grey.astype(float)
    sums = corners[:, ::2, ::2] + corners[:, ::2, 1::2] + corners[:, 1::2, ::2] + corners[:, 1::2, 1::2]
    return (image.tobytes() for image in np.rint(sums / 4).astype(np.uint8))


def test_digits_for_testing_are_never_trained_on() -> None:
    stream = list(RainbowDigits(test_examples=300).stream(4))
    train = [halves(task.train.inputs, task.name) for task in stream]
    test = [set(halves(task.held_out.inputs, task.name)) for task in stream]
    assert all(len(set(images)) == len(images) == 100 for images in train)  # no image twice in a task
    assert all(images == test[0] for images in test)  # the same images under every transformation
    assert len(test[0]) == 300
    assert len(set[bytes]().union(*train)) > 1300
    assert not test[0] & set[bytes]().union(*train)


def test_each_mnist_image_is_in_one_task_only_and_none_is_held_out(data_dir: Path) -> None:
    stream = RainbowMnist().stream(0, data_dir)
    assert len(stream) == 56
    assert len({task.name for task in stream}) == 56
    paths = data.locate(data.find("mnist"), data_dir)
    originals = Counter(shrunk(data.read_idx(paths["train-images-idx3-ubyte.gz"])))
    held_out = Counter(shrunk(data.read_idx(paths["t10k-images-idx3-ubyte.gz"])))
    assert not originals.keys() & held_out.keys()
    seen: Counter[bytes] = Counter()
    for task in stream:
        assert task.train.inputs.shape == (900, 28, 28, 3)
        assert task.held_out.inputs.shape == (500, 28, 28, 3)
        seen.update(halves(task.train.inputs, task.name))
        assert Counter(halves(task.held_out.inputs, task.name)) <= held_out
    assert seen.total() == 900 * 56
    assert seen <= originals


def test_the_labels_belong_to_the_images(data_dir: Path) -> None:
    paths = list(data.locate(data.find("mnist"), data_dir).values())
    of_image = {im.tobytes(): la for im, la in zip(data.read_idx(paths[0]), data.read_idx(paths[1]), strict=True)}
    task = next(t for t in RainbowMnist(examples_per_task=50).stream(0, data_dir) if t.name.startswith("red/full"))
    for image, label in zip(task.train.inputs, task.train.targets, strict=True):
        assert of_image[strokes(image[None], task.name).tobytes()] == label


def test_checksums_of_the_files_are_kept(data_dir: Path) -> None:
    sources = dict(RainbowMnist(rounds=1).stream(0, data_dir).sources)
    assert sources == {f"mnist/{name}": checksum for name, checksum in data.find("mnist").files.items()}


def test_clothes_take_the_place_of_digits() -> None:
    if not any((folder / "fashion-mnist").is_dir() for folder in data.folders(None)):
        pytest.skip("there is no folder fashion-mnist: apt-get install dataset-fashion-mnist")
    paths = data.locate(data.find("fashion-mnist"))
    images, labels = (data.read_idx(paths[f"train-{kind}-ubyte.gz"]) for kind in ("images-idx3", "labels-idx1"))
    of_image = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    clothes = RainbowMnist(examples_per_task=30, source="fashion-mnist").stream(0)
    task = next(t for t in clothes if t.name.startswith("red/full"))
    for image, label in zip(task.train.inputs, task.train.targets, strict=True):
        assert of_image[strokes(image[None], task.name).tobytes()] == label
    assert [name.split("/")[0] for name, _ in clothes.sources] == ["fashion-mnist"] * 4


def test_sinusoids_are_sinusoids() -> None:
    for task in Sinusoid(rounds=5).stream(0):
        x, y = task.train.inputs[:, 0], task.train.targets[:, 0]
        basis = np.stack([np.sin(x), np.cos(x)], axis=1)
        (a, b), residual, *_ = np.linalg.lstsq(basis, y)
        assert residual < 1e-8
        assert 0.1 <= np.hypot(a, b) <= 5
        held_out = task.held_out.inputs[:, 0]
        assert np.abs(held_out).max() <= 5
        np.testing.assert_allclose(task.held_out.targets[:, 0], a * np.sin(held_out) + b * np.cos(held_out), atol=1e-4)
        assert task.name == f"a={np.hypot(a, b):.2f} phase={np.arctan2(b, a) % (2 * np.pi):.2f}"


def test_a_stream_is_a_sequence_made_on_demand() -> None:
    asked: list[int] = []
    task = Sinusoid(rounds=1).stream(0)[0]

    def make(i: int) -> Task:
        asked.append(i)
        return task

    stream = Stream(make, 3)
    assert asked == []
    assert len(stream) == 3
    assert stream[-1] is task
    assert len(stream[1:]) == 2
    assert asked == [2, 1, 2]
    with pytest.raises(IndexError, match="round index 3 of a stream of 3"):
        stream[3]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RainbowMnist(rounds=57), "rounds must be from 1 to 56, got 57"),
        (lambda: RainbowMnist(examples_per_task=1072), "examples_per_task must be from 1 to 1071"),
        (lambda: RainbowDigits(examples_per_task=1500), "examples_per_task must be from 1 to 1397"),
        (lambda: RainbowMnist(test_examples=10_001), "test_examples must be from 1 to 10000, got 10001"),
        (lambda: Sinusoid(rounds=0), "must be at least 1"),
    ],
)
def test_impossible_streams_are_refused(build: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()


def test_an_unknown_order_or_source_is_answered_with_the_nearest() -> None:
    for stream in (RainbowMnist(), RainbowDigits()):
        # Past the type checks of the tests, which refuse it first in the constructor.
        object.__setattr__(stream, "order", "color")
        with pytest.raises(UserError, match="unknown order 'color': did you mean colour"):
            stream.__post_init__()
    stream = RainbowMnist()
    object.__setattr__(stream, "source", "fashion")
    with pytest.raises(UserError, match="unknown source 'fashion': did you mean fashion-mnist"):
        stream.__post_init__()


def test_a_task_whose_test_data_has_another_shape_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"task 'a', held-out data: inputs are .* of shape \(3,\) .* of shape \(2,\): .* the same$"
    ):
        Task.from_arrays(np.ones((4, 2)), np.ones(4), np.ones((4, 3)), np.ones(4), "a")


@pytest.mark.parametrize("rounds", [0, -1])
def test_a_stream_without_tasks_is_refused(rounds: int) -> None:
    with pytest.raises(ValueError, match=f"the rounds of a stream must be at least 1, got {rounds}"):
        Stream(lambda i: None, rounds)  # type: ignore[arg-type, return-value]
