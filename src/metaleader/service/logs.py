"""Logs of the service: a line of JSON for each thing that happens, without anything that users sent."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_OWN = "metaleader"  # the attribute of a record that holds its own fields


class JsonLines(logging.Formatter):
    """A record as one line of JSON: `time`, `level`, `logger`, `event`, `request`, and the fields of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, _OWN, {}),
        }
        if (request := request_id.get()) is not None:
            line["request"] = request
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def fields(**values: object) -> dict[str, object]:
    """Fields of a record's own: `log.info("answered", extra=fields(status=200))`."""
    return {_OWN: values}


def log_json(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Let all of this process log by lines of JSON, warnings included."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("metaleader").setLevel(level)
    logging.captureWarnings(True)
