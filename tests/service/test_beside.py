"""Services on one PostgreSQL database: one learns, two follow it, and one stands by, which answers as well."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from serving import new, points

import metaleader as ml
from metaleader.live import check

X = points(50, 5)[0]


class Process:
    """`metaleader serve`, which logs to a file."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process, self.log = process, log

    def said(self) -> list[dict[str, Any]]:
        assert "Traceback" not in self.log.read_text()
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    @property
    def url(self) -> str | None:
        """Once it serves."""
        return next((line["url"] for line in self.said() if "url" in line), None)


@contextmanager
def serving(log: Path, *options: str) -> Iterator[Process]:
    command = [sys.executable, "-m", "metaleader", "serve", "--port", "0", "--refresh", "0.1"]
    with log.open("wb") as file, subprocess.Popen([*command, *options], stderr=file) as process:
        try:
            yield Process(process, log)
        finally:
            process.kill()


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    late = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < late
        time.sleep(0.05)
    return value


@pytest.mark.slow
def test_any_learns_all_predict_alike_and_another_takes_over(url: str, tmp_path: Path) -> None:
    url = url.replace("live@", "live:a-secret@")  # the server trusts all, but no log may hold it
    new(url).close()
    with ExitStack() as stack:
        first, *following = [
            stack.enter_context(serving(tmp_path / name, url, *options))
            for name, options in (("first", ()), ("second", ("--follow",)), ("third", ("--follow",)))
        ]
        at = [until(partial(getattr, each, "url")) for each in (first, *following)]
        second = stack.enter_context(serving(tmp_path / "standby", url, "--wait", "inf"))
        clients = [stack.enter_context(ml.Client(each)) for each in at]
        for i, client in enumerate(clients * 2):
            assert client.learn(f"t{i % 2}", *points(i, 3), ids=[f"{i}-{j}" for j in range(3)]).new == 3
        assert all_alike(clients) == {"t0": 9, "t1": 9}
        assert [httpx2.get(f"{each}/readyz").status_code for each in at] == [200] * 3
        assert httpx2.post(f"{at[1]}/v1/save").status_code == 409
        until(lambda: any(line["event"].startswith("standing by while postgresql") for line in second.said()))
        standing_by = stack.enter_context(ml.Client(until(lambda: second.url)))
        assert all_alike([clients[0], standing_by]) == {"t0": 9, "t1": 9}  # it answers meanwhile

        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        for i, client in enumerate(clients[1:] * 2, 6):  # while nobody learns
            assert client.learn(f"t{i % 2}", *points(i, 3), ids=[f"{i}-{j}" for j in range(3)]).new == 3
        assert [httpx2.get(f"{each}/readyz").status_code for each in at[1:]] == [200] * 2
        clients[0] = standing_by
        assert clients[0].learn("t0", *points(0, 3), ids=[f"0-{j}" for j in range(3)]).new == 0  # it was acknowledged
        assert all_alike(clients) == {"t0": 15, "t1": 15}
        assert httpx2.get(f"{clients[0].url}/readyz").status_code == 200
        for each in (second, *following):
            each.process.send_signal(signal.SIGTERM)
        for each in (second, *following):
            assert each.process.wait(30) == 0
            assert [line["event"] for line in each.said()][-1] == "closed"
    assert check(url).faults == ()
    assert check(url).datapoints == 30
    assert not any("a-secret" in log.read_text() for log in tmp_path.iterdir())


def all_alike(clients: list[ml.Client]) -> Any:
    """The tasks, once all have followed."""
    for client in clients:
        client.wait()
    for task in ("t0", "t1", "new"):
        expected = clients[0].predict(task, X)
        assert all(np.array_equal(client.predict(task, X), expected) for client in clients[1:])
    tasks = clients[0].tasks()
    assert all(client.tasks() == tasks for client in clients[1:])
    return tasks
