"""Writes what agents and peers log to standard error, in a program that has configured no logging."""

from __future__ import annotations

import logging
import sys

_LOG = logging.getLogger("crdt_sessions")


class _Console(logging.Handler):
    """Writes to standard error as long as nobody else listens."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        self._level_before = _LOG.level
        if _LOG.level == logging.NOTSET:
            _LOG.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        if _others_listen():  # the application has configured logging after all
            _LOG.setLevel(self._level_before)
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            self.handleError(record)


def tell_on_stderr() -> None:
    """Log to standard error, unless the application has a handler of its own."""
    if not _others_listen() and not any(isinstance(each, _Console) for each in _LOG.handlers):
        _LOG.addHandler(_Console())


def _others_listen() -> bool:
    everybody = _LOG.handlers + (logging.getLogger().handlers if _LOG.propagate else [])
    return any(not isinstance(each, _Console) for each in everybody)
