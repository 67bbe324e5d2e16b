"""The page, served by Python's own server, with a made-up status in place of a service."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import metaleader

PAGE = Path(metaleader.__file__).parent / "service" / "page"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/static/page.css": ("page.css", "text/css"),
    "/static/page.js": ("page.js", "text/javascript"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
NOW = 1_800_000_000.0


def means(n: int, **values: float | None) -> dict[str, Any]:
    return {"datapoints": n, "values": values}


def status(**changes: Any) -> dict[str, Any]:
    """A service that has learned for an hour, and learns to learn."""
    ages = {
        0: (1000, 2.4),
        1: (960, 1.6),
        2: (930, 1.1),
        3: (1700, 0.8),
        5: (2900, 0.55),
        9: (3600, 0.45),
        17: (20, 0.4),
    }
    over_time = [
        {"time": NOW - 3600 + 12 * i, "datapoints": 37 * i + 1, "recent": {"RMSE of sales": 0.4 + 3 / (1 + i / 20)}}
        for i in range(300)
    ]
    score = {"type": "Score", "name": "RMSE of sales", "higher_is_better": False, "whole": False}
    base = {
        "version": "0.1.0",
        "began": NOW - 3600,
        "now": NOW,
        "ready": True,
        "failed": False,
        "learns": True,
        "learner": {"type": "FTML", "update": {"type": "GradientDescent", "steps": 5}, "meta_steps": 4},
        "problem": {"type": "Problem", "model": {"type": "MLP", "width": 40}, "loss": "squared_error", "scores": score},
        "classes": [],
        "takes_rows": False,
        "tasks": 1000,
        "datapoints": 11110,
        "stored": 11110,
        "learned": 11103,
        "served": 11100,
        "backlog": 7,
        "snapshot": NOW - 42,
        "score": {
            "overall": means(11110, loss=1.9, **{"RMSE of sales": 0.93}),
            "by_age": {str(age): means(n, loss=y**2, **{"RMSE of sales": y}) for age, (n, y) in ages.items()},
            "recent": means(1000, loss=0.2, **{"RMSE of sales": 0.46}),
            "not_finite": 0,
        },
        "rebuilding": False,
        "score_over_time": over_time,
        "latency": {
            "predict": {"count": 90_000, "p50": 0.0021, "p90": 0.0047, "p99": 0.0183},
            "learn": {"count": 11110, "p50": 0.006, "p90": 0.011, "p99": 0.031},
            "status": {"count": 1800, "p50": 0.001, "p90": 0.001, "p99": 0.002},
        },
        "working_on": {"predict": 2, "learn": 1, "keep": 0},
        "limits": {"type": "Limits", "backlog": 10_000},
    }
    return {**base, **changes}


def empty() -> dict[str, Any]:
    nothing = {"overall": means(0), "by_age": {}, "recent": means(0), "not_finite": 0}
    none = dict.fromkeys(("tasks", "datapoints", "stored", "learned", "served", "backlog"), 0)
    return status(**none, score=nothing, score_over_time=[], latency={}, snapshot=None)


class Fake:
    """What the made-up service answers; to be changed while it runs."""

    def __init__(self) -> None:
        self.status = status()
        self.tasks: list[Any] = [{"task": f"shop {i}", "datapoints": 1 + i * 7 % 20} for i in range(1000)]
        self.refusal: tuple[int, str] | None = None
        self.token: str | None = None
        self.asked: list[str] = []

    def answer(self, path: str, authorization: str) -> tuple[int, Any]:
        url = urlsplit(path)
        self.asked.append(path)
        if self.token is not None and authorization != f"Bearer {self.token}":
            return 401, {"error": {"message": "a token is needed"}}
        if self.refusal is not None:
            return self.refusal[0], {"error": {"message": self.refusal[1]}}
        if url.path == "/v1/status":
            return 200, self.status
        if url.path == "/v1/tasks":
            query = {name: int(values[0]) for name, values in parse_qs(url.query).items()}
            end = query["start"] + query["limit"]
            more = end if end < len(self.tasks) else None
            return 200, {"tasks": self.tasks[query["start"] : end], "total": len(self.tasks), "next": more}
        return 404, {"error": {"message": "not found"}}


@contextmanager
def serving(fake: Fake, port: int = 0) -> Iterator[str]:
    """The address of the made-up service."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path in FILES:
                name, kind = FILES[self.path]
                code, content = 200, (PAGE / name).read_bytes()
            else:
                code, told = fake.answer(self.path, self.headers.get("Authorization", ""))
                kind, content = "application/json", json.dumps(told).encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", POLICY)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
