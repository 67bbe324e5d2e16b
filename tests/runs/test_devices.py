"""A meta-batch shared by devices and by processes gives what one device gives."""

import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import one_of_several
from metaleader import UserError, devices
from metaleader.runs.run import run

PROGRAM = Path(one_of_several.__file__)


def begin(*arguments: str, cpu_devices: int = 1) -> "subprocess.Popen[str]":
    """A process of its own, with so many CPU devices."""
    source = str(Path(devices.__file__).parents[1])
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={cpu_devices}"  # the last one counts
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": source}
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "seed-0" / "records.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def one_device() -> np.ndarray:
    patch = pytest.MonkeyPatch()
    alone = devices.mesh(1)
    patch.setattr(devices, "mesh", lambda tasks: alone)
    gradient = one_of_several.gradient()
    patch.undo()
    return gradient


def assert_same(gradient: np.ndarray, expected: np.ndarray) -> None:
    assert np.linalg.norm(expected) > 0.1
    assert np.linalg.norm(gradient - expected) < 1e-5 * np.linalg.norm(expected)


def test_four_devices_give_the_meta_gradient_of_one(tmp_path: Path, one_device: np.ndarray) -> None:
    process = begin(str(PROGRAM), str(tmp_path), cpu_devices=4)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert_same(np.load(tmp_path / "gradient-0.npy"), one_device)


def test_two_processes_give_the_meta_gradient_and_the_records_of_one(tmp_path: Path, one_device: np.ndarray) -> None:
    """Over loopback; the run is stopped by the process that does not write, and resumed on two processes and on one."""
    coordinator = f"127.0.0.1:{free_port()}"
    processes = [begin(str(PROGRAM), str(tmp_path), coordinator, "2", str(i)) for i in range(2)]
    said = [process.communicate()[0] for process in processes]
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text
        assert "stopped and finished" in text
    for i in range(2):
        assert_same(np.load(tmp_path / f"gradient-{i}.npy"), one_device)
    assert len(records(tmp_path / "stopped" / "ftml")) < 6
    with pytest.warns(UserWarning, match="goes on with machine.processes = 1, before 2: its records may differ"):
        run(one_of_several.plan(tmp_path / "stopped"), resume=True)
    run(one_of_several.plan(tmp_path / "alone"))
    for learner, made in itertools.product(("ftml", "toe"), ("shared", "stopped")):
        several, alone = records(tmp_path / made / learner), records(tmp_path / "alone" / learner)
        assert len(several) == len(alone) == 6
        for ours, expected in zip(several, alone, strict=True):
            assert ours["loss"] == pytest.approx(expected["loss"], rel=1e-3)
            assert all(ours[name] == expected[name] for name in ("round", "datapoints", "gradient_evaluations"))
    config = json.loads((tmp_path / "shared" / "ftml" / "seed-0" / "config.json").read_text())
    assert config["machine"]["processes"] == len(config["machine"]["devices"]) == 2


@pytest.mark.slow
def test_the_command_on_two_processes_reports_once_and_ends_when_one_is_killed(tmp_path: Path) -> None:
    def command(out: str, rounds: int) -> list["subprocess.Popen[str]"]:
        settings = ["run", "sinusoid", "--preset", "smoke", "--learner", "ftml", "--stream.rounds", str(rounds)]
        shared = ["--out", str(tmp_path / out), "--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2"]
        return [begin("-m", "metaleader", *settings, *shared, "--process-id", str(i)) for i in range(2)]

    whole = command("whole", 4)
    said = [process.communicate()[0] for process in whole]
    assert [process.returncode for process in whole] == [0, 0], said
    assert "report.html" in said[0]
    assert "report.html" not in said[1]
    assert (tmp_path / "whole" / "report.html").exists()

    first, second = command("killed", 5000)
    while not (tmp_path / "killed" / "ftml" / "seed-0" / "records.jsonl").exists():
        assert first.poll() is None
    second.kill()
    second.communicate()
    said = [first.communicate(timeout=200)[0]]
    assert first.returncode != 0, said
    assert json.loads((tmp_path / "killed" / "ftml" / "seed-0" / "config.json").read_text())["rounds"] == 5000


@pytest.mark.parametrize(
    ("coordinator", "processes", "process", "message"),
    [
        ("nowhere", 2, 0, "must be HOST:PORT of process 0, or auto; got 'nowhere'"),
        ("host:port", 2, 0, "must be HOST:PORT"),
        ("host:1234", None, 0, "needs --processes N and --process-id I"),
        ("host:1234", 2, 2, "must be from 0 to 1, as --processes is 2; got 2"),
    ],
)
def test_processes_that_do_not_fit_together_are_refused(
    coordinator: str, processes: int | None, process: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        devices.join(coordinator, processes, process)


def test_one_process_is_everyone() -> None:
    assert devices.is_first()
    assert not devices.joined()
    assert devices.on_first(lambda: 3) == devices.on_all(lambda: 3) == 3
    assert devices.any_process(True)
    assert not devices.any_process(False)
