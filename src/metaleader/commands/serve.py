"""`metaleader serve`."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from metaleader.errors import UserError
from metaleader.experiments.parsing import parse

if TYPE_CHECKING:
    from metaleader.live import Live, Pace
    from metaleader.service.limits import Limits
    from metaleader.service.tokens import Tokens

NEEDED = ("fastapi", "uvicorn", "prometheus_client", "pyarrow", "sqlalchemy")


@dataclass(frozen=True)
class Options:
    """Serve the learner in a folder by HTTP: it learns what it is told, and predicts, until SIGTERM or Ctrl-C.

    The folder must tell its problem and learner (classes of this package, see `metaleader.Live.open`). It logs lines
    of JSON to the standard error. What can be asked is shown by the page /docs.
    """

    dir: tyro.conf.Positional[str]
    """The folder of the learner, or the URL of a PostgreSQL database."""
    follow: bool = False
    """Predict beside the process that learns, from its snapshots, and store datapoints for it; any number may."""
    wait: float = 0.0
    """Seconds to wait while another process learns, then take over from it; inf: stand by as long as need be."""
    ray: bool = False
    """Start Ray on this machine, which serves by several processes: one that learns, others that follow."""
    ray_address: str | None = None
    """The same on the Ray cluster at this address (auto: the one this machine belongs to); needs a database, and
    --token-file."""
    replicas: int = 1
    """With Ray: how many processes predict."""
    host: str = "127.0.0.1"
    """Address to listen at; one that other machines can reach, such as 0.0.0.0, needs --token-file."""
    port: int = 8000
    """Port to listen at; 0: one that is free, which the log names."""
    token_file: Path | None = None
    """File with tokens, one a line: requests need one as header Authorization: Bearer TOKEN."""
    share: float = 1.0
    """How much of the time learning may take, in a process of its own that leaves the processors to answers."""
    refresh: float = 2.0
    """Seconds between snapshots, from which predictions are made, adapted to all datapoints of their task; more where
    writing a snapshot takes long."""
    cache: int = 64
    """Mebibytes for parameters adapted to tasks."""
    max_body: int = 4 << 20
    """Bytes of a request, at most."""
    max_rows: int = 10_000
    """Datapoints or inputs of a request, at most."""
    max_requests: int = 64
    """Requests that are worked on at one time; further ones are told to come again."""
    max_backlog: int = 10_000
    """Datapoints that wait to be learned, at which further ones are told to come again."""
    rate: float = 0.0
    """Requests a second of one token, or of one address; 0: as many as come."""
    timeout: float = 30.0
    """Seconds until a request that is not answered is given up; and for what is going on when the service stops."""


def _live(options: Options, pace: Pace) -> AbstractContextManager[Live]:
    from metaleader.live import Live
    from metaleader.service.beside import followable, learning_beside

    if options.follow:
        return Live.follow(options.dir, pace=pace)
    if followable(options.dir):
        return learning_beside(options.dir, pace, options.wait)
    return Live.open(options.dir, wait=options.wait, pace=pace)


def _serve_on_ray(options: Options, pace: Pace, limits: Limits, tokens: Tokens | None) -> None:
    from metaleader.live import settings
    from metaleader.live.place import Folder, place_of
    from metaleader.service import on_ray, server
    from metaleader.service.logs import log_json

    place, port = options.dir, options.port
    if isinstance(where := place_of(place), Folder):
        if options.ray_address is not None:
            raise UserError(
                f"{place} is a folder of this machine: on a Ray cluster, serve a PostgreSQL database that all machines "
                "reach (`metaleader live copy` brings it there), or give --ray in place of --ray-address"
            )
        place = str(where.path.absolute())
    if options.ray_address is not None and tokens is None:
        raise UserError(
            "a Ray cluster can be reached by others, so it needs tokens: write one a line to a file and give it by "
            "--token-file"
        )
    with where.followed() as kept:  # says what is wrong before anything is started
        settings.problem_and_learner(where.name, settings.current(where.name, kept.store.about("settings")))
    if options.ray_address is None:
        with server.bound(options.host, port) as at:
            port = at.getsockname()[1]
    log_json()
    service = on_ray.Service(place, pace, limits, tokens, options.replicas)
    on_ray.serve_on_ray(service, options.host, port, options.ray_address)


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    options = parse(Options, arguments, "metaleader serve")
    if options.follow and options.wait:
        raise UserError("--wait is for a process that is to learn, --follow for one that is not: leave one of them out")
    if not options.wait >= 0:
        raise UserError(f"--wait must not be negative, got {options.wait:g}")
    if not 0 <= options.port <= 65535:
        raise UserError(f"--port must be from 0 to 65535, got {options.port}")
    on_ray = options.ray or options.ray_address is not None
    if on_ray and (options.follow or options.wait):
        raise UserError("with Ray, one process learns and others follow: leave out --follow and --wait")
    if options.replicas < 1 or (options.replicas > 1 and not on_ray):
        raise UserError(f"--replicas must be at least 1, and is for --ray, got {options.replicas}")
    try:
        from metaleader.service import server
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in NEEDED:
            raise
        raise UserError(
            f"metaleader serve needs {name}, which is not installed: pip install 'metaleader[serve]'"
        ) from error
    import jax

    from metaleader.live import Pace
    from metaleader.service.limits import Limits
    from metaleader.service.logs import log_json
    from metaleader.service.tokens import Tokens

    limits = Limits(
        options.max_body, options.max_rows, options.max_requests, options.rate, options.max_backlog, options.timeout
    )
    pace = Pace(options.share, options.refresh, options.refresh, options.cache << 20)
    tokens = None if options.token_file is None else Tokens.read(options.token_file)
    server.check_tokens(options.host, tokens)
    if on_ray:
        _serve_on_ray(options, pace, limits, tokens)
        return 0
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # threads that answer compute, and wait for no other
    with server.bound(options.host, options.port) as at:
        log_json()
        with _live(options, pace) as live:
            server.serve(live, at, limits, tokens)
        logging.getLogger(__name__).info("closed")
    return 0
