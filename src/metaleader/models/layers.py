"""Layers as pure functions, written so that the derivative of an adaptation is fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from metaleader.problem.batch import AnyArray

PATCHES = 2**21  # numbers in patches, 8 MiB: with more of them, convolutions do without
CHANNELS = 16  # with fewer, products part by part are too narrow
Layer: TypeAlias = dict[str, Any]
Norm: TypeAlias = Literal["batch", "task", "running"]


def as_float(inputs: Shaped[AnyArray, ...]) -> Float[Array, ...]:
    """8-bit images scaled to [0, 1]; floating-point inputs as they are, other integers and booleans as numbers."""
    inputs = jnp.asarray(inputs)
    if jnp.issubdtype(inputs.dtype, jnp.floating):
        return inputs
    numbers = inputs.astype(jnp.float32)
    return numbers / 255 if inputs.dtype == jnp.uint8 else numbers


def as_images(inputs: Shaped[AnyArray, "n h w c"], image: tuple[int, int, int]) -> Float[Array, "n h w c"]:
    """`as_float` of images that must have the shape `image`.

    Raises:
        ValueError: they have another.
    """
    x = as_float(inputs)
    if x.shape[1:] != image:
        raise ValueError(
            f"inputs have shape {x.shape[1:]} an example, the net expects {image}: set image={x.shape[1:]}"
        )
    return x


def dense_init(key: Array, inputs: int, outputs: int, gain: float = 1.0) -> Layer:
    """Kernel `(inputs, outputs)` of variance `gain / inputs`, bias `(outputs,)` of zeros."""
    kernel = jax.random.normal(key, (inputs, outputs)) * (gain / inputs) ** 0.5
    return {"kernel": kernel, "bias": jnp.zeros(outputs)}


def dense(layer: Layer, x: Float[AnyArray, "n inputs"]) -> Float[Array, "n outputs"]:
    """`x W + b`."""
    return x @ layer["kernel"] + layer["bias"]


def patches(x: Float[AnyArray, "n h w c"], size: int = 3, stride: int = 1) -> Float[Array, "n oh ow patch"]:
    """The `size x size` neighbourhoods of every `stride`-th pixel, zero-padded so that `oh = ceil(h / stride)`.

    A convolution is then one product with a matrix. Under `vmap` over tasks with different weights that is
    many times faster than a grouped convolution, on CPUs and on GPUs.
    """
    return jnp.concatenate(patch_parts(x, size, stride), axis=-1)


def patch_parts(x: Float[AnyArray, "n h w c"], size: int, stride: int) -> list[Float[Array, "n oh ow part"]]:
    """What `patches` puts one after another: of every neighbourhood, the pixels that are neighbours in x."""
    x, out_h = _in_blocks(x, size, stride)
    return [
        part
        for i in range(size)
        for part in _along_rows(x[:, i // stride : i // stride + out_h, i % stride], size, stride)
    ]


def _in_blocks(
    x: Float[AnyArray, "n h w c"], size: int, stride: int
) -> tuple[Float[Array, "n down stride across block"], int]:
    """Padded to whole blocks of `stride` pixels, so that neighbours within a block are taken together, and `oh`."""
    n, height, width, channels = x.shape
    out_h, out_w = -(-height // stride), -(-width // stride)
    blocks = -(-size // stride)
    padded = [stride * (out + blocks - 1) for out in (out_h, out_w)]
    before = [max((out - 1) * stride + size - side, 0) // 2 for out, side in ((out_h, height), (out_w, width))]
    margins = [(b, p - b - side) for b, p, side in zip(before, padded, (height, width), strict=True)]
    x = jnp.pad(x, ((0, 0), *margins, (0, 0)))
    return x.reshape(n, out_h + blocks - 1, stride, out_w + blocks - 1, stride * channels), out_h


def _along_rows(
    rows: Float[Array, "n down across block"], size: int, stride: int
) -> list[Float[Array, "n down ow part"]]:
    """Of the rows of pixels, in blocks, the `size` pixels at every `stride`-th one, in parts that are neighbours."""
    blocks, channels = -(-size // stride), rows.shape[-1] // stride
    out_w = rows.shape[2] - blocks + 1
    return [rows[:, :, b : b + out_w, : min(stride, size - b * stride) * channels] for b in range(blocks)]


def convolved(
    x: Float[AnyArray, "n h w c"], kernel: Float[AnyArray, "patch filters"], size: int, stride: int
) -> Float[Array, "n oh ow filters"]:
    """`patches(x) @ kernel`, without patches: part by part.

    Patches of many images do not fit a processor's cache, and writing them takes as long as all products with them.
    """
    parts = patch_parts(x, size, stride)
    ends = np.cumsum([part.shape[-1] for part in parts])
    products = [
        part.reshape(-1, part.shape[-1]) @ rows for part, rows in zip(parts, jnp.split(kernel, ends[:-1]), strict=True)
    ]
    return sum(products[1:], products[0]).reshape(*parts[0].shape[:-1], -1)


def convolved_by_rows(
    x: Float[AnyArray, "n h w c"], kernel: Float[AnyArray, "patch filters"], size: int, stride: int
) -> Float[Array, "n oh ow filters"]:
    """`patches(x) @ kernel`, with neighbourhoods along the rows of pixels only.

    One product tells what every row of the kernel makes of every row of pixels that it meets; those of an output are
    then summed. See `_few_filters` for when that is less work.
    """
    x, out_h = _in_blocks(x, size, stride)
    kernel_rows = kernel.reshape(size, -1, kernel.shape[1])
    parts = []
    for first in range(min(size, stride)):  # rows of the kernel that meet the same rows of pixels
        neighbours = jnp.concatenate(_along_rows(x[:, :, first], size, stride), axis=-1)
        products = jnp.einsum("ndwi,kif->ndwkf", neighbours, kernel_rows[first::stride])
        parts += [products[:, k : k + out_h, :, k] for k in range(products.shape[3])]
    return sum(parts[1:], parts[0])


def product(
    x: Float[AnyArray, "rows inputs"], kernel: Float[AnyArray, "inputs outputs"]
) -> Float[Array, "rows outputs"]:
    """`x W`, whose gradient in W is computed transposed.

    Of many rows and few outputs, `(dy)' x` takes a CPU half to a third of the time of `x' dy`. Without the barrier, the
    compiler would turn the one into the other.
    """
    transposed = jax.lax.optimization_barrier(kernel.T)
    return jax.lax.dot_general(x, transposed, (((1,), (1,)), ((), ())))


def normalised_init(key: Array, inputs: int, outputs: int) -> Layer:
    """He-initialised kernel `(inputs, outputs)`, scale of ones and offset of zeros, each `(outputs,)`."""
    kernel = dense_init(key, inputs, outputs, gain=2.0)["kernel"]  # the offset serves as bias
    return {"kernel": kernel, "scale": jnp.ones(outputs), "offset": jnp.zeros(outputs)}


def moments(
    x: Float[AnyArray, "rows c"], weights: Float[AnyArray, " n"]
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and variance of each channel over examples (weighted) and their positions: `rows / n` rows an example.

    Both are products of a row of weights with the matrix of positions x channels: on a CPU a product is many
    times faster than a reduction over two axes.
    """
    share = _shares(weights, x.shape[0])
    mean = share @ x
    return mean, share @ jnp.square(x - mean)


def moments_of_product(
    x: Float[AnyArray, "rows inputs"], kernel: Float[AnyArray, "inputs c"], weights: Float[AnyArray, " n"]
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """`moments` of `x W`, from those of x: its mean times W, and `diag(W' C W)` with the covariance C of x.

    For a narrow x that is less work: nothing of the size of `x W` is read or differentiated for the sake of its
    moments. Of the patches of the images, C does not depend on parameters: the compiler moves it out of the inner loop.
    """
    share = _shares(weights, x.shape[0])
    mean = share @ x
    centred = x - mean
    covariance = (centred * share[:, None]).T @ centred
    variance = jnp.sum(kernel * (covariance @ kernel), axis=0)
    return mean @ kernel, jnp.maximum(variance, 0)  # rounding can leave less than 0


def _shares(weights: Float[AnyArray, " n"], rows: int) -> Float[Array, " rows"]:
    """Every row's share of the total weight; equal shares if there is none.

    A variance of zero would make numbers 30 times as large in every layer: a task whose D_tr is empty is better off
    with the statistics of what its place was filled up with.
    """
    positions = rows // weights.shape[0]
    weights = jnp.where(jnp.any(weights > 0), weights, jnp.ones_like(weights))
    return jnp.repeat(weights / (jnp.sum(weights) * positions), positions)


def normalised(
    layer: Layer, x: Float[AnyArray, "rows inputs"], weights: Float[AnyArray, " n"], epsilon: float = 1e-3
) -> tuple[Float[Array, "rows outputs"], Layer]:
    """A linear map, batch normalisation and ReLU.

    Batch normalisation of `y = x W` is `scale (y - mean) / sqrt(variance + epsilon) + offset` with the mean and
    variance of the batch at hand, unless `calibrate` stored those of a task in the layer.

    Returns:
        The outputs, and the layer with the statistics that were used: stored ones, or those of the batch.
    """
    kernel, rows = layer["kernel"], x.shape[0]
    # In a program for any number of rows (`Live.export`) that is no int: taken for many.
    if len(kernel) <= kernel.shape[1] and (not isinstance(rows, int) or len(kernel) <= rows):
        # Narrow: moments from the covariance, normalising folded into the kernel.
        mean, variance = _stored(layer) or moments_of_product(x, kernel, weights)
        factor = layer["scale"] * jax.lax.rsqrt(variance + epsilon)
        y = x @ (kernel * factor) + (layer["offset"] - mean * factor)
        return jax.nn.relu(y), {**layer, "mean": mean, "variance": variance}
    return normalised_product(layer, product(x, kernel), weights, epsilon)


def normalised_product(
    layer: Layer, y: Float[AnyArray, "rows outputs"], weights: Float[AnyArray, " n"], epsilon: float = 1e-3
) -> tuple[Float[Array, "rows outputs"], Layer]:
    """`normalised` after the linear map."""
    mean, variance = _stored(layer) or moments(y, weights)
    y = (y - mean) * (layer["scale"] * jax.lax.rsqrt(variance + epsilon)) + layer["offset"]
    return jax.nn.relu(y), {**layer, "mean": mean, "variance": variance}


def normalised_convolutions(
    convolutions: list[Layer], x: Float[AnyArray, "n h w c"], weights: Float[AnyArray, " n"], size: int, stride: int
) -> tuple[Float[Array, "n oh ow filters"], list[Layer]]:
    """One after another, a `size x size` convolution, batch normalisation and ReLU.

    Returns:
        The feature maps, and the layers with the statistics that were used (see `normalised`).
    """
    x, used = jnp.asarray(x), []
    for layer in convolutions:
        convolve = _without_patches(x, layer["kernel"], size, stride)
        if convolve is not None:
            maps = convolve(x, layer["kernel"], size, stride)
            rows, with_statistics = normalised_product(layer, maps.reshape(-1, maps.shape[-1]), weights)
        else:
            maps = patches(x, size, stride)
            # One axis of rows, not three: else the gradient of the kernel copies its operands to transpose them.
            rows, with_statistics = normalised(layer, maps.reshape(-1, maps.shape[-1]), weights)
        used.append(with_statistics)
        x = rows.reshape(*maps.shape[:-1], -1)
    return x, used


def _without_patches(
    x: Float[AnyArray, "n h w c"], kernel: Float[AnyArray, "patch filters"], size: int, stride: int
) -> Callable[..., Float[Array, "n oh ow filters"]] | None:
    """How to do without patches where that is faster; None where it is not."""
    if _few_filters(kernel, size, stride):
        return convolved_by_rows
    return convolved if _large(x, size, stride) else None


def _few_filters(kernel: Float[AnyArray, "patch filters"], size: int, stride: int) -> bool:
    """Whether neighbourhoods along rows and products with them are fewer numbers than patches.

    For every output pixel, they are `stride size c` and `size filters`, and patches `size^2 c`.
    """
    patch, filters = kernel.shape
    channels = patch // size**2
    return stride * channels + filters < size * channels


def _large(x: Float[AnyArray, "n h w c"], size: int, stride: int) -> bool:
    """Whether to do without patches: there are many, and a pixel has channels enough for a product of its own."""
    n, height, width, channels = x.shape
    if not isinstance(n, int):  # in a program for any number of images
        return False
    return channels >= CHANNELS and n * (height * width // stride**2) * size**2 * channels > PATCHES


def _stored(layer: Layer) -> tuple[Float[Array, " c"], Float[Array, " c"]] | None:
    return (layer["mean"], layer["variance"]) if "mean" in layer else None
