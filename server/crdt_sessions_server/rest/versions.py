"""REST: the past of a session."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from quart import Blueprint, Response, json

from crdt_sessions.endings import to_the_end
from crdt_sessions.errors import AccessDenied, NotFound, RunsActive, SessionExists
from crdt_sessions.ids import Seq
from crdt_sessions.model import SessionExport, export_of, markdown
from crdt_sessions.model.checks import MAX_INTEGER
from crdt_sessions.model.strings import TITLE_CHARACTERS
from crdt_sessions.runtime import SessionRegistry, Versions
from crdt_sessions.storage import SessionRecord, Version
from crdt_sessions_server.auth import asked_session, current_principal
from crdt_sessions_server.http.describing import BYTES, LINES, MARKDOWN, answers, refuses, tag
from crdt_sessions_server.http.schemas import JSON, OCTETS, Answer, Body, Query
from crdt_sessions_server.http.validation import validate_querystring, validate_request, validate_response
from crdt_sessions_server.rest.sessions import SessionInfo, location_of, session_info

PATCH = "application/json-patch+json"
_MAX_POINTS = 2000


class VersionInfo(Answer):
    """A version that is kept."""

    seq: int = Field(description="Its number: the last update that is in it.")
    at: int = Field(description="When that update was stored.")
    size: int = Field(description="Bytes on disk.")
    name: str | None = Field(None, description="A version with a name is kept until the session is deleted.")


class Point(Answer):
    """A state since the newest version; it can be read until the session is folded the next time."""

    seq: int
    at: int


class VersionList(Answer):
    """What can be read of a session's past."""

    versions: list[VersionInfo] = Field(description="Oldest first.")
    recent: list[Point] = Field(description="States since the newest version; of very many, some are left out.")


class NewVersion(Body):
    """A version to keep."""

    name: str | None = Field(None, min_length=1, max_length=200)


class VersionChange(Body):
    """What is to change of a version; without a name it goes when others push it out."""

    name: str | None = Field(max_length=200)


class VersionQuery(Query):
    """In which form."""

    format: Literal["json", "yjs", "markdown"] = "json"


class DiffQuery(Query):
    """Compared with what."""

    to: int | None = Field(None, ge=1, le=MAX_INTEGER, description="Another version; the present state if absent.")


class NewFork(Body):
    """A session to begin as a version of this one was."""

    id: str
    title: str | None = Field(None, max_length=TITLE_CHARACTERS)
    version: int | None = Field(None, ge=1, le=MAX_INTEGER, description="The present state if absent.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes for versions."""
    versions = Blueprint("versions", __name__, url_prefix="/v1/sessions")
    _reading(versions, registry)
    _writing(versions, registry)
    return versions


def _reading(versions: Blueprint, registry: SessionRegistry) -> None:
    @versions.get("/<name>/versions")
    @tag(["versions"])
    @validate_response(VersionList)
    async def list_versions(name: str) -> VersionList:
        """Tell what can be read of a session's past."""
        history = await Versions(registry, asked_session(name)).history()
        points = [Point(seq=history.first + index, at=at) for index, at in enumerate(history.times)]
        step = max(1, -(-len(points) // _MAX_POINTS))
        return VersionList(
            versions=[_info(version) for version in history.versions],
            recent=[*points[::-1][::step]][::-1],  # the present state is always among them
        )

    @versions.get("/<string:name>/versions/<int:seq>")
    @tag(["versions"])
    @validate_querystring(VersionQuery)
    @answers(200, {JSON: SessionExport, OCTETS: BYTES, MARKDOWN: LINES})
    async def read_version(name: str, seq: int, query_args: VersionQuery) -> Response:
        """Read a session as it was: as JSON, as a Yjs update, or as a Markdown transcript."""
        content = await Versions(registry, asked_session(name)).read(_asked(seq))
        if query_args.format == "yjs":
            return Response(content, content_type=OCTETS)
        export = export_of(content)
        if query_args.format == "markdown":
            return Response(markdown(export), content_type="text/markdown; charset=utf-8")
        return Response(json.dumps(export.to_json()), content_type=JSON)

    @versions.get("/<string:name>/versions/<int:seq>/diff")
    @tag(["versions"])
    @validate_querystring(DiffQuery)
    @answers(200, {PATCH: {"type": "array", "items": {"type": "object"}}})
    async def compare_versions(name: str, seq: int, query_args: DiffQuery) -> Response:
        """Tell what changed from one version to another, as a JSON Patch (RFC 6902).

        Messages, runs and artifacts are members by id: ``/messages/<id>/parts/0/text``.
        """
        versions = Versions(registry, asked_session(name))
        to = Seq(query_args.to) if query_args.to is not None else (await versions.history()).last
        patch: list[dict[str, Any]] = await versions.difference(_asked(seq), to)
        return Response(json.dumps(patch), content_type=PATCH)


def _writing(versions: Blueprint, registry: SessionRegistry) -> None:
    @versions.post("/<name>/versions")
    @tag(["versions"])
    @validate_request(NewVersion)
    @validate_response(VersionInfo, 201)
    async def keep_version(name: str, data: NewVersion) -> tuple[VersionInfo, int]:
        """Keep the present state as a version; with a name it is kept until the session is deleted."""
        return _info(await Versions(registry, asked_session(name)).keep(data.name)), 201

    @versions.patch("/<string:name>/versions/<int:seq>")
    @tag(["versions"])
    @validate_request(VersionChange)
    @validate_response(VersionInfo)
    async def rename_version(name: str, seq: int, data: VersionChange) -> VersionInfo:
        """Give a version another name, or none."""
        return _info(await Versions(registry, asked_session(name)).rename(_asked(seq), data.name or None))

    @versions.post("/<string:name>/versions/<int:seq>/restore")
    @tag(["versions"])
    @validate_response(VersionInfo)
    @refuses(RunsActive)
    async def restore_version(name: str, seq: int) -> VersionInfo:
        """Make the session look as it did; the answer is the version that was made of it just before.

        It is one more change, which is merged with what others write. Runs and receipts stay as they are.
        """
        wanted, version, caller = asked_session(name), _asked(seq), current_principal()

        async def restore() -> Version:
            kept = await Versions(registry, wanted).restore(version)
            await registry.audit.record("session.restore", caller.id, wanted, version=seq)
            return kept

        return _info(await to_the_end(restore()))

    @versions.post("/<name>/fork")
    @tag(["versions"])
    @validate_request(NewFork)
    @validate_response(SessionInfo, 201)
    @refuses(SessionExists)
    async def fork_session(name: str, data: NewFork) -> tuple[SessionInfo, int, dict[str, str]]:
        """Make a new session that begins as this one was. Its runs that had not ended are interrupted there."""
        caller = current_principal()
        if not caller.may_enter(data.id):
            raise AccessDenied(what="this token is not for that session")
        versions, target = Versions(registry, asked_session(name)), asked_session(data.id)
        seq = Seq(data.version) if data.version is not None else None

        async def fork() -> SessionRecord:
            record = await versions.fork(target, seq=seq, title=data.title, by=caller.id)
            await registry.audit.record("session.fork", caller.id, target, of=name)
            return record

        return session_info(await to_the_end(fork())), 201, {"Location": location_of(data.id)}


def _asked(seq: int) -> Seq:
    if seq > MAX_INTEGER:
        raise NotFound(what="version", id=str(seq))
    return Seq(seq)


def _info(version: Version) -> VersionInfo:
    return VersionInfo(seq=version.seq, at=version.at, size=version.size, name=version.name)
