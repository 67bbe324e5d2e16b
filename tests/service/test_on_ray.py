"""`metaleader serve --ray`: the same service by Ray Serve, as real processes."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from serving import TOKEN, body, message, new, points

import metaleader as ml
from command import call
from metaleader.live import Live, Pace, check
from metaleader.live.place import place_of

RAY = importlib.util.find_spec("ray") is not None
X = points(50, 5)[0]


def test_what_cannot_be_served_on_ray_is_said_in_a_line(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, tokens = str(tmp_path / "shops"), tmp_path / "tokens"
    new(tmp_path / "shops").close()
    tokens.write_text(TOKEN)
    for arguments, why in (
        ((folder, "--ray", "--follow"), "leave out --follow and --wait"),
        ((folder, "--ray-address", "auto", "--wait", "1"), "leave out --follow and --wait"),
        ((folder, "--replicas", "2"), "--replicas must be at least 1, and is for --ray, got 2"),
        ((folder, "--ray", "--replicas", "0"), "--replicas must be at least 1"),
        ((folder, "--ray-address", "auto", "--token-file", str(tokens)), "on a Ray cluster, serve a PostgreSQL"),
        ((url, "--ray-address", "auto"), "a Ray cluster can be reached by others, so it needs tokens"),
        ((folder, "--ray", "--host", "0.0.0.0"), "can be reached by others, so it needs tokens"),
        ((url, "--ray"), "holds no learner"),
        ((str(tmp_path / "none"), "--ray"), "holds no learner"),
    ):
        assert call("serve", *arguments) == 2, arguments
        said = capsys.readouterr().err
        assert why in said
        assert said.count("\n") == 1
    if not RAY:
        assert call("serve", folder, "--ray", "--port", "0") == 2
        assert "Ray Serve is not installed: pip install 'metaleader[ray]'" in capsys.readouterr().err


@contextmanager
def on_ray(log: Path, *options: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """The process, and its address. What it says goes to a file: processes that Ray starts may keep a pipe open."""
    command = [sys.executable, "-m", "metaleader", "serve", "--ray", "--port", "0", *options]
    with log.open("wb") as file, subprocess.Popen(command, stderr=file) as process:
        try:
            late = time.monotonic() + 120
            while not (urls := [told["url"] for told in lines(log) if "url" in told]):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < late, log.read_text()
                time.sleep(0.1)
            yield process, urls[0]
        finally:
            process.kill()


def lines(log: Path) -> list[dict[str, Any]]:
    """What the process itself said."""
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if re.fullmatch(r"{.*}\n", line)]


def until_two_answer(url: str) -> None:
    """Ask until both replicas have."""
    began, late = set[float](), time.monotonic() + 60
    while len(began) < 2:
        assert time.monotonic() < late
        began.add(httpx2.get(f"{url}/v1/status", headers={"Authorization": f"Bearer {TOKEN}"}).json()["began"])


@pytest.mark.slow
@pytest.mark.skipif(not RAY, reason="Ray Serve is not installed: pip install 'metaleader[ray]'")
@pytest.mark.parametrize("fixture", ["url", "tmp_path"])
def test_replicas_predict_alike_and_another_learner_goes_on(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    where, tokens = str(request.getfixturevalue(fixture)), tmp_path / "tokens.txt"
    where = where if fixture == "url" else f"{where}/live"
    new(where).close()
    tokens.write_text(TOKEN)
    options = ("--replicas", "2", "--token-file", str(tokens), "--refresh", "0.1")
    log = tmp_path / "log"
    with on_ray(log, where, *options, "--max-body", "5000") as (process, url), ml.Client(url, TOKEN) as client:
        until_two_answer(url)
        assert httpx2.get(f"{url}/readyz").status_code == 200
        assert httpx2.post(f"{url}/v1/predict", json={}).status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        large = httpx2.post(f"{url}/v1/learn", json=body("a", 1, 400), headers=headers)
        assert (large.status_code, message(large)) == (413, "the body is larger than 5000 bytes: send less")
        assert httpx2.post(f"{url}/v1/learn", json={"task": "a"}, headers=headers).status_code == 422
        for i in range(6):
            assert client.learn(f"t{i % 2}", *points(i, 3)).new == 3
        client.save()
        with Live.follow(where, pace=Pace(refresh=0.05)) as live:
            live.wait(60)
            expected = live.predict("t1", X)
            time.sleep(1.0)  # both replicas follow by then
            for _ in range(10):
                assert np.array_equal(client.predict("t1", X), expected)
            learning = place_of(where).learned_by(live._store)
            found = re.match(r"process (\d+) on", learning or "")
            assert found is not None, learning
            os.kill(int(found[1]), signal.SIGKILL)
            for i in range(6, 9):  # while nobody learns
                assert client.learn(f"t{i % 2}", *points(i, 3)).new == 3
            live.wait(90)
            client.wait(60)
            assert place_of(where).learned_by(live._store) != learning
            client.save()
            client.rebuild()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    assert lines(log)[-1]["event"] == "stopped"
    assert TOKEN not in log.read_text()
    assert check(where).faults == ()
    with Live.open(where) as live:  # which the replica that learned has left
        assert live.tasks() == {"t0": 15, "t1": 12}
        assert live.backlog == 0
