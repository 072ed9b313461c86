"""What agents ask people, as elicitation: a form of the protocol, and what its answer says.

A form of MCP is an object whose properties are texts, numbers, booleans and choices of texts. What an agent asks may
be more: then the answer is asked for as JSON in one text field.
"""

from __future__ import annotations

import json
from typing import Any

from mcp.types import ElicitRequestFormParams, ElicitResult

from crdt_sessions.model import ToolPart

_ANSWER = "answer"
_REASON = {"type": "string", "title": "Reason", "description": "Why; may be left empty."}
_KEPT = {
    "string": ("title", "description", "minLength", "maxLength", "default"),
    "number": ("title", "description", "minimum", "maximum", "default"),
    "integer": ("title", "description", "minimum", "maximum", "default"),
    "boolean": ("title", "description", "default"),
}
"""Type of a field to the keywords that a form of MCP has for it, as ours has."""
_FORMATS = ("email", "uri", "date", "date-time")


def form_of(call: ToolPart) -> ElicitRequestFormParams:
    """Return the form that asks people what *call* waits for."""
    request = call.approval_request
    message = request.message if request is not None and request.message else _about(call)
    return ElicitRequestFormParams(message=message, requested_schema=_schema(call))


def verdict_of(call: ToolPart, said: ElicitResult) -> dict[str, Any] | None:
    """Return what an answer decides, as the body of ``POST …/approvals/<call>``; None if it decides nothing.

    Who cancels the form has not decided; others still may.

    Raises:
        ValueError: the answer is no JSON where that was asked for.
    """
    if said.action == "cancel":
        return None
    if said.action == "decline":
        return {"approved": False}
    content = {name: value for name, value in (said.content or {}).items() if value is not None}
    kind = call.approval_request.kind if call.approval_request is not None else None
    if kind in (None, "approve"):
        reason = content.get("reason")
        return {"approved": True} | ({"reason": reason} if reason else {})
    fields = _fields(_form(call))
    if fields is not None and set(fields) != {_ANSWER}:
        value: Any = {name: _value(_form(call)["properties"].get(name), said) for name, said in content.items()}
    elif fields is not None:
        value = _value(_form(call), content.get(_ANSWER))
    else:
        value = _parsed(content.get(_ANSWER))
    if kind == "edit" and value in ({}, None, call.input):
        return {"approved": True}
    return {"approved": True, "value": value}


def _about(call: ToolPart) -> str:
    return f"May the tool {call.tool_name!r} be called with {json.dumps(call.input, ensure_ascii=False)}?"


def _form(call: ToolPart) -> dict[str, Any]:
    request = call.approval_request
    return (request.form if request is not None else None) or {}


def _schema(call: ToolPart) -> dict[str, Any]:
    request = call.approval_request
    if request is None or request.kind in (None, "approve"):
        return {"type": "object", "properties": {"reason": _REASON}}
    form, fields = _form(call), _fields(_form(call))
    if fields is None:
        described = f"JSON that fits this schema: {json.dumps(form, ensure_ascii=False)}" if form else "Any JSON."
        answer: dict[str, Any] = {"type": "string", "title": "Answer", "description": described}
        if request.kind == "edit":
            answer["default"] = json.dumps(call.input, ensure_ascii=False)
        return {"type": "object", "properties": {_ANSWER: answer}, "required": [_ANSWER]}
    given = call.input if request.kind == "edit" else request.default
    for name, field in fields.items():
        known = given.get(name) if isinstance(given, dict) else given
        if _fits(field, known):
            field["default"] = known
    ordered = {name: fields[name] for name in (*(request.order or ()), *fields) if name in fields}
    required = [name for name in form.get("required", [_ANSWER]) if name in fields]
    return {"type": "object", "properties": ordered} | ({"required": required} if required else {})


def _fields(form: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
    """Return the fields of a form of MCP that asks for the same; None if none does."""
    if "properties" not in form:
        field = _field(form)
        return None if field is None else {_ANSWER: field}
    found = {name: _field(schema) for name, schema in form["properties"].items()}
    fields = {name: field for name, field in found.items() if field is not None}
    return fields if fields and len(fields) == len(found) and set(fields) != {_ANSWER} else None


def _field(schema: dict[str, Any]) -> dict[str, Any] | None:
    about: dict[str, Any] = {name: schema[name] for name in ("title", "description") if name in schema}
    if choices := _choices(schema):
        return {"type": "string", **about, "oneOf": [{"const": key, "title": title} for key, title, _ in choices]}
    kind = schema.get("type")
    if kind not in _KEPT:
        return None
    field: dict[str, Any] = {"type": kind} | {name: schema[name] for name in _KEPT[kind] if name in schema}
    if kind == "string" and schema.get("format") in _FORMATS:
        field["format"] = schema["format"]
    return field


def _choices(schema: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Return the key, the title and the value of each choice; a form of MCP lets people choose among texts only."""
    listed = schema.get("oneOf") or schema.get("anyOf")
    values = [each["const"] for each in listed] if listed else schema.get("enum", [])
    titles = [each.get("title") for each in listed] if listed else [None] * len(values)
    keys = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return [(key, title or key, value) for key, title, value in zip(keys, titles, values, strict=True)]


def _value(schema: dict[str, Any] | None, said: Any) -> Any:
    """Return the value that is meant by what was said about a field."""
    return next((value for key, _, value in _choices(schema or {}) if key == said), said)


def _fits(field: dict[str, Any], value: Any) -> bool:
    if "oneOf" in field:
        return value in [each["const"] for each in field["oneOf"]]
    types: dict[str, Any] = {"string": str, "boolean": bool, "integer": int, "number": (int, float)}
    return isinstance(value, types[field["type"]]) and (field["type"] == "boolean" or not isinstance(value, bool))


def _parsed(text: Any) -> Any:
    if not isinstance(text, str) or not text.strip():
        return None
    return json.loads(text)
