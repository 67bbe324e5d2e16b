"""Which devices share the tasks of a meta-batch."""

from __future__ import annotations

import os

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TASKS = "tasks"  # the name of the mesh axis


def use_all_cores() -> None:
    """Show every CPU core to JAX as a device of its own, so that each takes its share of a meta-batch.

    Does nothing once JAX has started, or where a platform or a number of CPU devices was chosen already.
    """
    chosen = jax.config.values["jax_num_cpu_devices"] >= 0 or "xla_force_host_platform_device_count" in os.environ.get(
        "XLA_FLAGS", ""
    )
    if not chosen:
        try:
            jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
        except RuntimeError:  # JAX has started
            return


def mesh(tasks: int) -> Mesh:
    """The largest number of local devices that divides `tasks`, in a line."""
    devices = jax.local_devices()
    n = max(d for d in range(1, len(devices) + 1) if tasks % d == 0)
    return Mesh(np.array(devices[:n]), (TASKS,))


def replicated(on: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(on, PartitionSpec())


def tasks_at_once() -> int:
    """How many tasks of a meta-batch one device takes together, unless told.

    One on a CPU, where the working set of a task fits the cache; as many as there are elsewhere.
    """
    return 1 if jax.default_backend() == "cpu" else 1 << 20
