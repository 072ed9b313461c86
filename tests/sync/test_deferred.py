"""Text that the document takes later: nobody can tell, and what is stored is what is shown (decision 0058)."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from pycrdt import Text

from crdt_sessions.ids import PeerId, Seq
from crdt_sessions.limits import Limits
from crdt_sessions.model import (
    Author,
    DocumentFailed,
    MessageHead,
    SessionDoc,
    SessionView,
    seed,
    settled_meta,
)
from crdt_sessions.model import text as code_points
from crdt_sessions.model.deferred import MAX_BYTES
from crdt_sessions.sync import (
    ALL,
    TRUSTED,
    Committed,
    EngineFailed,
    FrameReceived,
    PeerJoined,
    Persist,
    SessionEngine,
    Tick,
    Tried,
    Try,
)
from crdt_sessions.testing import content
from crdt_sessions.wire import EMPTY_UPDATE, SyncStep1, SyncStep2, Update
from tests.sync.test_engine import NOW, Bench

A, READER = PeerId(1), PeerId(2)
WRITERS = range(3)
_WORDS = st.lists(st.sampled_from(["a", "bc", "é", "😀"]), min_size=1, max_size=6)
SEED = seed("room", generation=1, created_at=NOW, client_id=2)


def engine_of(rows):
    document = SessionDoc(1)
    for update in rows:
        document.apply(update)
    return SessionEngine(
        "room",
        document,
        after=Seq(len(rows)),
        settled_meta=settled_meta("room", 1, NOW, "active"),
        limits=Limits(log_bytes=2000),
    )


class Server:
    """An engine with a writing peer and a reading one, its disk, and a mirror that takes everything at once."""

    def __init__(self):
        self.rows, self.unwritten = [SEED], []
        self.engine = self.mirror = None
        self.load()

    def load(self):
        self.close()
        self.engine, self.mirror = engine_of(self.rows), SessionDoc(3)
        for row in self.rows:
            self.mirror.apply(row)
        self.deferred = set()
        document = self.engine.document
        defer = document.defer
        document.defer = lambda client, clock, update, at: (
            self.deferred.add(update) or defer(client, clock, update, at)
        )
        self.do(self.engine.start(NOW))
        for peer in (A, READER):
            self.handle(PeerJoined(peer, "p", ALL))
            self.handle(FrameReceived(peer, [SyncStep1(b"\x00"), SyncStep2(EMPTY_UPDATE)]))
            self.engine.take(peer, NOW)

    def close(self):
        for document in (self.engine.document, self.mirror) if self.engine is not None else ():
            document.close()

    def handle(self, event):
        self.do(self.engine.handle(event, NOW))

    def do(self, effects):
        for effect in effects:
            if isinstance(effect, Try):
                self.handle(Tried(effect.trial, TRUSTED))
            elif isinstance(effect, Persist):
                self.store(effect)

    def store(self, effect):
        self.unwritten.append(effect.update)
        self.mirror.take_touched()
        delta = self.mirror.apply(effect.update)
        assert self.mirror.waiting == EMPTY_UPDATE, "nothing is stored that waits for something"
        touched, last = self.mirror.take_touched(), self.engine.changes._last
        assert all(last[("message", message_id)] >= effect.seq for message_id in touched.messages)
        if effect.update in self.deferred:
            assert delta not in (None, EMPTY_UPDATE), "what is deferred is new, and all of it is taken"
            assert touched.only_text, "there is nothing to be decided about it"
            if effect.seq == self.engine.log.head:
                noted = {subject for subject, seq in last.items() if seq == effect.seq}
                assert noted == {("message", message_id) for message_id in touched.messages}

    def commit(self):
        if self.unwritten:
            self.rows += self.unwritten
            self.unwritten = []
            self.handle(Committed(Seq(len(self.rows))))

    def crash(self):
        self.unwritten = []
        self.load()


class Deferring(RuleBasedStateMachine):
    """Whatever comes between: what is stored applies, and what is shown is what is stored."""

    @initialize()
    def begin(self):
        self.server = Server()
        self.writers = [SessionDoc(100 + number) for number in WRITERS]
        self.sent, self.count = [], 0
        for number in WRITERS:
            self.join(number)
            self.post(number)

    def send(self, update):
        self.sent.append(update)
        self.server.handle(FrameReceived(A, [Update(update)]))

    def edit(self, number, change):
        writer = self.writers[number]
        writer.take_delta()
        return writer.edit(change)[1]

    def text(self, number, which):
        """Return a text of a writer's: of its message, of the shared draft, or in the state."""
        document = self.writers[number]
        if which == "draft":
            return document.doc.get("draft", type=Text)
        entries = [
            entry for entry in document.roots.messages.values() if entry["head"]["author"]["id"] == f"w{number}"
        ]
        return entries[-1]["parts"][0]["text"] if entries else document.doc.get("draft", type=Text)

    @rule(number=st.sampled_from(WRITERS))
    def post(self, number):
        """Begin a message with a text of its own."""
        self.count += 1
        head = MessageHead(id=f"m{self.count}", role="user", author=Author(id=f"w{number}"), created_at=NOW)

        def change(document):
            SessionView(document).messages.add(head).open_text().append("b")

        self.send(self.edit(number, change))

    @rule(number=st.sampled_from(WRITERS), words=_WORDS, looks=st.booleans())
    def stream(self, number, words, looks):
        """Send one token after the other; somebody may look."""
        for word in words:
            self.send(self.edit(number, lambda _, word=word: self.text(number, "own").__iadd__(word)))
        if looks:
            self.read_a_message()

    @rule(number=st.sampled_from(WRITERS))
    def stream_with_a_gap(self, number):
        """Send tokens of which the first two come last, as after a reconnect."""
        tokens = [self.edit(number, lambda _: self.text(number, "own").__iadd__("g")) for _ in range(3)]
        for token in (tokens[2], tokens[1], tokens[0], tokens[1]):
            self.send(token)
        self.read()

    @rule(number=st.sampled_from(WRITERS), where=st.sampled_from(["own", "draft"]), at=st.floats(0, 1))
    def type_text(self, number, where, at):
        text = self.text(number, where)
        place = round(len(str(text)) * at)
        self.send(self.edit(number, lambda _: code_points.insert(text, place, "t")))

    @rule(number=st.sampled_from(WRITERS))
    def delete_text(self, number):
        text = self.text(number, "own")
        if str(text):
            self.send(self.edit(number, lambda _: code_points.delete(text, 0, 1)))

    @rule(number=st.sampled_from(WRITERS), mine=st.booleans())
    def delete_message(self, number, mine):
        """Delete a message, in which somebody may be writing."""
        document = self.writers[number]
        ids = sorted(document.roots.messages.keys())
        if ids:
            chosen = ids[-1 if mine else 0]
            self.send(self.edit(number, lambda _: document.roots.messages.pop(chosen)))

    @rule(number=st.sampled_from(WRITERS))
    def set_state(self, number):
        self.count += 1
        count = float(self.count)
        self.send(self.edit(number, lambda document: document.roots.state.__setitem__("k", count)) or EMPTY_UPDATE)

    @rule(number=st.sampled_from(WRITERS))
    def join(self, number):
        """Let a writer catch up with the server, after the server has got all of it."""
        writer, document = self.writers[number], self.server.engine.document
        self.send(writer.encode(document.state_vector()))
        writer.apply(document.encode(writer.state_vector()))
        writer.take_delta()

    @rule(back=st.integers(1, 5))
    def repeat(self, back):
        if len(self.sent) >= back:
            self.send(self.sent[-back])

    @rule()
    def commit(self):
        self.server.commit()

    @rule()
    def crash(self):
        """Lose what is not stored; the writers bring it again."""
        self.server.crash()
        for number in WRITERS:
            self.join(number)

    @rule()
    def tick(self):
        self.server.handle(Tick())

    @rule()
    def take(self):
        self.server.engine.take(READER, NOW)

    @rule()
    def read(self):
        """Whoever reads sees all there is, and that is what is stored."""
        assert content(self.server.engine.document) == content(self.server.mirror)

    @rule()
    def read_a_message(self):
        view, mirrored = self.server.engine.view, SessionView(self.server.mirror)
        assert view.messages.ordered() == mirrored.messages.ordered()

    def teardown(self):
        if hasattr(self, "server"):
            self.read()
            for document in self.writers:
                document.close()
            self.server.close()


TestDeferring = Deferring.TestCase


# -- what is deferred, and for how long --------------------------------------------------------------------------------


def streaming(bench, count, word="token "):
    """Let a peer stream tokens into a text; return them, and the text's document."""
    author = SessionDoc(50)
    draft = author.doc.get("draft", type=Text)
    tokens = [author.edit(lambda _: draft.__iadd__(word))[1] for _ in range(count + 2)]
    bench.join(A)
    for token in tokens:
        bench.send(A, Update(token))
    return author


def test_a_stream_is_stored_and_passed_on_before_the_document_takes_it():
    bench = Bench()
    bench.join(READER)
    author = streaming(bench, 20)
    assert bench.engine.document.behind
    assert len(bench.rows) == 22
    (frame,) = bench.take(READER)
    seen = SessionDoc(9)
    seen.apply(frame.update)
    assert str(seen.doc.get("draft", type=Text)) == "token " * 22
    assert bench.engine.document.encode() == bench.engine.document.encode()
    assert not bench.engine.document.behind
    assert content(bench.engine.document)["draft"] == content(author)["draft"]


@pytest.mark.parametrize(
    "look",
    [
        lambda engine: engine.document.doc,
        lambda engine: engine.document.roots,
        lambda engine: engine.document.encode(),
        lambda engine: engine.document.encode(b"\x00"),
        lambda engine: engine.document.state_vector(),
        lambda engine: engine.document.contains(EMPTY_UPDATE),
        lambda engine: engine.document.may_hold_pairs,
        lambda engine: engine.document.transact(lambda _: None),
        lambda engine: engine.view.messages.ids(),
        lambda engine: engine.view.runs.ids(),
        lambda engine: "a" in engine.view.artifacts,
        lambda engine: engine.view.state.keys(),
        lambda engine: engine.view.receipts.keys(),
        lambda engine: engine.view.meta,
        lambda engine: engine.handle(Tick(), NOW),
        lambda engine: engine.settle(),
    ],
)
def test_every_door_to_the_document_leads_to_all_of_it(look):
    bench = Bench()
    streaming(bench, 5)
    assert bench.engine.document.behind
    look(bench.engine)
    assert not bench.engine.document.behind


def test_the_document_lags_by_a_bounded_number_of_bytes():
    bench = Bench()
    streaming(bench, 2000)
    document = bench.engine.document
    assert document._deferred.bytes <= MAX_BYTES
    assert len(str(document._doc.get("draft", type=Text))) > 2002 * 6 - MAX_BYTES


# -- when the check was wrong ------------------------------------------------------------------------------------------


def wrong(bench):
    """Have the document be promised a token of which the one before never came."""
    author = SessionDoc(50)
    draft = author.doc.get("draft", type=Text)
    first, _, third = (author.edit(lambda _: draft.__iadd__("abc"))[1] for _ in range(3))
    bench.join(A)
    bench.send(A, Update(first))
    bench.engine.document.defer(50, 9, third, len(third) - 5)


def test_a_document_that_lacks_what_it_was_promised_is_used_no_more():
    bench = Bench()
    wrong(bench)
    for _ in range(2):
        with pytest.raises(DocumentFailed):
            bench.engine.document.encode()
        with pytest.raises(DocumentFailed):
            bench.engine.view.messages.ids()
    with pytest.raises(EngineFailed):
        bench.engine.settle()


def test_nobody_is_blamed_for_what_was_promised_before():
    bench = Bench()
    wrong(bench)
    other = SessionDoc(60)
    _, update = other.edit(lambda document: document.roots.state.__setitem__("k", 1.0))
    with pytest.raises(DocumentFailed):
        bench.send(A, Update(update))
    assert len(bench.rows) == 1
