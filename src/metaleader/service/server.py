"""The process that serves: a socket, uvicorn, and a graceful end."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable

import uvicorn

from metaleader.errors import UserError
from metaleader.live import Live
from metaleader.service.app import application
from metaleader.service.limits import Limits
from metaleader.service.logs import fields
from metaleader.service.tokens import Tokens, is_loopback

_log = logging.getLogger(__name__)
KEEP_ALIVE = 30  # seconds that a connection may be idle
TURN = (
    0.0005  # seconds after which the thread that learns lets others go on, where Python would have them wait for 5 ms
)
STOPS = (signal.SIGTERM, signal.SIGINT)


def bound(host: str, port: int) -> socket.socket:
    """A socket bound to a port, not yet listening; port 0: one that is free.

    Raises:
        UserError: the host is not known, or the port in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(f"--host {host} is no address of this machine: {error.strerror or error}") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        found.close()
        raise UserError(
            f"cannot listen at port {port} of {host}: {error.strerror or error}; choose another one by --port"
        ) from error
    return found


def check_tokens(host: str, tokens: Tokens | None) -> None:
    """Refuse to be open to others without tokens.

    Raises:
        UserError: other machines can reach the host, and there are no tokens.
    """
    if tokens is None and not is_loopback(host):
        raise UserError(
            f"--host {host} can be reached by others, so it needs tokens: write one a line to a file and give it by "
            "--token-file, or serve --host 127.0.0.1"
        )


def serve(live: Live, at: socket.socket, limits: Limits, tokens: Tokens | None = None) -> None:
    """Answer requests until SIGTERM or SIGINT; then finish those that have begun. It does not close the learner.

    Args:
        live: the learner.
        at: where, see `bound`.
        limits: what is refused; `timeout` is the time that requests get to be finished as well.
        tokens: one of which a request needs.
    """
    config = uvicorn.Config(
        application(live, limits, tokens),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # else anybody on this machine may name the address that rates are counted for
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(limits.timeout) + 1,
        ws="none",
    )
    if live.layout is not None:
        live.warm_up()
    if live.learns:
        sys.setswitchinterval(TURN)
    gc.collect()
    gc.freeze()  # what is there stays: to look through it all again would hold up answers for a tenth of a second
    with _quiet_signals():
        _Server(config).run(sockets=[at])
    _log.info("stopped")


class _Server(uvicorn.Server):
    """Says in the log of the service from when on it answers, and that it stops."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in sockets or []:
            host, port = each.getsockname()[:2]
            _log.info("serving", extra=fields(url=f"http://{f'[{host}]' if ':' in host else host}:{port}"))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _log.info("stopping")
        await super().shutdown(sockets)


class _quiet_signals:  # noqa: N801 - used as a function
    """Uvicorn raises the signal that ended it once more when it is done, for whoever handled it before: nobody."""

    def __enter__(self) -> None:
        self._before: dict[signal.Signals, Callable[..., object] | int | None] = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, lambda *_: None) for each in STOPS}

    def __exit__(self, *_: object) -> None:
        for each, before in self._before.items():
            signal.signal(each, before)
