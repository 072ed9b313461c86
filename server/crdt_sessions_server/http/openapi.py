"""The OpenAPI document: all routes of the running service.

It is made of the URL map, so that no route can be missing; of what the decorators of :mod:`validation` and
:mod:`describing` say of its functions; of the table of permissions; and of the table of problems. Why not
a library's document: ``docs/decisions/0033-the-openapi-document-is-made-of-the-url-map.md``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Literal, cast

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from quart import Quart
from werkzeug.routing import Rule

from crdt_sessions import errors
from crdt_sessions_server.auth.permissions import PUBLIC, ROUTES
from crdt_sessions_server.http import problems
from crdt_sessions_server.http.describing import TEXT, Described, Shape, described
from crdt_sessions_server.http.problems import ProblemType
from crdt_sessions_server.http.schemas import JSON

Json = dict[str, Any]
Mode = Literal["validation", "serialization"]

_OF_ONE_SESSION = ("/v1/sessions/", "/v1/y-sweet/d/")
_GATEWAYS = {"ai-sdk": "aiSdk", "ag-ui": "agUi", "tanstack": "tanStack", "openai": "openAi", "mcp": "mcp"}
"""Blueprints whose functions are called alike, to what their operations' ids begin with."""
_OPENAI, _MCP, _USE_CHAT = "openai.", "mcp.", {"ai-sdk.send", "ai-sdk.resume"}
_PATH_PARAMETERS = {
    "name": "The session's name.",
    "artifact": "The artifact's id.",
    "run": "The run's id.",
    "suggestion": "The suggestion's id.",
    "call": "The tool call's id.",
    "device": "The device's own name.",
    "message": "The message's id.",
    "key": "The step's key.",
    "principal": "The principal's id.",
    "seq": "The version's number.",
    "id": "The delivery's id.",
    "subscription": "The subscription's name.",
    "model": "The agent's name.",
    "completion": "The completion's id.",
    "file": "The file's name.",
    "path": "The stream's path, of any number of segments.",
}
_TAGS = {
    "sessions": "Create, list, change and delete sessions; who is here and who wrote what.",
    "messages": "Post and read messages, follow a session as events, tell how far one has read.",
    "artifacts": "Texts that people and agents edit together: create, read, replace, change at a place.",
    "runs": "Ask agents, look at what they do, stop them, decide what they ask people.",
    "agents": "For those who work on runs: claim, renew, write, record steps, end.",
    "versions": "The past of a session: versions, differences, restoring, forking.",
    "transfer": "Whole documents: export, import, and sync without a WebSocket.",
    "y-sweet": "What clients and backends of y-sweet ask for; the document itself goes over its WebSocket.",
    "streams": "Durable Streams: logs of bytes or JSON that are written, read and followed over HTTP.",
    "gateways": "Clients that know no Yjs: AI SDK, AG-UI, TanStack AI, OpenAI, MCP.",
    "access": "Who one is, tokens, revocations, members, the audit log, and people's data.",
    "webhooks": "What was not delivered.",
    "operations": "Health, metrics, this document and the pages.",
}
_ABOUT = """\
Durable sessions for humans and AI agents: one shared Yjs document, presence and a lifecycle.

**Tokens.** Send `Authorization: Bearer …`, or the query parameter `token` where headers cannot be set. A service that
was started without tokens lets everybody on its machine in and needs none.

**Problems.** What is refused is answered with a problem document (RFC 9457). Programs go by its `type`;
`docs/reference/problems.md` lists them. OpenAI's and the AI SDK's clients get errors as these clients spell them.

**Ids in paths** are percent-encoded, a slash in them included.

**WebSockets**, which OpenAPI cannot describe:

- `/v1/sync/{name}`: the session's document, by the protocol of y-websocket; the token is the query parameter `token`
  or the subprotocol `bearer.<token>`, and `lease` and `lineage` are query parameters. `docs/protocol.md` has the
  frames and close codes.
"""


def document(app: Quart) -> Json:
    """Return the OpenAPI document of *app*."""
    rules = sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule)
    shapes = _Shapes()
    paths: Json = {}
    spoken = []
    for rule in rules:
        function = app.view_functions[rule.endpoint]
        if rule.websocket:
            spoken.append(f"- `{_path(rule)}`: {' '.join(_said(function))}")
            continue
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            paths.setdefault(_path(rule), {})[method.lower()] = _operation(rule, method, function, shapes)
    operations = [operation for path in paths.values() for operation in path.values()]
    used = {tag for operation in operations for tag in operation["tags"]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "crdt-sessions",
            "version": version("crdt-sessions"),
            "summary": "Durable sessions for humans and AI agents.",
            "description": _ABOUT + "\n".join(spoken),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "The service that this document comes from."}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items() if name in used],
        "paths": shapes.resolved(paths),
        "components": {
            "schemas": {**shapes.definitions(), "Problem": _PROBLEM, "OpenAiError": _OPENAI_ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token, such as a JWT."},
                "tokenParameter": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "token",
                    "description": "The same token, for clients that cannot set headers.",
                },
            },
        },
    }


_PROBLEM: Json = {
    "type": "object",
    "description": "Why a request was refused (RFC 9457), with the facts of the error as further members.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {
            "type": "string",
            "description": "Names the type of problem, for programs.",
            "examples": [problems.type_of(errors.SessionNotFound).urn],
        },
        "title": {"type": "string", "description": "The same for all occurrences."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What happened this time, and what to do next."},
        "errors": {
            "type": "array",
            "description": "What does not fit, field by field.",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
    "additionalProperties": True,
}
_OPENAI_ERROR: Json = {
    "type": "object",
    "description": "Why a request was refused, as OpenAI spells errors.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


# -- operations ------------------------------------------------------------------------------------------------------


def _operation(rule: Rule, method: str, function: Callable[..., Any], shapes: _Shapes) -> Json:
    told, (summary, description) = described(function), _said(function)
    model = told.request() if told.request is not None else None
    query = told.query
    needs, public = ROUTES.get(rule.endpoint), rule.endpoint in PUBLIC
    if needs is not None:
        description = f"{description}\n\nNeeds the permission `{needs}`.".strip()
    operation: Json = {
        "operationId": _operation_id(rule.endpoint),
        "summary": summary.rstrip("."),
        "tags": sorted(told.tags or ["operations"]),
        "security": [] if public else [{"bearer": []}, {"tokenParameter": []}],
    }
    if description:
        operation["description"] = description
    if parameters := [*_path_parameters(rule), *_query_parameters(query), *_other_parameters(told)]:
        operation["parameters"] = parameters
    if model is not None:
        needed = any(field.is_required() for field in model.model_fields.values())
        operation["requestBody"] = {"required": needed, "content": {JSON: {"schema": shapes.of(model, "validation")}}}
    elif told.takes:
        content = {media: {"schema": shapes.of(shape, "validation")} for media, shape in told.takes.items()}
        operation["requestBody"] = {"required": True, "content": content}
    kinds = [*told.problems]
    if not public or model is not None:  # a worker's token is none of ours, and what it says is read all the same
        kinds += _by_form(
            rule, method, json=model is not None, body="requestBody" in operation, query=query is not None
        )
    operation["responses"] = {
        **_successes(told, shapes),
        **_failures(
            rule.endpoint, [kind if isinstance(kind, ProblemType) else problems.type_of(kind) for kind in kinds]
        ),
    }
    return operation


def _said(function: Callable[..., Any]) -> tuple[str, str]:
    """Return the first paragraph of a function's docstring, and the rest."""
    text = re.sub(r"``(.+?)``", r"`\1`", inspect.getdoc(function) or "")
    first, _, rest = text.partition("\n\n")
    return " ".join(first.split()), rest


def _operation_id(endpoint: str) -> str:
    blueprint, _, name = endpoint.rpartition(".")
    words = name.split("_")
    if blueprint in _GATEWAYS:
        return _GATEWAYS[blueprint] + "".join(word.capitalize() for word in words)
    return words[0] + "".join(word.capitalize() for word in words[1:])


def _path(rule: Rule) -> str:
    return re.sub(r"<(?:[^:<>]+:)?(\w+)>", r"{\1}", rule.rule)


def _path_parameters(rule: Rule) -> Iterator[Json]:
    for converter, name in re.findall(r"<(?:([^:<>]+):)?(\w+)>", rule.rule):
        number = converter.partition("(")[0] == "int"
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_PARAMETERS.get(name, f"The {name}."),
            "schema": {"type": "integer", "minimum": 0} if number else {"type": "string", "minLength": 1},
        }


def _query_parameters(model: type[BaseModel] | None) -> Iterator[Json]:
    schema = model.model_json_schema(by_alias=True) if model is not None else {}
    for name, value in schema.get("properties", {}).items():
        value = _plain(value)
        parameter: Json = {"name": name, "in": "query", "required": name in schema.get("required", ())}
        if "description" in value:
            parameter["description"] = value.pop("description")
        branches = [each for each in value.pop("anyOf", []) if each != {"type": "null"}]
        if value.get("default", "") is None:
            del value["default"]
        parameter["schema"] = {
            **(branches[0] if len(branches) == 1 else {"anyOf": branches} if branches else {}),
            **value,
        }
        yield parameter


def _other_parameters(told: Described) -> Iterator[Json]:
    for each in told.parameters:
        yield {
            "name": each.name,
            "in": each.place,
            "required": each.required,
            "description": each.description,
            "schema": {"type": "string"},
        }


def _by_form(
    rule: Rule, method: str, *, json: bool, body: bool, query: bool
) -> list[type[errors.CrdtSessionsError] | ProblemType]:
    """Return the problems that a route of that form may answer with."""
    kinds: list[type[errors.CrdtSessionsError] | ProblemType] = [
        errors.NotAuthenticated, errors.AccessDenied, errors.TooMany, errors.Overloaded, errors.StorageError,
        errors.StoreUnavailable, errors.ShuttingDown, problems.INTERNAL_ERROR,
    ]  # fmt: skip
    gateway = rule.endpoint.partition(".")[0] in _GATEWAYS
    if rule.rule.startswith(_OF_ONE_SESSION) or "<room:" in rule.rule or gateway:
        kinds += [
            errors.SessionNotFound,
            errors.SessionDeleted,
            errors.BadSessionId,
            errors.DamagedLog,
            errors.SessionFailed,
        ]
        kinds += [errors.SessionClosed, errors.BadValue] if method != "GET" else []
    if gateway or set(rule.arguments) - {"name"}:
        kinds += [errors.NotFound, errors.BadId]
    if body:
        kinds += [problems.UNSUPPORTED_MEDIA_TYPE, errors.TooLarge]
    if json:
        kinds += [problems.MALFORMED_JSON, problems.INVALID_INPUT, errors.BadValue, errors.BadId]
    if query:
        kinds += [problems.INVALID_INPUT]
    return kinds


def _successes(told: Described, shapes: _Shapes) -> Json:
    found: Json = {}
    for status, model in sorted(told.models.items()):
        means = (inspect.getdoc(model) or "").partition("\n")[0]
        found[str(status)] = {"description": means, "content": {JSON: {"schema": shapes.of(model, "serialization")}}}
    for status, answer in sorted(told.answers.items()):
        entry: Json = {"description": answer.description or ("Done." if not answer.content else "As asked for.")}
        if answer.content:
            entry["content"] = {
                media: {"schema": shapes.of(shape, "serialization")} for media, shape in answer.content.items()
            }
        if answer.headers:
            entry["headers"] = {
                name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
            }
        found[str(status)] = entry
    return found


def _failures(endpoint: str, kinds: list[ProblemType]) -> Json:
    """Return the responses for problems, by status."""
    content: Json = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    if endpoint.startswith(_OPENAI):
        content = {JSON: {"schema": {"$ref": "#/components/schemas/OpenAiError"}}}
    elif endpoint.startswith(_MCP):
        content = {JSON: {"schema": {"type": "object"}}, **content}
    elif endpoint in _USE_CHAT:
        content = {TEXT: {"schema": {"type": "string"}}, **content}
    found: Json = {}
    for status in sorted({kind.status for kind in kinds}):
        told = dict.fromkeys(f"`{kind.slug}`: {kind.title}." for kind in kinds if kind.status == status)
        entry: Json = {"description": " ".join(told), "content": content}
        if status in (429, 503):
            entry["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}}}
        if status == 401:
            entry["headers"] = {"WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}}}
        found[str(status)] = entry
    return found


# -- schemas ---------------------------------------------------------------------------------------------------------


class _Shapes:
    """The schemas of models, which are made all at once, so that what several use is one component."""

    def __init__(self) -> None:
        self._wanted: dict[tuple[type[BaseModel], Mode], None] = {}
        self._made: tuple[dict[tuple[type[BaseModel], Mode], Json], Json] | None = None

    def of(self, shape: Shape, mode: Mode) -> Any:
        """Return a schema, or what :meth:`resolved` replaces by one."""
        if isinstance(shape, Mapping):
            return dict(shape)
        self._wanted[shape, mode] = None
        return _Wanted(shape, mode)

    def definitions(self) -> Json:
        """Return the components."""
        return self._all()[1]

    def resolved(self, value: Any) -> Any:
        """Return *value* with references to the components."""
        if isinstance(value, _Wanted):
            return self._all()[0][value.model, value.mode]
        if isinstance(value, dict):
            return {key: self.resolved(item) for key, item in value.items()}
        return [self.resolved(item) for item in value] if isinstance(value, list) else value

    def _all(self) -> tuple[dict[tuple[type[BaseModel], Mode], Json], Json]:
        if self._made is None:
            references, schema = models_json_schema(list(self._wanted), ref_template="#/components/schemas/{model}")
            definitions = _plain(schema.get("$defs", {}), names=True)
            names = _names(definitions)
            made = {key: _renamed(reference, names) for key, reference in references.items()}
            self._made = (
                cast(dict[tuple[type[BaseModel], Mode], Json], made),
                {names[name]: _renamed(each, names) for name, each in sorted(definitions.items())},
            )
        return self._made


class _Wanted:
    def __init__(self, model: type[BaseModel], mode: Mode) -> None:
        self.model, self.mode = model, mode


def _plain(value: Any, *, names: bool = False) -> Any:
    """Return a schema without what says nothing.

    That is titles, which say a name again (but in an object of names, ``title`` is one of them), a default of null,
    and alternatives to everything. A constant is required: it tells the branches of a union apart.
    """
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if names:
        return {key: _plain(item) for key, item in value.items()}
    found = {
        key: _plain(item, names=key in ("properties", "$defs"))
        for key, item in value.items()
        if key != "title" and not (key == "default" and (item is None or "const" in value))
    }
    if {} in found.get("anyOf", ()):
        del found["anyOf"]
    if isinstance(found.get("description"), str):
        found["description"] = re.sub(r"``(.+?)``", r"`\1`", found["description"])
    constants = [name for name, each in found.get("properties", {}).items() if "const" in each]
    if constants:
        found["required"] = list(dict.fromkeys((*found.get("required", ()), *constants)))
    return found


def _names(definitions: Json) -> dict[str, str]:
    """Return short names for components: those of ours as their classes, others with where they are from."""
    short = {}
    for name in definitions:
        package, _, rest = name.partition("__")
        prefix = "AgUi" if package == "ag_ui" else ""
        short[name] = prefix + rest.rpartition("__")[2] if rest else name
    return short if len(set(short.values())) == len(short) else {name: name for name in definitions}


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """Return a schema whose references go by other names; they stand in ``$ref`` and in a discriminator's mapping."""
    prefix = "#/components/schemas/"
    if isinstance(value, str) and value.startswith(prefix):
        return prefix + names[value.removeprefix(prefix)]
    if isinstance(value, dict):
        return {key: _renamed(item, names) for key, item in value.items()}
    return [_renamed(item, names) for item in value] if isinstance(value, list) else value
