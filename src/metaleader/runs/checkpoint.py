"""Checkpoints: a run state as files, whatever the learner's state is made of."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaleader import devices
from metaleader.online import RunState


def save(folder: Path, state: RunState) -> None:
    """Write a checkpoint into `folder`; the one before goes only when it is complete.

    Arrays of the learner's state are stored as such; its structure, and leaves of other kinds, are pickled. The
    datapoints of tasks that may come back are not stored: the stream has them.
    """
    plain = dataclasses.replace(state, earlier={})
    leaves, structure = jax.tree.flatten(plain.learner)
    arrays, others = {}, {}
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, (np.ndarray, np.generic, jax.Array)) and leaf.dtype != object:
            # One copy of what several devices hold alike.
            local = leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
            arrays[f"{i:05d}"] = _plain(local)
        else:
            others[i] = leaf
    keys = [i for i, leaf in enumerate(leaves) if _is_key(leaf)]
    skeleton = jax.tree.unflatten(structure, range(len(leaves)))
    rest = pickle.dumps((dataclasses.replace(plain, learner=skeleton), others, keys))
    arrays["rest"] = np.frombuffer(rest, np.uint8)
    with _manager(folder) as manager:
        manager.save((manager.latest_step() or 0) + 1, args=orbax().args.PyTreeSave(arrays))


def placed(stored: dict[str, np.ndarray], like: Any) -> RunState:
    """The run state of a checkpoint, without the datapoints of tasks that may come back.

    Args:
        stored: see `read`.
        like: a learner's state whose arrays lie on the devices where those of the run should, where its structure is
            the same.
    """
    stored = dict(stored)
    state, others, keys = pickle.loads(stored.pop("rest").tobytes())
    places, structure = jax.tree.flatten(state.learner)
    same = str(jax.tree.structure(like)) == str(structure)
    shown = jax.tree.leaves(like) if same else [None] * len(places)
    leaves = []
    for place, as_before in zip(places, shown, strict=True):
        if place in others:
            leaves.append(others[place])
        else:
            leaves.append(_placed(stored[f"{place:05d}"], place in keys, as_before))
    return dataclasses.replace(state, learner=jax.tree.unflatten(structure, leaves))


def _placed(value: np.ndarray, is_key: bool, like: Any) -> Any:
    found: Any = jax.random.wrap_key_data(jnp.asarray(value)) if is_key else value
    if isinstance(like, jax.Array):
        return devices.put(found, like.sharding)
    return found


def read(folder: Path) -> dict[str, np.ndarray] | None:
    """What was saved last; None if nothing was."""
    with _manager(folder) as manager:
        step = manager.latest_step()
        if step is None:
            return None
        stored = dict(manager.item_metadata(step))
        as_numpy = jax.tree.map(lambda _: orbax().RestoreArgs(restore_type=np.ndarray), stored)
        return dict(manager.restore(step, args=orbax().args.PyTreeRestore(stored, restore_args=as_numpy)))


def _manager(folder: Path) -> Any:
    path = folder.absolute()
    path.mkdir(parents=True, exist_ok=True)
    # With several processes, the others do not come here.
    alone = {"active_processes": {0}} if devices.joined() else {}
    multiprocessing = orbax().options.MultiprocessingOptions(**alone)
    options = orbax().CheckpointManagerOptions(
        max_to_keep=1, enable_async_checkpointing=False, create=False, multiprocessing_options=multiprocessing
    )
    handler = orbax().PyTreeCheckpointHandler(multiprocessing_options=multiprocessing)
    return orbax().CheckpointManager(path, options=options, item_handlers=handler)


def orbax() -> Any:
    """Orbax, imported when a checkpoint is due: it takes a while, and `play` does not need it."""
    import orbax.checkpoint

    return orbax.checkpoint


def _plain(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
