"""Killed at random moments, every command goes on to the same records."""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from metaleader.processes import OWNER

KILLS = 25  # of each command
COMMANDS = {
    "run": "run sinusoid --preset smoke --stream.rounds 12 --learner ftml toe --checkpoint-seconds 0.1",
    "sweep": "sweep sinusoid --preset smoke --learner ftml toe --seeds 2 --set stream.rounds=12 --workers 2",
    "tune": "tune sinusoid --preset smoke --learner toe scratch --trials 3 --set stream.rounds=6 --workers 2",
    "reproduce": "reproduce --experiment sinusoid --preset smoke --seeds 2 --workers 2",
}


def arguments(command: str, out: Path) -> list[str]:
    # A folder in which nothing was begun is no folder to resume.
    begun = any(path.name != OWNER for path in out.iterdir()) if out.exists() else False
    return [sys.executable, "-m", "metaleader", *command.split(), "--out", str(out), *["--resume"] * begun]


def account(out: Path) -> dict[str, list[Any]]:
    """All records, timings aside, by their file."""
    return {
        str(path.relative_to(out)): [
            {key: value for key, value in json.loads(line).items() if not key.endswith("_seconds")}
            for line in path.read_text().splitlines()
        ]
        for path in out.rglob("records.jsonl")
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_moments_and_resumed_gives_the_same_records(name: str, tmp_path: Path) -> None:
    whole, out, moments = tmp_path / "whole", tmp_path / "out", random.Random(0)
    subprocess.run(arguments(COMMANDS[name], whole), check=True, capture_output=True)  # compiles
    shutil.rmtree(whole)
    began = time.monotonic()
    subprocess.run(arguments(COMMANDS[name], whole), check=True, capture_output=True)
    length, kills = time.monotonic() - began, 0
    assert len(account(whole)) >= 2
    while kills < KILLS:
        with subprocess.Popen(
            arguments(COMMANDS[name], out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            time.sleep(moments.uniform(0.1, 1.1) * length)
            if process.poll() is None:
                process.kill()
                kills += 1
            else:
                assert process.returncode == 0, process.stderr and process.stderr.read()
                assert account(out) == account(whole)
                shutil.rmtree(out)
    subprocess.run(arguments(COMMANDS[name], out), check=True, capture_output=True)
    assert account(out) == account(whole)
