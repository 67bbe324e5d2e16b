"""A batch of weighted examples, and padding to a few sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array

AnyArray: TypeAlias = Array | np.ndarray  # on a device, or on the host
Examples: TypeAlias = Any  # an array, or a pytree of arrays, whose first axis counts examples


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Examples with a weight each; weight 0 is padding.

    Attributes:
        inputs: array of shape `(n, ...)`, or a pytree of such arrays; 8-bit integers are images, which models scale to
            [0, 1].
        targets: likewise: class labels, or values to regress.
        weights: float32 array of shape `(n,)`. An example of weight 0 takes no part in losses, in batch
            statistics or in gradients.
        key: a random key for models that ask for one while they train (dropout); None: they predict, or ask for none.
    """

    inputs: Any
    targets: Any
    weights: Any
    key: Any = None

    @classmethod
    def of(cls, inputs: Examples, targets: Examples, weights: Any = None) -> Batch:
        """A checked batch of `n` examples, of weight 1 unless told.

        Raises:
            ValueError: the lengths differ, there is no example, a value is not finite, or a weight is negative.
        """
        inputs, targets = jax.tree.map(np.asarray, (inputs, targets))
        shapes = [leaf.shape for leaf in jax.tree.leaves((inputs, targets))]
        lengths = {shape[0] if shape else None for shape in shapes}
        if len(lengths) != 1 or lengths & {None, 0}:
            raise ValueError(
                "a batch needs as many inputs as targets, at least one: got shapes "
                f"{' and '.join(map(str, shapes))}; make the first axis of all count the examples"
            )
        for name, tree in (("inputs", inputs), ("targets", targets)):
            for values in jax.tree.leaves(tree):
                if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                    place = np.argwhere(~np.isfinite(values))[0]
                    raise ValueError(
                        f"{name} must be finite: example {place[0]} holds {values[tuple(place)]}; remove or repair it"
                    )
        n = shapes[0][0]
        given = np.ones(n, np.float32) if weights is None else np.asarray(weights, np.float32)
        if given.shape != (n,) or not (np.isfinite(given) & (given >= 0)).all():
            raise ValueError(f"weights must be {n} finite numbers of at least 0, one an example; got {weights!r}")
        return cls(inputs, targets, given)

    def __len__(self) -> int:
        """The number of examples, padding included."""
        return int(self.weights.shape[0])

    def __getitem__(self, index: Any) -> Batch:
        """The examples at `index`, a slice of the first axis or an array of places."""
        inputs, targets, weights = jax.tree.map(lambda leaf: leaf[index], (self.inputs, self.targets, self.weights))
        return Batch(inputs, targets, weights, self.key)

    def in_step(self, i: Any) -> Batch:
        """The same examples for step `i` of an adaptation, with a random key of its own where there is one."""
        return self if self.key is None else replace(self, key=jax.random.fold_in(self.key, i))


def joined(*batches: Batch) -> Batch:
    """The examples of several batches on the host, one after another."""
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *batches)


def bucket_size(n: int) -> int:
    """The smallest size that is >= n of 1, 2, ..., 16, 18, 20, ..., 32, 36, ...: eight to every doubling.

    Padding to these sizes wastes an eighth at most, and a set that grows to `n` examples meets only about
    `8 log2(n)` shapes, hence as few compilations.

    >>> [bucket_size(n) for n in (1, 15, 17, 33, 100)]
    [1, 15, 18, 36, 104]
    """
    step = 1 << max((n - 1).bit_length() - 4, 0)
    return -(-n // step) * step


def pad(batch: Batch, size: int) -> Batch:
    """`batch` padded to `size` examples of weight 0: its last example again, or zeros where it has none.

    A model may take a derivative of what it computes of an example, padding included. Of a real example that is finite
    where it is for the others; of zeros it need not be, as for a norm.

    Raises:
        ValueError: `size` is smaller than the batch.
    """
    missing = size - len(batch)
    if missing < 0:
        raise ValueError(f"cannot pad {len(batch)} examples to {size}: choose a size of at least {len(batch)}")
    if missing == 0:
        return batch
    mode = "edge" if len(batch) else "constant"

    def extend(leaf: Any) -> Any:
        return np.pad(np.asarray(leaf), [(0, missing)] + [(0, 0)] * (np.ndim(leaf) - 1), mode)  # type: ignore[call-overload]

    inputs, targets = jax.tree.map(extend, (batch.inputs, batch.targets))
    return Batch(inputs, targets, np.pad(np.asarray(batch.weights), (0, missing)), batch.key)
