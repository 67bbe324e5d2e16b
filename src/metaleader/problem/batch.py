"""A batch of weighted examples, and padding to a few sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Shaped

AnyArray: TypeAlias = Array | np.ndarray  # on a device, or on the host
Examples: TypeAlias = Shaped[AnyArray, "..."]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Examples with a weight each; weight 0 is padding.

    Attributes:
        inputs: array of shape `(n, ...)`; 8-bit integers are images, which models scale to [0, 1].
        targets: array of shape `(n, ...)`: class labels, or values to regress.
        weights: float32 array of shape `(n,)`. An example of weight 0 takes no part in losses, in batch
            statistics or in gradients.
    """

    inputs: Any
    targets: Any
    weights: Any

    @classmethod
    def of(cls, inputs: Examples, targets: Examples) -> Batch:
        """A checked batch of `n` examples of weight 1.

        Raises:
            ValueError: the lengths differ, there is no example, or a value is not finite.
        """
        inputs, targets = np.asarray(inputs), np.asarray(targets)
        if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets) or len(inputs) == 0:
            raise ValueError(
                f"a batch needs as many inputs as targets, at least one: got shapes {inputs.shape} and "
                f"{targets.shape}; make the first axis of both count the examples"
            )
        for name, values in (("inputs", inputs), ("targets", targets)):
            if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                place = np.argwhere(~np.isfinite(values))[0]
                raise ValueError(
                    f"{name} must be finite: example {place[0]} holds {values[tuple(place)]}; remove or repair it"
                )
        return cls(inputs, targets, np.ones(len(inputs), np.float32))

    def __len__(self) -> int:
        """The number of examples, padding included."""
        return int(self.weights.shape[0])

    def __getitem__(self, index: slice) -> Batch:
        """The examples at `index`, a slice of the first axis."""
        return jax.tree.map(lambda leaf: leaf[index], self)


def bucket_size(n: int) -> int:
    """The smallest size that is >= n of 1, 2, ..., 16, 18, 20, ..., 32, 36, ...: eight to every doubling.

    Padding to these sizes wastes an eighth at most, and a set that grows to `n` examples meets only about
    `8 log2(n)` shapes, hence as few compilations.
    """
    step = 1 << max((n - 1).bit_length() - 4, 0)
    return -(-n // step) * step


def pad(batch: Batch, size: int) -> Batch:
    """`batch` padded to `size` examples, with zeros of weight 0.

    Raises:
        ValueError: `size` is smaller than the batch.
    """
    missing = size - len(batch)
    if missing < 0:
        raise ValueError(f"cannot pad {len(batch)} examples to {size}: choose a size of at least {len(batch)}")

    def extend(leaf: Any) -> Any:
        return np.pad(np.asarray(leaf), [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))

    return batch if missing == 0 else jax.tree.map(extend, batch)
