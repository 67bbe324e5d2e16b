"""The convolutional net of the paper's classification experiments (section 6.1 and 6.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import jax
from jaxtyping import Array, Float, Shaped

from metaleader.errors import check_word
from metaleader.models import layers
from metaleader.problem.batch import AnyArray, Batch
from metaleader.problem.model import Params


@dataclass(frozen=True)
class ConvNet:
    """`depth` times (3 x 3 convolution, batch normalisation, ReLU), flattened, then a linear layer, the head.

    Parameters are `{"conv": [{"kernel", "scale", "offset"}, ...], "head": {"kernel", "bias"}}`.

    Raises:
        ValueError: a size is not positive, or there is no such `norm`.

    Examples:
        >>> import jax, metaleader as ml
        >>> net = ml.ConvNet(depth=2, filters=4, image=(8, 8, 3), classes=5)
        >>> params = jax.eval_shape(net.init, jax.random.key(0))
        >>> [layer["kernel"].shape for layer in params["conv"]], params["head"]["kernel"].shape
        ([(27, 4), (36, 4)], (16, 5))
    """

    depth: int = 4
    """Number of convolutions."""
    filters: int = 32
    """Filters of each convolution."""
    stride: int = 2
    """Stride of each convolution."""
    image: tuple[int, int, int] = (28, 28, 3)
    """Height, width and channels of the inputs, in pixels."""
    classes: int = 10
    """Number of labels."""
    norm: layers.Norm = "batch"
    """Statistics for batch normalisation when predicting. `batch`: those of the batch being predicted, as the
    authors did; test images then help to predict each other. `task`: those of the task's training data D_t
    at the adapted weights; each test image is predicted on its own, but before the first datapoint of all, when there
    are no statistics but those of the batch. `running`: those of images of all tasks so far at
    the adapted weights, which a running average over minibatches of joint training estimates."""

    def __post_init__(self) -> None:
        if min(self.depth, self.filters, self.classes, self.stride, *self.image) < 1:
            raise ValueError(f"every size of a ConvNet must be at least 1, got {self}")
        check_word("norm", self.norm, get_args(layers.Norm))

    @partial(jax.jit, static_argnums=0)  # one program instead of one a layer
    def init(self, key: Array) -> Params:
        """He-initialised kernels (as for ReLU), and a head of variance 1 / inputs."""
        height, width, channels = self.image
        *keys, head_key = jax.random.split(key, self.depth + 1)
        conv = []
        for layer_key in keys:
            conv.append(layers.normalised_init(layer_key, 9 * channels, self.filters))
            height, width, channels = -(-height // self.stride), -(-width // self.stride), self.filters
        return {"conv": conv, "head": layers.dense_init(head_key, height * width * channels, self.classes)}

    def apply(
        self, params: Params, inputs: Shaped[AnyArray, "n h w c"], weights: Float[AnyArray, " n"]
    ) -> Float[Array, "n classes"]:
        """Logits. Without stored statistics, those of the weighted examples normalise all of them."""
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
        x, used = layers.normalised_convolutions(params["conv"], x, weights, 3, self.stride)
        return x.reshape(x.shape[0], -1), {**params, "conv": used}
