"""Why a request is not answered: one kind of error, one form of body."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response


class Refusal(Exception):  # noqa: N818 - an answer as others are
    """An answer that says why a request is refused.

    Attributes:
        status: of HTTP.
        message: for people: what was received, what was expected, what to do.
        headers: such as `Retry-After`.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})

    def response(self) -> Response:
        """The refusal, as a response."""
        return answer({"error": {"message": self.message}}, self.status, self.headers)


def answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Plain data as a response in JSON.

    Raises:
        ValueError: a number is not finite, which JSON has no word for.
    """
    body = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(body, status, dict(headers or {}), media_type="application/json")
