"""Images split into those to learn from and those held out: MNIST, Fashion-MNIST, and the digits in scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int, UInt8

from metaleader.streams import sources as data

Grey: TypeAlias = UInt8[np.ndarray, "n side side"]
HeldOut: TypeAlias = Literal["test", "validation"]
Source: TypeAlias = Literal["mnist", "fashion-mnist"]

MNIST_VALIDATION = 9_600  # leaves 900 training images for each of 56 tasks
DIGITS_HELD_OUT = 400  # images for testing, and as many for validation


class Digits(NamedTuple):
    """Grey images with their labels.

    Attributes:
        images: to learn from, `(n, side, side)`.
        labels: 0 to 9, `(n,)`.
        held_out_images: to be judged on.
        held_out_labels: their labels.
        sources: the checksum of every file read, by name.
    """

    images: Grey
    labels: Int[np.ndarray, " n"]
    held_out_images: UInt8[np.ndarray, "m side side"]
    held_out_labels: Int[np.ndarray, " m"]
    sources: tuple[tuple[str, str], ...] = ()


def mnist(held_out: HeldOut, data_dir: Path | None = None, source: Source = "mnist") -> Digits:
    """MNIST or Fashion-MNIST: 60,000 training images and 10,000 for testing, of 28 x 28 pixels.

    With `held_out` validation, the last 9,600 training images are held out, and the test set is not touched.

    Raises:
        UserError: see `data.locate`.
    """
    paths = data.locate(data.find(source), data_dir)
    images, labels, test_images, test_labels = (data.read_idx(path) for path in paths.values())
    sources = tuple((f"{source}/{name}", data.sha256(path)) for name, path in paths.items())
    if held_out == "validation":
        train, validation = slice(-MNIST_VALIDATION), slice(-MNIST_VALIDATION, None)
        return Digits(images[train], labels[train], images[validation], labels[validation], sources)
    return Digits(images, labels, test_images, test_labels, sources)


def embedded(held_out: HeldOut) -> Digits:
    """The 1,797 handwritten digits that scikit-learn carries, on canvases of 16 x 16 pixels, each pixel doubled.

    One split serves all seeds: 400 images are for testing. With `held_out` validation, 400 of the other 1,397 are held
    out in their stead.
    """
    import sklearn.datasets  # takes a second, and only these streams need it

    loaded = sklearn.datasets.load_digits()
    # Grey values of 0 to 16 on a canvas of twice the size, as the full scale of MNIST.
    images = np.kron(np.rint(loaded.images * (255 / 16)), np.ones((1, 2, 2))).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = np.split(order, [len(order) - DIGITS_HELD_OUT])
    if held_out == "validation":
        train, test = np.split(train, [len(train) - DIGITS_HELD_OUT])
    return Digits(images[train], loaded.target[train], images[test], loaded.target[test])
