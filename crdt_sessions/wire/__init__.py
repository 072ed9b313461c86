"""Bytes to values and back: the y-websocket dialect. Pure; knows neither documents nor sessions."""

from crdt_sessions.wire.awareness import AwarenessEntry, decode_awareness, encode_awareness
from crdt_sessions.wire.closing import Closing, closing_for
from crdt_sessions.wire.codec import Codec, Shared, YWebSocket
from crdt_sessions.wire.frames import (
    AN_UPDATE,
    EMPTY_UPDATE,
    KEEPALIVE,
    Ack,
    AwarenessFrame,
    Frame,
    Hold,
    PermissionDenied,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    decode,
    decode_whole,
    encode,
    sole_update,
)

__all__ = [
    "AN_UPDATE",
    "EMPTY_UPDATE",
    "KEEPALIVE",
    "Ack",
    "AwarenessEntry",
    "AwarenessFrame",
    "Closing",
    "Codec",
    "Frame",
    "Hold",
    "PermissionDenied",
    "QueryAwareness",
    "Shared",
    "SyncStep1",
    "SyncStep2",
    "Update",
    "YWebSocket",
    "closing_for",
    "decode",
    "decode_awareness",
    "decode_whole",
    "encode",
    "encode_awareness",
    "sole_update",
]
