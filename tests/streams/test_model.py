"""Durable streams against a model: producers with epochs and retries, closing, forks, expiry, in any order."""

import asyncio
import json
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crdt_sessions import errors
from crdt_sessions.limits import Limits
from crdt_sessions.runtime import Streams
from crdt_sessions.storage import Batch, MemoryStore, SqliteStore
from crdt_sessions.streams import Append, Creation, array, framed, spelled, sub_offset
from crdt_sessions.testing import FakeClock
from tests.profiles import sample

TEXT, JSON = "text/plain", "application/json"
PATHS = ("a", "b", "c")


@dataclass
class Plain:
    """A stream as a reader sees it: a list of messages, or bytes. A fork is a copy."""

    type: str
    items: list = field(default_factory=list)
    marks: list = field(default_factory=lambda: [0])  # after how many items something was appended
    closed: object = None  # the batch that closed it, or True
    producers: dict = field(default_factory=dict)
    ttl: int | None = None
    dies_at: int | None = None
    source: object = None
    gone: bool = False


class Model:
    """What the protocol says, in the plainest way: everything is copied, nothing is shared."""

    def __init__(self):
        self.at = {}
        self.now = 0

    def tidy(self):
        for stream in list(self.at.values()):
            if not stream.gone and stream.dies_at is not None and self.now >= stream.dies_at:
                self.remove(stream)

    def remove(self, stream):
        if any(each.source is stream for each in self.at.values()):
            stream.gone = True
            return
        self.at = {path: each for path, each in self.at.items() if each is not stream}
        if stream.source is not None and stream.source.gone:
            self.remove(stream.source)

    def find(self, path):
        stream = self.at.get(path)
        if stream is None:
            return "StreamNotFound"
        return "StreamGone" if stream.gone else stream

    def create(self, path, type, items, ttl):
        found = self.at.get(path)
        if found is None:
            self.at[path] = Plain(type, list(items), [0, len(items)] if items else [0], ttl=ttl)
            self.touch(self.at[path])
            return "made"
        if found.gone:
            return "StreamConflict"
        same = (found.type, found.ttl, bool(found.closed), found.source) == (type, ttl, False, None)
        return "there" if same else "StreamExists"

    def fork(self, path, source, mark, sub):
        origin, found = self.at.get(source), self.at.get(path)
        if origin is None:
            return "StreamNotFound"
        if origin.gone:
            return "StreamConflict"
        start = origin.marks[mark % len(origin.marks)]
        following = next((each for each in origin.marks if each > start), start)
        if start + sub > following:
            return "BadStreamRequest"
        if found is not None:
            if found.gone:
                return "StreamConflict"
            same = (found.ttl, found.source is origin, bool(found.closed), found.forked_at if found.source else None)
            return "there" if same == (origin.ttl, True, False, start + sub) else "StreamExists"
        made = Plain(origin.type, origin.items[: start + sub], source=origin, ttl=origin.ttl)
        made.marks = [each for each in origin.marks if each < start + sub] + [start + sub]
        made.forked_at = start + sub
        self.at[path] = made
        self.touch(made)
        return "made"

    def append(self, path, type, items, close, batch):
        stream = self.find(path)
        if isinstance(stream, str):
            return stream
        if stream.closed:
            again = batch == stream.closed if batch is not None else close and not items
            return "repeated" if again else "StreamEnded"
        if items and type != stream.type:
            return "StreamConflict"
        if not items and not close:
            return "BadStreamRequest"
        if batch is not None:
            refused = self.turn(stream, batch)
            if refused:
                return refused
            stream.producers[batch.producer] = (batch.epoch, batch.seq)
        stream.items += items
        if items:
            stream.marks.append(len(stream.items))
        if close:
            stream.closed = batch or True
        self.touch(stream)
        return "appended"

    def turn(self, stream, batch):
        epoch, last = stream.producers.get(batch.producer, (batch.epoch, -1))
        if batch.epoch < epoch:
            return "StaleProducer"
        if batch.epoch > epoch:
            return "BadStreamRequest" if batch.seq else None
        if batch.seq <= last:
            return "repeated"
        return "ProducerGap" if batch.seq > last + 1 else None

    def delete(self, path):
        stream = self.find(path)
        if isinstance(stream, str):
            return stream
        self.remove(stream)
        return "deleted"

    def touch(self, stream):
        stream.dies_at = None if stream.ttl is None else self.now + stream.ttl


def body(type, items):
    return json.dumps(items).encode() if type == JSON and items else "".join(map(str, items)).encode()


class Real:
    """The streams themselves, told the same."""

    def __init__(self, store, clock):
        self.streams = Streams(store, clock, Limits())
        self.marks = {}  # path to the offsets that were handed out

    async def do(self, name, *arguments):
        try:
            return await getattr(self, name)(*arguments)
        except errors.StreamError as error:
            return type(error).__name__

    async def create(self, path, type, items, ttl):
        _, new = await self.streams.create(Creation("", path, content_type=type, ttl_s=ttl, body=body(type, items)))
        return "made" if new else "there"

    async def fork(self, path, source, mark, sub):
        places = await self.places(source)
        forked_at = None
        if places:
            forked_at = await self.streams.fork_place("", source, places[mark % len(places)], sub)
        _, new = await self.streams.create(Creation("", path, source=source, forked_at=forked_at))
        return "made" if new else "there"

    async def places(self, path):
        """Return the offsets that a reader of a stream can have been given, if there is one."""
        try:
            stream = await self.streams.find("", path)
        except (errors.StreamNotFound, errors.StreamGone):
            return []
        entries = await self.streams._store.stream_entries(stream, 0, most=1 << 30)
        return list(dict.fromkeys([0, *(entry.end for entry in entries), stream.tail]))

    async def append(self, path, type, items, close, batch):
        done = await self.streams.append("", path, Append(body(type, items), type, close, batch=batch))
        return "repeated" if done.repeated else "appended"

    async def delete(self, path):
        await self.streams.delete("", path)
        return "deleted"

    async def read(self, path, start):
        stream = await self.streams.find("", path)
        piece = await self.streams.read(stream, start)
        assert spelled(piece.end) > spelled(piece.start) or not piece.data
        return piece


TYPES = {"a": TEXT, "b": JSON, "c": TEXT}
"""What a stream is made of, mostly: so most appends fit."""

paths = st.sampled_from(PATHS)
types = st.sampled_from([None] * 9 + [TEXT])
items = st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=3) | st.just([])
seqs = st.integers(0, 2)
batches = st.builds(Batch, st.sampled_from("ppppq"), st.sampled_from([0, 0, 0, 1, 2]), seqs) | st.none()
appends = st.tuples(st.just("append"), paths, types, items, st.sampled_from([False] * 5 + [True]), batches)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("create"), paths, types, items, st.sampled_from([None, None, 5, 9])),
        st.tuples(st.just("fork"), paths, paths, st.integers(0, 5), st.integers(0, 2)),
        appends,
        appends,
        appends,
        st.just(("again",)),
        st.just(("again",)),
        st.tuples(st.just("delete"), paths),
        st.tuples(st.just("wait"), st.integers(1, 6)),
    ),
    min_size=3,
    max_size=40,
).map(lambda script: [*(("create", path, None, [], None) for path in "ab"), *script])


def spelled_out(script):
    """Return the steps with the type of each, and with the last one anew where a step is to be repeated."""
    last = script[0]
    for step in script:
        if step[0] in ("create", "append") and step[2] is None:
            step = (step[0], step[1], TYPES[step[1]], *step[3:])
        last = last if step[0] == "again" else step
        yield last


async def compared(store, script):
    clock, model = FakeClock(), Model()
    real = Real(store, clock)
    for name, *arguments in spelled_out(script):
        if name == "wait":
            await clock.advance(arguments[0])
            model.now += arguments[0]
            model.tidy()
            continue
        expected = getattr(model, name)(*arguments)
        assert await real.do(name, *arguments) == expected, (name, arguments)
        for path in PATHS:
            await agree(model.find(path), real, path)
    await store.sweep_streams(clock.now())
    assert await store.count_streams("") == len(model.at)


async def agree(plain, real, path):
    """Whoever reads from any place gets what follows it, and knows whether that is the end."""
    if isinstance(plain, str):
        assert await real.do("read", path, 0) == plain
        return
    places = await real.places(path)
    assert len(places) == len(plain.marks)
    for start, mark in zip(places, plain.marks, strict=True):
        piece = await real.read(path, start)
        found = json.loads(array(piece.data)) if plain.type == JSON else list(piece.data.decode())
        assert found == plain.items[mark:]
        assert piece.last is bool(plain.closed)


CLOSED_TWICE = [
    ("create", "a", None, [], None),
    ("append", "a", None, ["x"], True, Batch("p", 0, 0)),
    ("again",),
    ("append", "a", None, ["x"], True, Batch("p", 0, 1)),
    ("append", "a", None, [], True, None),
]


@given(steps)
@example(CLOSED_TWICE)
@settings(deadline=None, max_examples=sample("examples") * 4)
def test_streams_do_what_the_protocol_says(script):
    asyncio.run(compared(MemoryStore(), script))


@given(steps)
@settings(deadline=None, max_examples=max(10, sample("examples") // 5))
def test_streams_on_disk_do_so_too(tmp_path_factory, script):
    async def on_disk():
        async with SqliteStore(tmp_path_factory.mktemp("model") / "s.db") as store:
            await compared(store, script)

    asyncio.run(on_disk())


@pytest.mark.parametrize(
    ("sent", "messages"),
    [
        (b'{"a": 1}', ['{"a": 1}']),
        (b" [1, [2, 3] ,\n4] ", ["1", "[2, 3]", "4"]),
        (b"[[1, 2]]", ["[1, 2]"]),
        (b"1e400", ["1e400"]),
        (b'"[1, 2]"', ['"[1, 2]"']),
        (b"[" + b"9" * 5000 + b"]", ["9" * 5000]),
        (b"[]", []),
    ],
)
def test_json_is_kept_to_the_letter_one_level_deep(sent, messages):
    data = framed(JSON, sent)
    assert data.decode() == "".join(f"{message}," for message in messages)
    ends = [sub_offset(JSON, data, count) for count in range(len(messages) + 1)]
    assert [data[start:end].decode() for start, end in pairwise(ends)] == [f"{message}," for message in messages]


@pytest.mark.parametrize(
    "sent",
    [b"", b"{", b"[1", b"[1,]", b"[1 2]", b"NaN", b"[1] 2", b"\xff", b"[" * 100_000, b'"a\nb"', b"\xef\xbb\xbf1"],
)
def test_what_is_not_json_is_refused(sent):
    with pytest.raises(errors.BadStreamRequest):
        framed(JSON, sent)
