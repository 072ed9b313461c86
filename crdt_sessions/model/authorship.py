"""Whose structs an update holds, read without applying it. Source: Yjs ``encoding.js``, update v1.

An update begins with the number of clients it holds structs of, then for each the number of structs, the client
and the clock they begin at; only the first client can be read without parsing structs. The rest is found by asking
the library for what is left of the update once a client is considered known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pycrdt import get_update

from crdt_sessions.errors import MalformedUpdate, WireError
from crdt_sessions.ids import ClientId
from crdt_sessions.model.document import SessionDoc, guarded
from crdt_sessions.wire.varint import Reader, decode_state_vector, encode_state_vector

_MANY = 10_000
_MAX_CLOCK = 2**32 - 1


def sole_author(update: bytes) -> ClientId | None:
    """Return the only client by whom *update* holds structs; None if there are none, or several.

    Raises:
        MalformedUpdate: *update* cannot be decoded.
    """
    return _first(update) if _clients(update) == 1 else None


def authors(document: SessionDoc, update: bytes, most: int) -> list[ClientId]:
    """Return up to *most* clients by whom *update* holds structs that *document* does not hold.

    Nothing is applied. Whether something else must arrive first plays no role.

    Raises:
        UpdateError: *update* cannot be decoded.
    """
    found: list[ClientId] = []
    vector = document.state_vector()
    while len(found) < most and _clients(unknown := _unknown(update, vector)):
        found.append(_first(unknown))
        vector = _raised(vector, found[-1:])
    return found


def writes_as(document: SessionDoc, update: bytes, clients: set[ClientId]) -> ClientId | None:
    """Return one of *clients* by whom *update* holds structs that *document* does not hold, or None.

    Raises:
        UpdateError: *update* cannot be decoded.
    """
    listed = _clients(update)
    if listed == 0 or (listed == 1 and _first(update) not in clients):
        return None
    vector = document.state_vector()
    if _clients(_unknown(update, vector)) == _clients(_unknown(update, _raised(vector, clients))):
        return None
    return next((client for client in authors(document, update, _MANY) if client in clients), None)


def _clients(update: bytes) -> int:
    """Return the number of clients by whom *update* holds structs."""
    return _read(update, lambda reader: reader.varuint())


def _first(update: bytes) -> ClientId:
    """Return the first of them. Before it stand the number of clients and the number of its structs."""
    return ClientId(_read(update, lambda reader: (reader.varuint(), reader.varuint(), reader.varuint())[2]))


def _read(update: bytes, read: Callable[[Reader], int]) -> int:
    try:
        return read(Reader(update))
    except WireError as error:
        raise MalformedUpdate(size=len(update)) from error


def _unknown(update: bytes, vector: bytes) -> bytes:
    return guarded(lambda: get_update(update, vector), size=len(update))


def _raised(vector: bytes, clients: Iterable[int]) -> bytes:
    """Return *vector* with these clients' clocks beyond everything."""
    return encode_state_vector(decode_state_vector(vector) | dict.fromkeys(clients, _MAX_CLOCK))
