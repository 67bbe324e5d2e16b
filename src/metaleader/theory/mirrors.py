"""Mirror maps: the geometry that mirror descent works in, each with the domain it keeps to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array

from metaleader.theory.domains import Ball, Box, Domain, norm


@dataclass(frozen=True)
class Euclidean:
    """`R(w) = ||w||_2^2 / 2` on `||w||_2 <= radius`: mirror descent is projected gradient descent.

    Examples:
        >>> import jax.numpy as jnp
        >>> from metaleader.theory import Euclidean
        >>> Euclidean().primal(jnp.array([6.0, 8.0]), radius=5.0).tolist()  # the projection on the ball
        [3.0, 4.0]
    """

    def domain(self, radius: float, dimension: int) -> Domain:  # noqa: ARG002
        """Where the learner stays, within `||w||_2 <= radius`; its bound speaks of the best of this set."""
        return Ball(radius)

    def dual(self, w: Array, radius: float) -> Array:  # noqa: ARG002
        """`grad R(w)`."""
        return w

    def primal(self, theta: Array, radius: float) -> Array:
        """The projection on the domain, in the divergence of R, of the point whose gradient is theta."""
        return theta * jnp.minimum(1, radius / jnp.maximum(jnp.linalg.norm(theta), radius))

    def dual_norm(self, gradient: Array) -> Array:
        """Of the norm in which R is strongly convex."""
        return jnp.linalg.norm(gradient)

    def modulus(self, radius: float, dimension: int) -> float:  # noqa: ARG002
        """s: `B(u, w) >= s / 2 ||u - w||^2`."""
        return 1.0

    def curvature(self, radius: float, dimension: int) -> float:  # noqa: ARG002
        """c: `B(u, w) <= c / 2 ||u - w||_2^2`; inf if there is none."""
        return 1.0

    def diameter(self, radius: float, dimension: int) -> float:  # noqa: ARG002
        """D: no `B(u, w)` on the domain is larger."""
        return 2 * radius**2


@dataclass(frozen=True)
class PNorm(Euclidean):
    """`R(w) = ||w||_p^2 / 2` on `||w||_p <= radius`, within the ball of that radius (Gentile, 2003).

    R is `(p - 1)`-strongly convex in the p-norm. Its curvature has no bound where a coordinate is near 0.

    Raises:
        ValueError: p is not in (1, 2].

    Examples:
        >>> import jax.numpy as jnp
        >>> from metaleader.theory import PNorm
        >>> mirror, w = PNorm(p=1.5), jnp.array([0.5, -0.25])
        >>> again = mirror.primal(mirror.dual(w, radius=2.0), radius=2.0)  # there and back
        >>> [round(float(value), 3) for value in again]
        [0.5, -0.25]
    """

    p: float = 1.5

    def __post_init__(self) -> None:
        if not 1 < self.p <= 2:
            raise ValueError(f"p must be in (1, 2], got {self.p}")

    def domain(self, radius: float, dimension: int) -> Domain:  # noqa: ARG002, D102
        return Ball(radius, self.p)

    def dual(self, w: Array, radius: float) -> Array:  # noqa: ARG002, D102
        return _link(w, self.p)

    def primal(self, theta: Array, radius: float) -> Array:  # noqa: D102
        w = _link(theta, self.p / (self.p - 1))
        return w * jnp.minimum(1, radius / jnp.maximum(norm(w, self.p), radius))

    def dual_norm(self, gradient: Array) -> Array:  # noqa: D102
        return norm(gradient, self.p / (self.p - 1))

    def modulus(self, radius: float, dimension: int) -> float:  # noqa: ARG002, D102
        return self.p - 1

    def curvature(self, radius: float, dimension: int) -> float:  # noqa: ARG002, D102
        return math.inf if self.p < 2 else 1.0


@dataclass(frozen=True)
class Entropic(Euclidean):
    """`R(w) = sum_i w_i arcsinh(w_i / b) - sqrt(w_i^2 + b^2)`, entropy for weights of both signs (Ghai et al., 2020).

    The domain is the box `|w_i| <= r = radius / sqrt(d)`, within the ball, and `b = width r`. Steps are multiplicative
    for weights above b and additive below it; `R'' = 1 / sqrt(w_i^2 + b^2)` lies between `1 / sqrt(r^2 + b^2)` and
    `1 / b`.

    Raises:
        ValueError: `width` is not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> from metaleader.theory import Entropic
        >>> mirror, w = Entropic(width=0.5), jnp.array([0.5, -0.25])
        >>> again = mirror.primal(mirror.dual(w, radius=2.0), radius=2.0)  # there and back
        >>> [round(float(value), 3) for value in again]
        [0.5, -0.25]
        >>> str(mirror.domain(radius=2.0, dimension=4))
        '|w_i| <= 1'
    """

    width: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.width < math.inf:
            raise ValueError(f"width must be positive and finite, got {self.width}")

    def domain(self, radius: float, dimension: int) -> Domain:  # noqa: D102
        return Box(radius / math.sqrt(dimension))

    def dual(self, w: Array, radius: float) -> Array:  # noqa: D102
        return jnp.arcsinh(w * math.sqrt(w.shape[-1]) / (self.width * radius))

    def primal(self, theta: Array, radius: float) -> Array:  # noqa: D102
        largest = math.asinh(1 / self.width)
        return self.width * radius / math.sqrt(theta.shape[-1]) * jnp.sinh(jnp.clip(theta, -largest, largest))

    def modulus(self, radius: float, dimension: int) -> float:  # noqa: D102
        return math.sqrt(dimension) / (radius * math.sqrt(1 + self.width**2))

    def curvature(self, radius: float, dimension: int) -> float:  # noqa: D102
        return math.sqrt(dimension) / (radius * self.width)

    def diameter(self, radius: float, dimension: int) -> float:  # noqa: D102
        return 2 * radius**2 * self.curvature(radius, dimension)


def _link(v: Array, p: float) -> Array:
    """The gradient of `||v||_p^2 / 2`: `sign(v_i) |v_i|^{p-1} ||v||_p^{2-p}`."""
    size = norm(v, p)
    return jnp.sign(v) * (jnp.abs(v) / jnp.where(size > 0, size, 1)) ** (p - 1) * size
