"""The sockets of the service as an AsyncAPI document, which :mod:`scripts.schemas` writes."""

from __future__ import annotations

from typing import Any

from crdt_sessions_server.asgi import SYNC_PREFIX, Y_SWEET_PREFIX
from crdt_sessions_server.serving.hocuspocus.endpoint import PATH as HOCUSPOCUS

_FROM_CLIENT, _FROM_SERVER, _BOTH = ("receive",), ("send",), ("receive", "send")
_FRAMES = {
    "SyncStep1": ("00 00 buf(state vector)", "What one has; asks for the rest.", _BOTH),
    "SyncStep2": ("00 01 buf(update)", "The answer to SyncStep1.", _BOTH),
    "Update": ("00 02 buf(update)", "A change.", _BOTH),
    "Awareness": ("01 buf(awareness)", "Who is here.", _BOTH),
    "PermissionDenied": ("02 00 string", "Something was refused, with the reason.", _FROM_SERVER),
    "QueryAwareness": ("03", "Asks for all that is known of who is here.", _FROM_CLIENT),
    "Ack": ("66 buf(payload)", "Comes back once everything before it is durable.", _BOTH),
}
_HOLD = {"Hold": ("67 string", "From here on this is the connection of a lease's holder.", _FROM_CLIENT)}
_ADDRESSED = {
    "Sync": ("address 00 (SyncStep1, SyncStep2 or Update without its first byte)", "Sync of one document.", _BOTH),
    "DocumentAwareness": ("address 01 buf(awareness)", "Who is here.", _BOTH),
    "Token": ("address 02 00 string(token) [string(version)]", "Who the client is.", _FROM_CLIENT),
    "TokenWanted": ("address 02 00", "Asks for the token again.", _FROM_SERVER),
    "Denied": ("address 02 01 string(reason)", "The client is not let in to this document.", _FROM_SERVER),
    "Authenticated": ('address 02 02 string("read-write" or "readonly")', "It is let in.", _FROM_SERVER),
    "DocumentQueryAwareness": ("address 03", "Asks for all states.", _FROM_CLIENT),
    "SyncReply": ("address 04 (as Sync)", "Sync that wants none in return.", _FROM_CLIENT),
    "Stateless": ("address 05 string", "A text of the application's own.", _BOTH),
    "Close": ("address 07 [string(reason)]", "This document, not the socket.", _BOTH),
    "SyncStatus": ("address 08 01, or address 08 00", "An update is durable, or refused.", _FROM_SERVER),
    "Ping": ("09", "Asks for a sign of life.", _FROM_CLIENT),
    "Pong": ("0a", "Is one.", _FROM_SERVER),
}
_CHANNELS: dict[str, tuple[str, str, dict[str, tuple[str, str, tuple[str, ...]]]]] = {
    "sync": (f"{SYNC_PREFIX}{{session}}", "The y-websocket protocol.", _FRAMES | _HOLD),
    "y-sweet": (f"{Y_SWEET_PREFIX}{{session}}", "The same, for y-sweet's clients.", _FRAMES),
    "hocuspocus": (HOCUSPOCUS, "The protocol of Hocuspocus' providers: many documents on one socket.", _ADDRESSED),
}
_QUERY = {
    "token": "Who one is; or the offered subprotocol bearer.<token>, or the Authorization header.",
    "lineage": "The session that the client's copy is of; another one is refused with 4409.",
    "session": "On /v1/y-sweet/ws: the session's name, which counts instead of that in the path.",
}


def document() -> dict[str, Any]:
    """Return the AsyncAPI document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "crdt-sessions: sockets",
            "version": "1",
            "description": "Binary WebSockets. Bytes are hexadecimal; buf is a lib0 varUint length and that"
            " many bytes, string the same with UTF-8, address a string. Updates are Yjs encoding v1."
            " docs/protocol.md is the normative text, schemas/vectors has examples.",
        },
        "defaultContentType": "application/octet-stream",
        "servers": {"local": {"host": "127.0.0.1:8000", "protocol": "ws"}},
        "channels": {name: _channel(*channel) for name, channel in _CHANNELS.items()},
        "operations": {
            f"{name}-{action}": {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [
                    {"$ref": f"#/channels/{name}/messages/{message}"}
                    for message, (*_, actions) in frames.items()
                    if action in actions
                ],
            }
            for name, (_, _, frames) in _CHANNELS.items()
            for action in _BOTH
        },
        "components": {"messages": {name: _message(name, *rest) for name, rest in _messages().items()}},
    }


def _messages() -> dict[str, tuple[str, str]]:
    return {name: (form, about) for *_, frames in _CHANNELS.values() for name, (form, about, _) in frames.items()}


def _channel(address: str, about: str, frames: dict[str, Any]) -> dict[str, Any]:
    query = {name: {"type": "string", "description": text} for name, text in _QUERY.items()}
    channel: dict[str, Any] = {
        "address": address,
        "description": about,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in frames},
        "bindings": {"ws": {"query": {"type": "object", "properties": query}}},
    }
    if "{session}" in address:
        channel["parameters"] = {"session": {"description": "The session's name, percent-encoded."}}
    return channel


def _message(name: str, form: str, about: str) -> dict[str, Any]:
    return {
        "name": name,
        "summary": about,
        "description": f"Bytes: {form}",
        "payload": {"type": "string", "format": "binary"},
    }
