"""How peers come in: to a session that is there, or is made for them, if a copy that they have is one of it."""

from __future__ import annotations

from crdt_sessions.errors import SessionDeleted, SessionNotFound, WrongGeneration, WrongLineage
from crdt_sessions.ids import SessionId
from crdt_sessions.runtime.slot import Slot
from crdt_sessions.runtime.slots import Slots
from crdt_sessions.storage import SessionRecord


async def enter(
    slots: Slots, session_id: SessionId, *, create: bool, by: str, generation: int | None, lineage: str | None
) -> Slot:
    """Return the slot of a loaded session, with one user more, who leaves it by :meth:`Slots.leave`.

    Arguments and errors as :meth:`SessionRegistry.join`, which is a context: that takes a kilobyte more.
    """
    try:
        slot = await slots.enter(session_id, create=create and lineage is None, by=by)
    except SessionDeleted:
        raise
    except SessionNotFound:
        if lineage is None:
            raise
        raise WrongLineage(session=session_id, theirs=lineage, ours="") from None
    try:
        _check_copy((await slot.loaded()).record, generation, lineage)
    except BaseException:
        slots.leave(slot)
        raise
    return slot


def _check_copy(record: SessionRecord, generation: int | None, lineage: str | None) -> None:
    """Return if a copy, of which its peer says that much, is one of this session.

    Raises:
        WrongLineage, WrongGeneration: it is not.
    """
    if lineage is not None and lineage != record.lineage:
        raise WrongLineage(session=record.id, theirs=lineage, ours=record.lineage)
    if generation is not None and generation != record.generation:
        raise WrongGeneration(session=record.id, theirs=generation, ours=record.generation)
