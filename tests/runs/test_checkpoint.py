"""Checkpoints and records that were damaged, and what is written of a state that grows."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from test_run import plan, selection

from accounts import account
from metaleader import EXPERIMENTS, Sinusoid, UserError
from metaleader.files import whole_lines, write_whole
from metaleader.online import RunState
from metaleader.online.record import records_of
from metaleader.runs import checkpoint
from metaleader.runs.folder import RunFolder
from metaleader.runs.run import RunInterrupted, run


def states(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.state"))


def newest(folder: Path) -> Any:
    return next(checkpoint.newest_first(folder))


def test_a_state_of_many_kinds_comes_back(tmp_path: Path) -> None:
    large = np.random.default_rng(0).normal(size=(3, checkpoint.CHUNK // 8))
    learner: dict[str, Any] = {
        "large": large,
        "transposed": large.T,
        "half": jax.numpy.arange(5, dtype="bfloat16"),
        "key": jax.random.key(3, impl="rbg"),
        "plain": ["a", 2, None, np.float32(1.5)],
        "empty": np.zeros((0, 3), np.int8),
    }
    folder = tmp_path / "odd [name]\\" / "checkpoints"
    checkpoint.save(folder, RunState(learner, records=7))
    back = checkpoint.placed(newest(folder), learner)
    assert back.records == 7
    assert jax.random.key_impl(back.learner["key"]) == "rbg"
    assert np.array_equal(jax.random.key_data(back.learner["key"]), jax.random.key_data(learner["key"]))
    for name in ("large", "transposed", "half", "empty"):
        assert back.learner[name].dtype == learner[name].dtype
        assert np.array_equal(back.learner[name], learner[name])
    assert back.learner["plain"] == learner["plain"]
    back.learner["large"][0] = 0  # what comes back can be written


def test_of_a_buffer_that_grows_only_what_is_new_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = [0]

    def counting(path: Path, write: Callable[[Any], Any]) -> None:
        write_whole(path, write)
        written[-1] += path.stat().st_size

    monkeypatch.setattr(checkpoint, "write_whole", counting)
    chance, capacity, each = np.random.default_rng(0), 64, checkpoint.CHUNK // 16
    data = np.zeros((capacity, each), np.uint8)
    for row in range(128):
        if row == capacity:
            data, capacity = np.concatenate([data, np.zeros_like(data)]), 2 * capacity
        data[row] = chance.integers(0, 256, each)
        written.append(0)
        checkpoint.save(tmp_path, RunState({"data": data, "count": np.int64(row)}))
        assert len(states(tmp_path)) <= checkpoint.KEPT
    # The chunk that a row lies in, and a few bytes; in the first save and where the buffer doubles, zeros once more.
    assert max(written) < 3.1 * checkpoint.CHUNK
    assert sum(path.stat().st_size for path in (tmp_path / "chunks").iterdir()) < data.nbytes + 3 * checkpoint.CHUNK
    back = newest(tmp_path)
    assert np.array_equal(back.learner["data"], data)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "changed": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
}


def stopped(out: Path) -> Path:
    """The folder of a run that was stopped in its third round, with two checkpoints."""
    chunks = 0

    def interrupt(*_: Any) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(RunInterrupted):
        run(plan(out, checkpoint_seconds=0.0), progress=interrupt)
    return out / "ftml" / "seed-0"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("whole")
    run(plan(out))
    return account(out)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage: Callable[[Path], Any], tmp_path: Path, uninterrupted: dict[str, list[dict[str, Any]]]
) -> None:
    folder = stopped(tmp_path) / "checkpoints"
    assert len(states(folder)) == 2
    damage(states(folder)[-1])
    with pytest.warns(UserWarning, match=r"\.state is damaged \(\d+ bytes\); going on from what was saved before"):
        run(plan(tmp_path), resume=True)
    assert account(tmp_path) == uninterrupted


def test_a_damaged_chunk_is_met_likewise_and_written_again(tmp_path: Path) -> None:
    state = RunState({"data": np.arange(checkpoint.CHUNK, dtype=np.int64)})
    checkpoint.save(tmp_path, state)
    chunk = sorted((tmp_path / "chunks").iterdir())[3]
    os.truncate(chunk, 10)
    assert "is damaged (10 bytes)" in str(newest(tmp_path))
    checkpoint.save(tmp_path, state)
    assert np.array_equal(newest(tmp_path).learner["data"], state.learner["data"])


@pytest.mark.parametrize("kept", [0, 1, 3], ids=["all", "all but one", "the last"])
def test_lost_records_are_made_again(kept: int, tmp_path: Path, uninterrupted: dict[str, list[dict[str, Any]]]) -> None:
    lines = stopped(tmp_path) / "records.jsonl"
    whole = lines.read_bytes().splitlines(keepends=True)
    lines.write_bytes(b"".join(whole[:kept]) + b"\xff\xfe\n")
    assert RunFolder(lines.parent).rounds[0] == (json.loads(whole[kept - 1])["round"] if kept else 0)
    with pytest.warns(UserWarning, match=rf"records.jsonl: line {kept + 1} is missing or damaged; going on from"):
        run(plan(tmp_path), resume=True)
    assert account(tmp_path) == uninterrupted


def test_what_a_stop_leaves_before_a_run_began_is_no_run(
    tmp_path: Path, uninterrupted: dict[str, list[dict[str, Any]]]
) -> None:
    folder = tmp_path / "ftml" / "seed-0"
    folder.mkdir(parents=True)
    (folder / ".0123456789abcdef.tmp").write_text('{"experi')
    run(plan(tmp_path), resume=True)
    assert account(tmp_path) == uninterrupted


@pytest.mark.parametrize(("name", "content"), [("config.json", ""), ("config.json", '{"experi'), ("outcome.json", "")])
def test_a_torn_file_is_named(name: str, content: str, tmp_path: Path) -> None:
    folder = stopped(tmp_path)
    before = (folder / "records.jsonl").read_bytes()
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=rf"seed-0/{name} is damaged .*{len(content)} bytes.*: restore it, or delete"):
        run(plan(tmp_path), resume=True)
    assert (folder / "records.jsonl").read_bytes() == before


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_bytes(b'{"round": 1}\n')
    with pytest.raises(UserError, match=r"records.jsonl, line 1, is no record .*missing"):
        records_of(whole_lines(tmp_path / "records.jsonl"), tmp_path / "records.jsonl")


def test_a_run_folder_of_another_process_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped(tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr("metaleader.runs.folder.PATIENCE", 0.0)
    with RunFolder(folder).owned():
        with pytest.raises(UserError, match=f"seed-0 is in use by process {os.getpid()}"):
            run(plan(tmp_path), resume=True)
        assert {path: path.read_bytes() for path in before} == before


def test_checkpoints_take_a_twentieth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, saves = [0.0], list[float]()
    monkeypatch.setattr("metaleader.runs.run.time.monotonic", lambda: now[0])

    def slow(*_: Any) -> None:
        saves.append(now[0])
        now[0] += 2.0

    def chunk(*_: Any) -> None:
        now[0] += 10.0

    monkeypatch.setattr(RunFolder, "save", slow)
    smoke = EXPERIMENTS["sinusoid"].presets["smoke"]
    longer = dataclasses.replace(smoke, stream=Sinusoid(rounds=8, examples_per_task=10, test_examples=4))
    run(selection(tmp_path, preset=longer, learners=("toe",)).plan(checkpoint_seconds=0.0), progress=chunk)
    *gaps, _ = np.diff(saves)  # the last one, at the end, is always made
    assert gaps == [52.0, 52.0, 52.0]  # the 2 s of a checkpoint, and the first chunk behind 40 s
