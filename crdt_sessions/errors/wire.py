"""Errors of bytes that are not a frame."""

from __future__ import annotations

from crdt_sessions.errors.base import CrdtSessionsError


class WireError(CrdtSessionsError):
    """Bytes that are not a valid frame."""


class TruncatedFrame(WireError):
    """A length prefix promised more bytes than the frame holds."""

    def __init__(self, *, wanted: int, available: int) -> None:
        super().__init__(f"wanted {wanted} bytes, {available} available")
        self.wanted = wanted
        self.available = available


class VarintTooLong(WireError):
    """An integer beyond 2**53 - 1, the largest that JavaScript peers can hold."""

    def __init__(self) -> None:
        super().__init__("an integer is longer than 8 bytes or exceeds 2**53 - 1")


class BadText(WireError):
    """A string that is not UTF-8, or not JSON where JSON is due."""

    def __init__(self, *, what: str) -> None:
        super().__init__(what)
        self.what = what


class UnknownFrame(WireError):
    """A message type we do not speak, or one that may not travel in this direction."""

    def __init__(self, *, kind: int) -> None:
        super().__init__(f"unknown or misdirected message type {kind}")
        self.kind = kind
