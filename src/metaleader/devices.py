"""Which devices share the tasks of a meta-batch, on this machine and over several processes."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
import platformdirs
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from metaleader.errors import UserError

TASKS = "tasks"  # the name of the mesh axis
T = TypeVar("T")


def start(cores: int | None = None) -> None:
    """Show every CPU core to JAX as a device of its own, and keep what is compiled for the next time.

    Args:
        cores: as many as this process may use; None: all.
    """
    if cores is not None:
        os.environ["NPROC"] = str(cores)  # the size of XLA's thread pools
    _use_cores(available_cores() if cores is None else cores)
    keep_compiled()


def available_cores() -> int:
    """The CPU cores that this process may use; all there are, on systems that do not say."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        return os.cpu_count() or 1


def keep_compiled() -> None:
    """Keep what is compiled for the next time, unless the user told JAX where to keep it already."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(platformdirs.user_cache_path("metaleader") / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _use_cores(cores: int) -> None:
    """Does nothing once JAX has started, or where a platform or a number of CPU devices was chosen already."""
    chosen = jax.config.values["jax_num_cpu_devices"] >= 0 or "xla_force_host_platform_device_count" in os.environ.get(
        "XLA_FLAGS", ""
    )
    if not chosen:
        try:
            jax.config.update("jax_num_cpu_devices", cores)
        except RuntimeError:  # JAX has started
            return


def join(coordinator: str, processes: int | None = None, process: int | None = None) -> None:
    """Join the processes that make one run together; must come before anything else is asked of JAX.

    Args:
        coordinator: HOST:PORT of process 0, or `auto`: on SLURM, Open MPI, Kubernetes or Cloud TPU, and where
            `JAX_COORDINATOR_ADDRESS` is set, JAX finds out by itself.
        processes: how many there are; with `auto`, JAX finds out.
        process: which one this is, from 0; with `auto`, JAX finds out.

    Raises:
        UserError: the three do not fit together, or JAX could not join.
    """
    if coordinator != "auto":
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(f"--coordinator must be HOST:PORT of process 0, or auto; got {coordinator!r}")
        if processes is None or process is None:
            raise UserError(f"--coordinator {coordinator} needs --processes N and --process-id I, from 0 to N - 1")
        if not 0 <= process < processes:
            raise UserError(
                f"--process-id must be from 0 to {processes - 1}, as --processes is {processes}; got {process}"
            )
    address = None if coordinator == "auto" else coordinator
    try:
        jax.distributed.initialize(address, processes, process)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"could not join the other processes at {coordinator}: {error}") from error


def joined() -> bool:
    """Whether this process is one of several."""
    return bool(jax.distributed.is_initialized()) and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is process 0, which alone reads and writes run folders, judges and reports."""
    return not joined() or jax.process_index() == 0


def on_first(function: Callable[[], T]) -> T:
    """What `function` gives on process 0, on every process; an error it raises is raised on every process.

    All processes must call this at the same place. The others neither call `function` nor need what it needs
    (a file system, say), and all go on from equal values, so that no process takes another branch than the rest
    and waits for them forever. With one process it is a plain call.
    """
    if not joined():
        return function()
    outcome: tuple[Any, Exception | None] = (None, None)
    if is_first():
        try:
            outcome = (function(), None)
        except (ValueError, OSError) as error:
            outcome = (None, error)
        except Exception as error:  # which may not be picklable
            outcome = (None, RuntimeError(str(error) or type(error).__name__))
    content = np.frombuffer(pickle.dumps(outcome), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    room = content if is_first() else np.zeros(size, np.uint8)
    value, raised = pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(room)).astype(np.uint8).tobytes())
    if raised is not None:
        raise raised
    return value


def on_all(function: Callable[[], T]) -> T:
    """What `function` gives here; where it fails on any process, all of them end with an error.

    Raises:
        UserError: it failed on another process only, which says why.
    """
    if not joined():
        return function()
    raised: Exception | None = None
    try:
        value = function()
    except Exception as error:
        raised = error
    if any_process(raised is not None):
        raise raised or UserError(f"process {jax.process_index()} stops since another one failed: see its message")
    return value


def any_process(flag: bool) -> bool:
    """Whether `flag` is set on any process; all processes must call this at the same place."""
    return flag if not joined() else bool(np.any(multihost_utils.process_allgather(np.bool_(flag))))


def mesh(tasks: int) -> Mesh:
    """The fewest devices on which a meta-batch takes the least time, equally many of every process, in a line.

    With `n` devices, each takes `ceil(tasks / n)` tasks, some of them perhaps without examples.
    """
    share = -(-tasks // jax.process_count())
    n = min(range(1, jax.local_device_count() + 1), key=lambda n: -(-share // n))
    of_processes = [[d for d in jax.devices() if d.process_index == p][:n] for p in range(jax.process_count())]
    return Mesh(np.array(of_processes).reshape(-1), (TASKS,))


def replicated(on: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(on, PartitionSpec())


def put(tree: Any, where: Sharding) -> Any:
    """`jax.device_put`, also onto devices of several processes, which must all give equal values."""
    if where.is_fully_addressable:
        return jax.device_put(tree, where)

    def place(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        value = np.asarray(leaf)
        return jax.make_array_from_callback(value.shape, where, lambda index: value[index])

    return jax.tree.map(place, tree)


def tasks_at_once() -> int:
    """How many tasks of a meta-batch one device takes together, unless told.

    One on a CPU, where the working set of a task fits the cache; as many as there are elsewhere.
    """
    return 1 if jax.default_backend() == "cpu" else 1 << 20
