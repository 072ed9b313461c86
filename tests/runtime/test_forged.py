"""What no client puts side by side is refused where it is tried: all have one document, and it can be folded.

Decision 0077. What passes without a trial is looked at in tests/sync/test_plain.py.
"""

import asyncio
import contextlib
import sys

import pytest
from pycrdt import Array, Doc, Map, Text, UndoManager, XmlElement, XmlFragment, XmlText, merge_updates

from crdt_sessions.errors import PanickedUpdate, UpdateError
from crdt_sessions.model import SessionDoc, encode_verified, extent_of
from crdt_sessions.runtime import Sandbox, SessionRegistry
from crdt_sessions.sync.plain import Inspector
from crdt_sessions.wire.update_v1 import NO_DELETIONS, STRING
from crdt_sessions.wire.varint import buffer, varuint
from tests.sync.forged import FORGER, entry, text_as_entry, text_beside

from .conftest import ROOM, Peer, until
from .test_sandbox import Session

pytestmark = pytest.mark.processes

AUTHOR = 50


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def guarded(store, clock, sandbox):
    async with SessionRegistry(store, clock=clock, sandbox=sandbox) as registry:
        yield registry


# -- in a session ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["behind an entry", "as an entry"])
async def test_who_puts_text_into_the_entry_of_a_map_leaves_a_session_that_can_be_folded(guarded, way):
    """Who loads the document would delete more of the entry than those who were there, and no fold could be verified:
    the session's rows would grow for ever."""
    async with Peer(guarded) as ann:
        await ann.edit(lambda view: view.state.__setitem__("k", "v"))
        async with guarded.open(ROOM) as session:
            await until(lambda: session.view.state.get("k") == "v")
            behind = entry(session.engine.document, "k")
            for update in (
                text_beside(behind, "abcd") if way == "behind an entry" else text_as_entry("abcd", "state", "l"),
                text_beside((FORGER, 1), "X", client=FORGER + 1),
            ):
                with contextlib.suppress(UpdateError):
                    await session.apply(update)
            await session.snapshot()
            assert session.view.state.get("k") == "v"


# -- in the sandbox ----------------------------------------------------------------------------------------------------


class Written(Session):
    """A session in which an author has written a text, an entry of a map, and one that was collected."""

    def __init__(self, filler):
        super().__init__()
        self.author = SessionDoc(AUTHOR)
        for change in (
            lambda doc: doc.doc.get("draft", type=Text).__iadd__("abcd"),
            lambda doc: doc.roots.state.__setitem__("k", "v"),
            lambda doc: doc.roots.state.__setitem__("gone", Text("wxyz")),
            lambda doc: doc.roots.state.pop("gone"),
            lambda doc: doc.doc.get("filler", type=Text).__iadd__("x" * filler),
        ):
            self.edit(change)
        self.entry = entry(self.author, "k")

    def edit(self, change):
        self.document.apply(self.author.edit(change)[1])


TEXT, COLLECTED = (AUTHOR, 1), (AUTHOR, 7)
FORGED = {
    "text as an entry": lambda entry: text_as_entry("abcd", "state", "l"),
    "text behind an entry": lambda entry: text_beside(entry, "abcd"),
    "text between text and an entry": lambda entry: text_beside(TEXT, "X", right=entry),
    "text between an entry and text": lambda entry: text_beside(entry, "X", right=TEXT),
    "text between text and what was collected": lambda entry: text_beside(TEXT, "X", right=COLLECTED),
    "text between what was collected and text": lambda entry: text_beside(COLLECTED, "X", right=TEXT),
}


@pytest.mark.parametrize("filler", [10, 100_000], ids=["small", "large"])
@pytest.mark.parametrize("what", FORGED)
async def test_what_no_client_puts_side_by_side_is_refused(sandbox, what, filler):
    """Yjs would have another document than we, or who loads it another one than who was there. In a large document,
    too, which is not encoded and loaded for each update."""
    written = Written(filler)
    with pytest.raises(PanickedUpdate):
        await written.take(sandbox, FORGED[what](written.entry))
    assert sandbox.deaths == 0, "it was looked at, and nothing died of it"
    await written.take(sandbox, text_beside((AUTHOR, 1), "X", client=20, right=(AUTHOR, 2)))
    assert str(written.document.doc.get("draft", type=Text)) == "abXcd"


@pytest.mark.parametrize("deleted", [False, True])
async def test_many_neighbours_of_one_update_are_looked_at(sandbox, deleted):
    """Also where most of them were deleted, and where one was collected."""
    written = Written(10)
    written.edit(lambda doc: doc.doc.get("draft", type=Text).__iadd__("x" * 40))
    others = [inserting_at_many_places(written.author, client) for client in (20, 21)]
    if deleted:
        written.edit(lambda doc: doc.doc.get("draft", type=Text).clear())
    await written.take(sandbox, others[0])
    with pytest.raises(PanickedUpdate):
        await written.take(sandbox, merge_updates(others[1], text_beside(TEXT, "X", right=COLLECTED)))
    await written.take(sandbox, others[1])
    assert str(written.document.doc.get("draft", type=Text)).count("y") == 2 * 22


def inserting_at_many_places(author, client):
    document = Doc(client_id=client)
    document.apply_update(author.encode())
    before, draft = document.get_state(), document.get("draft", type=Text)
    for at in range(len(str(draft)) - 1, 0, -2):
        draft.insert(at, "y")
    return document.get_update(before)


async def test_an_imported_document_with_an_entry_that_could_be_split_is_refused(sandbox):
    with pytest.raises(PanickedUpdate):
        await sandbox.vouch([text_as_entry("abcd", "state", "l")])
    await sandbox.vouch([text_as_entry("a", "state", "l")])


async def test_a_letter_behind_an_entry_takes_its_place_as_the_library_has_it(sandbox):
    """It cannot be split, and all libraries agree on it."""
    written = Written(10)
    await written.take(sandbox, text_beside(written.entry, "a"))
    assert written.document.roots.state["k"] == "a"
    encode_verified(written.document)


class Two:
    """Two clients that write at once, and a session that takes what they wrote."""

    def __init__(self, sandbox, **options):
        self.sandbox, self.session = sandbox, Session()
        self.documents = [Doc(client_id=client, **options) for client in (60, 40)]

    async def write(self, *changes):
        """Let each make its change without the other's, and have all taken."""
        before = [document.get_state() for document in self.documents]
        for document, change in zip(self.documents, changes, strict=True):
            with document.transaction():
                change(document)
        updates = [document.get_update(state) for document, state in zip(self.documents, before, strict=True)]
        for update in updates:
            await self.session.take(self.sandbox, update)
            for document in self.documents:
                document.apply_update(update)


def _nothing(_document):
    pass


@pytest.mark.parametrize("skip_gc", [False, True])
async def test_what_clients_put_side_by_side_is_taken(sandbox, skip_gc):
    """Also beside what somebody deletes at the same time, and entries that a client without collection keeps."""
    two = Two(sandbox, skip_gc=skip_gc)

    def text(doc):
        return doc.get("state", type=Map)["t"]

    def page(doc):
        return doc.get("page", type=XmlFragment)

    await two.write(lambda doc: doc.get("state", type=Map).__setitem__("t", Text("hello")), _nothing)
    await two.write(lambda doc: text(doc).insert(2, "X"), lambda doc: text(doc).insert(2, "YZ"))
    await two.write(lambda doc: text(doc).format(1, 3, {"bold": True}), lambda doc: text(doc).insert(3, "W"))
    await two.write(lambda doc: text(doc).insert(3, "V"), lambda doc: doc.get("state", type=Map).pop("t"))
    for number in range(3):
        await two.write(*[lambda doc, n=number: doc.get("state", type=Map).__setitem__("k", float(n))] * 2)
    await two.write(lambda doc: page(doc).children.append(XmlElement("p", {"q": "r"}, [XmlText("xt")])), _nothing)
    await two.write(*[lambda doc: page(doc).children.insert(0, XmlElement("p", {"q": "r"}, [XmlText("xt")]))] * 2)
    await two.write(lambda doc: page(doc).children.insert(1, XmlText("between")), _nothing)
    assert all(extent_of(two.session.document.doc) == extent_of(document) for document in two.documents)


class Arrays:
    """A document with arrays, and texts in which something else stands."""

    def __init__(self):
        self.author, self.session = Doc(client_id=AUTHOR), Session()
        self.state = self.author.get("state", type=Map)
        self.state["list"] = Array([1.0, 2.0])  # clocks 0, and 1 and 2
        self.state["types"] = Array([Map({"k": 1.0})])  # 3, 4 and 5
        self.state["empty"] = Array()  # 6
        self.state["gone"] = Array([1.0, 2.0, 3.0])  # 7, and 8 to 10
        self.author.get("page", type=XmlFragment).children.append(XmlElement("p"))  # 11
        self.state["gone"].clear()
        self.session.document.apply(self.author.get_update())

    async def take(self, sandbox, update):
        await self.session.take(sandbox, update)
        return self.state.to_py()


def first_child(parent, text):
    """Return the update that makes *text* the first child of a type."""
    head = map(varuint, (1, 1, FORGER, 0))
    where = map(varuint, (0, *parent))
    return b"".join((*head, bytes((STRING,)), *where, buffer(text.encode()), NO_DELETIONS))


_IN_ARRAYS = {
    "behind a value": lambda text: text_beside((AUTHOR, 1), text, right=(AUTHOR, 2)),
    "at the end": lambda text: text_beside((AUTHOR, 2), text),
    "behind a type": lambda text: text_beside((AUTHOR, 4), text),
    "behind what was deleted": lambda text: text_beside((AUTHOR, 9), text),
    "as the first": lambda text: first_child((AUTHOR, 6), text),
    "one behind the other": lambda text: merge_updates(
        text_beside((AUTHOR, 1), "a"), text_beside((FORGER, 0), text, client=FORGER + 1)
    ),
}


@pytest.mark.parametrize("text", ["a", "é"])
@pytest.mark.parametrize("where", _IN_ARRAYS)
async def test_text_in_an_array_is_refused(sandbox, where, text):
    """The library reads an array for ever in which something stands behind a letter that is not ASCII: one frame
    stopped the service for good."""
    arrays, update = Arrays(), _IN_ARRAYS[where](text)
    assert Inspector(arrays.session.document).passes(update) is None, "it needs a trial"
    with pytest.raises(PanickedUpdate):
        await arrays.take(sandbox, update)
    assert sandbox.deaths == 0


async def test_what_reads_for_ever_still_does_in_the_library():
    """If this fails, the library has changed: look whether text in arrays is still to be refused."""
    code = (
        "from pycrdt import Array, Doc; from tests.sync.forged import text_beside; d = Doc(client_id=50); "
        "a = d.get('a', type=Array); a.extend([1.0, 2.0]); d.apply_update(text_beside((50, 0), 'é', client=20)); print(a[1], flush=True); a[2]"
    )
    reading = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    try:
        assert await reading.stdout.readline() == "é\n".encode()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reading.wait(), 1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            reading.kill()
        await reading.wait()


async def test_text_among_the_children_of_an_element_is_taken(sandbox):
    """As Yjs 14 writes it."""
    arrays = Arrays()
    await arrays.take(sandbox, first_child((AUTHOR, 11), "é"))
    assert "é" in str(arrays.session.document.doc.get("page", type=XmlFragment))


async def test_text_beside_what_is_embedded_in_a_text_is_taken(sandbox):
    """Also behind what somebody else has deleted meanwhile."""
    two = Two(sandbox)
    draft = [document.get("draft", type=Text) for document in two.documents]
    await two.write(lambda _: draft[0].insert(0, "hello"), _nothing)
    await two.write(lambda _: draft[0].insert_embed(2, Map({"k": 1.0})), _nothing)
    await two.write(lambda _: draft[0].insert(3, "x"), lambda _: draft[1].insert(2, "y"))
    await two.write(lambda _: draft[0].format(1, 3, {"bold": True}), lambda _: draft[1].insert(1, "X"))
    await two.write(lambda _: draft[0].clear(), lambda _: draft[1].insert(4, "Y"))
    await two.write(lambda _: draft[0].insert(0, "Z"), lambda _: draft[1].insert(0, "W"))
    shown = [str(document.get("draft", type=Text)) for document in (two.session.document.doc, *two.documents)]
    assert shown == [shown[0]] * 3, (extent_of(two.session.document.doc), *map(extent_of, two.documents))


async def test_an_entry_that_is_brought_back_is_taken(sandbox):
    two = Two(sandbox)
    state = two.documents[0].get("state", type=Map)
    undoing = UndoManager(scopes=[state], capture_timeout_millis=0)
    for value in (1.0, 2.0, 3.0):
        await two.write(lambda _, value=value: state.__setitem__("k", value), _nothing)
    before = two.documents[0].get_state()
    assert undoing.undo()
    assert undoing.undo()
    await two.session.take(sandbox, two.documents[0].get_update(before))
    assert two.session.document.roots.state["k"] == 1.0
