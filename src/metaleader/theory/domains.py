"""The convex sets that learners of the theory stay in, and that their bounds speak of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Ball:
    """`||w||_p <= radius` with p in (1, 2].

    Examples:
        >>> import jax.numpy as jnp
        >>> from metaleader.theory import Ball
        >>> Ball(radius=5.0).project(jnp.array([6.0, 8.0])).tolist()
        [3.0, 4.0]
        >>> float(Ball(radius=5.0).support(jnp.array([3.0, 4.0])))  # 5 times the norm
        25.0
    """

    radius: float
    p: float = 2.0

    def project(self, w: Float[Array, " d"]) -> Float[Array, " d"]:
        """The nearest point of the ball in the Euclidean norm.

        For p < 2 it is `sign(w_i) x_i` with `x_i + nu x_i^(p-1) = |w_i|` and the nu >= 0 that puts x on the sphere,
        found by bisection. With `y = x_i^(p-1)`, `y^(1/(p-1)) + nu y` is convex in y: Newton's method comes down to
        the root from above.
        """
        if self.p == 2:
            return w * jnp.minimum(1, self.radius / jnp.maximum(jnp.linalg.norm(w), self.radius))
        size, power = jnp.abs(w), 1 / (self.p - 1)

        def at(nu: Array) -> Array:
            def newton(_: Any, y: Array) -> Array:
                slope = power * y ** (power - 1) + nu
                return y - (y**power + nu * y - size) / jnp.where(slope > 0, slope, 1)

            above = jnp.minimum(size ** (1 / power), size / jnp.maximum(nu, 1e-300))
            return jnp.maximum(jax.lax.fori_loop(0, 8, newton, above), 0) ** power

        def halve(_: Any, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = (low + high) / 2
            outside = norm(at(middle), self.p) > self.radius
            return jnp.where(outside, middle, low), jnp.where(outside, high, middle)

        largest = norm(size, self.p / (self.p - 1)) / self.radius ** (self.p - 1)
        _, nu = jax.lax.fori_loop(0, 55, halve, (jnp.zeros(()), largest))
        return jnp.where(norm(w, self.p) > self.radius, jnp.sign(w) * at(nu), w)

    def support(self, direction: Float[Array, " d"]) -> Float[Array, ""]:
        """The largest `direction'u` over all u of the ball: radius times the dual norm."""
        return self.radius * norm(direction, self.p / (self.p - 1))

    def __str__(self) -> str:
        return f"‖w‖_{self.p:g} <= {self.radius:g}"


@dataclass(frozen=True)
class Box:
    """`|w_i| <= half` for every i.

    Examples:
        >>> import jax.numpy as jnp
        >>> from metaleader.theory import Box
        >>> Box(half=1.0).project(jnp.array([0.5, -3.0])).tolist()
        [0.5, -1.0]
        >>> float(Box(half=2.0).support(jnp.array([3.0, -4.0])))
        14.0
    """

    half: float

    def project(self, w: Float[Array, " d"]) -> Float[Array, " d"]:
        """The nearest point of the box in the Euclidean norm."""
        return jnp.clip(w, -self.half, self.half)

    def support(self, direction: Float[Array, " d"]) -> Float[Array, ""]:
        """The largest `direction'u` over all u of the box."""
        return self.half * jnp.sum(jnp.abs(direction))

    def __str__(self) -> str:
        return f"|w_i| <= {self.half:g}"


Domain: TypeAlias = Ball | Box


def norm(v: Float[Array, " d"], p: float) -> Float[Array, ""]:
    """`||v||_p`."""
    return jnp.sum(jnp.abs(v) ** p) ** (1 / p)
