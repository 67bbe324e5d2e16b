"""A fully connected net."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
from jaxtyping import Array, Float, Shaped

from metaleader.models import layers
from metaleader.problem.batch import AnyArray, Batch
from metaleader.problem.model import Params


@dataclass(frozen=True)
class MLP:
    """Fully connected layers with ReLU, then a linear layer, the head.

    Parameters are `{"hidden": [{"kernel", "bias"}, ...], "head": {"kernel", "bias"}}`.

    Raises:
        ValueError: a size is not positive.

    Examples:
        >>> import jax, metaleader as ml
        >>> params = ml.MLP(inputs=3, outputs=2, width=8, depth=1).init(jax.random.key(0))
        >>> jax.tree.map(lambda leaf: leaf.shape, params)
        {'head': {'bias': (2,), 'kernel': (8, 2)}, 'hidden': [{'bias': (8,), 'kernel': (3, 8)}]}
    """

    inputs: int = 1
    """Numbers in an example; inputs of more dimensions are flattened."""
    outputs: int = 1
    """Numbers to predict, or classes."""
    width: int = 40
    """Units of each hidden layer."""
    depth: int = 2
    """Hidden layers."""

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs, self.width) < 1 or self.depth < 0:
            raise ValueError(f"every size of an MLP must be at least 1, got {self}")

    @partial(jax.jit, static_argnums=0)  # one program instead of one a layer
    def init(self, key: Array) -> Params:
        """He-initialised kernels (as for ReLU), and a head of variance 1 / inputs."""
        sizes = [self.inputs] + [self.width] * self.depth
        *keys, head_key = jax.random.split(key, self.depth + 1)
        hidden = [layers.dense_init(k, n, self.width, gain=2.0) for k, n in zip(keys, sizes[:-1], strict=True)]
        return {"hidden": hidden, "head": layers.dense_init(head_key, sizes[-1], self.outputs)}

    def apply(
        self,
        params: Params,
        inputs: Shaped[AnyArray, "n ..."],
        weights: Float[AnyArray, " n"],
    ) -> Float[Array, "n outputs"]:
        """The outputs of the last layer, without an activation."""
        return layers.dense(params["head"], self.features(params, inputs, weights))

    def features(
        self,
        params: Params,
        inputs: Shaped[AnyArray, "n ..."],
        weights: Float[AnyArray, " n"],  # noqa: ARG002
    ) -> Float[Array, "n width"]:
        """What the head takes."""
        x = layers.as_float(inputs).reshape(inputs.shape[0], -1)
        if x.shape[1] != self.inputs:
            raise ValueError(f"inputs have {x.shape[1]} numbers an example, the net expects {self.inputs}")
        for layer in params["hidden"]:
            x = jax.nn.relu(layers.dense(layer, x))
        return x

    @property
    def calibrates(self) -> bool:
        """It has no statistics."""
        return False

    def calibrate(self, params: Params, batch: Batch) -> Params:  # noqa: ARG002
        """The parameters as they are."""
        return params
