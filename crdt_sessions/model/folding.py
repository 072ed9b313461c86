"""Many updates as one, verified."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pycrdt import Doc

from crdt_sessions.errors import MalformedUpdate
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.extent import extent_of
from crdt_sessions.model.library import apply_guarded, merge
from crdt_sessions.wire import EMPTY_UPDATE


@dataclass(frozen=True, slots=True)
class Folded:
    """Many updates as one."""

    update: bytes
    waits: bool
    """Whether something in it waits for an update that has not arrived."""


def fold(updates: Iterable[bytes]) -> Folded:
    """Return the smallest update we can make that holds everything in *updates*.

    A document re-encodes its history much tighter than a merge does, and the result is verified: a document
    loaded from it has the same version. But a document forgets updates that wait for a gap; where there are
    any, the updates are merged struct by struct instead, which loses nothing and needs no document.

    Raises:
        UpdateError: one of them cannot be applied, or the result would not hold all of them.
    """
    rows = list(updates)
    whole = SessionDoc(1)
    try:
        for update in rows:
            whole.apply(update)
        if whole.waiting != EMPTY_UPDATE:
            return Folded(merge(rows), waits=True)
        return Folded(encode_verified(whole), waits=False)
    finally:
        whole.close()


def encode_verified(document: SessionDoc) -> bytes:
    """Return all of *document* as an update that was applied once: it makes a document of the same extent.

    Raises:
        UpdateError: it cannot be applied, or makes another one.
    """
    whole = document.encode()
    again: Doc[Any] = Doc(client_id=1)
    apply_guarded(again, whole)
    if extent_of(again) != extent_of(document.doc):
        raise MalformedUpdate(size=len(whole))
    return whole
