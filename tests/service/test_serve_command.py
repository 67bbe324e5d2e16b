"""`metaleader serve DIR`, as a process."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import TOKEN, new, points

import metaleader as ml
from command import call
from metaleader.live import Live


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and its address."""
    command = [sys.executable, "-m", "metaleader", "serve", str(folder), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield process, str(json.loads(process.stderr.readline())["url"])
        finally:
            process.kill()


def test_it_learns_stops_when_told_and_predicts_the_same_when_started_again(tmp_path: Path) -> None:
    folder, token_file = tmp_path / "shops", tmp_path / "tokens"
    token_file.write_text(f"# of the tills\n{TOKEN}\n")
    new(folder).close()
    x, y = points(1, 3)
    with serving(folder, "--token-file", str(token_file), "--refresh", "0") as (process, url):
        with ml.Client(url) as stranger, pytest.raises(ml.UserError, match="a token is needed"):
            stranger.tasks()
        with ml.Client(url, TOKEN) as client:
            assert client.learn("north", x, y).new == 3
            client.wait()
            before = client.predict("north", x)
        assert call("serve", str(folder), "--port", "0") == 2
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        lines = [json.loads(line) for line in process.stderr.read().splitlines()]
        assert process.wait(20) == 0
        assert [line["status"] for line in lines if line.get("path") == "/v1/learn"] == [200]
        assert [line["event"] for line in lines][-2:] == ["stopped", "closed"]
    with serving(folder) as (process, url), ml.Client(url) as client:
        assert client.tasks() == {"north": 3}
        assert np.array_equal(client.predict("north", x), before)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    with Live.open(folder) as live:
        assert np.array_equal(live.predict("north", x), before)


def test_what_cannot_be_served_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tokens = tmp_path / "shops", tmp_path / "tokens"
    new(folder).close()
    tokens.write_text("short\n")
    with socket.create_server(("127.0.0.1", 0)) as other, new(tmp_path / "used"):
        port = str(other.getsockname()[1])
        for arguments, why in (
            ([str(tmp_path / "none"), "--port", "0"], "holds no learner"),
            ([str(tmp_path / "used"), "--port", "0"], "is in use by process"),
            ([str(folder), "--port", port], f"cannot listen at port {port} of 127.0.0.1: Address already in use"),
            ([str(folder), "--port", "70000"], "--port must be from 0 to 65535"),
            ([str(folder), "--host", "0.0.0.0"], "can be reached by others, so it needs tokens"),
            ([str(folder), "--host", "no.such.host.invalid", "--token-file", str(tokens)], "at least 16 characters"),
            ([str(folder), "--token-file", str(tmp_path / "no")], "cannot read the tokens"),
            ([str(folder), "--max-rows", "0"], "rows must be positive"),
            ([str(folder), "--share", "2"], "share must be above 0"),
            ([], "required"),
        ):
            assert call("serve", *arguments) == 2, arguments
            said = capsys.readouterr().err
            assert why in said
            assert said.count("\n") == 1
        for name in [name for name in sys.modules if name.startswith("metaleader.service")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "fastapi", None)
        assert call("serve", str(folder), "--port", "0") == 2
        assert "metaleader serve needs fastapi, which is not installed: pip install" in capsys.readouterr().err


def test_requests_that_have_begun_are_finished(tmp_path: Path) -> None:
    folder = tmp_path / "shops"
    new(folder).close()
    body = json.dumps({"task": "a", "x": points(1)[0].tolist(), "y": points(1)[1].tolist()}).encode()
    with serving(folder) as (process, url):
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), 20) as connection:
            connection.sendall(
                b"POST /v1/learn HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body[:10]
            )
            with ml.Client(url) as client:
                assert client.status()["datapoints"] == 0
            os.kill(process.pid, signal.SIGTERM)
            assert process.stderr is not None
            _until(process, "stopping")
            connection.sendall(body[10:])
            answer = connection.recv(10_000).decode()
        assert answer.startswith("HTTP/1.1 200 OK")
        assert process.wait(20) == 0
    with Live.open(folder) as live:
        assert live.tasks() == {"a": 2}


def _until(process: Any, event: str) -> None:
    while json.loads(process.stderr.readline())["event"] != event:
        pass
