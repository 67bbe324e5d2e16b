"""The net of the paper's pose experiment (section 6.3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from metaleader.errors import check_word
from metaleader.models import layers
from metaleader.problem.batch import AnyArray, Batch
from metaleader.problem.model import Params

SIZE, STRIDE = 5, 2  # of the convolutions


def spatial_soft_argmax(maps: Float[AnyArray, "n h w c"]) -> Float[Array, "n c2"]:
    """Where each feature map is large: `sum_ij softmax(map)_ij (x_j, y_i)`, for every channel first x, then y.

    Coordinates run from -1 to 1 across the map, right and down; 0 for a map of one pixel.
    """
    _, height, width, channels = maps.shape
    share = jax.nn.softmax(maps.reshape(maps.shape[0], height * width, channels), axis=1).reshape(maps.shape)
    x, y = (jnp.linspace(-1, 1, size) if size > 1 else jnp.zeros(1) for size in (width, height))
    across, down = jnp.einsum("nhwc,w->nc", share, x), jnp.einsum("nhwc,h->nc", share, y)
    return jnp.concatenate([across, down], axis=1)


@dataclass(frozen=True)
class PoseNet:
    """Convolutions, spatial soft-argmax, two fully connected layers, then a linear layer, the head.

    There are `depth` convolutions, 5 x 5 of stride 2. They and the fully connected layers each have batch
    normalisation and ReLU. Parameters are `{"conv": [{"kernel", "scale", "offset"}, ...], "hidden": [{"kernel",
    "scale", "offset"}, ...], "head": {"kernel", "bias"}}`.

    Raises:
        ValueError: a size is not positive, or there is no such `norm`.

    Examples:
        >>> import jax, metaleader as ml
        >>> net = ml.PoseNet(depth=2, filters=4, width=10, image=(16, 16, 3))
        >>> params = jax.eval_shape(net.init, jax.random.key(0))
        >>> params["hidden"][0]["kernel"].shape, params["head"]["kernel"].shape  # two places a feature map
        ((8, 10), (10, 4))
    """

    depth: int = 4
    """Number of convolutions."""
    filters: int = 16
    """Filters of each convolution."""
    width: int = 200
    """Units of both fully connected layers."""
    outputs: int = 4
    """Numbers to predict."""
    image: tuple[int, int, int] = (64, 64, 3)
    """Height, width and channels of the inputs, in pixels."""
    norm: layers.Norm = "batch"
    """Statistics for batch normalisation when predicting: see `ConvNet`."""

    def __post_init__(self) -> None:
        if min(self.depth, self.filters, self.width, self.outputs, *self.image) < 1:
            raise ValueError(f"every size of a PoseNet must be at least 1, got {self}")
        check_word("norm", self.norm, get_args(layers.Norm))

    @partial(jax.jit, static_argnums=0)  # one program instead of one a layer
    def init(self, key: Array) -> Params:
        """He-initialised kernels (as for ReLU), and a head of variance 1 / inputs."""
        *conv_keys, first, second, head = jax.random.split(key, self.depth + 3)
        channels = [self.image[2]] + [self.filters] * self.depth
        conv = [
            layers.normalised_init(layer_key, SIZE * SIZE * inputs, self.filters)
            for layer_key, inputs in zip(conv_keys, channels[:-1], strict=True)
        ]
        hidden = [
            layers.normalised_init(first, 2 * self.filters, self.width),
            layers.normalised_init(second, self.width, self.width),
        ]
        return {"conv": conv, "hidden": hidden, "head": layers.dense_init(head, self.width, self.outputs)}

    def apply(
        self, params: Params, inputs: Shaped[AnyArray, "n h w c"], weights: Float[AnyArray, " n"]
    ) -> Float[Array, "n outputs"]:
        """Predictions. Without stored statistics, those of the weighted examples normalise all of them."""
        return layers.dense(params["head"], self.features(params, inputs, weights))

    def features(
        self, params: Params, inputs: Shaped[AnyArray, "n h w c"], weights: Float[AnyArray, " n"]
    ) -> Float[Array, "n d"]:
        """What the head takes, normalised likewise."""
        return self._forward(params, inputs, weights)[0]

    def calibrate(self, params: Params, batch: Batch) -> Params:
        """`params` with the batch statistics of `batch` stored in every layer, unless `norm` is `batch`."""
        return self._forward(params, batch.inputs, batch.weights)[1] if self.calibrates else params

    @property
    def calibrates(self) -> bool:
        """Whether there are statistics to predict by other than those of the batch being predicted."""
        return self.norm != "batch"

    @property
    def calibrates_on_all_tasks(self) -> bool:
        """Whether the statistics to predict by are those of data of all tasks, not of the task's."""
        return self.norm == "running"

    def _forward(self, params: Params, inputs: Any, weights: Any) -> tuple[Any, Params]:
        """The features, and the parameters with the statistics that were used."""
        x = layers.as_images(inputs, self.image)
        x, conv = layers.normalised_convolutions(params["conv"], x, weights, SIZE, STRIDE)
        x, hidden = spatial_soft_argmax(x), []
        for layer in params["hidden"]:
            x, used = layers.normalised(layer, x, weights)
            hidden.append(used)
        return x, {**params, "conv": conv, "hidden": hidden}
