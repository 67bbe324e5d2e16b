"""Streams of convex tasks with a known optimum: independent, drifting, adversarial, and a trap for joint training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Int

from metaleader.errors import UserError, unknown
from metaleader.problem.batch import Batch
from metaleader.problem.problem import Problem
from metaleader.streams import Task
from metaleader.theory.problems import LogisticLoss, Pool, SquareLoss, convex_problem

Kind: TypeAlias = Literal["quadratic", "regression", "logistic"]
Order: TypeAlias = Literal["iid", "drifting", "adversarial", "trap"]

DISTINCT = 16  # tasks in the pools of logistic regression, of the adversary and of the trap
PERIOD = 500  # rounds of one turn of a drifting stream
LARGEST = 1.0  # beta of quadratics and linear regressions, by scaling
SMALLEST = 0.2  # mu of quadratics; linear regressions keep what their inputs have above `RIDGE`
RIDGE = 0.1
STEEP, FLAT = (0.9, LARGEST), (0.35, 0.4)  # eigenvalues of the two sorts of tasks in a trap
STEEP_TASKS = 6  # of 16: about the share at which joint and meta-learned solutions lie farthest apart


class ConvexTasks(NamedTuple):
    """The tasks of a stream and the order they come in.

    Attributes:
        problem: loss and model.
        pool: the distinct tasks.
        order: which of them comes in each round; None: an adversary chooses, in every round the task with the
            largest `f(U(w_t))`.
    """

    problem: Problem
    pool: Pool
    order: Int[np.ndarray, " rounds"] | None


@dataclass(frozen=True)
class ConvexStream:
    """Quadratics, linear regressions or logistic regressions of a few parameters.

    - `quadratic`: `f(w) = (w - c)' A (w - c) / 2`, with A of random eigenvectors and eigenvalues in [0.2, 1] and a
      random optimum c, as a regression on the rows of `sqrt(n A)` and of zeros.
    - `regression`: `n - d` random inputs, targets `x'c` with noise, square loss, scaled so that beta = 1; the ridge
      penalty is d more datapoints, `sqrt(n ridge)` times the unit vectors with target 0.
    - `logistic`: `n` random inputs, labels drawn with log-odds `3 x'c`, logistic loss and ridge.

    Tasks differ in their inputs and in c. Orders:

    - `iid`: c is drawn around a common mean.
    - `drifting`: c moves around a circle every 500 rounds.
    - `adversarial`: half the tasks are drawn around a point and half around its opposite, and the order is left to an
      adversary who sees w_t.
    - `trap`, for quadratics: tasks come in turn, steep ones with c at a point and flat ones with c at its opposite. A
      gradient step makes up for a distance to a steep task, and hardly for one to a flat task. Joint training, which
      knows no gradient step, heeds the steep ones and pays for it in every round.

    Raises:
        UserError: an unknown kind or order, or a size below 1.

    Examples:
        >>> import numpy as np
        >>> from metaleader.theory import ConvexStream
        >>> stream = ConvexStream("quadratic", "iid", rounds=20, dimension=3).tasks(seed=0)
        >>> hessians = np.einsum("tni,tnj->tij", stream.pool.inputs, stream.pool.inputs) / 12
        >>> eigenvalues = np.linalg.eigvalsh(hessians)
        >>> hessians.shape, bool(eigenvalues.min() > 0.199), bool(eigenvalues.max() < 1.001)
        ((20, 3, 3), True, True)
    """

    kind: Kind = "quadratic"
    order: Order = "iid"
    rounds: int = 10_000
    """T."""
    dimension: int = 4
    """Length of w."""
    examples: int = 12
    """Datapoints of a task, n."""
    ridge: float = RIDGE
    """Penalty of both regressions, the factor of `||w||^2 / 2`."""

    def __post_init__(self) -> None:
        for what, value, known in (("kind", self.kind, get_args(Kind)), ("order", self.order, get_args(Order))):
            if value not in known:
                raise UserError(unknown(f"{what} of convex stream", value, known))
        if min(self.rounds, self.dimension) < 1 or self.examples <= self.dimension:
            raise UserError(f"rounds and dimension must be at least 1, and examples above dimension; got {self}")
        if self.order == "trap" and self.kind != "quadratic":
            raise UserError(f"order trap is for kind quadratic, whose curvatures can be set; got kind {self.kind}")
        if self.kind == "regression" and not 0 <= self.ridge < LARGEST:
            raise UserError(f"ridge of a linear regression must be in [0, {LARGEST:g}), got {self.ridge}")

    def tasks(self, seed: int) -> ConvexTasks:
        """The stream drawn by `seed`, float64."""
        random = np.random.default_rng([seed, len(self.kind), len(self.order)])
        free = self.order == "adversarial"
        count = DISTINCT if free or self.order == "trap" or self.kind == "logistic" else self.rounds
        centres = self._centres(random, count)
        inputs, targets = (np.stack(part) for part in zip(*(self._draw(random, c) for c in centres), strict=True))
        order = None if free else np.arange(self.rounds) % count
        if self.kind == "logistic":
            loss: SquareLoss | LogisticLoss = LogisticLoss()
            order = None if free else self._repeated(random, count)
        else:
            loss = SquareLoss()
        problem = convex_problem(loss, self.dimension, self.ridge if self.kind == "logistic" else 0.0)
        return ConvexTasks(problem, Pool(inputs, targets), order)

    def _centres(self, random: np.random.Generator, count: int) -> Float[np.ndarray, "count d"]:
        spread = 0.3 * random.normal(size=(count, self.dimension)) / np.sqrt(self.dimension)
        main = np.full(self.dimension, 1 / np.sqrt(self.dimension))
        if self.order == "iid":
            return 0.5 * main + spread
        if self.order == "adversarial":
            return np.where(np.arange(count) % 2 == 0, 1.0, -1.0)[:, None] * main + 0.1 * spread
        if self.order == "trap":
            return random.permutation(np.where(np.arange(count) < STEEP_TASKS, 1.0, -1.0))[:, None] * main
        angle = 2 * np.pi * np.arange(count) / min(count, PERIOD)
        circle = np.zeros((count, self.dimension))
        circle[:, 0], circle[:, -1] = np.cos(angle), np.sin(angle)  # in one dimension, the sine alone
        return 0.5 * main + 0.5 * circle + 0.3 * spread

    def _draw(self, random: np.random.Generator, centre: Float[np.ndarray, " d"]) -> tuple[np.ndarray, np.ndarray]:
        n, d = self.examples, self.dimension
        if self.kind == "quadratic":
            axes = np.linalg.qr(random.normal(size=(d, d)))[0]
            low, high = (SMALLEST, LARGEST) if self.order != "trap" else STEEP if centre[0] > 0 else FLAT
            roots = np.sqrt(n * random.uniform(low, high, d))
            x = np.concatenate([roots[:, None] * axes.T, np.zeros((n - d, d))])
            return x, x @ centre
        if self.kind == "regression":
            x = random.normal(size=(n - d, d)) * np.linspace(1, 0.5, d)
            x *= np.sqrt((LARGEST - self.ridge) * n) / np.linalg.norm(x, 2)
            y = x @ centre + 0.1 * random.normal(size=n - d)
            return np.concatenate([x, np.sqrt(n * self.ridge) * np.eye(d)]), np.concatenate([y, np.zeros(d)])
        x = random.normal(size=(n, d)) * np.linspace(1, 0.5, d)
        return x, np.where(random.random(n) < 1 / (1 + np.exp(-3 * x @ centre)), 1.0, -1.0)

    def _repeated(self, random: np.random.Generator, count: int) -> Int[np.ndarray, " rounds"]:
        """A pool's tasks over all rounds: at random, or one after another around the circle."""
        if self.order == "iid":
            return random.integers(0, count, self.rounds)
        return np.arange(self.rounds) * count // PERIOD % count


def as_tasks(pool: Pool, order: Int[np.ndarray, " rounds"]) -> list[Task]:
    """The rounds as tasks for the protocol: in the theory, a round is judged on the f_t that it adapted to.

    Examples:
        >>> from metaleader.theory import ConvexStream, as_tasks
        >>> stream = ConvexStream("logistic", rounds=20).tasks(seed=0)
        >>> tasks = as_tasks(stream.pool, stream.order)
        >>> len(stream.pool.inputs), len(tasks), tasks[0].train is tasks[0].test  # judged on what it adapted to
        (16, 20, True)
    """
    batches = [Batch.of(x, y) for x, y in zip(np.asarray(pool.inputs), np.asarray(pool.targets), strict=True)]
    return [Task(batches[i], batches[i], f"f_{i}") for i in order]
