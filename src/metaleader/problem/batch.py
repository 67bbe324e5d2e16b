"""A batch of weighted examples, and padding to a few sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array

from metaleader.problem.arrays import real_array

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
        weights: float32 array of shape `(n,)`. An example of weight 0 takes no part in anything: losses, scores, batch
            statistics, gradients, and what learners keep. Where a loss is a mean over examples, one of weight 2 counts
            as two; a minibatch draws it as one.
        key: a random key for models that ask for one while they train (dropout); None: they predict, or ask for none.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> batch = ml.Batch.of(np.ones((3, 2)), np.zeros((3, 1)), weights=[1, 1, 0])
        >>> len(batch), len(batch.weighted), batch[:2].inputs.shape
        (3, 2, (2, 2))
    """

    inputs: Any
    targets: Any
    weights: Any
    key: Any = None

    @classmethod
    def of(cls, inputs: Examples, targets: Examples, weights: Any = None) -> Batch:
        """A checked batch of `n` examples, of weight 1 unless told.

        Raises:
            ValueError: the lengths differ, there is no example, an array does not hold finite real numbers (see
                `arrays.real_array`), a weight is negative, or all are 0.
        """
        inputs, targets = (_arrays(tree, name) for tree, name in ((inputs, "inputs"), (targets, "targets")))
        shapes = [leaf.shape for leaf in jax.tree.leaves((inputs, targets))]
        lengths = {shape[0] for shape in shapes}
        if not jax.tree.leaves(inputs) or len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                "a batch needs as many inputs as targets, at least one: got shapes "
                f"{' and '.join(map(str, shapes))}; make the first axis of all count the examples"
            )
        if any(0 in shape for shape in shapes):
            raise ValueError(
                f"an example needs a number in every array, got shapes {' and '.join(map(str, shapes))}: leave empty "
                "arrays out"
            )
        n = shapes[0][0]
        given = np.ones(n, np.float32) if weights is None else real_array(weights, "weights")
        if given.shape != (n,) or not ((given >= 0) & (given <= np.finfo(np.float32).max)).all() or not given.any():
            raise ValueError(
                f"weights must be {n} numbers of at least 0, one an example and not all of them 0; got {weights!r}"
            )
        given = given.astype(np.float32)
        return cls(inputs, targets, given)

    def __len__(self) -> int:
        """The number of examples, padding included."""
        return int(self.weights.shape[0])

    def __getitem__(self, index: Any) -> Batch:
        """The examples at `index`, a slice of the first axis or an array of places."""
        inputs, targets, weights = jax.tree.map(lambda leaf: leaf[index], (self.inputs, self.targets, self.weights))
        return Batch(inputs, targets, weights, self.key)

    @property
    def weighted(self) -> Batch:
        """The examples whose weight is not 0, on the host."""
        real = np.asarray(self.weights) > 0
        return self if real.all() else self[np.flatnonzero(real)]

    def in_step(self, i: Any) -> Batch:
        """The same examples for step `i` of an adaptation, with a random key of its own where there is one."""
        return self if self.key is None else replace(self, key=jax.random.fold_in(self.key, i))


def _arrays(tree: Any, name: str) -> Any:
    """The arrays of a pytree on the host, checked; a message names each by its place, as `inputs['image']`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: real_array(leaf, f"{name}{jax.tree_util.keystr(path)}"), tree
    )


def check_alike(batch: Batch, other: Batch, holder: str) -> None:
    """Make sure that the examples of two batches can be taken for one another.

    Types are compared as JAX has them: float64 and float32 are the same without `jax_enable_x64`.

    Args:
        batch: what is checked.
        other: what it must be like.
        holder: what an error message calls the other: "the buffer holds".

    Raises:
        ValueError: they have another structure, or examples of another shape or type.
    """
    for name, own, its in (("inputs", batch.inputs, other.inputs), ("targets", batch.targets, other.targets)):
        structure, expected = (str(jax.tree.structure(tree)) for tree in (own, its))
        if structure != expected:
            raise ValueError(f"{name} are {structure}, {holder} {expected}: give every task of a stream the same")
        for leaf, like in zip(jax.tree.leaves(own), jax.tree.leaves(its), strict=True):
            another_type = _in_jax(leaf) != _in_jax(like)
            if another_type or leaf.shape[1:] != like.shape[1:]:
                raise ValueError(
                    f"{name} are {leaf.dtype} of shape {leaf.shape[1:]} an example; {holder} {like.dtype} of shape "
                    f"{like.shape[1:]}: give every task of a stream the same"
                    + (f", for instance by .astype({str(_in_jax(like))!r})" if another_type else "")
                )


def _in_jax(leaf: Any) -> Any:
    return jax.dtypes.canonicalize_dtype(leaf.dtype)


def joined(*batches: Batch) -> Batch:
    """The examples of several batches on the host, one after another."""
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *batches)


def bucket_size(n: int) -> int:
    """The smallest size >= n of 1, 2, 4, ..., 128, 144, 160, ..., 256, 288, ...: eight to a doubling from 128 on.

    Padding to these sizes wastes an eighth at most where it costs, and a set that grows to `n` examples meets few
    shapes, hence few compilations.

    >>> [bucket_size(n) for n in (1, 15, 33, 100, 129, 500)]
    [1, 16, 64, 128, 144, 512]
    """
    power = (n - 1).bit_length()
    step = 1 << (power if n <= 128 else power - 4)
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
    n = len(batch)

    def extended(leaf: Any) -> np.ndarray:  # np.pad takes ten times as long
        array = np.asarray(leaf)
        longer = np.zeros((size, *array.shape[1:]), array.dtype)
        longer[:n] = array
        return longer

    def repeated(leaf: Any) -> np.ndarray:
        longer = extended(leaf)
        if n:
            longer[n:] = longer[n - 1]
        return longer

    inputs, targets = jax.tree.map(repeated, (batch.inputs, batch.targets))
    return Batch(inputs, targets, extended(batch.weights), batch.key)
