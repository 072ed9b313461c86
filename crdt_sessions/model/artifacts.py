"""``artifacts``: documents that humans and agents edit together."""

from __future__ import annotations

from typing import Any, Literal

from pycrdt import Doc, Map, Text, XmlFragment, XmlText
from pydantic import ValidationError

from crdt_sessions.errors import BadValue, NotFound
from crdt_sessions.model import layout
from crdt_sessions.model import text as text_edits
from crdt_sessions.model.dialects import Dialect
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.lexical import LexicalElement
from crdt_sessions.model.library import apply_guarded
from crdt_sessions.model.positions import RelativePosition, index_of, position_at
from crdt_sessions.model.revisions import read_content
from crdt_sessions.model.spelling import json_object, spelled
from crdt_sessions.model.strings import is_id
from crdt_sessions.model.values import Artifact, ArtifactHead
from crdt_sessions.wire.update_v1 import HAS_KEY, NO_DELETIONS, TYPE
from crdt_sessions.wire.varint import decode_state_vector, string, varuint

_XML_TEXT = 6
"""The number of that type in an update."""

ContentKind = Literal["text", "xml"]
"""What edits it: text by characters, or an editor of rich text, which takes Yjs."""


class Artifacts:
    """``artifacts``: documents that humans and agents edit together."""

    def __init__(self, document: SessionDoc) -> None:
        self._document = document

    @property
    def _root(self) -> Map[Any]:
        return self._document.roots.artifacts

    def __contains__(self, artifact_id: str) -> bool:
        return artifact_id in self._root

    def add(self, head: ArtifactHead, content: str = "") -> Text:
        """Add a text artifact and return its content; if the id is taken, return the existing one.

        Raises:
            NotFound: an artifact of that id exists, and its content is not text.
        """
        if head.id not in self._root:
            self._root[head.id] = Map({"head": head.json_value(), "content": Text(content)})
        return self.text(head.id)

    def begin(self, head: ArtifactHead, kind: ContentKind, dialect: Dialect = "tiptap") -> bool:
        """Add an empty artifact; return whether it was added, and not there. Lexical's is an ``XmlText``."""
        if head.id in self._root:
            return False
        if kind == "xml" and dialect == "lexical":
            doc, at = self._document.doc, self._document.doc.client_id
            clock = decode_state_vector(doc.get_state()).get(at, 0)
            self._root[head.id] = Map({"head": head.json_value()})
            apply_guarded(doc, _xml_text(doc, clock))
        else:
            content = Text() if kind == "text" else XmlFragment()
            self._root[head.id] = Map({"head": head.json_value(), "content": content})
        return True

    def text(self, artifact_id: str) -> Text:
        """Return the content of a text artifact, to be edited with :mod:`crdt_sessions.model.text`.

        Raises:
            NotFound: there is no such artifact, or its content is not text.
        """
        content = self._content(artifact_id)
        if not isinstance(content, Text):
            raise NotFound(what="text artifact", id=artifact_id)
        return content

    def replace(self, artifact_id: str, content: str) -> None:
        """Make *content* of a text artifact, by one change of what differs: what stands around it stays.

        Raises:
            NotFound: there is no such artifact, or its content is not text.
        """
        text_edits.rewrite(self.text(artifact_id), content)

    def splice(self, artifact_id: str, index: int, count: int, addition: str) -> None:
        """Delete *count* code points of a text artifact from *index* on, and insert *addition* there.

        Raises:
            NotFound: there is no such artifact, or its content is not text.
            BadValue: they are not within the text.
        """
        text = self.text(artifact_id)
        length = len(str(text))
        if not 0 <= index <= index + count <= length:
            raise BadValue(where="index", why=f"{index} to {index + count} is outside a text of {length} characters")
        text_edits.delete(text, index, count)
        if addition:
            text_edits.insert(text, index, addition)

    def position_at(self, artifact_id: str, index: int, assoc: Literal[-1, 0] = 0) -> RelativePosition:
        """Return the place before the code point at *index* of a text artifact, as one that stays there.

        *assoc* is 0 to stay before what follows, -1 to stay behind what precedes.

        Raises:
            NotFound: there is no such artifact, or its content is not text.
            BadValue: *index* is outside the text.
        """
        return position_at(self.text(artifact_id), index, assoc, lambda copy: _text_in(copy, artifact_id))

    def index_of(self, artifact_id: str, position: RelativePosition) -> int:
        """Return where a place in a text artifact is now, in code points.

        Raises:
            NotFound: there is no such artifact, or its content is not text.
            BadValue: it is no place in that text.
        """
        return index_of(self.text(artifact_id), position, lambda copy: _text_in(copy, artifact_id))

    def remove(self, artifact_id: str) -> None:
        """Remove an artifact, and what others write into it at the same time.

        Raises:
            NotFound: there is no such artifact.
        """
        if artifact_id not in self._root:
            raise NotFound(what="artifact", id=artifact_id)
        del self._root[artifact_id]

    def kind(self, artifact_id: str) -> ContentKind | None:
        """Return what an artifact's content is; None if it is not of layout 1."""
        content = self._content(artifact_id)
        if isinstance(content, Text):
            return "text"
        return "xml" if isinstance(content, XmlFragment | XmlText) else None

    def value(self, artifact_id: str) -> Artifact | None:
        """Return an artifact in JSON form; None if there is none with a valid head."""
        entry = self._root.get(artifact_id)
        if not isinstance(entry, Map) or not is_id(artifact_id):
            return None
        try:
            head = ArtifactHead.model_validate(json_object(entry.get("head")))
        except ValidationError:
            return None
        found = entry.get("content")
        content = read_content(LexicalElement(found)) if isinstance(found, XmlText) else spelled(found)
        fields = head.model_dump(by_alias=True) | {"id": artifact_id}
        return Artifact.model_validate({**fields, "content": content if isinstance(content, str) else ""})

    def all(self) -> list[Artifact]:
        """Return all artifacts in JSON form, oldest first; entries without a valid head are skipped."""
        found = [artifact for artifact_id, _ in self._root.items() if (artifact := self.value(artifact_id))]
        return sorted(found, key=lambda artifact: (artifact.created_at, artifact.id))

    def _content(self, artifact_id: str) -> Any:
        entry = self._root.get(artifact_id)
        return entry.get("content") if isinstance(entry, Map) else None


def _xml_text(doc: Doc[Any], clock: int) -> bytes:
    """Return the update that makes an ``XmlText`` the content of the artifact that this client began at *clock*.

    The library has no call that puts one into a map.
    """
    client, now = varuint(doc.client_id), decode_state_vector(doc.get_state())[doc.client_id]
    entry = bytes([HAS_KEY | TYPE, 0]) + client + varuint(clock) + string("content") + varuint(_XML_TEXT)
    return varuint(1) + varuint(1) + client + varuint(now) + entry + NO_DELETIONS


def _text_in(copy: Doc[Any], artifact_id: str) -> Text:
    text: Text = layout.roots(copy).artifacts[artifact_id]["content"]
    return text
