"""Images in folders as a stream: one folder a task. Run: `python examples/own_folder.py`."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import metaleader as ml


def photographs(path: Path, cameras: int = 10, images: int = 12) -> Path:
    """Cameras of different brightness, before which something bright stands left or right."""
    random = np.random.default_rng(0)
    for camera in range(cameras):
        light = random.uniform(40, 200)
        for name in ("left", "right"):
            (path / f"camera {camera}" / name).mkdir(parents=True)
            for i in range(images):
                pixels = random.normal(light, 15, (16, 16, 3))
                pixels[4:12, slice(1, 6) if name == "left" else slice(10, 15)] += 60
                file = path / f"camera {camera}" / name / f"{i}.png"
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file)
    return path


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        folder = ml.streams.from_folder(photographs(Path(scratch)), image_size=16)
        print(folder.describe())
        learner = ml.FTML(ml.GradientDescent(steps=3, step_size=0.01), optimizer=ml.Adam(3e-3))
        results = ml.run(folder.problem(ml.MLP(16 * 16 * 3, 2)), folder.stream, learner)
        print(results.table(), "final held-out accuracy, over the last third of the cameras")
