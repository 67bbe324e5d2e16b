"""The container file, the compose file and the load balancer's configuration, as far as that goes without Docker."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from metaleader.commands.main import COMMANDS
from metaleader.commands.serve import Options
from metaleader.experiments.parsing import parse
from metaleader.live.postgres import shown

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("learner", "follower-1", "follower-2")
FILE = (ROOT / "Containerfile").read_text()


def test_the_commands_are_those_of_metaleader_serve() -> None:
    for name in OURS:
        verb, *arguments = SERVICES[name]["command"]
        assert verb in COMMANDS
        options = parse(Options, arguments, "metaleader serve")
        assert (options.follow, options.wait) == ((True, 0.0) if "follower" in name else (False, float("inf")))
        assert shown(options.dir) == options.dir  # the password is told by the environment
        assert options.dir == SERVICES["learner"]["command"][1]
        assert (options.host, options.port) == ("0.0.0.0", 8000)
        (secret,) = SERVICES[name]["secrets"]
        assert options.token_file == Path("/run/secrets") / secret
        assert secret in COMPOSE["secrets"]
        assert SERVICES[name]["environment"]["PGPASSWORD"] == SERVICES["database"]["environment"]["POSTGRES_PASSWORD"]


def test_the_image_has_what_the_service_needs() -> None:
    told = re.search(r"'\.\[(.*)\]'", FILE)
    assert told is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert set(told[1].split(",")) == {"serve", "postgres"} <= set(extras)
    copied = " ".join(re.findall(r"^COPY (.*) \S+$", FILE, re.MULTILINE)).split()
    for path in (*copied, project["project"]["readme"], *project["project"]["license-files"]):
        assert (ROOT / path).exists()
        assert path in copied
    for line in re.findall(r"^(?:ENTRYPOINT|CMD) (.*)$|^ +CMD (.*)$", FILE, re.MULTILINE):
        assert isinstance(json.loads("".join(line)), list)  # no shell, so that signals reach the process


@contextmanager
def answering(name: str, ready: threading.Event) -> Iterator[int]:
    """The port of a process that tells its name, and is ready or not."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = name.encode()
            self.send_response(200 if ready.is_set() or self.path != "/readyz" else 503)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the base class names it so

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="there is no HAProxy: install Debian's package haproxy")
def test_the_load_balancer_asks_those_that_are_ready(tmp_path: Path) -> None:
    config = (ROOT / "haproxy.cfg").read_text().replace(" resolvers docker init-addr none", "").replace("2s", "50ms")
    with ExitStack() as stack:
        ready = {name: threading.Event() for name in OURS}
        for name in OURS:
            port = stack.enter_context(answering(name, ready[name]))
            config = config.replace(f"{name}:8000", f"127.0.0.1:{port}")
        with socket.create_server(("127.0.0.1", 0)) as free:
            at = free.getsockname()[1]
        (tmp_path / "haproxy.cfg").write_text(config.replace("bind :8000", f"bind 127.0.0.1:{at}"))
        process = stack.enter_context(subprocess.Popen(["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")]))
        stack.callback(process.kill)

        def answers(path: str, status: int, names: set[str]) -> httpx2.Response:
            """Once all of these answer, and no other."""
            late, found = time.monotonic() + 10, list[tuple[int, str]]()
            expected = {(status, name) for name in names}
            while set(found[-12:]) != expected or len(found) < 12:
                assert time.monotonic() < late, found[-12:]
                try:
                    response = httpx2.post(f"http://127.0.0.1:{at}{path}")
                except httpx2.ConnectError:
                    continue
                found.append((response.status_code, response.text))
            return response

        none = '{"error":{"message":"no process of the service is ready"}}'
        assert answers("/v1/predict", 503, {none}).headers["Retry-After"] == "5"
        ready["learner"].set()
        answers("/v1/predict", 200, {"learner"})
        ready["follower-1"].set()
        answers("/v1/predict", 200, {"follower-1"})
        ready["follower-2"].set()
        answers("/v1/predict", 200, {"follower-1", "follower-2"})
        answers("/v1/save", 200, {"learner"})
        ready["learner"].clear()
        answers("/v1/save", 503, {none})
        ready["follower-1"].clear()
        answers("/v1/predict", 200, {"follower-2"})
