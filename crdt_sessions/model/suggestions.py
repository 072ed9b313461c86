"""``suggestions``: changes of artifacts that are proposed, and that people accept or reject piece by piece.

A piece is a passage, held by its ends, and what is to stand in its place. Whoever decides writes so under their name;
the first decision that reaches the server counts, and the server makes the change in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from pycrdt import Map, Text
from pydantic import Field, ValidationError

from crdt_sessions.errors import BadValue, NotFound
from crdt_sessions.model.base import Value
from crdt_sessions.model.blocks import (
    BlockChange,
    Change,
    TextChange,
    changes,
    find_blocks,
    places_of,
    read_blocks,
    with_blocks,
)
from crdt_sessions.model.dialects import Dialect, alike, dialect_in
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.markdown import from_markdown, to_markdown
from crdt_sessions.model.nodes import read_children, read_words, words
from crdt_sessions.model.positions import RelativePosition, find_place, index_of, position_at
from crdt_sessions.model.revisions import BY_CHARACTERS, Passage, Path, find, read_passage, revision, text_at, texts
from crdt_sessions.model.rewriting import Scribe, text_changes
from crdt_sessions.model.spelling import json_object, spelled
from crdt_sessions.model.steps import Content, RichText, content_in
from crdt_sessions.model.strings import ArtifactId, Reason, RunId, Time, Who
from crdt_sessions.model.values import Author

MOST_PIECES = 200
"""Pieces of a suggestion."""


class Piece(Value):
    """A passage, and what is to stand in its place."""

    begin: RelativePosition
    end: RelativePosition
    before: str
    """What stands there, as people read it; if it does not any more, the piece cannot be accepted."""
    after: str
    """What is to stand there: text, or Markdown of one paragraph."""
    blocks: bool | None = Field(
        None,
        description="Whether it is about whole blocks: `begin` and `end` are beside their elements, and `before` and"
        " `after` are Markdown.",
    )


class SuggestionHead(Value):
    """``suggestions[id].head``: written once, by whoever suggests."""

    artifact: ArtifactId
    author: Author
    run: RunId | None = None
    note: Reason = ""
    created_at: Time
    pieces: list[Piece] = Field(min_length=1, max_length=MOST_PIECES)


class PieceDecision(Value):
    """``suggestions[id].decisions[<piece>:<principal>]``: what somebody says about a piece."""

    accepted: bool
    reason: Reason | None = None
    at: Time


class Settled(Value):
    """``suggestions[id].settled[<piece>]``: what was decided, once; the server writes it."""

    accepted: bool
    by: Who
    reason: Reason | None = None
    at: Time
    outdated: bool | None = None
    """It was accepted, but what it changes had changed; so nothing was done."""


class LatePieceDecision(PieceDecision):
    """A decision that did not count."""

    piece: int
    by: Who
    why: str
    """``late``, ``role`` (they may not decide) or ``not-yours`` (it stood under somebody else's name)."""


class Suggestion(SuggestionHead):
    """A suggestion in JSON form."""

    id: str
    by: Who | None = Field(None, description="Who has made it, by what the server knows and not by what it says.")
    settled: dict[str, Settled] = Field(default_factory=dict)
    late: list[LatePieceDecision] = Field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether every piece is decided."""
        return all(str(at) in self.settled for at in range(len(self.pieces)))


class Suggestions:
    """``suggestions``, by their ids."""

    def __init__(self, document: SessionDoc) -> None:
        self._document = document

    @property
    def _root(self) -> Map[Any]:
        return self._document.roots.suggestions

    def __contains__(self, suggestion_id: str) -> bool:
        return suggestion_id in self._root

    def ids(self) -> list[str]:
        """Return the ids of all suggestions."""
        return list(self._root.keys())

    def add(self, suggestion_id: str, head: SuggestionHead) -> None:
        """Add a suggestion, unless the id is taken."""
        if suggestion_id not in self._root:
            entry = {"head": head.json_value(), "decisions": Map({}), "settled": Map({})}
            self._root[suggestion_id] = Map(entry)

    def decide(self, suggestion_id: str, piece: int, principal: str, decision: PieceDecision) -> None:
        """Write down what *principal* says about a piece.

        Raises:
            NotFound: there is no such suggestion, or no such piece.
        """
        if not 0 <= piece < len(self[suggestion_id].pieces):
            raise NotFound(what="piece of the suggestion", id=str(piece))
        self._map(suggestion_id, "decisions")[f"{piece}:{principal}"] = decision.json_value()

    def put_decision(self, suggestion_id: str, key: str, decision: PieceDecision | None) -> None:
        """Write what stands under the *key* of a decision, as it was before; None if nothing did."""
        decisions = self._map(suggestion_id, "decisions")
        if decision is not None:
            decisions[key] = decision.json_value()
        elif key in decisions:
            del decisions[key]

    def put_head(self, suggestion: Suggestion) -> None:
        """Write the head of a suggestion as it was, and who has made it."""
        entry, head = self._root[suggestion.id], _head_of(suggestion)
        if self.head(suggestion.id) != head:
            entry["head"] = head
        if suggestion.by is not None:
            entry["by"] = suggestion.by
        elif "by" in entry:
            del entry["by"]

    def put_late(self, suggestion_id: str, late: list[LatePieceDecision]) -> None:
        """Write which decisions did not count."""
        self._root[suggestion_id]["late"] = [each.json_value() for each in late]

    def head(self, suggestion_id: str) -> dict[str, Any] | None:
        """Return the head of a suggestion as it stands there; None if there is none."""
        entry = self._root.get(suggestion_id)
        return json_object(entry.get("head")) if isinstance(entry, Map) else None

    def decisions(self, suggestion_id: str) -> dict[str, tuple[int, str, PieceDecision]]:
        """Return what people said, by its keys, first things first: the piece, the principal, the decision."""
        found = {}
        entry = self._root.get(suggestion_id)
        written = entry.get("decisions") if isinstance(entry, Map) else None
        for key, value in written.items() if isinstance(written, Map) else ():
            piece, _, principal = key.partition(":")
            try:
                decision = PieceDecision.model_validate(json_object(value))
            except ValidationError:
                continue
            if _is_number(piece) and principal:
                found[key] = (int(piece), principal, decision)
        return dict(sorted(found.items(), key=lambda item: (item[1][2].at, item[0])))

    def settle(self, suggestion_id: str, piece: int, settled: Settled) -> Settled:
        """Settle a piece, and make its change if it is accepted and still can be; return what is settled.

        Raises:
            NotFound: there is no such suggestion.
        """
        if settled.accepted and not self._apply(self[suggestion_id], piece):
            settled = settled.replace(outdated=True)
        self.put(suggestion_id, piece, settled)
        return settled

    def put(self, suggestion_id: str, piece: int, settled: Settled) -> None:
        """Write what was settled about a piece, and no more."""
        self._map(suggestion_id, "settled")[str(piece)] = settled.json_value()

    def put_settled(self, suggestion_id: str, settled: Mapping[str, Settled]) -> None:
        """Write what was settled, by piece, as it was; whatever else stands there goes."""
        written = self._map(suggestion_id, "settled")
        for key in [key for key in written.keys() if key not in settled]:  # noqa: SIM118 - a shared map is no dict
            del written[key]
        for key, each in settled.items():
            if spelled(written.get(key)) != each.json_value():
                written[key] = each.json_value()

    def put_whole(self, suggestion: Suggestion, said: Mapping[str, PieceDecision]) -> None:
        """Write a suggestion anew of which nothing that can be read is left, and what people said."""
        decisions = {key: each.json_value() for key, each in said.items()}
        self._root[suggestion.id] = Map({"decisions": Map(decisions), "settled": Map({})})
        self.put_head(suggestion)
        self.put_settled(suggestion.id, suggestion.settled)
        self.put_late(suggestion.id, suggestion.late)

    def __getitem__(self, suggestion_id: str) -> Suggestion:
        """Return a suggestion.

        Raises:
            NotFound: there is none that can be read.
        """
        entry, head = self._root.get(suggestion_id), self.head(suggestion_id)
        if head is None or entry is None:
            raise NotFound(what="suggestion", id=suggestion_id)
        try:
            more: dict[str, Any] = {
                "by": spelled(entry.get("by")),
                "settled": spelled(entry.get("settled")) or {},
                "late": spelled(entry.get("late")) or [],
            }
            return Suggestion.model_validate({**head, **more, "id": suggestion_id})
        except ValidationError:
            raise NotFound(what="suggestion", id=suggestion_id) from None

    def all(self, artifact: str | None = None) -> list[Suggestion]:
        """Return the suggestions that can be read, of one artifact if that is said, oldest first."""
        found = []
        for suggestion_id in self.ids():
            try:
                suggestion = self[suggestion_id]
            except NotFound:
                continue
            if artifact is None or suggestion.artifact == artifact:
                found.append(suggestion)
        return sorted(found, key=lambda suggestion: (suggestion.created_at, suggestion.id))

    def _map(self, suggestion_id: str, key: str) -> Map[Any]:
        """Return a map of a suggestion, to write in it. Whoever suggests makes it, unless they leave it out."""
        entry = self._root.get(suggestion_id)
        if not isinstance(entry, Map):
            raise NotFound(what="suggestion", id=suggestion_id)
        if not isinstance(entry.get(key), Map):
            entry[key] = Map({})
        found: Map[Any] = entry[key]
        return found

    def _apply(self, suggestion: Suggestion, piece: int) -> bool:
        """Make the change of a piece; return whether it could be made."""
        wanted = suggestion.pieces[piece]
        try:
            content = content_in(self._document.doc, suggestion.artifact)
            if wanted.blocks:
                return _make_blocks(content, wanted, suggestion.artifact)
            passage = _passage(content, wanted, suggestion.artifact)
            if passage is None or read_passage(content, passage) != wanted.before:
                return False
            made = revision(content, wanted.after, passage, "tiptap")
        except (BadValue, NotFound):
            return False
        made.make(content, Scribe(made.alike))
        return True


def pieces_of(content: Content, artifact_id: str, new: str, of: str | None, dialect: Dialect) -> list[Piece]:
    """Return the pieces of a suggestion that puts *new* in place of the passage *of*, or of everything.

    In rich text a passage may also be some of its Markdown, of several paragraphs.

    Raises:
        BadValue: there is no such passage, or *new* cannot stand there; or there is nothing to change, or too much.
    """
    found: list[Change]
    if isinstance(content, Text):
        found = list(_text_pieces(content, new, of))
    else:
        dialect = dialect_in(content, dialect)
        found = _rich_pieces(content, new, of, dialect)
    if not 0 < len(found) <= MOST_PIECES:
        raise BadValue(where="the suggestion", why=f"it has {len(found)} pieces, and not 1 to {MOST_PIECES}")
    return [_piece(content, artifact_id, each, dialect) for each in found]


def _text_pieces(content: Text, new: str, of: str | None) -> Iterator[TextChange]:
    if of is not None:
        yield TextChange(find(content, of), new)
        return
    old, wanted = read_words(content).atoms, words(new).atoms
    for a, b, c, d in text_changes(old, wanted, BY_CHARACTERS.atom):
        yield TextChange(Passage((), a, b), "".join(str(atom.value) for atom in wanted[c:d]))


def _rich_pieces(content: RichText, new: str, of: str | None, dialect: Dialect) -> list[Change]:
    old = read_children(content)
    if of is not None:
        try:
            made = revision(content, new, of, dialect)  # so that what cannot be made is not suggested
        except BadValue:
            whole = to_markdown(old, dialect)
            if whole.count(of) != 1:
                raise
            new = whole.replace(of, new)
        else:
            return [TextChange(made.passage, new)] if made.passage is not None else []
    return changes(old, from_markdown(new, dialect), dialect)


def _piece(content: Content, artifact_id: str, change: Change, dialect: Dialect) -> Piece:
    if isinstance(change, BlockChange):
        assert not isinstance(content, Text)
        begin, end = places_of(content, artifact_id, change.blocks)
        before = read_blocks(content, change.blocks, dialect)
        return Piece(begin=begin, end=end, before=before, after=change.after, blocks=True)
    passage = change.passage
    text = text_at(content, passage.path)

    def same_in(copy: Any) -> Any:
        return text_at(content_in(copy, artifact_id), passage.path)

    empty = passage.start == passage.stop
    behind = empty and (passage.start > 0 or isinstance(content, Text))
    begin = position_at(text, passage.start, -1 if behind else 0, same_in)
    end = begin if empty else position_at(text, passage.stop, -1, same_in)
    return Piece(begin=begin, end=end, before=read_passage(content, passage), after=change.after, blocks=None)


def _passage(content: Content, piece: Piece, artifact_id: str) -> Passage | None:
    """Return where a piece is now; None if it has been torn apart."""
    begin, end = (_place(content, each, artifact_id) for each in (piece.begin, piece.end))
    return Passage(begin[0], begin[1], end[1]) if begin[0] == end[0] and begin[1] <= end[1] else None


def _place(content: Content, position: RelativePosition, artifact_id: str) -> tuple[Path, int]:
    if position.item is not None:
        return find_place(
            content.doc, position.item, position.assoc, lambda copy: texts(content_in(copy, artifact_id))
        )
    if isinstance(content, Text):
        return (), index_of(content, position, lambda copy: cast(Text, content_in(copy, artifact_id)))
    raise BadValue(where="position", why="in rich text it is beside a character")


def _make_blocks(content: Content, piece: Piece, artifact_id: str) -> bool:
    """Make the change of a piece that is about blocks; return whether it could be made."""
    if isinstance(content, Text):
        return False
    dialect = dialect_in(content)
    blocks = find_blocks(content, artifact_id, piece.begin, piece.end)
    if blocks is None or read_blocks(content, blocks, dialect) != piece.before:
        return False
    parent, children = with_blocks(content, blocks, piece.after, dialect)
    Scribe(alike(dialect)).rewrite_children(parent, children)
    return True


def _head_of(suggestion: Suggestion) -> dict[str, Any]:
    whole: dict[str, Any] = suggestion.to_json()
    return {key: value for key, value in whole.items() if key not in ("id", "by", "settled", "late")}


def _is_number(text: str) -> bool:
    """Whether *text* is the number of a piece."""
    return text.isascii() and text.isdigit()
