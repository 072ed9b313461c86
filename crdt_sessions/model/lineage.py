"""Of which session a document is: a replica of another one that had its name brings that one's beginning along.

A session's document begins with a seed: the server's keys of ``meta``, written once, by a client of its own. A
replica that began with another seed belongs to another session, whatever its name, and the two must not be merged.
Clients that say their lineage are asked; the others are known by what they bring.
"""

from __future__ import annotations

from typing import Any

from pycrdt import Doc, Map, get_update

from crdt_sessions.ids import lineage_of
from crdt_sessions.model.library import apply_guarded, guarded
from crdt_sessions.model.spelling import whole

_IN_META = b"\x01\x04meta"
"""How the first entry under a key of the root ``meta`` names its parent. Source: Yjs ``Item.js``, ``write``."""
_SCRATCH_CLIENT = 1


def lineage_in(update: bytes, state_vector: bytes = b"\x00") -> str | None:
    """Return the lineage of the session whose beginning is in *update*; None if none is.

    Args:
        update: foreign bytes.
        state_vector: of the document that is to take it: what that has is not looked at.

    Raises:
        UpdateError: *update* cannot be decoded.
    """
    if _IN_META not in update:
        return None
    new = guarded(lambda: get_update(update, state_vector), size=len(update))
    if _IN_META not in new:
        return None
    doc: Doc[Any] = Doc(client_id=_SCRATCH_CLIENT)
    meta = doc.get("meta", type=Map)
    apply_guarded(doc, new)
    if isinstance(lineage := meta.get("lineage"), str):
        return lineage
    generation, created_at = whole(meta.get("generation")), whole(meta.get("createdAt"))
    return lineage_of(generation, created_at) if generation is not None and created_at is not None else None
