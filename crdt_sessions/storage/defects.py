"""Defects of ours: they fail what met them, and nothing beside it; the log says more than whoever waits is told."""

from __future__ import annotations

import logging

from crdt_sessions.defects import log_defect
from crdt_sessions.errors import CrdtSessionsError, StorageError

_log = logging.getLogger("crdt_sessions.storage")


def defect(error: BaseException, said: str) -> StorageError:
    """Return what is told of a defect; the log has it, under the same reference.

    Args:
        error: the defect.
        said: what the log says of it.
    """
    found = log_defect(_log, said, error)
    return StorageError(f"the store failed; the log says more (reference {found})")


def contained(error: Exception) -> CrdtSessionsError:
    """Return what is told of an error: itself, or of one that is none of ours what :func:`defect` says."""
    return error if isinstance(error, CrdtSessionsError) else defect(error, "a defect of the store")
