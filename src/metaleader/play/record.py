"""Records of a run, and the folder that keeps them: plain files that outlive any stop."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaleader import devices
from metaleader.errors import UserError
from metaleader.files import write_text, write_whole


@dataclass(frozen=True)
class Record:
    """One evaluation: the learner adapted to D_t, judged on D_t_test.

    Attributes:
        round: t, from 1.
        task: the task's name.
        datapoints: |D_t|.
        loss: L(D_t_test, U(w_t)), None where it is not finite.
        score: the problem's score on D_t_test, None where the loss is not finite.
        diverged: whether the loss was not finite.
        gradient_evaluations: per-example gradients so far in the run, in learning and adapting; a
            Hessian-vector product counts as two.
        train_seconds: wall time so far in `observe`, compiling included.
        evaluation_seconds: wall time so far in `adapt` and judging.
        learning_evaluations: those of the gradients that `observe` took; 0 in records made before they were counted.
        also: the problem's other scores by name, None where one is not finite.
    """

    round: int
    task: str
    datapoints: int
    loss: float | None
    score: float | None
    diverged: bool
    gradient_evaluations: int
    train_seconds: float
    evaluation_seconds: float
    learning_evaluations: int = 0
    also: Mapping[str, float | None] = field(default_factory=dict)


def write_json(path: Path, value: Any) -> None:
    """Write `value` so that the file is there whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def check_unchanged(path: Path, now: Mapping[str, Any], names: Sequence[str]) -> None:
    """Make sure that going on in the folder of the JSON file `path` means what it meant when that was written.

    Raises:
        UserError: naming the first setting, among `names` and what they hold, that differs.
    """
    before = json.loads(path.read_text())
    for name in names:
        for setting, old, new in _differences(before.get(name), json.loads(json.dumps(now[name])), name):
            raise UserError(
                f"{path.parent} was made with {setting} = {old!r}, now it is {new!r}: "
                "resume with the settings it began with, or choose another folder with --out"
            )


class RunFolder:
    """The folder of one run: one learner, one seed.

    - `config.json`: everything that determines the records, and how and where they were made;
    - `records.jsonl`: one `Record` a line;
    - `checkpoints/`: the newest state from which the run can go on;
    - `outcome.json`: how the run ended, once it did;
    - `illustration.npz`: arrays of a picture of what was learned, for experiments that have one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def outcome(self) -> str | None:
        """`finished`, `diverged` or `failed: ...`, and None while the run can go on."""
        path = self.path / "outcome.json"
        return str(json.loads(path.read_text())["outcome"]) if path.exists() else None

    @property
    def rounds(self) -> tuple[int, int]:
        """The round of the last record, and how many are planned; both 0 before the run began."""
        config, lines = self.path / "config.json", self.path / "records.jsonl"
        planned = int(json.loads(config.read_text())["rounds"]) if config.exists() else 0
        text = lines.read_text() if lines.exists() else ""
        complete = text[: text.rfind("\n") + 1].splitlines()  # the last line may still be being written
        return int(json.loads(complete[-1])["round"]) if complete else 0, planned

    def create(self, config: dict[str, Any]) -> None:
        """Make the folder of a new run; refuses one that exists."""
        self.refuse_existing()
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "config.json", config)

    def refuse_existing(self) -> None:
        """Make sure that there is nothing to overwrite.

        Raises:
            UserError: the folder exists and is not empty.
        """
        if self.path.exists() and any(self.path.iterdir()):
            raise UserError(
                f"{self.path} exists already: go on with it by --resume, or choose another folder with --out"
            )

    def check_settings(self, config: dict[str, Any]) -> None:
        """Make sure that going on with this run means what it meant when it began.

        Raises:
            UserError: naming the first setting that differs.
        """
        check_unchanged(
            self.path / "config.json", config, ("experiment", "preset", "learner", "seed", "settings", "data")
        )

    def append(self, record: Record) -> None:
        """Add a line to `records.jsonl`, and hand it to the operating system at once."""
        with (self.path / "records.jsonl").open("a") as file:
            file.write(json.dumps(dataclasses.asdict(record), allow_nan=False) + "\n")

    def end(self, outcome: str) -> None:
        """Note how the run ended."""
        write_json(self.path / "outcome.json", {"outcome": outcome})

    def illustrate(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the arrays of an illustration, if there are any."""
        if arrays:
            write_whole(self.path / "illustration.npz", lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    def save(self, position: Any) -> None:
        """Checkpoint a `Position`, with all records made so far; replaces the checkpoint before.

        The old checkpoint goes only when the new one is complete.
        """
        # One copy of what several devices hold alike.
        local = [
            leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf for leaf in jax.tree.leaves(position)
        ]
        local = [np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf) for leaf in local]
        with self._checkpoints() as manager:
            manager.save(
                (manager.latest_step() or 0) + 1,
                args=orbax().args.PyTreeSave({f"{i:05d}": leaf for i, leaf in enumerate(local)}),
            )

    def restore(self, like: Any) -> Any | None:
        """The `Position` last saved, with the structure and the devices of `like`; None if none was saved.

        Records written after it are dropped: the run will write them again. With several processes, process 0
        reads and the others receive.
        """
        saved = devices.on_first(self._saved)
        position = None
        if saved is not None:
            leaves = [_placed_like(leaf, saved[f"{i:05d}"]) for i, leaf in enumerate(jax.tree.leaves(like))]
            position = jax.tree.unflatten(jax.tree.structure(like), leaves)
        devices.on_first(lambda: self._truncate(0 if position is None else int(position.records)))
        return position

    def _saved(self) -> dict[str, np.ndarray] | None:
        with self._checkpoints() as manager:
            step = manager.latest_step()
            if step is None:
                return None
            stored = dict(manager.item_metadata(step))
            as_numpy = jax.tree.map(lambda _: orbax().RestoreArgs(restore_type=np.ndarray), stored)
            return dict(manager.restore(step, args=orbax().args.PyTreeRestore(stored, restore_args=as_numpy)))

    def _truncate(self, records: int) -> None:
        path = self.path / "records.jsonl"
        lines = path.read_text().splitlines(keepends=True)[:records] if path.exists() else []
        write_text(path, "".join(lines))

    def _checkpoints(self) -> Any:
        path = (self.path / "checkpoints").absolute()
        path.mkdir(parents=True, exist_ok=True)
        alone = orbax().options.MultiprocessingOptions(active_processes={0})  # the others do not come here
        options = orbax().CheckpointManagerOptions(
            max_to_keep=1,
            enable_async_checkpointing=False,
            create=False,
            multiprocessing_options=alone if devices.joined() else orbax().options.MultiprocessingOptions(),
        )
        handler = orbax().PyTreeCheckpointHandler(
            multiprocessing_options=alone if devices.joined() else orbax().options.MultiprocessingOptions()
        )
        return orbax().CheckpointManager(path, options=options, item_handlers=handler)


def orbax() -> Any:
    """Orbax, imported when a checkpoint is due: it takes a while, and `play` does not need it."""
    import orbax.checkpoint

    return orbax.checkpoint


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _placed_like(leaf: Any, saved: np.ndarray) -> Any:
    if _is_key(leaf):
        return devices.put(jax.random.wrap_key_data(jnp.asarray(saved)), leaf.sharding)
    if isinstance(leaf, jax.Array):
        return devices.put(saved, leaf.sharding)
    return np.asarray(saved)


def _differences(old: Any, new: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}")
    elif old != new:
        yield name, old, new
