"""Who may ask: bearer tokens, and the addresses that need none."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from pathlib import Path

from metaleader.errors import UserError

LEAST = 16  # characters of a token


class Tokens:
    """Secrets, each good for everything. Their checksums are kept and compared in constant time, not they themselves.

    Raises:
        UserError: there is none, or one is too short.
    """

    def __init__(self, tokens: list[str]) -> None:
        if not tokens or any(
            len(token) < LEAST or not token.isascii() or not token.isprintable() or " " in token for token in tokens
        ):
            raise UserError(
                f"tokens must be words of at least {LEAST} characters of ASCII, one at least: make one by "
                "python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        self._digests = [_digest(token) for token in tokens]

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """The tokens in a file, one a line; empty lines, and those that begin with #, are comments.

        Raises:
            UserError: the file cannot be read, or holds none.
        """
        try:
            lines = [line.strip() for line in path.read_text().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the tokens in {path}: {error}") from error
        return cls([line for line in lines if line and not line.startswith("#")])

    def known(self, authorization: str) -> str | None:
        """What stands for the client with such a header of HTTP, `Bearer ...`; None: its token is not known."""
        kind, _, token = authorization.partition(" ")
        given = _digest(token.strip())
        found = [
            hmac.compare_digest(given, digest) for digest in self._digests
        ]  # all of them, so that time is the same
        return given.hex() if any(found) and kind.lower() == "bearer" else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
