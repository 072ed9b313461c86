"""Whose structs an update holds, found without applying it.

Only its first client can be read without reading its structs. To find the others, the library is asked
what the update still holds for somebody who has that client already.
"""

from __future__ import annotations

from collections.abc import Iterable

from pycrdt import get_update

from crdt_sessions.ids import ClientId
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.library import guarded
from crdt_sessions.wire.update_v1 import count_clients, first_client, sole_client
from crdt_sessions.wire.varint import decode_state_vector, encode_state_vector

_MANY = 10_000
_MAX_CLOCK = 2**32 - 1


def sole_author(update: bytes) -> ClientId | None:
    """Return the only client that *update* holds structs of; None if there are none, or several.

    Raises:
        MalformedUpdate: *update* cannot be decoded.
    """
    client = sole_client(update)
    return ClientId(client) if client is not None else None


def authors(document: SessionDoc, update: bytes, most: int) -> list[ClientId]:
    """Return up to *most* clients of which *update* holds structs that *document* lacks.

    Nothing is applied. Whether something else must arrive first plays no role.

    Raises:
        UpdateError: *update* cannot be decoded.
    """
    found: list[ClientId] = []
    vector = document.state_vector()
    while len(found) < most and (client := first_client(_unknown(update, vector))) is not None:
        found.append(ClientId(client))
        vector = _raised(vector, found[-1:])
    return found


def writes_as(document: SessionDoc, update: bytes, clients: set[ClientId]) -> ClientId | None:
    """Return one of *clients* of which *update* holds structs that *document* lacks, or None.

    Raises:
        UpdateError: *update* cannot be decoded.
    """
    listed = count_clients(update)
    if listed == 0 or (listed == 1 and first_client(update) not in clients):
        return None
    vector = document.state_vector()
    if count_clients(_unknown(update, vector)) == count_clients(_unknown(update, _raised(vector, clients))):
        return None
    return next((client for client in authors(document, update, _MANY) if client in clients), None)


def _unknown(update: bytes, vector: bytes) -> bytes:
    return guarded(lambda: get_update(update, vector), size=len(update))


def _raised(vector: bytes, clients: Iterable[int]) -> bytes:
    """Return *vector* with these clients' clocks beyond everything."""
    return encode_state_vector(decode_state_vector(vector) | dict.fromkeys(clients, _MAX_CLOCK))
