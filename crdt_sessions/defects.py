"""Defects of ours: the log says what went wrong, and whoever waits is told a reference to that, and no more."""

from __future__ import annotations

import logging

from crdt_sessions.ids import reference


def log_defect(log: logging.Logger, said: str, error: BaseException, **about: str) -> str:
    """Log a defect; return the reference under which the log has it.

    Args:
        log: where.
        said: what the log says of it.
        error: the defect.
        about: what it concerns, such as a session.
    """
    found = reference()
    log.error("%s", said, exc_info=error, extra={**about, "reference": found}, stacklevel=2)
    return found
