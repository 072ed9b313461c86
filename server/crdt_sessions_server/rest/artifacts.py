"""REST: artifacts, the documents that people and agents edit together, for participants without Yjs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Literal, TypeVar

from pydantic import Field, model_validator
from quart import Blueprint

from crdt_sessions.errors import BadValue, NotFound
from crdt_sessions.model import ArtifactHead, Author, RelativePosition, SessionView
from crdt_sessions.model.artifacts import ContentKind
from crdt_sessions.model.checks import check_json
from crdt_sessions.model.strings import TITLE_CHARACTERS, WORD_CHARACTERS, ArtifactId
from crdt_sessions.runtime import Session, SessionRegistry
from crdt_sessions_server.auth import asked_session, current_principal
from crdt_sessions_server.http.describing import Parameter, answers, reads, refuses, tag
from crdt_sessions_server.http.preconditions import check_match, is_known, version_of
from crdt_sessions_server.http.problems import PRECONDITION_FAILED
from crdt_sessions_server.http.schemas import Answer, Body, Query
from crdt_sessions_server.http.validation import validate_querystring, validate_request, validate_response

_IF_MATCH = Parameter("If-Match", "412 if the artifact has another version than this.")

Result = TypeVar("Result")
Tagged = tuple[Result, int, dict[str, str]]
"""An answer with its version as ``ETag``."""


class ArtifactInfo(Answer):
    """An artifact as lists show it."""

    id: str
    title: str
    media_type: str
    author: Author | None = None
    created_at: int
    kind: ContentKind | None = Field(None, description="text can be edited here, xml (rich text) only by Yjs peers.")
    length: int = Field(description="Of the content, in characters (Unicode code points).")


class ArtifactContent(ArtifactInfo):
    """An artifact, with its content."""

    content: str = Field(description="Rich text is given as XML, and that of Lexical as Markdown.")
    version: str = Field(description="The ETag without its quotes: it is the same as long as the artifact is.")


class ArtifactList(Answer):
    """The artifacts of a session, oldest first."""

    artifacts: list[ArtifactInfo]


class NewArtifact(Body):
    """A text to edit together."""

    id: ArtifactId | None = Field(None, description="An idempotency key: creating an id twice is creating it once.")
    title: str = Field("", max_length=TITLE_CHARACTERS)
    media_type: str = Field("text/plain", max_length=WORD_CHARACTERS)
    content: str = Field("", examples=["# Plan\n"])
    author: Author | None = Field(None, description="Only where nobody is known, and for backends.")


class Replacement(Body):
    """What the whole text is to be."""

    content: str


class Splice(Body):
    """A change at one place of a text: either `index` or `position` says where."""

    index: int | None = Field(None, ge=0, description="How many characters (Unicode code points) stand before it.")
    position: RelativePosition | None = Field(None, description="A place that moves with the text around it.")
    delete: int = Field(0, ge=0, description="So many characters after that place are deleted.")
    insert: str = Field("", examples=["a walk in the morning"])

    @model_validator(mode="after")
    def _at_one_place(self) -> Splice:
        if (self.index is None) == (self.position is None):
            raise ValueError("say where: either index or position")
        return self


class Spliced(Answer):
    """Where a text was changed, and what it is now."""

    index: int = Field(description="Where that was.")
    position: RelativePosition = Field(description="The place behind what was inserted, to go on from.")
    length: int = Field(description="Of the content now, in characters.")
    version: str = Field(description="The ETag without its quotes.")


class Place(Answer):
    """A place in a text, in both ways of saying it."""

    index: int
    position: RelativePosition


class PlaceQuery(Query):
    """Which place."""

    index: int = Field(ge=0, description="How many characters (Unicode code points) stand before it.")
    assoc: Literal["0", "-1"] = Field("0", description="0: it stays before what follows; -1: behind what precedes.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of artifacts."""
    artifacts = Blueprint("artifacts", __name__, url_prefix="/v1/sessions")

    @artifacts.get("/<name>/artifacts")
    @tag(["artifacts"])
    @validate_response(ArtifactList)
    async def list_artifacts(name: str) -> ArtifactList:
        """List the artifacts of a session, oldest first, without their content."""
        async with registry.open(asked_session(name)) as session, session.reading():
            view = session.view
            whole = [_content(view, each.id) for each in view.artifacts.all()]
        return ArtifactList(artifacts=[ArtifactInfo.model_validate(each.model_dump()) for each in whole])

    @artifacts.post("/<name>/artifacts")
    @tag(["artifacts"])
    @validate_request(NewArtifact)
    @validate_response(ArtifactContent, 201)
    @validate_response(ArtifactContent, 200)
    async def create_artifact(name: str, data: NewArtifact) -> Tagged[ArtifactContent]:
        """Create a text that people and agents edit together.

        Creating an id that is there answers 200 with the artifact as it is.
        """
        principal = current_principal()
        head = ArtifactHead(
            id=data.id or uuid.uuid4().hex,
            title=data.title,
            media_type=data.media_type,
            author=data.author if data.author and principal.by is None else principal.author,
            created_at=registry.clock.now(),
        )
        check_json(data.content, "content")
        async with registry.open(asked_session(name)) as session:
            known = head.id in session.view.artifacts
            if not known:
                session.check_room(len(data.content.encode()))
                await session.edit(lambda view: view.artifacts.add(head, data.content), by=principal.by)
            whole = _content(session.view, head.id)
        return _tagged(whole, whole.version, 200 if known else 201)

    @artifacts.get("/<name>/artifacts/<artifact>")
    @tag(["artifacts"])
    @reads(Parameter("If-None-Match", "304 if the artifact has this version."))
    @validate_response(ArtifactContent)
    @answers(304, description="The artifact has the version that was named.")
    async def read_artifact(name: str, artifact: str) -> Tagged[ArtifactContent | str]:
        """Read an artifact, with its version."""
        async with registry.open(asked_session(name)) as session, session.reading():
            whole = _content(session.view, artifact)
        return _tagged("", whole.version, 304) if is_known(whole.version) else _tagged(whole, whole.version)

    @artifacts.delete("/<name>/artifacts/<artifact>")
    @tag(["artifacts"])
    @reads(_IF_MATCH)
    @answers(204)
    @refuses(PRECONDITION_FAILED)
    async def delete_artifact(name: str, artifact: str) -> tuple[str, int]:
        """Remove an artifact. Earlier versions of the session still have it."""

        def remove(view: SessionView) -> None:
            check_match(_content(view, artifact).version)
            view.artifacts.remove(artifact)

        async with registry.open(asked_session(name)) as session:
            await session.readable()
            await session.edit(remove, by=current_principal().by)
        return "", 204

    _add_edits(artifacts, registry)
    return artifacts


def _add_edits(artifacts: Blueprint, registry: SessionRegistry) -> None:
    """Add the routes that edit a text."""

    @artifacts.put("/<name>/artifacts/<artifact>")
    @tag(["artifacts"])
    @reads(_IF_MATCH)
    @validate_request(Replacement)
    @validate_response(ArtifactContent)
    @refuses(PRECONDITION_FAILED)
    async def replace_artifact(name: str, artifact: str, data: Replacement) -> Tagged[ArtifactContent]:
        """Make another text of an artifact.

        What differs is changed in one place, so that cursors stay, and what others write around it.
        """
        check_json(data.content, "content")
        async with registry.open(asked_session(name)) as session:
            await session.readable()
            added = len(data.content.encode()) - len(_content(session.view, artifact).content.encode())
            await _edit(session, artifact, added, lambda view: view.artifacts.replace(artifact, data.content))
            whole = _content(session.view, artifact)
        return _tagged(whole, whole.version)

    @artifacts.post("/<name>/artifacts/<artifact>/splice")
    @tag(["artifacts"])
    @reads(_IF_MATCH)
    @validate_request(Splice)
    @validate_response(Spliced)
    @refuses(PRECONDITION_FAILED)
    async def splice_artifact(name: str, artifact: str, data: Splice) -> Tagged[Spliced]:
        """Delete and insert at one place of a text.

        To repeat it is to do it twice; with `If-Match` it is done once.
        """
        check_json(data.insert, "insert")

        def change(view: SessionView) -> int:
            index = view.artifacts.index_of(artifact, data.position) if data.position else data.index or 0
            view.artifacts.splice(artifact, index, data.delete, data.insert)
            return index

        async with registry.open(asked_session(name)) as session:
            await session.readable()
            index = await _edit(session, artifact, len(data.insert.encode()), change)
            whole = _content(session.view, artifact)
            end = min(index + len(data.insert), whole.length)  # others may have deleted it meanwhile
            place = session.view.artifacts.position_at(artifact, end, -1)
        spliced = Spliced(index=index, position=place, length=whole.length, version=whole.version)
        return _tagged(spliced, whole.version)

    @artifacts.get("/<name>/artifacts/<artifact>/position")
    @tag(["artifacts"])
    @validate_querystring(PlaceQuery)
    @validate_response(Place)
    async def get_position(name: str, artifact: str, query_args: PlaceQuery) -> Place:
        """Give a place that moves with the text around it: what `Y.createRelativePositionFromJSON` takes."""
        async with registry.open(asked_session(name)) as session, session.reading():
            _check_text(session.view, artifact)
            assoc: Literal[-1, 0] = -1 if query_args.assoc == "-1" else 0
            position = session.view.artifacts.position_at(artifact, query_args.index, assoc)
        return Place(index=query_args.index, position=position)


async def _edit(session: Session, artifact: str, added: int, change: Callable[[SessionView], Result]) -> Result:
    """Change the text of an artifact, which grows by *added* bytes, if it is the version that the request means."""

    def checked(view: SessionView) -> Result:
        _check_text(view, artifact)
        check_match(_content(view, artifact).version)
        session.check_room(max(0, added))
        return change(view)

    return await session.edit(checked, by=current_principal().by)


def _check_text(view: SessionView, artifact: str) -> None:
    if _content(view, artifact).kind != "text":
        raise BadValue(where=f"the artifact {artifact!r}", why="is no plain text, and only Yjs peers can change it")


def _content(view: SessionView, artifact: str) -> ArtifactContent:
    """Return an artifact as it is.

    Raises:
        NotFound: there is none.
    """
    found = view.artifacts.value(artifact)
    if found is None:
        raise NotFound(what="artifact", id=artifact)
    return ArtifactContent(
        id=found.id,
        title=found.title,
        media_type=found.media_type,
        author=found.author,
        created_at=found.created_at,
        kind=view.artifacts.kind(artifact),
        length=len(found.content),
        content=found.content,
        version=version_of(found.to_json()),
    )


def _tagged(answer: Result, version: str, status: int = 200) -> Tagged[Result]:
    return answer, status, {"ETag": f'"{version}"'}
