"""Text beside any item at all: whatever it is taken for, everybody has the same document afterwards.

Text beside the entry of a map is an entry, and each one deletes the one before. Nothing that takes several at once may
show: not the document that takes text later, not the frames of those who lag (decision 0058).
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from crdt_sessions.ids import PeerId
from crdt_sessions.model import SessionDoc, extent_of
from crdt_sessions.sync import ALL, FrameReceived, PeerJoined
from crdt_sessions.wire import EMPTY_UPDATE, SyncStep1, SyncStep2, Update
from crdt_sessions.wire.update_v1 import units
from tests.sync.forged import FORGER, entry, items, text_beside
from tests.sync.test_deferred import NOW, READER, A, Server

LAGGARD = PeerId(3)
AUTHOR = 50
_WORDS = st.lists(st.sampled_from(["a", "bc", "xyz"]), min_size=1, max_size=5)
"""ASCII alone: in an array the library reads for ever what stands behind another letter; no trial here refuses that."""
_ROOTS = {"state": Map, "messages": Map, "artifacts": Map, "draft": Text, "list": Array, "page": XmlFragment}


class Room:
    """A service with somebody who writes, two forgers, a reader that keeps up and one that does not."""

    def __init__(self):
        self.server = Server()
        self.server.handle(PeerJoined(LAGGARD, "p", ALL))
        self.server.handle(FrameReceived(LAGGARD, [SyncStep1(b"\x00"), SyncStep2(EMPTY_UPDATE)]))
        self.author = SessionDoc(AUTHOR)
        self.author.apply(self.server.rows[0])
        self.readers = {READER: SessionDoc(8), LAGGARD: SessionDoc(9)}
        for reader in self.readers.values():
            reader.apply(self.server.rows[0])
        self.take(READER, LAGGARD)
        self.ends = {}

    def close(self):
        for document in (self.author, *self.readers.values()):
            document.close()
        self.server.close()

    def send(self, update):
        self.server.handle(FrameReceived(A, [Update(update)]))
        self.server.commit()
        self.take(READER)

    def take(self, *readers):
        for reader in readers:
            while frames := self.server.engine.take(reader, NOW):
                for frame in frames:
                    shown = getattr(frame, "frame", frame)
                    if isinstance(shown, Update | SyncStep2):
                        self.readers[reader].apply(shown.update)

    def edit(self, change):
        self.author.take_delta()
        update = self.author.edit(lambda document: change(document.doc))[1]
        if update is not None:
            self.send(update)

    def forge(self, beside, words, client=FORGER):
        """Put *words* beside an item, each after the one before; None goes on where the forger stopped."""
        end = self.ends.get(client, 0)
        beside = beside or (client, end - 1)
        for word in words:
            self.send(text_beside(beside, word, client=client, clock=end))
            end += units(word.encode())
            beside = (client, end - 1)
        self.ends[client] = end

    def hear(self):
        """Let the author have what the service has."""
        self.author.apply(self.server.mirror.encode(self.author.state_vector()))

    def documents(self):
        """Return the document of each, by who has it; nothing is shown to the laggard before."""
        assert not self.server.unwritten
        self.take(LAGGARD)
        newcomer, one_by_one = Doc(), Doc()
        newcomer.apply_update(self.server.engine.document.encode())
        for row in self.server.rows:
            one_by_one.apply_update(row)
        readers = {str(reader): document.doc for reader, document in self.readers.items()}
        service, mirror = self.server.engine.document.doc, self.server.mirror.doc
        return {"service": service, "mirror": mirror, "newcomer": newcomer, "one by one": one_by_one, **readers}


@pytest.fixture
def room():
    room = Room()
    yield room
    room.close()


def same(room):
    """See that all are the same; return what the service shows."""
    documents = room.documents()
    service = documents["service"]
    shown = _read(service)
    for who, document in documents.items():
        assert extent_of(document) == extent_of(service), who
        assert _read(document) == shown, who
    return shown


def _read(document):
    return {name: _value(document.get(name, type=kind)) for name, kind in _ROOTS.items()}


def _value(shared):
    if isinstance(shared, Map):
        return {key: _value(shared[key]) for key in shared.keys()}  # noqa: SIM118 (its iterator is no dict's)
    if isinstance(shared, Array):
        return [_value(each) for each in shared]
    return str(shared)


# -- what the author writes --------------------------------------------------------------------------------------------

_VALUES = st.recursive(
    st.sampled_from(["number", "text", "xml"]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.sampled_from("ab"), inner, min_size=1, max_size=2)
    ),
    max_leaves=4,
)


def _made(value):
    """Return what is to be written for a description: made anew each time, since a document takes each only once."""
    if isinstance(value, dict):
        return Map({key: _made(each) for key, each in value.items()})
    if isinstance(value, list):
        return Array([_made(each) for each in value])
    if value == "xml":
        return XmlFragment([XmlElement("p", {"q": "r"}, [XmlText("xt")])])
    return Text("abc") if value == "text" else 1.0


def _set(key, value):
    return lambda doc: doc.get("state", type=Map).__setitem__(key, _made(value))


def _pop(key):
    def change(doc):
        state = doc.get("state", type=Map)
        if key in state:
            del state[key]

    return change


def _append(value):
    return lambda doc: doc.get("list", type=Array).append(_made(value))


def _type(text):
    return lambda doc: doc.get("draft", type=Text).insert(0, text)


def _draw(doc):
    doc.get("page", type=XmlFragment).children.append(XmlElement("p", {"q": "r"}, [XmlText("xt")]))


def _cut(doc):
    doc.get("draft", type=Text).clear()


_KEYS = st.sampled_from("klm")
_EDITS = st.one_of(
    st.builds(_set, _KEYS, _VALUES),
    st.builds(_pop, _KEYS),
    st.builds(_append, _VALUES),
    st.builds(_type, st.just("hello")),
    st.sampled_from([_draw, _cut]),
)

# -- the properties ----------------------------------------------------------------------------------------------------

_FORGERS = st.sampled_from([FORGER, 20])  # one with a greater number than the author's, one with a smaller
_STEPS = st.one_of(
    st.tuples(st.just("forge"), _FORGERS, st.floats(0, 1), _WORDS),
    st.tuples(st.just("go on"), _FORGERS, _WORDS),
    st.tuples(st.just("edit"), _EDITS),
    st.sampled_from([("hear",), ("look",)]),
)


@given(st.lists(_EDITS, max_size=5), st.lists(_STEPS, min_size=1, max_size=10))
def test_text_beside_anything_leaves_everybody_with_the_same_document(edits, steps):
    room = Room()
    try:
        for edit in edits:
            room.edit(edit)
        for kind, *step in steps:
            _take(room, kind, step)
        same(room)
        clocks = extent_of(room.server.mirror.doc).clocks
        assert {client: clocks.get(client) for client in room.ends} == room.ends, "none was refused"
    finally:
        room.close()


def _take(room, kind, step):
    if kind == "forge":
        client, at, words = step
        there = [each for each in items(room.server.mirror) if each[0] not in room.ends]
        # Inside an entry of several characters the library itself splits what it never writes, and a newcomer deletes
        # more of it than those who were there.
        there += [(other, end - 1) for other, end in room.ends.items() if other != client]
        room.forge(there[round((len(there) - 1) * at)], words, client)
    elif kind == "go on":
        client, words = step
        if room.ends.get(client):
            room.forge(None, words, client)
    elif kind == "edit":
        room.edit(step[0])
    elif kind == "hear":
        room.hear()
    else:
        same(room)


@pytest.mark.parametrize("deleted", [False, True])
def test_tokens_beside_the_entry_of_a_map_are_each_taken_at_once(room, deleted):
    """Joined, they would be one entry: those who were there have five of them, of which four are deleted."""
    room.edit(_set("k", "number"))
    beside = entry(room.author, "k")
    if deleted:
        room.edit(_pop("k"))
    for _ in range(2):
        room.forge(beside, "vwxyz")
        beside = None
        assert not room.server.deferred
    assert same(room)["state"] == {"k": "z"}


@pytest.mark.parametrize("root", ["draft", "list", "page", "state"])
def test_tokens_in_a_sequence_are_deferred_from_the_third_on(room, root):
    """Also in roots of which the service knows nothing."""
    room.edit({"draft": _type("hello"), "list": _append("text"), "page": _draw, "state": _set("k", "text")}[root])
    last = [at for at in items(room.author) if at[0] == AUTHOR][-1]
    room.forge(last, "vwxyz")
    assert len(room.server.deferred) == 3
    assert "vwxyz" in str(same(room)[root])


def test_a_stream_whose_text_was_deleted_by_a_forgery_is_known_no_more(room):
    room.edit(_set("k", {"a": "text"}))
    last = [at for at in items(room.author) if at[0] == AUTHOR][-1]
    room.forge(last, "vwxyz")
    room.forge(entry(room.author, "k"), ["gone"], client=20)
    known = len(room.server.deferred)
    room.forge(None, "vwxyz")
    assert len(room.server.deferred) == known
    assert same(room)["state"] == {"k": "gone"}
