"""Images changed slightly at every draw, so that few of them are not learned by heart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from metaleader.problem.batch import AnyArray, Batch
from metaleader.problem.model import ModelLike, Params, applied, asks_for, calibrates, calibrates_on_all_tasks, features


@dataclass(frozen=True)
class Shifted:
    """A net that is trained on images shifted by up to `pixels` up or down and left or right, each by chance.

    The border takes the colours of the pixels beside it. Training is all that has a random key: minibatches, the
    update procedure's data and those that judge it. Images that are predicted, and those by which a model is
    calibrated, stay as they are.

    Raises:
        ValueError: `pixels` is not positive, or the net takes a random key itself.

    Examples:
        >>> import jax, numpy as np
        >>> from metaleader.models import MLP, Shifted
        >>> net, images = Shifted(MLP(inputs=16, depth=0), pixels=1), np.eye(4, dtype=np.float32)[None, :, :, None]
        >>> params, weights = net.init(jax.random.key(0)), np.ones(1, np.float32)
        >>> keys = [None, *jax.random.split(jax.random.key(0), 8)]  # without a key, nothing is shifted
        >>> outputs = [float(net.apply(params, images, weights, key, training=True)[0, 0]) for key in keys]
        >>> outputs[0] == float(net.net.apply(params, images, weights)[0, 0]), len(set(outputs)) > 1
        (True, True)
    """

    net: Any
    """The model, of images `(n, h, w, c)`."""
    pixels: int = 2
    """How far, at most."""

    def __post_init__(self) -> None:
        if self.pixels < 1:
            raise ValueError(f"pixels must be at least 1, got {self.pixels}")
        if asks_for(self.net, "key"):
            raise ValueError(f"{type(self.net).__name__} takes a random key itself, which Shifted does not share")

    def init(self, key: Array) -> Params:
        """The net's."""
        return self.net.init(key)

    def apply(
        self,
        params: Params,
        inputs: Shaped[AnyArray, "n h w c"],
        weights: Float[AnyArray, " n"],
        key: Array | None,
        training: bool,
    ) -> Any:
        """The net's outputs, in training for the shifted images."""
        seen = inputs if key is None else shifted(key, inputs, self.pixels)
        return applied(self.net, params, seen, weights, None, training)

    def features(self, params: Params, inputs: Shaped[AnyArray, "n h w c"], weights: Float[AnyArray, " n"]) -> Any:
        """What the net's head takes; `Ridge` asks for it, so that its images are not shifted."""
        return features(self.net, params, inputs, weights)

    def calibrate(self, params: Params, batch: Batch) -> Params:
        """The net's."""
        return self.net.calibrate(params, batch)

    @property
    def calibrates(self) -> bool:
        """As the net."""
        return calibrates(self.net)

    @property
    def calibrates_on_all_tasks(self) -> bool:
        """Whether the net does."""
        return calibrates_on_all_tasks(self.net)


def shifted(key: Array, images: Shaped[AnyArray, "n h w c"], pixels: int) -> Shaped[Array, "n h w c"]:
    """Each image moved by a number of pixels from `-pixels` to `pixels` along both axes, drawn alike."""
    images = jnp.asarray(images)
    wide = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * pixels + 1)

    def cut(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])

    return jax.vmap(cut)(wide, corners)


_: type[ModelLike] = Shifted
