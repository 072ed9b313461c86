"""Bodies that are compressed on their way: gzip, which every client has."""

from __future__ import annotations

import asyncio
import zlib

from quart import Request, Response

from crdt_sessions.errors import TooLarge
from crdt_sessions_server.http.problem_documents import Refusal
from crdt_sessions_server.http.problems import BAD_REQUEST, UNSUPPORTED_MEDIA_TYPE

_GZIP = 16 + zlib.MAX_WBITS
_LEVEL = 6
_WORTH_IT = 512
"""Fewer bytes are sent as they are."""
_AT_ONCE = 64 * 1024
"""More bytes are compressed beside the event loop."""


def inflated(body: bytes, encoding: str, limit: int) -> bytes:
    """Return *body* as it was before it was compressed.

    Args:
        body: as it came.
        encoding: its Content-Encoding.
        limit: it may have so many bytes; no more are ever unpacked.

    Raises:
        Refusal: it is not compressed in that way, or in one that is not known here.
        TooLarge: it would be larger.
    """
    if not body or encoding.strip().lower() in ("", "identity"):
        return body
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        detail = f"the body came with Content-Encoding {encoding}, and this takes gzip"
        raise Refusal(UNSUPPORTED_MEDIA_TYPE, detail, accepted=["gzip", "identity"])
    unpacking = zlib.decompressobj(_GZIP)
    try:
        whole = unpacking.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refusal(BAD_REQUEST, f"the body is not gzip, as its Content-Encoding says: {error}") from None
    if len(whole) > limit:
        raise TooLarge(what="the body, unpacked,", size=len(whole), limit=limit)
    if not unpacking.eof or unpacking.unused_data:
        raise Refusal(BAD_REQUEST, "the body is not one whole gzip stream, as its Content-Encoding says")
    return whole


async def compressed(response: Response, request: Request) -> Response:
    """Return *response*, compressed if whoever asked can read that and it is worth it."""
    response.headers["Vary"] = "Accept-Encoding"
    body = await response.get_data(as_text=False)
    if len(body) >= _WORTH_IT and request.accept_encodings.quality("gzip") > 0:
        packed = _packed(body) if len(body) < _AT_ONCE else await asyncio.to_thread(_packed, body)
        response.set_data(packed)
        response.headers["Content-Encoding"] = "gzip"
    return response


def _packed(body: bytes) -> bytes:
    packing = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return packing.compress(body) + packing.flush()
