"""Follow the meta leader (paper, Eq. 4; sections 4 and 5)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from metaleader import devices
from metaleader.buffer import Recency, Retention, Sampling, TaskKey, sampling
from metaleader.errors import check_not_negative, check_positive
from metaleader.learners import base
from metaleader.learners.base import Learned, PredictsByModel
from metaleader.learners.optimizers import Adam
from metaleader.problem.batch import Batch
from metaleader.problem.content import Static
from metaleader.problem.model import Params
from metaleader.problem.problem import Problem
from metaleader.problem.rates import with_rates, without_rates
from metaleader.update import GradientDescent, MetaParams, UpdateProcedure, meta_gradient
from metaleader.update.optimizer import Optimizer, transformation


@dataclass(frozen=True)
class FTML(PredictsByModel):
    """Follow the meta leader: `w_{t+1} = argmin_w sum_{k<=t} f_k(U_k(w))` (Eq. 4), by stochastic meta-gradients.

    Each call of `observe` stores the new datapoints and runs one Meta-Update (Algorithm 2): `meta_steps` steps
    of the outer optimiser along the meta-gradient (Eq. 5), each on `meta_batch` tasks drawn from nu_t with
    replacement. `adapt` is the Update-Procedure. Tasks may interleave and come back: the sum is over all tasks with
    retained data.

    Raises:
        ValueError: a size is not positive; or the update procedure cannot take `adapt_steps` steps.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> lines = [ml.Task.from_arrays(x, 5 * x + t % 2, x, 5 * x + t % 2) for t in range(8)]  # one of two offsets
        >>> learner = ml.FTML(ml.GradientDescent(step_size=0.2), optimizer=ml.Adam(0.2))
        >>> records = list(ml.play(problem, lines, learner))
        >>> records[-1].loss < records[0].loss / 10  # after as few steps on the last line as on the first
        True
    """

    update: GradientDescent | UpdateProcedure = GradientDescent()
    """The update procedure U, differentiated through in Meta-Update and applied by `adapt`."""
    meta_steps: int = 4
    """N_meta: outer steps whenever datapoints arrive."""
    meta_batch: int = 4
    """Tasks in the estimate of one meta-gradient."""
    train_size: int = 10
    """Examples in D_k_tr, on which the update procedure acts."""
    validation_size: int = 10
    """Examples in D_k_val, on which its result is judged."""
    optimizer: Adam | Optimizer = Adam()
    """The outer optimiser: an optax transformation, or a function that gives one."""
    sampling: Recency | Sampling = Recency()
    """The distribution nu_t over the tasks in the buffer."""
    past_only: bool = False
    """Meta-train on the tasks before this round only, as the authors' code did: on all but the current one. Algorithm 1
    includes the current task."""
    vary_train_size: bool = False
    """Let D_k_tr hold from 0 to `train_size` examples, by chance: for tasks that are predicted from few datapoints, or
    before their first one; and for update procedures whose steps depend on how many there are."""
    retention: Retention = Retention()
    """Which datapoints the buffer keeps."""
    adapt_steps: int | None = None
    """Steps of U when `adapt` applies it to all of D_t, which may be many more datapoints than D_k_tr holds. None: as
    many as in Meta-Update (Algorithm 2)."""
    tasks_at_once: int | None = None
    """Tasks that share one vectorised computation on a device. None: chosen by the kind of device."""

    def __post_init__(self) -> None:
        check_positive(self, "meta_steps", "meta_batch", "train_size", "validation_size")
        if self.adapt_steps is not None:
            check_not_negative(self, "adapt_steps")
            if not hasattr(self.update, "steps"):
                raise ValueError(f"adapt_steps needs an update procedure with steps, got {self.update}")
            self._adapting()  # refuses steps that the procedure refuses
        if self.past_only:
            base.check_keeps_past(self.retention)

    def init(self, problem: Problem, key: Array, example: Batch) -> Learned:
        """Random w_1, an empty buffer."""
        key, init_key = jax.random.split(key)
        params = self.update.init(problem.init(init_key))
        buffer = self.retention.empty(example, key)
        everywhere = devices.replicated(devices.mesh(self.meta_batch))
        opt_state = base.optimizer_state(self.optimizer, params)
        params, opt_state, key, data = devices.put((params, opt_state, key, buffer.data), everywhere)
        return Learned(params, opt_state, buffer._replace(data=data), key)

    def observe(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Learned, int]:
        """Add the datapoints to the buffer, then Meta-Update."""
        buffer = self.retention.append(state.buffer, task, batch)
        if self.past_only and buffer.past == 0:
            return state._replace(buffer=buffer), 0
        key, *draws = _draw(self, problem.random, state.key, buffer.counts, buffer.ages)
        train, validation = base.minibatches(buffer, *draws)
        (update, inner), (optimizer, outer) = map(without_rates, (self.update, self.optimizer))
        static, mesh = Static((problem, update, optimizer, self.tasks_at_once)), devices.mesh(self.meta_batch)
        params, opt_state = _meta_update(static, mesh, (inner, outer), state.params, state.opt_state, train, validation)
        if mesh.size > 1:
            # CPU devices share a pool of threads: a program enqueued behind this one can take the thread that one of
            # the devices needs to join the others in the mean.
            jax.block_until_ready(params)
        return Learned(params, opt_state, buffer, key), self.meta_steps * self.meta_gradient_evaluations()

    def adapt(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Params, int]:  # noqa: ARG002
        """U(w_t) on all data of the task so far, with `adapt_steps` steps."""
        return base.adapted(problem, self._adapting(), state.leader, state.buffer, state.key, batch)

    def _adapting(self) -> UpdateProcedure:
        """U with `adapt_steps`."""
        if self.adapt_steps is None:
            return self.update
        return replace(self.update, steps=self.adapt_steps)  # type: ignore[type-var] # checked

    def spending(self, gradients: int) -> FTML:
        """The same learner with as many meta-steps, at least one, as take about so many per-example gradients."""
        return replace(self, meta_steps=max(round(gradients / self.meta_gradient_evaluations()), 1))

    def meta_gradient_evaluations(self) -> int:
        """Per-example gradients in one meta-gradient, a Hessian-vector product counting as two.

        Of tasks that have all examples asked for; where one has fewer, this counts more than were of use.
        """
        a_task = self.update.gradient_evaluations(self.train_size)
        a_task += self.update.meta_gradient_evaluations(self.train_size) + self.validation_size
        return self.meta_batch * a_task


def _draw(learner: FTML, keyed: bool, key: Array, counts: Any, ages: Any) -> Any:
    """The next key; and D_tr and D_val of all tasks of all steps: places in the buffer, weights, and random keys."""
    shape, sizes = (learner.meta_steps, learner.meta_batch), (learner.train_size, learner.validation_size)
    tasks, data = Static((learner.sampling, learner.past_only, shape)), Static((sizes, learner.vary_train_size, keyed))
    key, data_key, counts, starts = _draw_tasks(tasks, key, counts, ages)
    return key, *_draw_data(data, data_key, counts, starts)


@partial(jax.jit, static_argnums=0)
def _draw_tasks(static: Static[tuple[Sampling, bool, tuple[int, int]]], key: Array, counts: Any, ages: Any) -> Any:
    """The next key and one for the data; and of all tasks of all steps, how much data they have and where it starts.

    Compiled for every number of rows that the buffer has room for, unlike `_draw_data`, which takes longer to compile.
    """
    sampled, past_only, shape = static.value
    counts, ages = jnp.asarray(counts), jnp.asarray(ages)
    nu = sampling.sampling_weights(sampled, counts, ages)
    if past_only:
        nu = jnp.where(ages == 0, 0, nu)
    key, tasks_key, data_key = jax.random.split(key, 3)
    rows = sampling.sample_rows(tasks_key, nu, shape)
    return key, data_key, counts[rows], (jnp.cumsum(counts) - counts)[rows]


@partial(jax.jit, static_argnums=0)
def _draw_data(static: Static[tuple[tuple[int, int], bool, bool]], key: Array, counts: Array, starts: Array) -> Any:
    """D_tr and D_val of all tasks of all steps: places in the buffer, weights, and random keys."""
    sizes, vary_train, keyed = static.value
    draws = sampling.sample_splits(key, counts, *sizes, vary_train)
    keys = [base.random_keys(keyed, part, counts.shape) for part in jax.random.split(key)]
    return [(starts[..., None] + numbers, weights, own) for (numbers, weights), own in zip(draws, keys, strict=True)]


@partial(jax.jit, static_argnums=(0, 1))
def _meta_update(
    static: Static[tuple[Problem, UpdateProcedure, Optimizer, int | None]],
    mesh: Mesh,
    rates: tuple[Any, Any],
    params: MetaParams,
    opt_state: Any,
    train: Batch,
    validation: Batch,
) -> tuple[MetaParams, Any]:
    """Meta-Update (Algorithm 2) on tasks and data that were drawn: a step along the meta-gradient for each row.

    Every device takes its share of the tasks, and gets the mean of all. Where the devices cannot share them equally,
    the last ones take tasks without examples of weight, which contribute zeros.
    """
    problem, update, optimizer, at_once = static.value
    update, outer = with_rates(update, rates[0]), transformation(with_rates(optimizer, rates[1]))
    tasks = train.weights.shape[1]
    share = -(-tasks // mesh.size)
    at_once = devices.tasks_at_once() if at_once is None else at_once

    def padded(batch: Batch) -> Batch:
        surplus = share * mesh.size - tasks
        if not surplus:
            return batch
        wide = jax.tree.map(lambda leaf: leaf[:, jnp.minimum(jnp.arange(tasks + surplus), tasks - 1)], batch)
        weights = jnp.where((jnp.arange(tasks + surplus) < tasks)[:, None], wide.weights, 0)
        return Batch(wide.inputs, wide.targets, weights, wide.key)

    def steps(params: MetaParams, opt_state: Any, batches: tuple[Batch, Batch]) -> tuple[MetaParams, Any]:
        def step(carry: tuple[MetaParams, Any], batches: tuple[Batch, Batch]) -> tuple[tuple[MetaParams, Any], None]:
            params, opt_state = carry
            _, gradient = meta_gradient(problem, update, params, *batches, at_once)
            gradient = jax.lax.pmean(gradient, devices.TASKS)
            gradient = jax.tree.map(lambda g: g * (share * mesh.size / tasks), gradient)
            changes, opt_state = outer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, changes), opt_state), None

        return jax.lax.scan(step, (params, opt_state), batches)[0]

    everywhere, of_device = PartitionSpec(), PartitionSpec(None, devices.TASKS)
    spread = jax.shard_map(
        steps, mesh=mesh, in_specs=(everywhere, everywhere, of_device), out_specs=everywhere, check_vma=False
    )
    return spread(params, opt_state, (padded(train), padded(validation)))
