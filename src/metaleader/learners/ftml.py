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
from metaleader.buffer import store as buffers
from metaleader.buffer.retention import Memory
from metaleader.buffer.store import Recency, Sampling, TaskBuffer
from metaleader.errors import check_not_negative, check_positive
from metaleader.learners import base as states
from metaleader.learners.base import Adam, Optimizer, State
from metaleader.problem.batch import Batch
from metaleader.problem.objective import Params, Problem
from metaleader.update import GradientDescent, MetaParams, UpdateProcedure
from metaleader.update.meta import meta_gradient


@dataclass(frozen=True)
class FTML:
    """Follow the meta leader: `w_{t+1} = argmin_w sum_{k<=t} f_k(U_k(w))` (Eq. 4), by stochastic meta-gradients.

    Each call of `observe` stores the new datapoints and runs one Meta-Update (Algorithm 2): `meta_steps` steps
    of the outer optimiser along the meta-gradient (Eq. 5), each on `meta_batch` tasks drawn from nu_t with
    replacement. `adapt` is the Update-Procedure.

    Raises:
        ValueError: a size is not positive.
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
    """The outer optimiser: a function that gives an optax transformation."""
    sampling: Recency | Sampling = Recency()
    """The distribution nu_t over the tasks in the buffer."""
    past_only: bool = False
    """Meta-train on the tasks before this round only, as the authors' code did. Algorithm 1 includes the
    current task."""
    vary_train_size: bool = False
    """Let D_k_tr hold from 1 to `train_size` examples, by chance: for update procedures whose steps depend on how many
    there are."""
    memory: Memory = Memory()
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

    @property
    def adaptation(self) -> UpdateProcedure:
        """U with `adapt_steps` steps."""
        if self.adapt_steps is None:
            return self.update
        return replace(self.update, steps=self.adapt_steps)  # type: ignore[type-var] # has steps: checked above

    def init(self, problem: Problem, key: Array, like: Batch, capacity: int = 1024) -> State:
        """Random w_1, an empty buffer."""
        key, init_key = jax.random.split(key)
        params = self.update.init(problem.model.init(init_key))
        mesh = devices.mesh(self.meta_batch)
        state = State(
            params, self.optimizer().init(params), self.memory.empty(like, key, capacity), key, states.count(0)
        )
        on_devices = devices.put(
            (state.params, state.opt_state, state.key, state.buffer.inputs, state.buffer.targets),
            devices.replicated(mesh),
        )
        params, opt_state, key, inputs, targets = on_devices
        return State(
            params,
            opt_state,
            state.buffer._replace(inputs=inputs, targets=targets),
            key,
            state.gradient_evaluations,
        )

    def observe(self, problem: Problem, state: State, task: int, batch: Batch) -> State:
        """Add the datapoints to the buffer, then Meta-Update."""
        buffer = self.memory.append(state.buffer, task, batch)
        if self.past_only and buffer.past == 0:
            return state._replace(buffer=buffer)
        mesh = devices.mesh(self.meta_batch)
        params, opt_state, key = _meta_update(problem, self, mesh, state.params, state.opt_state, state.key, buffer)
        spent = states.count(state.gradient_evaluations + self.meta_steps * self.meta_gradient_evaluations())
        return State(params, opt_state, buffer, key, spent)

    def adapt(self, problem: Problem, state: State, batch: Batch) -> Params:
        """U(w_t) on all data of the round so far."""
        return states.adapt(problem, self.adaptation, state, batch)

    def spending(self, gradients: int) -> FTML:
        """The same learner with as many meta-steps, at least one, as take about so many per-example gradients."""
        return replace(self, meta_steps=max(round(gradients / self.meta_gradient_evaluations()), 1))

    def meta_gradient_evaluations(self) -> int:
        """Per-example gradients in one meta-gradient, a Hessian-vector product counting as two."""
        a_task = self.update.gradient_evaluations(self.train_size)
        a_task += self.update.meta_gradient_evaluations(self.train_size) + self.validation_size
        return self.meta_batch * a_task


@partial(jax.jit, static_argnums=(0, 1, 2))
def _meta_update(
    problem: Problem,
    learner: FTML,
    mesh: Mesh,
    params: MetaParams,
    opt_state: Any,
    key: Array,
    buffer: TaskBuffer,
) -> tuple[MetaParams, Any, Array]:
    """Meta-Update (Algorithm 2): `meta_steps` times sample tasks and data, and step along the meta-gradient.

    Every device draws the same tasks, takes its share of them, and gets the mean of all. Where the devices cannot
    share them equally, the last ones take tasks without examples of weight, which contribute zeros.
    """
    optimizer = learner.optimizer()
    share = -(-learner.meta_batch // mesh.size)
    surplus = share * mesh.size - learner.meta_batch
    at_once = devices.tasks_at_once() if learner.tasks_at_once is None else learner.tasks_at_once

    def steps(params: MetaParams, opt_state: Any, key: Array, buffer: TaskBuffer) -> tuple[MetaParams, Any, Array]:
        nu = buffers.sampling_weights(learner.sampling, buffer.counts, buffer.tasks, buffer.rounds)
        if learner.past_only:
            nu = jnp.where(buffer.rounds == buffer.tasks - 1, 0, nu)
        key, tasks_key, data_key = jax.random.split(key, 3)
        shape = (learner.meta_steps, learner.meta_batch)
        tasks = buffers.sample_index(tasks_key, nu, shape)
        draws = buffers.sample_splits(
            data_key, buffer.counts, tasks, learner.train_size, learner.validation_size, learner.vary_train_size
        )
        drawn = jax.tree.map(
            lambda leaf: jnp.pad(leaf, [(0, 0), (0, surplus)] + [(0, 0)] * (leaf.ndim - 2)), (tasks, draws)
        )

        def step(carry: tuple[MetaParams, Any], drawn: Any) -> tuple[tuple[MetaParams, Any], None]:
            params, opt_state = carry
            first = jax.lax.axis_index(devices.TASKS) * share
            tasks, draws = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, share), drawn)
            train, validation = (
                jax.vmap(lambda task, place, weights: buffers.take(buffer, buffer.starts[task] + place, weights))(
                    tasks, *draw
                )
                for draw in draws
            )
            _, gradient = meta_gradient(problem, learner.update, params, train, validation, at_once)
            gradient = jax.lax.pmean(gradient, devices.TASKS)
            gradient = jax.tree.map(lambda g: g * (share * mesh.size / learner.meta_batch), gradient)
            changes, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, changes), opt_state), None

        carry, _ = jax.lax.scan(step, (params, opt_state), drawn)
        return *carry, key

    everywhere = PartitionSpec()
    spread = jax.shard_map(steps, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)
    return spread(params, opt_state, key, jax.tree.map(jnp.asarray, buffer))
