"""The document: what JavaScript writes is read, what Python writes is valid, and text is text."""

import json
import weakref

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from crdt_sessions.errors import BadDocument, BadValue, MalformedUpdate, NotFound
from crdt_sessions.model import (
    SEGMENT_BYTES,
    ArtifactHead,
    Author,
    MessageHead,
    Run,
    RunError,
    RunRequest,
    RunResult,
    SessionDoc,
    SessionView,
    TextPart,
    ToolPart,
    ValuePart,
    extent_of,
    fold,
    markdown,
    merge,
    seed,
    text,
)
from crdt_sessions.model.checks import check_json
from crdt_sessions.model.importing import document_from
from crdt_sessions.model.suggestions import Settled
from tests.processes import ROOT

ANN = Author(id="ann", name="Ann")


def head(id, at=1, **more):
    return MessageHead(id=id, role=more.pop("role", "user"), author=ANN, created_at=at, **more)


@pytest.fixture
def document():
    document = SessionDoc(7)
    document.apply(seed("room", generation=1, created_at=5, client_id=6, title="T", metadata={"a": [1]}))
    yield document
    document.close()


@pytest.fixture
def view(document):
    return SessionView(document)


def schema(name):
    return json.loads((ROOT / f"schemas/v1/{name}.schema.json").read_text("utf-8"))


def full(view):
    """Fill a session with one of everything."""

    def fill(_):
        view.messages.add(head("m1", at=3), [TextPart(type="text", text="Hei 😀")])
        reply = view.messages.add(head("m2", at=4, role="assistant", parent="m1"), run_id="r1")
        reply.open_text("reasoning").append("hm")
        stream = reply.open_text()
        stream.append("å")
        stream.close()
        tool = reply.open_tool("c1", "weather")
        tool.append('{"city":')
        tool.append('"Oslo"}')
        tool.close({"city": "Oslo"})
        tool.output({"t": -3.5})
        reply.add_part(ValuePart(type="file", value={"url": "x", "mediaType": "image/png"}))
        reply.add_part(ValuePart(type="audio", value={"url": "y"}, transcript="spoken"))
        view.messages["m1"].seq, view.messages["m2"].seq = 1, 2
        view.runs.request("r1", RunRequest(message_id="m1", created_at=3))
        error = RunError(code="x", message="y")
        view.runs.report("r1", RunResult(status="failed", epoch=1, error=error, at=9))
        view.runs.settle(Run(id="r1", status="failed", output="m2", agent="*", epoch=1))
        view.state["mode"] = {"deep": [1, None]}
        view.artifacts.add(ArtifactHead(id="a1", title="Plan", created_at=4), "# Plan")
        view.mark_read("ann", 2)
        view.mark_read("ann", 1)

    view.document.edit(fill)


def test_a_session_reads_as_it_was_written_and_fits_its_schemas(view):
    full(view)
    export = view.export()
    value = export.json_value()
    jsonschema.validate(value, schema("session"))
    for name, instance in (
        ("meta", value["meta"]),
        ("message", value["messages"][1]),
        ("run", value["runs"][0]),
        ("artifact", value["artifacts"][0]),
    ):
        jsonschema.validate(instance, schema(name))
    assert (export.meta.title, export.meta.metadata) == ("T", {"a": [1]})
    assert [m.id for m in export.messages] == ["m1", "m2"]
    reply = export.messages[1]
    assert (reply.text, reply.text_of(0, "reasoning"), reply.done) == ("å", "hm", False)
    assert [part.type for part in reply.parts] == ["reasoning", "text", "tool", "file", "audio"]
    assert reply.parts[2] == ToolPart(
        type="tool", tool_call_id="c1", tool_name="weather", input_text='{"city":"Oslo"}', input={"city": "Oslo"},
        state="output-available", output={"t": -3.5},
    )  # fmt: skip
    assert reply.parts[4].transcript == "spoken"
    assert export.receipts == {"ann": 2}
    assert export.artifacts[0].content == "# Plan"
    transcript = markdown(export)
    for piece in ("# T", "### Ann (user), 1970-01-01", "> hm", "**Tool `weather`**", '"Oslo"', "## Artifact: Plan"):
        assert piece in transcript


def test_an_export_makes_a_session_that_exports_the_same(view):
    full(view)
    view.document.edit(lambda _: view.messages["m2"].close_parts())
    export = view.export()
    copy = SessionDoc(8)
    copy.apply(merge((seed("copy", generation=1, created_at=9, client_id=3), document_from(export, client_id=4))))
    again = SessionView(copy).export()
    assert export.messages == again.messages
    assert (again.state, again.artifacts, again.receipts) == (export.state, export.artifacts, export.receipts)
    assert (again.runs[0].status, again.runs[0].outcome.reason) == ("interrupted", "imported")
    copy.close()


def test_what_javascript_wrote_is_read(view):
    (vector,) = json.loads((ROOT / "schemas/vectors/session.json").read_text("utf-8"))["vectors"]
    for update in vector["updates"]:
        view.document.apply(bytes.fromhex(update))
    roots = view.document.roots
    for root, expected in vector["json"].items():
        assert getattr(roots, root).to_py() == expected
    assert str(view.document.doc.get("draft", type=Text)) == vector["draft"]
    first, second, third = view.messages.ordered()
    assert (first.text, first.created_at, type(first.created_at)) == ("Wohin? 😀", 1700000000000, int)
    assert (second.text, second.done, second.parent, second.run_id) == ("Nach Öslo 🚆", True, "m1", "r1")
    assert view.runs.value("r1").request.message_id == "m1"
    assert view.runs.value("r1").input.empty
    assert (third.text, len(third.parts), len(view.messages["m3"].parts)) == ("Nach Bergen", 1, 2)
    given = view.runs.value("r2").input
    assert (given.tool("look").where, given.context_text, given.model) == ("client", "Ort:\nOslo", "small")
    assert given.settings == {"temperature": 0.5, "toolChoice": {"name": "look"}}
    jsonschema.validate(view.runs.value("r2").json_value(), schema("run"))
    for message in (first, second, third):
        jsonschema.validate(message.json_value(), schema("message"))


def test_a_step_and_a_suggestion_that_javascript_wrote_are_undone_and_decided(view):
    (vector,) = json.loads((ROOT / "schemas/vectors/session.json").read_text("utf-8"))["vectors"]
    for update in vector["updates"]:
        view.document.apply(bytes.fromhex(update))
    ((step_id, step),) = view.edits.all().items()
    suggestion, draft = view.suggestions["s1"], view.artifacts.text("draft")
    ((piece, who, said),) = view.suggestions.decisions("s1").values()
    jsonschema.validate(step.json_value(), schema("step"))
    jsonschema.validate(suggestion.json_value(), schema("suggestion"))
    jsonschema.validate(view.suggestions.head("s1"), schema("suggestion-head"))
    jsonschema.validate(said.json_value(), schema("piece-decision"))
    assert (str(draft), piece, who) == ("Wir fahren Zug.", 0, "ann")
    settled = Settled(accepted=said.accepted, by=who, at=1)
    view.document.transact(lambda _: view.suggestions.settle("s1", piece, settled))
    jsonschema.validate(view.suggestions["s1"].settled["0"].json_value(), schema("piece-settled"))
    assert str(draft) == "Wir reisen Zug."
    view.document.transact(lambda _: view.edits.undo([step_id], by="ann", at=2))
    jsonschema.validate(view.edits.undone(step_id).json_value(), schema("undone"))
    assert str(draft) == "Wir reisen 🚗 Auto."


def test_one_bad_entry_spoils_nothing(view):
    def scribble(_):
        messages = view.document.roots.messages
        messages["number"] = 5
        messages["headless"] = Map({"parts": Array([])})
        messages["liar"] = Map({"head": head("other").json_value(), "parts": Array([])})
        messages["partless"] = Map({"head": head("partless").json_value()})
        odd = Array([5, Map({"type": "unheard of"}), Map({"type": "text", "text": Text("ok"), "state": "done"})])
        messages["odd"] = Map({"head": head("odd", at=2).json_value(), "parts": odd, "seq": 1.5})
        view.document.roots.runs["r"] = 1
        view.document.roots.runs["q"] = Map({"status": "odd"})
        view.document.roots.artifacts["a"] = Map({"head": 1})
        view.document.roots.receipts["x"] = "y"

    view.document.edit(scribble)
    export = view.export()
    assert [(m.id, len(m.parts), m.seq) for m in export.messages] == [("partless", 0, None), ("odd", 1, None)]
    assert [(run.id, run.status) for run in export.runs] == [("q", None)]
    assert (export.artifacts, export.receipts) == ([], {})
    with pytest.raises(NotFound):
        view.messages["number"]
    view.document.edit(lambda _: view.messages["partless"].open_text().append("now it has"))
    assert view.messages.value("partless").text == "now it has"


def test_a_document_without_meta_says_so():
    document = SessionDoc(1)
    with pytest.raises(BadDocument, match="meta"):
        _ = SessionView(document).meta
    document.close()


def test_order_is_by_seq_then_time_then_id(view):
    def fill(_):
        for id, at, seq in (("c", 1, None), ("b", 1, None), ("a", 9, 2), ("d", 9, 1)):
            view.messages.add(head(id, at=at)).seq = seq

    view.document.edit(fill)
    assert [m.id for m in view.messages.ordered()] == ["d", "a", "b", "c"]


@given(st.text(st.characters(codec="utf-8")), st.data())
def test_text_is_edited_by_characters(content, data):
    doc = Doc()
    shared = doc.get("t", type=Text)
    if content:
        shared += content
    index = data.draw(st.integers(0, len(content)))
    text.insert(shared, index, "é😀")
    content = content[:index] + "é😀" + content[index:]
    assert str(shared) == content
    start = data.draw(st.integers(0, len(content)))
    count = data.draw(st.integers(0, len(content) - start))
    text.delete(shared, start, count)
    assert str(shared) == content[:start] + content[start + count :]


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_the_text_is_an_error(index):
    shared = Doc().get("t", type=Text)
    shared += "a😀b"
    with pytest.raises(IndexError):
        text.insert(shared, index, "x")


@given(st.text(st.sampled_from("a😀é"), max_size=20), st.data())
def test_surrogates_cut_anywhere_join(whole, data):
    units = whole.encode("utf-16-le")
    codes = [chr(int.from_bytes(units[i : i + 2], "little")) for i in range(0, len(units), 2)]
    joiner, out = text.SurrogateJoiner(), ""
    while codes:
        count = data.draw(st.integers(1, len(codes)))
        out += joiner.feed("".join(codes[:count]))
        codes = codes[count:]
        out.encode()  # never half a character
    assert out + joiner.end() == whole


@given(st.lists(st.text(st.sampled_from("aé😀"), max_size=SEGMENT_BYTES // 3), max_size=6))
def test_a_buffer_is_split_before_it_grows_slow(pieces):
    document = SessionDoc(1)
    view = SessionView(document)
    stream, _ = document.edit(lambda _: view.messages.add(head("m")).open_text())
    for piece in pieces:
        document.edit(lambda _, piece=piece: stream.append(piece))
    message = view.messages.value("m")
    assert message.text == "".join(pieces)
    assert all(len(part.text.encode()) <= SEGMENT_BYTES for part in message.parts)
    assert [part.state for part in message.parts[:-1]] == ["done"] * (len(message.parts) - 1)
    document.close()


def test_tokens_cost_few_bytes(view):
    """A thousand tokens of five characters, batched by twenty: about five kilobytes, as the brief promises."""
    before = len(view.document.encode())
    stream, _ = view.document.edit(lambda _: view.messages.add(head("m")).open_text())
    sent = 0
    for _ in range(50):
        _, delta = view.document.edit(lambda _: stream.append("token" * 20))
        sent += len(delta)
    assert len(view.document.encode()) - before < 5400
    assert sent < 7500


def test_malformed_bytes_change_nothing(document):
    before = extent_of(document.doc)
    for update in (b"\xff\xfe", b"\x01\x01\x05\x00\x04\x01\x01t\x05ab", b"\xff" * 40):
        with pytest.raises(MalformedUpdate):
            document.apply(update)
    assert extent_of(document.doc) == before
    with pytest.raises(MalformedUpdate):
        document.encode(b"\xff\xff")


def _history(seed_value):
    import random

    rng = random.Random(seed_value)
    docs = [Doc(client_id=n + 1) for n in range(3)]
    updates = []
    subscriptions = [doc.observe(lambda event: updates.append(event.update)) for doc in docs]
    for _ in range(30):
        doc = rng.choice(docs)
        shared = doc.get("draft", type=Text)
        length = len(str(shared))
        if length and rng.random() < 0.3:
            text.delete(shared, rng.randrange(length), 1)
        else:
            text.insert(shared, rng.randint(0, length), rng.choice("aé😀"))
        doc.get("state", type=Map)[rng.choice("xyz")] = {"k": rng.random(), "l": 1}
        if rng.random() < 0.3:
            rng.choice(docs).apply_update(doc.get_update())
    for doc, subscription in zip(docs, subscriptions, strict=True):
        doc.unobserve(subscription)
    return rng, updates


@given(st.integers(0, 10_000))
def test_containment_is_never_wrongly_claimed_and_folding_loses_nothing(seed_value):
    rng, updates = _history(seed_value)
    rng.shuffle(updates)
    kept = updates[: rng.randint(1, len(updates))]
    document, everything = SessionDoc(99), SessionDoc(98)
    for update in kept:
        document.apply(update)
    everything.apply(merge(updates))
    for update in updates:
        if document.contains(update):
            before = extent_of(document.doc)
            document.apply(update)
            assert extent_of(document.doc) == before
        assert everything.contains(update)
    copy = SessionDoc(97)
    copy.apply(fold(kept).update)
    for update in updates[len(kept) :]:  # what waited for a gap in the rows still waits in the snapshot
        copy.apply(update)
        document.apply(update)
    assert extent_of(copy.doc) == extent_of(document.doc) == extent_of(everything.doc)
    assert copy.waiting == document.waiting == b"\x00\x00"
    for each in (document, everything, copy):
        each.close()


@given(st.integers(0, 10_000))
def test_whatever_the_order_of_updates_the_document_is_the_same_and_so_are_its_deltas(seed_value):
    """The library alone fails this: it forgets to look again at some updates that waited."""
    rng, updates = _history(seed_value)
    expected, shuffled, reader = SessionDoc(99), SessionDoc(98), SessionDoc(97)
    for update in updates:
        expected.apply(update)
    rng.shuffle(updates)
    for update in updates:
        if (delta := shuffled.apply(update)) is not None:
            reader.apply(delta)
    assert extent_of(shuffled.doc) == extent_of(reader.doc) == extent_of(expected.doc)
    for root in ("draft", "state"):
        kind = Text if root == "draft" else Map
        contents = [each.doc.get(root, type=kind).to_py() for each in (expected, shuffled, reader)]
        assert contents[0] == contents[1] == contents[2]
    for each in (expected, shuffled, reader):
        each.close()


def test_touched_says_where_a_change_was(view):
    full(view)
    touched = view.document.take_touched()
    assert (set(touched.messages), touched.runs) == ({"m1", "m2"}, {"r1"})
    view.document.edit(lambda _: view.messages["m1"].parts[0]["text"].insert(0, "x"))
    touched = view.document.take_touched()
    assert (touched.messages, touched.only_text) == ({"m1": set()}, True)
    view.document.edit(lambda _: view.messages["m1"].parts[0].__setitem__("state", "final"))
    touched = view.document.take_touched()
    assert (touched.messages, touched.only_text) == ({"m1": set()}, False)
    view.document.edit(lambda _: view.set_title("U"))
    assert view.document.take_touched().meta == {"title"}


@pytest.mark.parametrize("take", [SessionDoc.apply, SessionDoc.append])
def test_a_document_that_begins_with_a_whole_one_knows_all_that_is_in_it_and_notices_what_follows(view, take):
    full(view)
    view.messages["m1"].parts[0]["text"].insert(0, "long " * 1000)
    begun = SessionDoc(7)
    whole = view.document.encode()
    delta = take(begun, whole)
    assert SessionDoc(8).apply(whole if isinstance(delta, bool) else delta) is not None
    touched = begun.take_touched()
    assert (set(touched.messages), touched.runs) == ({"m1", "m2"}, {"r1"})
    assert touched.meta == set(view.document.roots.meta.keys())
    begun.edit(lambda _: SessionView(begun).set_title("U"))
    assert begun.take_touched().meta == {"title"}


def test_an_update_that_names_a_client_and_nothing_it_deleted_says_nothing(document):
    document.apply(b"\x00\x01\x05\x00")
    assert document.contains(b"\x00\x01\x05\x00")
    assert document.waiting == b"\x00\x00"


def test_malformed_bytes_as_a_beginning_change_nothing_and_what_follows_is_noticed():
    begun = SessionDoc(7)
    with pytest.raises(MalformedUpdate):
        begun.apply(b"\xff" * 5000)
    begun.edit(lambda _: SessionView(begun).set_title("U"))
    assert begun.take_touched().meta == {"title"}


def test_a_closed_document_is_freed():
    document = SessionDoc(1)
    full(SessionView(document))
    gone = weakref.ref(document.doc)
    document.close()
    del document
    import gc

    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", ["array", "map", "text"])
def test_documents_of_an_old_yjs_are_read(name):
    folder = ROOT / "tests/data/yjs"
    expected = json.loads((folder / f"yjs-13.2.0-{name}.expected.json").read_text("utf-8"))
    document = SessionDoc(1)
    document.apply((folder / f"yjs-13.2.0-{name}.bin").read_bytes())
    kind = {"array": Array, "map": Map, "text": Text}[expected["type"]]
    root = document.doc.get(expected["root"], type=kind)
    if "json" in expected:
        assert root.to_py() == expected["json"]
    else:
        plain = "".join(item["insert"] for item in expected["delta"] if isinstance(item["insert"], str))
        assert "".join(char for char in str(root)) == plain
    document.close()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (2**53, "integer beyond"),
        (float("nan"), "not JSON"),
        (float("inf"), "not JSON"),
        ("\ud83d", "surrogate"),
        ({1: 2}, "not text"),
        ({"\udc00": 2}, "surrogate"),
        (b"x", "bytes is not JSON"),
        ([{"a": (1, object())}], "object is not JSON"),
    ],
)
def test_what_the_document_cannot_hold_is_refused_before_it_is_written(view, value, why):
    for write in (
        lambda _: view.messages.add(head("m"), [ValuePart(type="data", value=value)]),
        lambda _: view.messages.add(head("n")).open_tool("c", "t").output(value),
    ):
        with pytest.raises(BadValue, match=why):
            view.document.transact(write)
    assert "m" not in view.messages
    with pytest.raises(BadValue):
        seed("s", generation=1, created_at=1, client_id=1, metadata={"deep": value})


def test_values_may_be_deep_but_not_bottomless():
    deep = value = []
    for _ in range(100):
        value.append([])
        value = value[0]
    with pytest.raises(BadValue, match="nested deeper"):
        check_json(deep)


@pytest.mark.parametrize("value", [2**70, "\ud83d", {1: 2}])
def test_a_panic_while_writing_is_an_error_and_the_document_goes_on(document, value, capfd):
    state = document.roots.state

    def change(_):
        state["before"] = 1
        state["bad"] = value

    with pytest.raises(BadValue):
        document.transact(change)
    assert document.take_delta() is not None  # a CRDT cannot roll back
    document.edit(lambda _: state.update({"after": 2}))
    assert state.to_py() == {"before": 1.0, "after": 2.0}
