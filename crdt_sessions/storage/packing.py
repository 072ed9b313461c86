"""Snapshots are stored compressed: they are large, written seldom, and mostly text."""

from __future__ import annotations

import zlib

_WORTH_IT = 512
_LEVEL = 6


def pack(update: bytes) -> tuple[bytes, int]:
    """Return what to store of an update, and how long it was; 0 if it is stored as it is."""
    packed = zlib.compress(update, _LEVEL) if len(update) >= _WORTH_IT else update
    return (packed, len(update)) if len(packed) < len(update) else (update, 0)


def unpack(data: bytes, size: int) -> bytes | None:
    """Return the update that was stored as *data*; None if that is damaged.

    Args:
        data: as :func:`pack` returned it.
        size: likewise.
    """
    if size == 0:
        return data
    unpacker = zlib.decompressobj()
    try:
        update = unpacker.decompress(data, size)
    except zlib.error:
        return None
    return update if len(update) == size else None
