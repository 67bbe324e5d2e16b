"""Killed at random moments under load, a learner that lives has lost and doubled nothing, and learned the same."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from child import steps
from living import EAGER, LEARNER, PROBLEM, as_bytes, example, groups, leaves, log, plainly

from metaleader.live import Live, check
from metaleader.live.sqlite import is_log

CHILD = [sys.executable, str(Path(__file__).with_name("child.py"))]


def started(folder: Path, acknowledged: Path, arguments: list[str]) -> "subprocess.Popen[str]":
    """The process at work in a folder: see `child`."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [*CHILD, str(folder), str(acknowledged), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def killed(folder: Path, acknowledged: Path, arguments: list[str], chance: random.Random, most: float) -> bool:
    """Whether the process was killed before it ended by itself; mostly up to `most` seconds after it began to work."""
    with started(folder, acknowledged, arguments) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if chance.random() < 0.8:
            line = process.stdout.readline()
            assert line == "opened\n", process.stderr.read()
            time.sleep(chance.uniform(0, most))
        else:  # while it opens the folder and reads snapshots, or before
            time.sleep(chance.uniform(1.0, 4.0))
        over = process.poll()
        process.send_signal(signal.SIGKILL)
        assert over in (None, 0), process.stderr.read()
    return over is None


@pytest.mark.parametrize("kills", [1, pytest.param(300, marks=pytest.mark.slow)])
def test_killed_under_load_nothing_is_lost_or_doubled_and_the_weights_are_the_same(kills: int, tmp_path: Path) -> None:
    folder, acknowledged, chance = tmp_path / "live", tmp_path / "acknowledged", random.Random(kills)
    before: list[tuple[int, int, str, str, bytes]] = []
    number = -1
    while (number := number + 1) < kills or not before:
        killed(folder, acknowledged, [str(number)], chance, 1.5)
        if not (folder / "log.sqlite").exists() or not is_log(folder / "log.sqlite"):  # killed while it was made
            continue
        rows = log(folder)
        assert rows[: len(before)] == before  # what is there stays
        before = rows
        names = Counter(row[3] for row in rows)
        lines = acknowledged.read_text().splitlines() if acknowledged.exists() else []
        assert set(lines) <= names.keys(), "lost"
        assert set(names.values()) <= {1}, "doubled"
        print(f"kill {number + 1}: {len(lines)} acknowledged, {len(rows)} stored", flush=True)
    assert check(folder).faults == ()
    with Live.open(folder, pace=EAGER) as live:
        live.wait()
        state, errors = plainly(groups(log(folder)))
        assert leaves(live) == as_bytes(state)
        assert live.score().overall.values["loss"] == pytest.approx(np.mean(errors))
    assert [row[0] for row in log(folder)] == list(range(1, len(before) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("kills", [60])
def test_killed_while_it_forgets_it_ends_as_if_never_killed(kills: int, tmp_path: Path) -> None:
    folder, acknowledged, chance = tmp_path / "live", tmp_path / "acknowledged", random.Random(kills)
    done = 0
    while done < kills and killed(folder, acknowledged, ["forget", "3000"], chance, 4.0):
        done += 1
    reached = acknowledged.stat().st_size if acknowledged.exists() else 0
    with Live.create(tmp_path / "whole", PROBLEM, LEARNER, example=example(), pace=EAGER) as whole:
        for number in range(max(reached + 1, 20)):  # the next one may be done, but not written down
            steps(whole, number)
        whole.wait()
        with Live.open(folder, pace=EAGER) if (folder / "log.sqlite").exists() else whole as live:
            for number in range(reached, max(reached + 1, 20)):
                steps(live, number)
            live.wait()
            assert leaves(live) == leaves(whole)
            assert live.tasks() == whole.tasks()
            assert live.score() == whole.score()
            print(f"{done} kills, {reached} steps")
    assert check(folder).faults == ()
