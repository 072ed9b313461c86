"""A session with history, as plain Yjs content that every server takes, and a client to put it there."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pycrdt import Doc, Map, Text
from websockets.asyncio.client import ClientConnection, connect

from crdt_sessions.wire import SyncStep2, Update, decode, encode
from crdt_sessions.wire.varint import Reader, string
from tests.bench.peers import Running

ROOM = "bench-0"
_RECORDINGS = Path(__file__).resolve().parents[2] / "examples" / "recordings" / "openai-chat"
_PUSH_BYTES = 200_000


@dataclass(frozen=True)
class History:
    """A document with many messages."""

    whole: bytes
    """All of it, as one update."""
    pieces: list[bytes]
    """The same as it was written."""
    vector: bytes
    """The state vector of a client that missed the last hundredth."""
    missed: bytes
    """What that client lacks."""
    text_bytes: int


def history(messages: int, text_each: int) -> History:
    """Return a document of *messages* maps with a text of *text_each* characters each, as models have written it."""
    doc: Doc[dict[str, Map[object]]] = Doc(client_id=0x70000000)
    root = doc.get("history", type=Map)
    pieces: list[bytes] = []
    subscription = doc.observe(lambda event: pieces.append(event.update))
    vector, text_bytes, missed = b"\x00", 0, _before_missed(messages)
    said = _said()
    for number in range(messages):
        if number == missed:
            vector = doc.get_state()
        at = number * 7919 * text_each % (len(said) - text_each)
        body = said[at : at + text_each]
        text_bytes += len(body.encode())
        root[f"m{number}"] = Map({"role": "user" if number % 2 else "assistant", "at": number, "text": Text(body)})
    doc.unobserve(subscription)
    return History(doc.get_update(), pieces, vector, doc.get_update(vector), text_bytes)


def _said() -> str:
    """Return what models said in the recordings: real text is not as easy to compress as a few words over and over."""
    said = ""
    for recording in sorted(_RECORDINGS.glob("*.sse")):
        for line in recording.read_text(encoding="utf-8").splitlines():
            if line.startswith("data: {"):
                for choice in json.loads(line.removeprefix("data: ")).get("choices", []):
                    texts = (
                        (choice.get("delta") or {}).get(key) for key in ("reasoning_content", "reasoning", "content")
                    )
                    said += "".join(text for text in texts if isinstance(text, str))
    return said


def _before_missed(messages: int) -> int:
    """Return how many of the messages a client has that missed the last hundredth."""
    return messages - max(1, messages // 100)


def check(updates: list[bytes], content: History, *, back: bool) -> None:
    """See to it that *updates* bring a client to all that is in the document.

    Raises:
        RuntimeError: they do not.
    """
    doc: Doc[dict[str, object]] = Doc()
    if back:
        for piece in content.pieces[: _before_missed(len(content.pieces))]:
            doc.apply_update(piece)
    for update in updates:
        doc.apply_update(update)
    if (arrived := len(doc.get("history", type=Map))) != len(content.pieces):
        raise RuntimeError(f"{arrived} of {len(content.pieces)} messages arrived")


@contextmanager
def held(server: Running, content: History) -> Iterator[None]:
    """Have *server* take a document, which somebody has open meanwhile: some forget it when nobody does."""
    loop = asyncio.new_event_loop()
    done = asyncio.Event()
    ready = threading.Event()
    failed: list[BaseException] = []

    def hold() -> None:
        try:
            loop.run_until_complete(_put(server, content, ready, done))
        except Exception as error:  # noqa: BLE001 - raised in the other thread
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait()
    try:
        if failed:
            raise RuntimeError(f"{server.peer.name}: {failed[0]!r}")
        yield
    finally:
        if loop.is_running():
            loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


async def _put(server: Running, content: History, ready: threading.Event, done: asyncio.Event) -> None:
    name = string(ROOM) if server.peer.dialect == "hocuspocus" else b""
    url = f"ws://127.0.0.1:{server.port}{server.peer.prefix}{'' if name else ROOM}"
    async with connect(url, proxy=None, max_size=None, compression=None, ping_interval=None) as peer:
        reading = asyncio.create_task(_ignore(peer))
        await _greet(peer, name)
        batch: list[bytes] = []
        for piece in [*content.pieces, None]:
            if piece is None or sum(map(len, batch)) + len(piece) > _PUSH_BYTES:
                for each in batch:
                    await peer.send(name + encode(Update(each)))
                batch = []
                await asyncio.sleep(0.02)
            if piece is not None:
                batch.append(piece)
        for _ in range(600):
            if await _holds(url, name, content):
                break
            await asyncio.sleep(0.5)
        else:
            raise RuntimeError("it did not take the document")
        ready.set()
        await done.wait()
        reading.cancel()


async def _greet(peer: ClientConnection, name: bytes) -> None:
    if name:
        await peer.send(name + b"\x02\x00\x00" + string("4.7.0"))
    await peer.send(name + b"\x00\x00\x01\x00")


async def _ignore(peer: ClientConnection) -> None:
    async for _ in peer:
        pass


async def _holds(url: str, name: bytes, content: History) -> bool:
    doc: Doc[dict[str, object]] = Doc()
    async with connect(url, proxy=None, max_size=None, compression=None) as peer:
        await _greet(peer, name)
        async for message in peer:
            assert isinstance(message, bytes)
            reader = Reader(message)
            if name:
                reader.buffer()
            rest = reader.take(reader.remaining)
            if rest[:1] == b"\x04":
                rest = b"\x00" + rest[1:]
            if rest[:2] == b"\x00\x01":
                (step2,) = [frame for frame in decode(rest) if isinstance(frame, SyncStep2)]
                doc.apply_update(step2.update)
                return len(doc.get("history", type=Map)) == len(content.pieces)
    return False
