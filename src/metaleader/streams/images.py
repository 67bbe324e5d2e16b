"""Images in class folders, read by Pillow."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from metaleader.errors import UserError, listed
from metaleader.streams.arrays import Source

Colour: TypeAlias = Literal["rgb", "grey"]
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # modes of more than 8 bits, which Pillow would cut off


def read_folders(
    folders: Sequence[Path], size: tuple[int, int] | None, colour: Colour
) -> tuple[list[Source], tuple[int, int, int], list[str]]:
    """The tasks of folders; of their images, names and sizes alone are read.

    Returns:
        The tasks, the shape of an image, and what was left out.

    Raises:
        UserError: Pillow is not installed; a folder holds no class, or a class no image; an image is damaged, of more
            than 8 bits, or, without `size`, of another size than the first.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise UserError("Pillow reads images, and it is not installed: pip install 'metaleader[images]'") from error
    out: list[str] = []
    found: list[tuple[Path, list[Path], list[str]]] = []
    for folder in folders:
        classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not classes:
            raise UserError(
                f"{folder} holds no class: put the images of each class into a folder of its own, as "
                f"{folder / 'CLASS' / 'IMAGE.png'}"
            )
        images, names = list[Path](), list[str]()
        for of in classes:
            inside = sorted(p for p in of.iterdir() if p.is_file() and not p.name.startswith("."))
            own = [p for p in inside if p.suffix.lower() in IMAGES]
            if not own:
                raise UserError(f"{of} holds no image (ending in {listed(IMAGES)}): add some, or remove the folder")
            out += [f"{p}: no image" for p in inside if p not in own]
            images += own
            names += [of.name] * len(own)
        found.append((folder, images, names))
    shape = size or _one_size([path for _, images, _ in found for path in images])
    sources = []
    for folder, images, names in found:
        order = _order_of(folder.name, len(images))
        arriving = [images[i] for i in order]
        sources.append(Source(folder.name, np.array(names)[order], _reader(arriving, shape, colour)))
    return sources, (*shape, 3 if colour == "rgb" else 1), out


def _order_of(name: str, n: int) -> np.ndarray:
    """An order of `n` examples that is drawn for a task, the same whatever other tasks there are."""
    digest = hashlib.blake2b(f"order of {name}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest)).permutation(n)


def _reader(images: Sequence[Path], size: tuple[int, int], colour: Colour) -> Any:
    return lambda rows: np.stack([_pixels(images[row], size, colour) for row in rows.tolist()])


def _pixels(path: Path, size: tuple[int, int], colour: Colour) -> np.ndarray:
    """An image, resized, as uint8 `(h, w, channels)`.

    Raises:
        UserError: it is damaged, or of more than 8 bits.
    """
    from PIL import Image, ImageOps

    with _opened(path) as image:
        try:
            upright = ImageOps.exif_transpose(image)  # cameras write which way is up beside the pixels
        except (OSError, ValueError, SyntaxError) as error:
            raise _damaged(path, error) from error
        own = upright.convert("RGB" if colour == "rgb" else "L")
        height, width = size
        if own.size != (width, height):
            own = own.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=None)
        return np.asarray(own, np.uint8).reshape(height, width, -1)


def _one_size(paths: Sequence[Path]) -> tuple[int, int]:
    sizes = Counter[tuple[int, int]]()
    first: dict[tuple[int, int], Path] = {}
    for path in paths:
        with _opened(path) as image:
            width, height = image.size
            if image.getexif().get(0x0112, 1) >= 5:  # lies on its side
                width, height = height, width
        sizes[height, width] += 1
        first.setdefault((height, width), path)
    if len(sizes) > 1:
        (one, _), (other, _) = sizes.most_common(2)
        raise UserError(
            f"images are of {len(sizes)} sizes, such as {one[0]} x {one[1]} pixels ({first[one]}) and {other[0]} x "
            f"{other[1]} ({first[other]}): choose one to resize them to, as by image_size={one}"
        )
    return next(iter(sizes))


def _opened(path: Path) -> Any:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _damaged(path, error) from error
    if image.mode in DEEP:
        image.close()
        raise UserError(f"{path} has more than 8 bits a pixel (mode {image.mode}): convert it, or write .npz files")
    return image


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is damaged, or no image ({error}): restore it, or remove it")
