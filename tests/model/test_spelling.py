"""How odd values are spelled in JSON, and that none of them takes others with it."""

import json

import pytest
from hypothesis import given
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment

from crdt_sessions.errors import BadValue
from crdt_sessions.model import (
    Author,
    MessageCursor,
    MessageHead,
    SessionDoc,
    SessionView,
    TextPart,
    ValuePart,
    difference,
    markdown,
    seed,
    shaped,
    system_text,
)
from crdt_sessions.model.checks import parse_json
from crdt_sessions.model.spelling import spelled
from tests.oddities import changes, nested


def begun():
    """Return a session document with two messages."""
    document = SessionDoc(7)
    document.apply(seed("s", generation=1, created_at=1, client_id=3))
    view = SessionView(document)
    head = MessageHead(id="good", role="user", author=Author(id="ann", name="Ann"), created_at=2)
    document.edit(lambda _: view.messages.add(head, [TextPart(type="text", text="before")]))
    return document, view


@given(changes())
def test_whatever_a_client_writes_every_reader_gets_json_and_all_the_rest(change):
    document, view = begun()
    before = document.encode()
    change(document.doc)
    strictly = [shaped(view.messages.ordered(), shape) for shape in ("openai", "anthropic", "ai-sdk")]
    strictly.append([each.to_json() for each in view.messages.ordered()])
    strictly += [[run.to_json() for run in view.runs.all()], [run.settled for run in view.runs.all()]]
    strictly += [
        view.state_value(),
        view.unread("x"),
        view.read_up_to("x"),
        view.meta.to_json() if meta_is_fine(view) else 0,
    ]
    for each in view.messages.views():
        events = MessageCursor().advance(each)
        strictly.append([getattr(event, "value", None) and event.value.to_json() for event in events])
        strictly.append([[tool.state, tool.asked().decisions, tool.asked().approval] for tool in each.tools()])
    if meta_is_fine(view):
        export = view.export()
        strictly += [export.to_json(), difference(before, document.encode())]
        assert "before" in markdown(export)
        assert "good" in [message.id for message in export.messages]
    for value in strictly:
        json.dumps(value, allow_nan=False).encode()
    assert "before" in [message.text for message in view.messages.ordered()]
    assert system_text(view.messages.ordered()) is not None
    document.close()


@pytest.mark.parametrize(
    "written", ['{"a": NaN}', '{"a": 1e999}', '{"a":' + "[" * 5000, '{"a":' + "[" * 900 + "]" * 900 + "}"]
)
def test_what_a_model_writes_as_a_tools_input_is_json_to_everybody(written):
    document, view = begun()
    head = MessageHead(id="answer", role="assistant", author=Author(id="bot"), created_at=3)

    def write(_):
        tool = view.messages.add(head).open_tool("c", "t")
        tool.append(written)
        tool.output("done")

    document.edit(write)
    for shape in ("openai", "anthropic", "ai-sdk"):
        json.dumps(shaped(view.messages.ordered(), shape), allow_nan=False)


def meta_is_fine(view):
    """Tell whether what the server writes there is valid: it restores that, which a document without one does not."""
    meta, wanted = (
        view.document.roots.meta,
        {"sessionId": "s", "generation": 1, "createdAt": 1, "status": "active", "layout": 1},
    )
    return all(meta.get(key) == value for key, value in wanted.items())


def test_each_odd_value_has_a_spelling():
    doc = Doc()
    state = doc.get("state", type=Map)
    state["nan"], state["less"], state["bytes"] = float("nan"), float("-inf"), b"\x01\x02"
    state["text"], state["list"] = Text("é"), Array([1, Map({"deep": b""})])
    state["xml"] = XmlFragment([XmlElement("p", {"a": "b"}, ["hi"])])
    state["sub"] = Doc(guid="g")
    assert spelled(state) == {
        "nan": {"$number": "NaN"},
        "less": {"$number": "-Infinity"},
        "bytes": {"$bytes": "AQI="},
        "text": "é",
        "list": [1, {"deep": {"$bytes": ""}}],
        "xml": '<p a="b">hi</p>',
        "sub": {"$subdocument": state["sub"].guid},
    }
    assert spelled([2**60, -(2**60), 2**53 - 1]) == [{"$bigint": str(2**60)}, {"$bigint": str(-(2**60))}, 2**53 - 1]
    told = json.dumps(spelled([120.0, -0.0, 1.5, {"at": 1795906796225.0}, 2.0**53 - 1, 2.0**53]))
    assert told == '[120, 0, 1.5, {"at": 1795906796225}, 9007199254740991, 9007199254740992.0]'
    assert spelled("a\ud83d") == "a�"
    assert spelled({"\udc00": object()}) == {"�": {"$omitted": "object"}}
    assert "nested deeper" in json.dumps(spelled(nested(70)))
    assert "$omitted" not in json.dumps(spelled(nested(64)))


def test_what_may_be_written_is_told_as_it_was_wherever_it_stands():
    """As deep as a value may be, the message around it makes it deeper."""
    document, view = begun()
    head = MessageHead(id="deep", role="user", author=Author(id="ann"), created_at=3)
    part = ValuePart(type="data", value=nested(62))
    document.edit(lambda _: view.messages.add(head, [part]))
    assert view.export().to_json()["messages"][1]["parts"] == [part.to_json()]


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ('{"a": [0, {"b": NaN}]}', "a[1].b", "not JSON"),
        ("-Infinity", "", "not JSON"),
        ('{"a": 1e999}', "a", "not JSON"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "a.b", "twice"),
    ],
)
def test_what_is_no_json_to_others_is_refused_where_it_comes_in(text, where, why):
    with pytest.raises(BadValue, match=why) as refused:
        parse_json(text)
    assert refused.value.where == where


def test_what_is_json_comes_in_as_it_is():
    text = '{"a": [1, -2.5, 1e3, true, null, "\\ud83d"], "": {}, "big": 12345678901234567890}'
    assert parse_json(text) == json.loads(text)
    with pytest.raises(ValueError, match="Expecting"):
        parse_json("{")
