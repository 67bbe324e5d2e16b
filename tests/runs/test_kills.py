"""Killed at random moments, every command goes on to the same records, and a rendering to the same images."""

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from accounts import account
from metaleader.processes import OWNER

KILLS = 20  # of each command
COMMANDS = {
    "run": "run sinusoid --preset smoke --stream.rounds 12 --learner ftml toe --checkpoint-seconds 0.1 --out",
    "sweep": "sweep sinusoid --preset smoke --learner ftml toe --seeds 2 --set stream.rounds=12 --workers 2 --out",
    "tune": "tune sinusoid --preset smoke --learner toe scratch --trials 3 --set stream.rounds=6 --workers 2 --out",
    "reproduce": "reproduce --experiment sinusoid --preset smoke --seeds 2 --workers 2 --out",
    "render": "data render pose-primitives --pixels 32 --tasks 6 --images 60 --held-out 20 --workers 2 --data-dir",
}


def arguments(command: str, out: Path) -> list[str]:
    if command.startswith("data"):  # goes on without being asked to
        out.mkdir(exist_ok=True)
        return [sys.executable, "-m", "metaleader", *command.split(), str(out)]
    # A folder in which nothing was begun is no folder to resume.
    begun = any(path.name != OWNER for path in out.iterdir()) if out.exists() else False
    return [sys.executable, "-m", "metaleader", *command.split(), str(out), *["--resume"] * begun]


def results(out: Path) -> dict[str, Any]:
    """All records, timings aside, and all that was rendered, by their file."""
    rendered = {path.name: path.read_bytes() for path in out.glob("pose/*/*") if path.name[0] != "."}
    return {**account(out), **rendered}


def found(out: Path, pattern: str) -> set[Path]:
    """The files below a folder in which a command is at work."""
    try:
        return set(out.rglob(pattern))
    except FileNotFoundError:  # a folder was removed while it was looked through
        return found(out, pattern)


def reached(out: Path) -> int:
    """How many records and rendered tasks are there."""
    lines = sum(path.read_bytes().count(b"\n") for path in found(out, "records.jsonl"))
    return lines + len(found(out, "task-*.npz"))


def until(condition: Callable[[], bool], process: "subprocess.Popen[Any]") -> None:
    """Wait until the condition holds or the process has ended."""
    while process.poll() is None and not condition():
        time.sleep(0.005)


def pause(seconds: float, process: "subprocess.Popen[Any]") -> None:
    """Wait so long, or until the process has ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_moments_and_resumed_gives_the_same_records(name: str, tmp_path: Path) -> None:
    whole, out, chance, kills = tmp_path / "whole", tmp_path / "out", random.Random(0), 0
    began, planned, moments = time.monotonic(), 0, list[float]()  # at which something was reached
    with subprocess.Popen(arguments(COMMANDS[name], whole), stdout=subprocess.DEVNULL, text=True) as process:
        while process.poll() is None:
            if (now := reached(whole)) > planned:
                planned = now
                moments.append(time.monotonic())
            time.sleep(0.01)
    ended = time.monotonic()
    length, reporting = ended - began, ended - moments[-1]
    again = reporting + moments[0] - began  # what it takes where there is nothing but a report to make
    assert process.returncode == 0
    assert len(results(whole)) >= 2
    print(f"{name}: {planned} records or tasks in {length:.1f} s, the last {reporting:.1f} s of it to report")
    while kills < KILLS:
        before, torn, began = reached(out), found(out, ".*.tmp"), time.monotonic()
        with subprocess.Popen(
            arguments(COMMANDS[name], out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            match kills % 4:
                case 0:  # between a record and its checkpoint; if all are there, none comes
                    wanted = chance.randint(before + 1, planned) if before < planned else planned + 1
                    until(lambda wanted=wanted: reached(out) >= wanted, process)  # type: ignore[misc]
                case 1:  # while a file is written
                    pause(chance.uniform(0.1, 0.9) * (again if before == planned else length), process)
                    until(lambda torn=torn: bool(found(out, ".*.tmp") - torn), process)  # type: ignore[misc]
                case 2:  # while a report is written
                    until(lambda: reached(out) == planned, process)
                    pause(chance.uniform(0, again if before == planned else reporting), process)
                case _:
                    pause(chance.uniform(0.1, 1.1) * length, process)
            if process.poll() is None:
                process.kill()
                kills += 1
                print(f"kill {kills}: {before} before, {reached(out)} of {planned} after", flush=True)
            else:
                assert process.returncode == 0, process.stderr and process.stderr.read()
                assert results(out) == results(whole)
                shutil.rmtree(out)
                if before == 0:  # on a machine that is less busy by now, say
                    length = time.monotonic() - began
    subprocess.run(arguments(COMMANDS[name], out), check=True, capture_output=True)
    assert results(out) == results(whole)
