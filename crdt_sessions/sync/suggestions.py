"""What becomes of what people say about suggestions: the first decision about a piece counts, and is done at once."""

from __future__ import annotations

from collections.abc import Iterable

from crdt_sessions.errors import NotFound
from crdt_sessions.ids import Millis
from crdt_sessions.model import SessionView
from crdt_sessions.model.suggestions import LatePieceDecision, PieceDecision, Settled, Suggestion
from crdt_sessions.sync.actor import Asker
from crdt_sessions.sync.runs.mirror import Write

_Key = tuple[str, int]
"""A suggestion and a piece."""


class SuggestionSteward:
    """Decides about the suggestions of one session.

    What is settled stands in the document, and was written there by a server; a loaded document tells it.

    Args:
        view: the session's document.
    """

    def __init__(self, view: SessionView) -> None:
        self._view = view
        self._settled: dict[_Key, Settled] = {}
        self._heard: dict[tuple[str, str], PieceDecision] = {}
        """Decisions by suggestion and key, as they were when something became of them."""

    def start(self) -> None:
        """Take on record what a loaded document has settled."""
        for suggestion in self._view.suggestions.all():
            for piece, settled in suggestion.settled.items():
                if piece.isascii() and piece.isdigit():
                    self._settled[suggestion.id, int(piece)] = settled
            for key, (_, who, said) in self._view.suggestions.decisions(suggestion.id).items():
                if any(late.by == who and late.at == said.at for late in suggestion.late):
                    self._heard[suggestion.id, key] = said

    def look_at(self, suggestion_ids: Iterable[str], now: Millis, by: Asker) -> tuple[list[Write], list[str]]:
        """Return what follows from what stands in suggestions, and the names of fields that had been overwritten."""
        writes: list[Write] = []
        restored: list[str] = []
        for suggestion_id in sorted(suggestion_ids):
            try:
                suggestion = self._view.suggestions[suggestion_id]
                said = self._view.suggestions.decisions(suggestion_id)
            except NotFound:
                continue
            self._restore(suggestion, writes, restored)
            for key, (piece, who, decision) in said.items():
                if piece < len(suggestion.pieces) and self._heard.get((suggestion_id, key)) != decision:
                    self._heard[suggestion_id, key] = decision
                    writes += self._hear(suggestion_id, key, piece, who, decision, now, by)
        return writes, restored

    def _restore(self, suggestion: Suggestion, writes: list[Write], restored: list[str]) -> None:
        for at in range(len(suggestion.pieces)):
            known = self._settled.get((suggestion.id, at))
            found = suggestion.settled.get(str(at))
            if known == found:
                continue
            restored.append("settled")
            writes.append(_put(suggestion.id, at, known))

    def _hear(
        self, suggestion_id: str, key: str, piece: int, who: str, said: PieceDecision, now: Millis, by: Asker
    ) -> list[Write]:
        """Return what follows from a decision that is new."""
        known = self._settled.get((suggestion_id, piece))
        if by.principal is not None and (who != by.principal or not by.decides):
            why = "not-yours" if who != by.principal else "role"
            return [_late(suggestion_id, piece, by.principal, said, why), _take_back(suggestion_id, key)]
        if known is None:
            settled = Settled(accepted=said.accepted, by=who, reason=said.reason, at=now, outdated=None)
            self._settled[suggestion_id, piece] = settled
            return [self._settle(suggestion_id, piece, settled)]
        if known.by == who and known.accepted == said.accepted:
            return []
        return [_late(suggestion_id, piece, who, said, "late")]

    def _settle(self, suggestion_id: str, piece: int, settled: Settled) -> Write:
        def write(view: SessionView) -> None:
            self._settled[suggestion_id, piece] = view.suggestions.settle(suggestion_id, piece, settled)

        return write


def _late(suggestion_id: str, piece: int, by: str, said: PieceDecision, why: str) -> Write:
    late = LatePieceDecision(piece=piece, by=by, accepted=said.accepted, reason=said.reason, at=said.at, why=why)
    return lambda view: view.suggestions.note_late(suggestion_id, late)


def _take_back(suggestion_id: str, key: str) -> Write:
    return lambda view: view.suggestions.take_back(suggestion_id, key)


def _put(suggestion_id: str, piece: int, settled: Settled | None) -> Write:
    return lambda view: view.suggestions.put(suggestion_id, piece, settled)
