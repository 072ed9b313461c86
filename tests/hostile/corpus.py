"""Frames to mutate: every opcode, and real updates of every kind.

What was found to hurt is not listed here: it is first to be reported to those who can mend it.
"""

from __future__ import annotations

import random

from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.model import SessionDoc, SessionView, seed
from crdt_sessions.model.parts import TextPart
from crdt_sessions.model.run_values import RunRequest
from crdt_sessions.model.values import Author, MessageHead
from crdt_sessions.wire import (
    EMPTY_UPDATE,
    Ack,
    AwarenessEntry,
    AwarenessFrame,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    encode,
    encode_awareness,
)
from crdt_sessions.wire.varint import string

SEED = seed(SessionId("room"), generation=1, created_at=Millis(1), client_id=9)


def updates(rng: random.Random, steps: int = 300) -> list[bytes]:
    """Return what three replicas of a session write, in order: text, maps, arrays, XML, formats, messages, runs."""
    documents = [SessionDoc(100 + number) for number in range(3)]
    made: list[bytes] = []
    for document in documents:
        document.apply(SEED)
        document.take_delta()
    for step in range(steps):
        document = rng.choice(documents)
        _, delta = document.edit(lambda doc, step=step: _change(doc, rng, step))
        if delta is not None:
            made.append(delta)
            for other in documents:
                if other is not document and rng.random() < 0.5:
                    other.apply(document.encode(other.state_vector()))
                    other.take_delta()
    made.append(documents[0].encode())
    for document in documents:
        document.close()
    return made


def _change(document: SessionDoc, rng: random.Random, step: int) -> None:
    doc: Doc = document.doc
    draft, fragment = doc.get("draft", type=Text), doc.get("prosemirror", type=XmlFragment)
    state, view = document.roots.state, SessionView(document)
    match rng.randrange(10):
        case 0 | 1 | 2:
            draft += rng.choice(["a", "hello ", "wörld 😀", "x" * 20])
        case 3 if len(draft) > 8 and str(draft)[:8].isascii():  # inside a character the library may not cut
            del draft[0:3]
        case 4 if len(draft) > 8 and str(draft)[:8].isascii():
            draft.format(0, 3, {"bold": True})
        case 5:
            value = rng.choice([1, "s", {"a": [1, {"b": None}]}, [1.5, True], Text("inner"), Map({"x": Array([1])})])
            state[f"k{rng.randrange(5)}"] = value
        case 6:
            fragment.children.append(XmlElement("p", {"c": "d"}, [XmlText("hi")]))
        case 7:
            head = MessageHead(
                id=f"m{step}", role="user", author=Author(id="ann", name="Ann", kind="human"), created_at=step
            )
            view.messages.add(head, [TextPart(type="text", text="hei 😀")])
        case 8:
            view.runs.request(f"r{step}", RunRequest(message_id=f"m{step}", agent="*", created_at=step))
        case _:
            state.pop(f"k{rng.randrange(5)}", None)


def frames(rng: random.Random, made: list[bytes]) -> list[bytes]:
    """Return valid messages of every type."""
    doc = SessionDoc(5)
    for update in made:
        doc.apply(update)
    states = [AwarenessEntry(7, clock, f'{{"user":{{"name":"{clock}"}}}}') for clock in range(1, 4)]
    found = [encode(Update(update)) for update in made]
    found += [encode(SyncStep2(update)) for update in rng.sample(made, 20)]
    found += [encode(SyncStep1(doc.state_vector())), encode(SyncStep1(b"\x00")), encode(QueryAwareness())]
    found += [encode(AwarenessFrame(encode_awareness(states[:count]))) for count in range(1, 4)]
    found += [encode(Ack(bytes(size))) for size in (0, 1, 64)]
    found += [b"", b"\x00", b"\x09\x00", b"\x02\x00\x01x"]
    doc.close()
    return found


def of_providers() -> list[bytes]:
    """Return what Hocuspocus' providers say besides the document, without the address that stands before it."""
    token, stateless = b"\x02\x00" + string("") + string("4.8.0"), b"\x05" + string("hello")
    reply = b"\x04" + encode(SyncStep2(EMPTY_UPDATE))[1:]
    return [
        token,
        b"\x02\x00" + string("bad"),
        stateless,
        reply,
        b"\x06" + string("to all"),
        b"\x08\x01",
        b"\x09",
        b"\x0a",
    ]


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Return *data* with one to eight defects."""
    changed = bytearray(data or b"\x00")
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        if not changed:
            changed = bytearray(b"\x00")
        at = rng.randrange(len(changed))
        match rng.randrange(7):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at] = rng.randrange(256)
            case 2:
                del changed[at : at + rng.randrange(1, 6)]
            case 3:
                changed[at:at] = rng.randbytes(rng.randrange(1, 5))
            case 4:
                other = rng.choice(others) or b"\x00"
                start = rng.randrange(len(other))
                changed[at : at + rng.randrange(8)] = other[start : start + rng.randrange(1, 12)]
            case 5:
                changed[at:at] = bytes([255] * rng.randrange(1, 9) + [rng.randrange(128)])
            case _:
                changed[at] = rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 127, 128, 255])
    return bytes(changed)


def hostile(rng: random.Random, valid: list[bytes]) -> bytes:
    """Return a mutated message: half of them keep their frame whole, so that the update inside is what is wrong."""
    frame = rng.choice(valid)
    if rng.random() < 0.5 or frame[:1] != b"\x00" or frame[1:2] not in (b"\x01", b"\x02"):
        return mutate(rng, frame, valid)
    inner = mutate(rng, _payload(frame), [_payload(each) for each in rng.sample(valid, 3)])
    return encode(Update(inner) if frame[1] == 2 else SyncStep2(inner))


def _payload(frame: bytes) -> bytes:
    position = 2
    while position < len(frame) and frame[position] & 0x80:
        position += 1
    return frame[position + 1 :]
