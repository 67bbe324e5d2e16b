"""What may be an example: arrays of real numbers that JAX can hold."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

REAL = (jnp.bool_, jnp.integer, jnp.floating)
REMEDIES = {  # by the kind of NumPy's type
    "O": "look for text, None or ragged rows among them, then convert by np.asarray(values, np.float32)",
    "U": "encode text as numbers, such as the number of a class",
    "S": "encode text as numbers, such as the number of a class",
    "M": "give a time as a number, such as the seconds since the first one",
    "m": "give a duration as a number, such as its seconds",
    "c": "give real and imaginary parts as two numbers",
    "V": "give every field as an array of its own, in a dict",
}


def real_array(values: Any, what: str) -> np.ndarray:
    """`values` on the host: booleans, or integers or floats, finite and within the range of the type JAX gives them.

    Without `jax_enable_x64` JAX has 32 bits: it would make 1e300 infinite, and cut off all but the last bits of 2**40.

    Args:
        values: an array, of any library that NumPy understands.
        what: what an error message calls it.

    Raises:
        ValueError: they are no such numbers, some are masked, or they are sparse.
    """
    if np.ma.is_masked(values):
        raise ValueError(
            f"{what} are masked in places, where something else would be taken for data: leave these examples out, or "
            "fill them by .filled(value)"
        )
    if hasattr(values, "toarray"):
        raise ValueError(f"{what} are sparse, of type {type(values).__name__}: make them dense by .toarray()")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what} are of type {type(values).__name__} and no array of numbers: {error}") from error
    if array.ndim == 0:
        raise ValueError(
            f"{what} is a single {type(values).__name__}: give arrays whose first axis counts the examples; a list is "
            "taken for several arrays, make it one by np.array"
        )
    held = _type_in_jax(array.dtype)
    if held is None:
        remedy = REMEDIES.get(array.dtype.kind, "convert them by .astype(np.float32)")
        raise ValueError(f"{what} must be booleans, integers or floats, got {array.dtype}: {remedy}")
    real = jnp.issubdtype(held, jnp.floating)
    if real and (place := _first(~np.isfinite(array))) is not None:
        raise ValueError(f"{what} must be finite: example {place[0]} holds {array[place]}; remove or repair it")
    if held != array.dtype:  # 32 bits instead of 64
        limits: Any = np.finfo(held) if real else np.iinfo(held)
        if (place := _first((array < limits.min) | (array > limits.max))) is not None:
            raise ValueError(
                f"{what} are {held} in JAX, from {limits.min:.3g} to {limits.max:.3g}: example {place[0]} holds "
                f"{array[place]}; scale them, or set jax_enable_x64"
            )
    return array


def _type_in_jax(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """The type that JAX gives numbers of a type of NumPy; None where they are not real numbers, or JAX has no such."""
    if dtype.kind == "m":  # a duration is an integer to NumPy
        return None
    try:
        held = jax.dtypes.canonicalize_dtype(dtype)
    except TypeError:
        return None
    return held if any(jnp.issubdtype(held, kind) for kind in REAL) else None


def _first(where: np.ndarray) -> tuple[int, ...] | None:
    """The first place where a condition holds."""
    if not where.any():
        return None
    return tuple(map(int, np.unravel_index(int(where.argmax()), where.shape)))
