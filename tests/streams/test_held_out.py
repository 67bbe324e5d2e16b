"""What settings are chosen by is never what results are judged on: validation images are training images set apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaleader import ColouredDigits, ColouredMnist, FiveWayCifar100, Pose, RainbowDigits, RainbowMnist, UserError
from metaleader.streams import sources as data
from metaleader.streams.digits import Digits, embedded, mnist


def identities(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def parts(load: Callable[[Any], Digits]) -> tuple[Digits, Digits]:
    """As results have it, and as tuning has it."""
    return load("test"), load("validation")


def check_split(results: Digits, tuning: Digits) -> None:
    validation, test = identities(tuning.held_out_images), identities(results.held_out_images)
    assert validation <= identities(results.images)
    assert not validation & identities(tuning.images)
    assert not test & identities(results.images)
    assert identities(tuning.images) | validation == identities(results.images)


def test_validation_images_of_the_embedded_digits_are_training_images() -> None:
    results, tuning = parts(embedded)
    check_split(results, tuning)
    assert [len(part.held_out_images) for part in (results, tuning)] == [400, 400]
    assert len(results.images) == 1397


def test_validation_images_of_mnist_are_training_images(data_dir: Path) -> None:
    results, tuning = parts(lambda held_out: mnist(held_out, data_dir))
    assert (len(tuning.images), len(tuning.held_out_images)) == (50_400, 9_600)
    np.testing.assert_array_equal(np.concatenate([tuning.images, tuning.held_out_images]), results.images)
    np.testing.assert_array_equal(np.concatenate([tuning.labels, tuning.held_out_labels]), results.labels)
    test = data.read_idx(data.locate(data.find("mnist"), data_dir)["t10k-images-idx3-ubyte.gz"])
    np.testing.assert_array_equal(results.held_out_images, test)


@pytest.mark.parametrize("settings", [RainbowDigits, ColouredDigits])
def test_no_seed_of_the_results_is_judged_on_what_settings_were_chosen_by(settings: Any) -> None:
    """Images are told apart by their strokes: where the red of a colour is 0 or 255, or the blue is."""

    def strokes(batch: Any) -> set[bytes]:
        return {np.sort(image.reshape(-1, 3), axis=0).min(axis=1).tobytes() for image in batch.inputs}

    tuning = settings(rounds=3, held_out="validation").stream(1000)
    results = settings(rounds=3).stream(0)
    for a, b in zip(tuning, results, strict=True):
        assert not strokes(a.held_out) & strokes(b.held_out)
        assert not strokes(a.held_out) & strokes(a.train)


def test_coloured_digits_are_five_digits_on_one_colour() -> None:
    stream = ColouredDigits(rounds=8).stream(3)
    names = [task.name.split("/") for task in stream]
    assert names[0][0] == names[7][0]
    assert len({colour for colour, _ in names}) == 7
    for task, (_, digits) in zip(stream, names, strict=True):
        assert len(set(digits)) == 5
        assert np.bincount(task.train.targets).tolist() == [20] * 5
        assert np.bincount(task.held_out.targets).tolist() == [30] * 5
        assert task.train.inputs.shape == (100, 16, 16, 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RainbowMnist(examples_per_task=901, held_out="validation"), "from 1 to 900, got 901"),
        (lambda: RainbowMnist(test_examples=9_601, held_out="validation"), "from 1 to 9600, got 9601"),
        (lambda: RainbowDigits(examples_per_task=998, held_out="validation"), "from 1 to 997, got 998"),
        (lambda: ColouredDigits(test_examples=155), "from 1 to 150, got 155"),
        (lambda: ColouredMnist(test_examples=12), "multiple of 5"),
    ],
)
def test_more_than_there_is_is_refused(build: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()


@pytest.mark.parametrize("of", [ColouredDigits, ColouredMnist, FiveWayCifar100, Pose, RainbowDigits, RainbowMnist])
def test_what_is_held_out_must_be_known(of: Any) -> None:
    stream = of()
    object.__setattr__(stream, "held_out", "val")  # past the type checks of the tests
    with pytest.raises(UserError, match=r"unknown held_out 'val': .*There are test, validation"):
        stream.__post_init__()
