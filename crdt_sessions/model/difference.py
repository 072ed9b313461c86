"""What differs between two states of a document, and the way back to an earlier one."""

from __future__ import annotations

from typing import Any

import jsonpatch
from pycrdt import Doc, Text, UndoManager, get_update

from crdt_sessions.errors import UpdateError
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.library import apply_guarded
from crdt_sessions.model.session import SessionView
from crdt_sessions.model.values import SessionExport

_KEPT_ROOTS = ("runs", "receipts", "delegated", "edits", "suggestions")
"""What happened, happened: agents' work, what people have read, and what they decided is not taken back."""
_SCRATCH_CLIENT = 1


def difference(before: bytes, after: bytes) -> list[dict[str, Any]]:
    """Return what turns the JSON form of one document into that of another, as a JSON Patch (RFC 6902).

    Messages, runs and artifacts are members by id, so that a path names what it is about:
    ``/messages/<id>/parts/0/text``.

    Args:
        before: a document, as an update.
        after: another one.

    Raises:
        UpdateError: one of them cannot be read.
        BadDocument: one of them is not of layout 1.
    """
    patch: list[dict[str, Any]] = jsonpatch.make_patch(by_id(export_of(before)), by_id(export_of(after))).patch
    return patch


def export_of(document: bytes) -> SessionExport:
    """Return the JSON form of a document that is given as an update.

    Raises:
        UpdateError: it cannot be read.
        BadDocument: it is not of layout 1.
    """
    loaded = SessionDoc(_SCRATCH_CLIENT)
    try:
        loaded.apply(document)
        return SessionView(loaded).export()
    finally:
        loaded.close()


def by_id(export: SessionExport) -> dict[str, Any]:
    """Return an export as JSON in which messages, runs and artifacts are members by id."""
    value: dict[str, Any] = export.to_json()
    for name in ("messages", "runs", "artifacts", "delegated"):
        value[name] = {entry["id"]: entry for entry in value[name]}
    return value


def revert_update(document: bytes, earlier: bytes, client_id: int) -> bytes:
    """Return the update that makes *document* look as it did *earlier*. Runs and receipts stay as they are.

    A CRDT cannot forget, so going back is one more change, which merges with what others write meanwhile: what was
    added since is deleted, what was deleted since is written again. It is found by taking the earlier state, applying
    everything since as one step, and undoing that. Source: the same is done for Yjs with its ``UndoManager``.

    Args:
        document: the document as it is, as an update.
        earlier: an earlier state of it, as it was stored then: what was deleted since must still be in there.
        client_id: fresh and random; it becomes the author.

    Raises:
        UpdateError: one of them cannot be read.
    """
    doc: Doc[Any] = Doc(client_id=client_id)
    apply_guarded(doc, earlier)
    names = {*doc.keys(), *_root_names(document)} - set(_KEPT_ROOTS)
    # Which type a root has does not matter here: undoing looks at the items below it.
    undo = UndoManager(scopes=[doc.get(name, type=Text) for name in sorted(names)], capture_timeout_millis=0)
    undo.include_origin("since")
    since = get_update(document, doc.get_state())
    with doc.transaction(origin="since"):
        apply_guarded(doc, since)
    reached = doc.get_state()
    while undo.can_undo():
        undo.undo()
    return doc.get_update(reached)


def _root_names(document: bytes) -> list[str]:
    doc: Doc[Any] = Doc(client_id=_SCRATCH_CLIENT)
    apply_guarded(doc, document)
    names = list(doc.keys())
    if not names:
        raise UpdateError(size=len(document))
    return names
