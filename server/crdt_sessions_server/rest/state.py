"""REST: the application's shared state, for participants without Yjs."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
from pydantic import Field, JsonValue
from quart import Blueprint, Response, jsonify, request

from crdt_sessions.errors import BadValue, TooLarge
from crdt_sessions.model import SessionView
from crdt_sessions.model.checks import MAX_DEPTH, check_json, json_size
from crdt_sessions.model.shared import check_writable, rewrite
from crdt_sessions.runtime import Session, SessionRegistry
from crdt_sessions_server.auth import asked_session, current_principal
from crdt_sessions_server.http.describing import Parameter, answers, reads, refuses, tag, takes
from crdt_sessions_server.http.preconditions import check_match, is_known, version_of
from crdt_sessions_server.http.problem_documents import Refusal
from crdt_sessions_server.http.problems import PATCH_FAILED, PRECONDITION_FAILED
from crdt_sessions_server.http.schemas import JSON, Answer, check_content_type

JSON_PATCH = "application/json-patch+json"
MAX_OPERATIONS = 1000
_NEEDS = {"add": "value", "replace": "value", "test": "value", "move": "from", "copy": "from"}
_PATCH = {
    "type": "array",
    "maxItems": MAX_OPERATIONS,
    "items": {
        "type": "object",
        "properties": {
            "op": {"enum": ["add", "remove", "replace", "move", "copy", "test"]},
            "path": {"type": "string"},
            "from": {"type": "string"},
            "value": {},
        },
        "required": ["op", "path"],
    },
}
"""RFC 6902."""


class SharedState(Answer):
    """The application's shared state."""

    state: dict[str, JsonValue]
    version: str = Field(description="The ETag without its quotes: it is the same as long as the state is.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of the shared state."""
    state = Blueprint("state", __name__, url_prefix="/v1/sessions")

    @state.get("/<name>/state")
    @tag(["sessions"])
    @reads(Parameter("If-None-Match", "304 if the state has this version."))
    @answers(200, {JSON: SharedState}, headers={"ETag": "The version."})
    @answers(304, description="The state has the version that was named.")
    async def read_state(name: str) -> Response:
        """Read the application's shared state (`state`), with its version."""
        async with registry.open(asked_session(name)) as session, session.reading():
            return _answer(session.view.state_value())

    @state.patch("/<name>/state")
    @tag(["sessions"])
    @reads(Parameter("If-Match", "412 if the state has another version than this."))
    @takes({JSON_PATCH: _PATCH})
    @answers(200, {JSON: SharedState}, headers={"ETag": "The version."})
    @refuses(PATCH_FAILED, PRECONDITION_FAILED)
    async def patch_state(name: str) -> Response:
        """Change the application's shared state by a JSON Patch (RFC 6902): all of it, or nothing.

        Only what differs is written, so that it merges with what others write at the same time. With `If-Match` it
        is applied only to that version. 409 if an operation does not fit, or a `test` fails.
        """
        check_content_type(request.mimetype, JSON_PATCH)
        patch = checked_patch(await request.get_json(force=True))
        async with registry.open(asked_session(name)) as session:
            await session.readable()
            await session.edit(lambda view: _apply(session, view, patch), by=current_principal().by)
            return _answer(session.view.state_value())

    return state


def _answer(state: dict[str, Any]) -> Response:
    version = version_of(state)
    if request.method == "GET" and is_known(version):
        answer = Response("", 304)
    else:
        answer = jsonify({"state": state, "version": version})
    answer.set_etag(version)
    return answer


def _apply(session: Session, view: SessionView, patch: list[dict[str, Any]]) -> None:
    current = view.state_value()
    check_match(version_of(current))
    wanted = patched(current, patch, session.engine.limits.max_document_bytes)
    if not isinstance(wanted, dict):
        raise BadValue(where="state", why="would be no object any more")
    check_writable(view.state, current, wanted, "state")
    session.check_room(max(0, json_size(wanted) - json_size(current)))
    rewrite(view.state, current, wanted)


def checked_patch(value: Any) -> list[dict[str, Any]]:
    """Return *value* if it is a JSON Patch.

    Raises:
        BadValue: it is none.
        TooLarge: it has more than :data:`MAX_OPERATIONS` operations.
    """
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise BadValue(where="the patch", why="is no list of operations")
    if len(value) > MAX_OPERATIONS:
        raise TooLarge(what="the patch", size=len(value), limit=MAX_OPERATIONS, unit="operations")
    for at, operation in enumerate(value):
        try:
            jsonpatch.JsonPatch([operation])
            operation[_NEEDS.get(operation["op"], "path")]
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError) as error:
            raise BadValue(where=f"the patch, operation {at}", why="is none of RFC 6902") from error
        if operation["path"].count("/") > MAX_DEPTH:
            raise BadValue(where=f"the patch, operation {at}", why=f"is deeper than {MAX_DEPTH} levels")
    return value


def patched(value: Any, patch: list[dict[str, Any]], max_bytes: int) -> Any:
    """Return *value* with a *patch* applied.

    Raises:
        Refusal: an operation does not fit; operation and reason are told.
        BadValue: it makes something of which no document can be.
        TooLarge: it makes more than *max_bytes*; a patch that copies could make any amount.
    """
    value, copied = copy.deepcopy(value), 0
    for at, operation in enumerate(patch):
        try:
            if operation["op"] == "copy":
                copied += json_size(jsonpatch.JsonPointer(operation["from"]).resolve(value))
                _check_size(copied, max_bytes)
            value = jsonpatch.apply_patch(value, [operation], in_place=True)
        except jsonpatch.JsonPatchTestFailed as error:
            raise Refusal(PATCH_FAILED, f"the test of operation {at} failed", operation=at) from error
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, LookupError, TypeError) as error:
            raise Refusal(PATCH_FAILED, f"operation {at} names no place that is there", operation=at) from error
    _check_size(json_size(check_json(value, "state")), max_bytes)
    return value


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(what="the state", size=size, limit=limit)
