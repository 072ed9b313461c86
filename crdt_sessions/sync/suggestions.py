"""What becomes of what people say about suggestions: the first decision about a piece counts, and is done at once.

What is suggested, by whom, what was decided and what people said stays as it was, whoever writes over it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from crdt_sessions.errors import NotFound
from crdt_sessions.ids import Millis
from crdt_sessions.model import SessionView
from crdt_sessions.model.suggestions import MOST_PIECES, LatePieceDecision, PieceDecision, Settled, Suggestion
from crdt_sessions.sync.actor import Asker
from crdt_sessions.sync.aside import Aside
from crdt_sessions.sync.runs.mirror import Write


@dataclass(slots=True)
class _Known:
    """A suggestion as it is on record."""

    suggestion: Suggestion
    said: dict[str, PieceDecision] = field(default_factory=dict)
    """Decisions by their keys, as they were when something became of them."""

    def settle(self, piece: int, settled: Settled) -> None:
        """Put on record what was decided about a piece."""
        self.suggestion = self.suggestion.replace(settled={**self.suggestion.settled, str(piece): settled})


class SuggestionSteward:
    """Decides about the suggestions of one session.

    What is settled stands in the document, and was written there by a server; a loaded document tells it.

    Args:
        view: the session's document.
        aside: what is not to be decided about.
    """

    def __init__(self, view: SessionView, aside: Aside) -> None:
        self._view = view
        self._aside = aside
        self._known: dict[str, _Known] = {}

    def start(self) -> None:
        """Take on record what a loaded document has settled."""
        for suggestion in self._view.suggestions.all():
            said = self._view.suggestions.decisions(suggestion.id).items()
            heard = {key: decision for key, (piece, _, decision) in said if str(piece) in suggestion.settled}
            self._known[suggestion.id] = _Known(suggestion, heard)

    def look_at(self, suggestion_ids: Iterable[str], now: Millis, by: Asker) -> tuple[list[Write], list[str]]:
        """Return what follows from what stands in suggestions, and the names of fields that had been overwritten."""
        writes: list[Write] = []
        restored: list[str] = []
        for each in sorted(suggestion_ids):
            if not self._aside.left("suggestion", each):
                with self._aside.about("suggestion", each):
                    found: list[Write] = []
                    self._look_at(each, now, by, found, restored)
                    writes += [self._aside.blaming("suggestion", each, write) for write in found]
        return writes, restored

    def _look_at(self, suggestion_id: str, now: Millis, by: Asker, writes: list[Write], restored: list[str]) -> None:
        suggestion, known = self._found(suggestion_id), self._known.get(suggestion_id)
        if known is None and suggestion is not None:
            known = self._known[suggestion_id] = _Known(suggestion.replace(by=by.principal, settled={}, late=[]))
            if suggestion.by != by.principal:
                writes.append(_put_head(known))
                suggestion = suggestion.replace(by=by.principal)
        elif known is not None and suggestion is None:
            restored.append("suggestions")
            writes.append(_put_whole(known))
        if known is not None and suggestion is not None:
            self._restore(suggestion, known, writes, restored)
            self._listen(known, now, by, writes, restored)

    def _restore(self, found: Suggestion, known: _Known, writes: list[Write], restored: list[str]) -> None:
        for key, put_back in (("head", _put_head), ("settled", _put_settled), ("late", _put_late)):
            if _part(found, key) != _part(known.suggestion, key):
                restored.append(f"suggestions.{key}")
                writes.append(put_back(known))

    def _listen(self, known: _Known, now: Millis, by: Asker, writes: list[Write], restored: list[str]) -> None:
        """Let what is new of what people say count, and put back what others than they have changed."""
        suggestion_id, pieces = known.suggestion.id, known.suggestion.pieces
        said = self._view.suggestions.decisions(suggestion_id)
        for key in known.said.keys() - said.keys():
            restored.append("suggestions.decisions")
            writes.append(_put_decision(known, key))
        for key, (piece, who, decision) in said.items():
            if piece >= len(pieces) or known.said.get(key) == decision:
                continue
            if by.principal is not None and (who != by.principal or not by.decides):
                why = "not-yours" if who != by.principal else "role"
                writes += [_note(known, _late(piece, by.principal, decision, why)), _put_decision(known, key)]
                continue
            known.said[key] = decision
            writes += self._hear(known, piece, who, decision, now)

    def _hear(self, known: _Known, piece: int, who: str, said: PieceDecision, now: Millis) -> list[Write]:
        """Return what follows from a decision that counts, if it is the first one."""
        before = known.suggestion.settled.get(str(piece))
        if before is None:
            settled = Settled(accepted=said.accepted, by=who, reason=said.reason, at=now, outdated=None)
            known.settle(piece, settled)
            return [_settle(known, piece, settled)]
        if before.by == who and before.accepted == said.accepted:
            return []
        return [_note(known, _late(piece, who, said, "late"))]

    def _found(self, suggestion_id: str) -> Suggestion | None:
        try:
            return self._view.suggestions[suggestion_id]
        except NotFound:
            return None


def _part(suggestion: Suggestion, key: str) -> Any:
    """Return a part of a suggestion that stands in the document as one: its head is all the rest."""
    apart = {"settled", "late"}
    return suggestion.model_dump(exclude=apart) if key == "head" else getattr(suggestion, key)


def _late(piece: int, by: str, said: PieceDecision, why: str) -> LatePieceDecision:
    return LatePieceDecision(piece=piece, by=by, accepted=said.accepted, reason=said.reason, at=said.at, why=why)


def _note(known: _Known, late: LatePieceDecision) -> Write:
    known.suggestion = known.suggestion.replace(late=[*known.suggestion.late, late][-MOST_PIECES:])
    return _put_late(known)


def _settle(known: _Known, piece: int, settled: Settled) -> Write:
    return lambda view: known.settle(piece, view.suggestions.settle(known.suggestion.id, piece, settled))


def _put_head(known: _Known) -> Write:
    return lambda view: view.suggestions.put_head(known.suggestion)


def _put_settled(known: _Known) -> Write:
    return lambda view: view.suggestions.put_settled(known.suggestion.id, known.suggestion.settled)


def _put_late(known: _Known) -> Write:
    return lambda view: view.suggestions.put_late(known.suggestion.id, known.suggestion.late)


def _put_decision(known: _Known, key: str) -> Write:
    return lambda view: view.suggestions.put_decision(known.suggestion.id, key, known.said.get(key))


def _put_whole(known: _Known) -> Write:
    return lambda view: view.suggestions.put_whole(known.suggestion, known.said)
