"""What a line of the log looks like: for people (``console``) or for programs (``json``).

Both tell the same of a record: when, how bad, by which logger, what, and the ids that were logged with it
(``extra``).
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

_KNOWN = {*vars(logging.makeLogRecord({})), "message", "asctime"}
"""What every record has; the rest of its attributes is what the caller gave with ``extra``."""
_WIDTH = 30
"""Columns for what is said, so that what follows stands below each other in most lines."""


class JsonLines(logging.Formatter):
    """Writes each record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; values that JSON does not know are told as Python tells them."""
        told = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            **_extra(record),
            "timestamp": _time(record),
        }
        if said := _trace(self, record):
            told["exception"] = said
        return json.dumps(told, default=repr)


class ConsoleLines(logging.Formatter):
    """Writes each record as a line to read, a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        ids = "".join(f" {name}={_shown(value)}" for name, value in sorted(_extra(record).items()))
        said = record.getMessage().ljust(_WIDTH)
        line = f"{_time(record)} [{record.levelname.lower():9}] {said} [{record.name}]{ids}"
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


def _time(record: logging.LogRecord) -> str:
    when = datetime.fromtimestamp(record.created, UTC)
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _KNOWN}


def _shown(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() and " " not in value else repr(value)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Return the exception and the stack that were logged; empty without one."""
    error = formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
    return "\n".join(each for each in (error, record.stack_info) if each)
