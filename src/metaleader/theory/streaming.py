"""Learners of the theory whose state does not grow with the tasks: mirror descent, AdaGrad, and leaders on quadratics.

All of them see `f~_t(w) = f_t(U_t(w))` and its gradient at w_t. `sigma` and `L` are the strong convexity and the
Lipschitz constant of every f~ on the domain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaleader.problem.batch import Batch
from metaleader.theory.domains import Ball, Domain
from metaleader.theory.exact import Quadratic, adapted, minimise_on_ball, quadratic_of
from metaleader.theory.mirrors import Entropic, Euclidean, PNorm
from metaleader.theory.problems import Setting
from metaleader.update import Identity


class Convexity(NamedTuple):
    """What Theorem 1 says of every f~ on the domain.

    Attributes:
        sigma: strong convexity, `mu / 8`; mu itself where U is the identity.
        lipschitz: L, a bound of `||grad f~||`, see `steepest`.
    """

    sigma: Any
    lipschitz: Any


def convexity(setting: Setting) -> Convexity:
    """Both, of the losses that are incurred."""
    mu = setting.constants.strong_convexity
    return Convexity(mu if isinstance(setting.update, Identity) else mu / 8, setting.steepest)


class Seen(NamedTuple):
    """A round: what a learner may learn from.

    Attributes:
        round: t, from 1.
        gradient: of f~_t at w_t, `(d,)`.
        batch: D_t.
    """

    round: Any
    gradient: Any
    batch: Batch


@runtime_checkable
class OnlineLearner(Protocol):
    """A frozen dataclass; `memory` is all it keeps beside w_t."""

    def domain(self, setting: Setting) -> Domain:
        """Where every w_t is, and the best in hindsight that the bound compares it with."""
        ...

    def start(self, setting: Setting) -> Any:
        """The memory before the first round."""
        ...

    def learn(self, setting: Setting, w: Any, memory: Any, seen: Seen) -> tuple[Any, Any]:
        """`w_{t+1}` and the memory after round t."""
        ...

    def bound(self, setting: Setting, memory: Any, round: Any) -> tuple[Any, Any]:  # noqa: A002 - its name in the paper
        """Bounds of the regret after so many rounds: before play, and from the gradients seen (at most the first)."""
        ...


@dataclass(frozen=True)
class Frozen:
    """w_1 for ever: what not learning costs. No bound.

    Examples:
        >>> from metaleader.theory import ConvexStream, Frozen, setting
        >>> stream = ConvexStream(rounds=20).tasks(seed=0)
        >>> given = setting(stream.problem, stream.pool, radius=2.0)
        >>> [float(bound) for bound in Frozen().bound(given, (), 20)]
        [inf, inf]
    """

    def domain(self, setting: Setting) -> Domain:
        """The whole ball."""
        return Ball(setting.radius)

    def start(self, setting: Setting) -> Any:  # noqa: ARG002
        """Nothing."""
        return ()

    def learn(self, setting: Setting, w: Any, memory: Any, seen: Seen) -> tuple[Any, Any]:  # noqa: ARG002
        """The same."""
        return w, memory

    def bound(self, setting: Setting, memory: Any, round: Any) -> tuple[Any, Any]:  # noqa: A002, ARG002
        """Infinite."""
        return jnp.inf, jnp.inf


class Sums(NamedTuple):
    """What a leader on quadratics keeps: the sum of all losses, and that of its observed bound."""

    total: Quadratic
    observed: Any


@dataclass(frozen=True)
class Leader:
    """`w_{t+1} = argmin_{||w|| <= radius} sum_{k<=t} f~_k(w)` for quadratics, whose sum is d (d + 3) / 2 + 1 numbers.

    With `meta` this is FTML (Eq. 4), without it joint training, the leader of the f_k.

    Bound, as for strongly convex losses w_t and w_{t+1} minimise sums that differ by f~_t alone:
    `sigma (2 t - 1) / 2 ||w_t - w_{t+1}||^2 <= f~_t(w_t) - f~_t(w_{t+1}) <= ||g_t|| ||w_t - w_{t+1}||`, so that
    `Regret_T <= sum_t f~_t(w_t) - f~_t(w_{t+1}) <= sum_t 2 ||g_t||^2 / (sigma (2 t - 1))
    <= 2 L^2 / sigma (1 + log(2 T - 1) / 2)`. With `sigma = mu / 8` and `L <= G` this is below the paper's
    `32 G^2 / mu (1 + log T)` (Corollary 2).

    Examples:
        >>> import jax
        >>> from metaleader.theory import ConvexStream, Leader, checkpoints, play_convex, regret, setting
        >>> stream = ConvexStream(rounds=20).tasks(seed=0)
        >>> given = setting(stream.problem, stream.pool, radius=2.0)
        >>> with jax.enable_x64(True):
        ...     (game,) = play_convex([given], [stream], Leader(), 20)
        ...     curve = regret(given, stream.pool, game, checkpoints(20, points=3))
        >>> bool((curve.regret <= curve.bounds["gradients"]).all())
        True
    """

    meta: bool = True
    factor: float = 1.0
    """Of the way from w_t to the leader, how much is gone. The bound holds for 1; others are mistakes to be caught."""

    def domain(self, setting: Setting) -> Domain:
        """The whole ball."""
        return Ball(setting.radius)

    def start(self, setting: Setting) -> Sums:
        """Zeros."""
        d = setting.problem.net.dimension  # type: ignore[attr-defined]
        return Sums(Quadratic(jnp.zeros((d, d)), jnp.zeros(d), jnp.zeros(())), jnp.zeros(()))

    def learn(self, setting: Setting, w: Any, memory: Sums, seen: Seen) -> tuple[Any, Sums]:
        """The leader of all rounds so far."""
        new = adapted(quadratic_of(setting.problem, seen.batch), setting.update if self.meta else Identity())
        total = jax.tree.map(jnp.add, memory.total, new)
        observed = memory.observed + seen.gradient @ seen.gradient / (2 * seen.round - 1)
        leader = minimise_on_ball(total, setting.radius)
        if self.factor != 1:
            leader = self.domain(setting).project(w + self.factor * (leader - w))
        return leader, Sums(total, observed)

    def bound(self, setting: Setting, memory: Sums, round: Any) -> tuple[Any, Any]:  # noqa: A002
        """See the class."""
        sigma, lipschitz = convexity(setting)
        return 2 * lipschitz**2 / sigma * (1 + jnp.log(2 * round - 1) / 2), 2 / sigma * memory.observed


def paper_bound(setting: Setting, rounds: Any) -> Any:
    """`32 G^2 / mu (1 + log T)`: Corollary 2, of which the paper gives the leading term."""
    return 32 * setting.constants.lipschitz**2 / setting.constants.strong_convexity * (1 + jnp.log(rounds))


EUCLIDEAN = Euclidean()


@dataclass(frozen=True)
class MirrorDescent:
    """`grad R(v) = grad R(w_t) - eta_t g_t`, and `w_{t+1}` the projection of v in the divergence B of R.

    Where `B(u, w) <= c / 2 ||u - w||^2`, f~ is strongly convex relative to R,
    `f~(u) >= f~(w) + g'(u - w) + (sigma / c) B(u, w)`, and `eta_t = c / (sigma t)` gives
    `Regret_T <= c / (2 s sigma) sum_t ||g_t||^2 / t <= c L^2 / (2 s sigma) (1 + log T)`. With the Euclidean map,
    `c = s = 1`, this is projected online gradient descent with step `8 / (mu t)` (Hazan et al., 2007).

    Where c is infinite, `eta_t = sqrt(s D / sum_{k<=t} ||g_k||_*^2)` with the diameter D of the domain in B gives
    `Regret_T <= 2 sqrt(D / s sum_t ||g_t||_*^2) <= 2 L sqrt(D T / s)`.

    Examples:
        >>> import jax
        >>> from metaleader.theory import ConvexStream, MirrorDescent, checkpoints, play_convex, regret, setting
        >>> stream = ConvexStream(rounds=20).tasks(seed=0)
        >>> given = setting(stream.problem, stream.pool, radius=2.0)
        >>> with jax.enable_x64(True):
        ...     (game,) = play_convex([given], [stream], MirrorDescent(), 20)  # projected online gradient descent
        ...     curve = regret(given, stream.pool, game, checkpoints(20, points=3))
        >>> bool((curve.regret <= curve.bounds["gradients"]).all())
        True
    """

    mirror: Euclidean | PNorm | Entropic = EUCLIDEAN
    factor: float = 1.0
    """Multiplies eta_t. The bound holds for 1; others are mistakes to be caught."""

    def domain(self, setting: Setting) -> Domain:
        """The mirror map's."""
        return self.mirror.domain(setting.radius, setting.problem.net.dimension)  # type: ignore[attr-defined]

    def start(self, setting: Setting) -> Array:  # noqa: ARG002
        """The sum of `||g_k||_*^2 / k`, or of `||g_k||_*^2`."""
        return jnp.zeros(())

    def learn(self, setting: Setting, w: Any, memory: Array, seen: Seen) -> tuple[Any, Array]:
        """A step along the gradient, in the coordinates of R."""
        s, c, diameter = self._geometry(setting)
        square = self.mirror.dual_norm(seen.gradient) ** 2
        if math.isfinite(c):
            memory, eta = memory + square / seen.round, c / (convexity(setting).sigma * seen.round)
        else:
            memory = memory + square
            eta = jnp.sqrt(s * diameter / jnp.where(memory > 0, memory, 1))
        theta = self.mirror.dual(w, setting.radius) - self.factor * eta * seen.gradient
        return self.mirror.primal(theta, setting.radius), memory

    def bound(self, setting: Setting, memory: Array, round: Any) -> tuple[Any, Any]:  # noqa: A002
        """See the class."""
        s, c, diameter = self._geometry(setting)
        sigma, lipschitz = convexity(setting)
        if math.isfinite(c):
            factor = c / (2 * s * sigma)
            return factor * lipschitz**2 * (1 + jnp.log(round)), factor * memory
        return 2 * lipschitz * jnp.sqrt(diameter * round / s), 2 * jnp.sqrt(diameter / s * memory)

    def _geometry(self, setting: Setting) -> tuple[float, float, float]:
        d = setting.problem.net.dimension  # type: ignore[attr-defined]
        mirror, radius = self.mirror, setting.radius
        return mirror.modulus(radius, d), mirror.curvature(radius, d), mirror.diameter(radius, d)


@dataclass(frozen=True)
class AdaGrad:
    """`w_{t+1} = argmin_{||u|| <= radius} (u - v)' H_t (u - v)` with `v = w_t - eta H_t^{-1} g_t`.

    `H_t = diag(sum_{k<=t} g_k^2)^{1/2}`. With `eta = sqrt(2) radius`,
    `Regret_T <= 2 sqrt(2) radius sum_i (sum_t g_{t,i}^2)^{1/2} <= 2 radius L sqrt(2 d T)`
    (Duchi et al., 2011).

    Examples:
        >>> import jax
        >>> from metaleader.theory import AdaGrad, ConvexStream, checkpoints, play_convex, regret, setting
        >>> stream = ConvexStream(rounds=20).tasks(seed=0)
        >>> given = setting(stream.problem, stream.pool, radius=2.0)
        >>> with jax.enable_x64(True):
        ...     (game,) = play_convex([given], [stream], AdaGrad(), 20)
        ...     curve = regret(given, stream.pool, game, checkpoints(20, points=3))
        >>> bool((curve.regret <= curve.bounds["gradients"]).all())
        True
    """

    factor: float = 1.0
    """Multiplies eta. The bound holds for 1; others are mistakes to be caught."""

    def domain(self, setting: Setting) -> Domain:
        """The whole ball."""
        return Ball(setting.radius)

    def start(self, setting: Setting) -> Float[Array, " d"]:
        """The sum of squared gradients, by coordinate."""
        return jnp.zeros(setting.problem.net.dimension)  # type: ignore[attr-defined]

    def learn(self, setting: Setting, w: Any, memory: Array, seen: Seen) -> tuple[Any, Array]:
        """A step in each coordinate's own scale, back into the ball where it left it."""
        memory = memory + seen.gradient**2
        scale = jnp.where(memory > 0, jnp.sqrt(memory), 1)  # without a gradient, a coordinate stays
        v = w - self.factor * math.sqrt(2) * setting.radius * seen.gradient / scale
        return minimise_on_ball(Quadratic(jnp.diag(scale), -scale * v, jnp.zeros(())), setting.radius), memory

    def bound(self, setting: Setting, memory: Array, round: Any) -> tuple[Any, Any]:  # noqa: A002
        """See the class."""
        factor, lipschitz = 2 * math.sqrt(2) * setting.radius, convexity(setting).lipschitz
        return factor * lipschitz * jnp.sqrt(len(memory) * round), factor * jnp.sum(jnp.sqrt(memory))


@dataclass(frozen=True)
class Unadapted:
    """A learner that descends f_t in place of `f_t(U_t(w))`: joint training, one gradient at a time.

    What it incurs and what its bound is computed from stay those of `f_t(U_t(w))`. No bound holds for it.

    Examples:
        >>> import jax
        >>> from metaleader.theory import ConvexStream, MirrorDescent, Unadapted, play_convex, setting
        >>> stream = ConvexStream(rounds=20).tasks(seed=0)
        >>> given = setting(stream.problem, stream.pool, radius=2.0)
        >>> learners = MirrorDescent(), Unadapted(MirrorDescent())
        >>> with jax.enable_x64(True):
        ...     right, wrong = (play_convex([given], [stream], learner, 20)[0] for learner in learners)
        >>> [bool(right.losses[t] == wrong.losses[t]) for t in (0, 1)]  # from w_2 on, they differ
        [True, False]
    """

    learner: MirrorDescent | AdaGrad

    def domain(self, setting: Setting) -> Domain:
        """The learner's."""
        return self.learner.domain(setting)

    def start(self, setting: Setting) -> Any:
        """The learner's memory, and the memory it would have from the gradients of what it incurs."""
        return self.learner.start(setting), self.learner.start(setting)

    def learn(self, setting: Setting, w: Any, memory: Any, seen: Seen) -> tuple[Any, Any]:
        """The learner's step, along the gradient without adaptation."""
        own, incurred = memory
        gradient = jax.grad(lambda v: setting.problem.objective({"w": v}, seen.batch))(w)
        _, incurred = self.learner.learn(setting, w, incurred, seen)
        w, own = self.learner.learn(setting, w, own, seen._replace(gradient=gradient))
        return w, (own, incurred)

    def bound(self, setting: Setting, memory: Any, round: Any) -> tuple[Any, Any]:  # noqa: A002
        """The learner's, as if it had descended what it incurs."""
        return self.learner.bound(setting, memory[1], round)


STREAMING: dict[str, MirrorDescent | AdaGrad] = {
    "OGD, step 8/(mu t)": MirrorDescent(EUCLIDEAN),
    "AdaGrad": AdaGrad(),
    "mirror, p-norm": MirrorDescent(PNorm()),
    "mirror, entropic": MirrorDescent(Entropic()),
}
"""The learners whose state does not grow, by the names that tables and figures have.

Examples:
    >>> from metaleader.theory import STREAMING
    >>> list(STREAMING)
    ['OGD, step 8/(mu t)', 'AdaGrad', 'mirror, p-norm', 'mirror, entropic']
"""
