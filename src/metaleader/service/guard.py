"""What every request passes before it is answered: who asks, how often, how much; and what is noted of it."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metaleader.service.limits import Limits, Rates, whole_seconds
from metaleader.service.logs import fields, request_id
from metaleader.service.refusal import Refusal
from metaleader.service.tokens import Tokens, is_loopback
from metaleader.service.verbs import Sent
from metaleader.service.watch import Watch

Answering: TypeAlias = Callable[[Sent], Awaitable[Response]]

_log = logging.getLogger(__name__)
_GONE = 499  # noted where a client left before it was answered
_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store", "referrer-policy": "no-referrer"}


class Guard:
    """Refuses what is not permitted, reads bodies up to a size, and notes each request in log and metrics.

    Args:
        app: answers.
        limits: of sizes and rates.
        tokens: one of which a request needs; None: none, but its `Host` must be this machine, so that no page of
            another site can be made to ask by a name that leads here.
        public: paths that need no token.
        paths: all paths there are; others are noted as `other`.
        direct: by path: what answers a POST there without `app`, which would take longer than the answer itself.
        watch: what is noted.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        tokens: Tokens | None,
        public: Collection[str],
        paths: Collection[str],
        direct: Mapping[str, Answering],
        watch: Watch,
    ) -> None:
        self._app, self._limits, self._tokens = app, limits, tokens
        self._public, self._paths, self._direct, self._watch = public, paths, direct, watch
        self._rates, self._now = Rates(limits.rate), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), _GONE
        headers = Headers(scope=scope)
        request = _request_id(headers.get("x-request-id", ""))
        request_id.set(request)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["x-request-id"] = request
                for name, value in _HEADERS.items():
                    out.setdefault(name, value)
            await send(message)

        self._now += 1
        try:
            await self._answer(scope, receive, sending, headers)
        except Refusal as refusal:
            await refusal.response()(scope, receive, sending)
        except Exception:
            _log.exception("an error of the service itself")
            if status != _GONE:  # the answer has begun
                raise
            failure = Refusal(500, f"an error of the service itself: its log says more of request {request}")
            await failure.response()(scope, receive, sending)
        finally:
            self._now -= 1
            seconds = time.perf_counter() - began
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._watch.answered(path.removeprefix("/v1/"), status, seconds)
            noted = fields(method=scope["method"], path=path, status=status, ms=round(1000 * seconds, 2))
            _log.log(logging.INFO if path.startswith("/v1") or status >= 400 else logging.DEBUG, "request", extra=noted)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        if self._now > self._limits.requests and scope["path"] not in self._public:
            raise Refusal(503, f"{self._now - 1} requests are being worked on: try again later", {"Retry-After": "1"})
        self._check_asker(scope, headers)
        body = await self._body(receive, headers) if scope["method"] not in ("GET", "HEAD") else b""
        if body is None:
            return
        if scope["method"] == "POST" and (answering := self._direct.get(scope["path"])) is not None:
            response = await answering(Sent(body, headers.get("content-type", ""), headers.get("accept", "")))
            await response(scope, receive, send)
            return
        given = False

        async def whole() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, whole, send)

    def _check_asker(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._tokens is None and not is_loopback(_parts(f"//{host}").hostname or ""):
            raise Refusal(403, "without tokens, only requests to 127.0.0.1 or localhost are answered")
        if "origin" in headers and _parts(headers["origin"]).netloc != host:
            raise Refusal(403, "requests by pages of other sites are not answered")
        address = (scope.get("client") or ("unknown", 0))[0]
        client = None if self._tokens is None else self._tokens.known(headers.get("authorization", ""))
        if scope["path"] not in self._public:
            if wait := self._rates.wait(client or address):
                raise Refusal(
                    429,
                    f"more than {self._limits.rate:g} requests a second: try again later",
                    {"Retry-After": whole_seconds(wait)},
                )
            if self._tokens is not None and client is None:
                raise Refusal(
                    401, "a token is needed, as header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
                )

    async def _body(self, receive: Receive, headers: Headers) -> bytes | None:
        """The body; None: the client has gone.

        Raises:
            Refusal: it is too large, which is said before it is read, or does not come.
        """
        most, large = self._limits.body, Refusal(413, f"the body is larger than {self._limits.body} bytes: send less")
        told = headers.get("content-length", "")
        if told.isascii() and told.isdigit() and (len(told) > 18 or int(told) > most):
            raise large
        chunks, size = list[bytes](), 0
        try:
            async with asyncio.timeout(self._limits.timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > most:
                        raise large
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise Refusal(408, f"the body did not come within {self._limits.timeout:g} seconds") from None


def _request_id(given: str) -> str:
    return given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else f"{random.getrandbits(64):016x}"


def _parts(address: str) -> SplitResult:
    """Of an address; none, if it is not one, as `http://[`."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
