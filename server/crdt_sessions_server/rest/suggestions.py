"""REST: suggestions, changes of artifacts that people accept or reject piece by piece."""

from __future__ import annotations

import uuid
from typing import Annotated

from pydantic import Field
from quart import Blueprint

from crdt_sessions.errors import NotFound, PieceSettled
from crdt_sessions.model import Author, SessionView
from crdt_sessions.model.checks import check_json
from crdt_sessions.model.steps import content_in
from crdt_sessions.model.strings import REASON_CHARACTERS, PrincipalId, RunId, SuggestionId
from crdt_sessions.model.suggestions import PieceDecision, Suggestion, SuggestionHead, pieces_of
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.auth import asked_session, current_principal
from crdt_sessions_server.http.describing import refuses, tag
from crdt_sessions_server.http.schemas import Answer, Body
from crdt_sessions_server.http.validation import validate_request, validate_response


class NewSuggestion(Body):
    """A change that is proposed."""

    id: SuggestionId | None = Field(None, description="An idempotency key.")
    content: str = Field(description="What is to stand there: text, or for rich text Markdown of one paragraph.")
    of: str | None = Field(None, description="The passage in whose place; everything if absent, of plain text only.")
    note: str = Field("", max_length=REASON_CHARACTERS, description="For people.")
    run: RunId | None = Field(None, description="The run that suggests it.")
    author: Author | None = Field(None, description="Only where nobody is known, and for backends.")


class SuggestionList(Answer):
    """The suggestions about an artifact, oldest first."""

    suggestions: list[Suggestion]


class DecisionAboutPieces(Body):
    """What somebody decides about pieces of a suggestion."""

    accepted: bool
    pieces: Annotated[list[int], Field(fail_fast=True)] | None = Field(
        None, description="Which ones, from 0; all that are open if absent."
    )
    reason: str | None = Field(None, max_length=REASON_CHARACTERS)
    principal: PrincipalId | None = Field(None, description="Only where nobody is known, and for backends.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of suggestions."""
    suggestions = Blueprint("suggestions", __name__, url_prefix="/v1/sessions")

    @suggestions.get("/<name>/artifacts/<artifact>/suggestions")
    @tag(["artifacts"])
    @validate_response(SuggestionList)
    async def list_suggestions(name: str, artifact: str) -> SuggestionList:
        """List what was suggested about an artifact, oldest first, with what was decided."""
        async with registry.open(asked_session(name)) as session, session.reading():
            return SuggestionList(suggestions=session.view.suggestions.all(artifact))

    @suggestions.post("/<name>/artifacts/<artifact>/suggestions")
    @tag(["artifacts"])
    @validate_request(NewSuggestion)
    @validate_response(Suggestion, 201)
    async def suggest(name: str, artifact: str, data: NewSuggestion) -> tuple[Suggestion, int]:
        """Suggest a change of an artifact; nothing changes until somebody accepts it.

        Suggesting an id that is there changes nothing, and answers with what is there.
        """
        principal = current_principal()
        check_json(data.content, "content")
        author = data.author if data.author is not None and principal.by is None else principal.author
        suggestion_id = data.id or uuid.uuid4().hex

        def change(view: SessionView) -> None:
            if suggestion_id in view.suggestions:
                return
            content = content_in(view.document.doc, artifact)
            pieces = pieces_of(content, artifact, data.content, data.of, "tiptap")
            head = SuggestionHead(
                artifact=artifact,
                author=author,
                run=data.run,
                note=data.note,
                created_at=registry.clock.now(),
                pieces=pieces,
            )
            view.suggestions.add(suggestion_id, head)

        async with registry.open(asked_session(name)) as session:
            await session.readable()
            session.check_room(2 * len(data.content.encode()))
            await session.edit(change, by=principal.by)
            return session.view.suggestions[suggestion_id], 201

    _add_decisions(suggestions, registry)
    return suggestions


def _add_decisions(suggestions: Blueprint, registry: SessionRegistry) -> None:
    """Add the route that decides."""

    @suggestions.post("/<name>/suggestions/<suggestion>/decisions")
    @tag(["artifacts"])
    @validate_request(DecisionAboutPieces)
    @validate_response(Suggestion)
    @refuses(PieceSettled)
    async def decide_pieces(name: str, suggestion: str, data: DecisionAboutPieces) -> Suggestion:
        """Accept or reject pieces of a suggestion. The first decision about a piece counts, whoever comes first.

        If somebody has decided otherwise before, 409 says who; the other pieces count all the same.
        """
        principal = current_principal()
        who = principal.speaking_as(data.principal)

        decision = PieceDecision(accepted=data.accepted, reason=data.reason, at=registry.clock.now())
        async with registry.open(asked_session(name)) as session:
            await session.readable()
            wanted = await session.edit(lambda view: _decide(view, suggestion, data.pieces, who, decision))
            found = session.view.suggestions[suggestion]
        for piece in wanted:
            settled = found.settled.get(str(piece))
            if settled is not None and (settled.accepted != data.accepted or settled.by != who):
                raise PieceSettled(suggestion=suggestion, piece=piece, accepted=settled.accepted, by=settled.by)
        return found


def _decide(
    view: SessionView, suggestion: str, pieces: list[int] | None, who: str, decision: PieceDecision
) -> list[int]:
    """Write down what *who* says about pieces, as far as they are open; return which pieces were meant.

    Raises:
        NotFound: there is no such suggestion, or no such piece.
    """
    known = view.suggestions[suggestion]
    still_open = [at for at in range(len(known.pieces)) if str(at) not in known.settled]
    wanted = still_open if pieces is None else sorted(set(pieces))
    if missing := [at for at in wanted if not 0 <= at < len(known.pieces)]:
        raise NotFound(what="piece of the suggestion", id=str(missing[0]))
    for piece in wanted:
        if piece in still_open:
            view.suggestions.decide(suggestion, piece, who, decision)
    return wanted
