"""What a Yjs client may write into a session document that JSON has no word for, at any place of it."""

import json
import math

from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment

SCALARS = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -0.0, 2.0**60, 1.5, 3]),
    st.binary(max_size=8),
    st.text(max_size=8),
    st.booleans(),
    st.none(),
)
KEYS = st.text(max_size=6) | st.sampled_from(["id", "seq", "parts", "type", "runId", "run_id", "createdAt"])


def nested(depth):
    """Return a value of that many levels."""
    value = 1
    for _ in range(depth):
        value = [value]
    return value


VALUES = st.recursive(
    SCALARS | st.integers(65, 90).map(nested),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
SHARED = st.one_of(
    VALUES,
    st.builds(lambda text: Text(text), st.text(max_size=8)),
    st.builds(lambda: XmlFragment([XmlElement("p", {"a": "b"}, ["hi"])])),
    st.builds(lambda: Doc()),
    st.builds(lambda items: Array(items), st.lists(VALUES, max_size=3)),
    st.builds(lambda items: Map(items), st.dictionaries(KEYS, VALUES, max_size=3)),
)
HEAD = {"role": "user", "author": {"id": "x", "name": "x", "kind": "human"}, "parent": None, "createdAt": 1}
PARTS = {
    "text": lambda: {"type": "text", "text": Text("t"), "state": "done"},
    "data": lambda: {"type": "data", "value": {"name": "n", "data": 1}},
    "audio": lambda: {"type": "audio", "value": 1, "transcript": Text("t"), "state": "done"},
    "tool": lambda: {
        "type": "tool", "toolCallId": "c", "toolName": "t", "inputText": Text("{"), "input": {},
        "state": "output-available", "output": 1, "decisions": Map({"p": {"approved": True, "at": 1}}),
        "approvalRequest": {"needs": "any", "requestedAt": 1}, "approval": {"approved": True, "by": "p", "at": 1},
    },
}  # fmt: skip


def _message(doc, head, parts, more=()):
    entry = {"head": {"id": "odd", **HEAD, **head}, "parts": Array([Map(part) for part in parts]), **dict(more)}
    doc.get("messages", type=Map)["odd"] = Map(entry)


def _run(doc, key, value):
    request = {"messageId": "odd", "agent": "*", "trigger": "submit", "createdAt": 1}
    doc.get("runs", type=Map)["odd"] = Map({"request": request, "status": "completed", **{key: value}})


def _root(name):
    return lambda doc, key, value: doc.get(name, type=Map).__setitem__(key, value)


def _artifact(doc, key, value):
    head = {"id": "odd", "title": "t", "createdAt": 1}
    doc.get("artifacts", type=Map)["odd"] = Map({"head": {**head, key: value}, "content": Text("c")})


_PLAIN = {  # places within a JSON value, which holds no shared types
    "head": (lambda doc, key, value: _message(doc, {key: value}, [PARTS["text"]()]), [*HEAD, "id", "modality"]),
    "request": (lambda doc, key, value: _run(doc, "request", {key: value}), ["messageId", "createdAt", "by"]),
    "result": (lambda doc, key, value: _run(doc, "result", {"status": "failed", key: value}), ["error", "reason"]),
    "artifact head": (_artifact, ["title", "createdAt", "mediaType", "content"]),
}
_ANY = {
    "meta": (_root("meta"), ["title", "metadata", "agent", "runPolicy", "sessionId", "generation", "createdAt"]),
    "entry": (lambda doc, key, value: _message(doc, {}, [PARTS["text"]()], {key: value}), ["head", "parts", "seq"]),
    "message": (_root("messages"), ["odd"]),
    "run": (_run, ["request", "cancel", "result", "steers", "status", "lease", "outcome", "output", "epoch"]),
    "runs": (_root("runs"), ["odd"]),
    "state": (_root("state"), ["k"]),
    "artifacts": (_root("artifacts"), ["odd"]),
    "content": (
        lambda doc, key, value: _root("artifacts")(
            doc, "odd", Map({"head": {"id": "odd", "createdAt": 1}, "content": value})
        ),
        [],
    ),
    "receipt": (_root("receipts"), ["x", "anonymous"]),
    **{
        f"{kind} part": (
            lambda doc, key, value, make=make: _message(doc, {}, [{**make(), key: value}]),
            [*make(), "choice", "continues", "late", "errorText"],
        )
        for kind, make in PARTS.items()
    },
    "decisions": (
        lambda doc, key, value: _message(doc, {}, [{**PARTS["tool"](), "decisions": Map({key: value})}]),
        ["p"],
    ),
}


@st.composite
def changes(draw):
    """A change to a document: an odd value at some place."""
    places = {**_PLAIN, **_ANY}
    name = draw(st.sampled_from(sorted(places)))
    write, keys = places[name]
    key = draw(st.sampled_from(keys) | KEYS if keys else KEYS)
    value = draw(VALUES if name in _PLAIN else SHARED)
    return Oddity(name, key, value, write)


class Oddity:
    """A change that says what it is."""

    def __init__(self, place, key, value, write):
        self.place, self.key, self.value, self._write = place, key, value, write

    def __call__(self, doc):
        with doc.transaction():
            self._write(doc, self.key, self.value)

    def __repr__(self):
        return f"{self.place}.{self.key} = {self.value!r}"


def strict(text):
    """Return what JSON says, and fail if it is none to others than Python."""
    return json.loads(text, parse_constant=_none)


def _none(text):
    raise AssertionError(f"{text} is not JSON")
