"""What a route's function says of itself for the OpenAPI document.

The decorators of :mod:`.validation` tell of JSON that has a model, and those here of all else; :mod:`.openapi` reads
it. These change nothing of what the function does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from crdt_sessions import errors
from crdt_sessions_server.http.problems import ProblemType

SSE, MARKDOWN, HTML, TEXT = "text/event-stream", "text/markdown", "text/html", "text/plain"

Shape = type[BaseModel] | Mapping[str, Any]
"""A model, or a JSON Schema."""
LINES: Shape = {"type": "string", "description": "Text, read as it comes."}
NOTHING: Mapping[str, Shape] = {"*/*": {"type": "string", "maxLength": 0}}
"""An answer without a body, of a status that might have one."""
BYTES: Shape = {"type": "string", "format": "binary"}

Function = TypeVar("Function", bound=Callable[..., Any])
_ATTRIBUTE = "_openapi_described"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A header or query parameter that the function reads by itself."""

    name: str
    description: str
    place: str = "header"
    required: bool = False


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """An answer that is not told by a model alone.

    Args:
        content: media type to shape; nothing for an answer without a body.
        description: what it means.
        headers: name to meaning.
    """

    content: Mapping[str, Shape]
    description: str
    headers: Mapping[str, str]


@dataclass(slots=True)
class Described:
    """All that the decorators say of a function."""

    answers: dict[int, AnswerShape] = field(default_factory=dict)
    takes: Mapping[str, Shape] = field(default_factory=dict)
    request: Callable[[], type[BaseModel]] | None = None
    query: type[BaseModel] | None = None
    models: dict[int, type[BaseModel]] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    problems: list[type[errors.CrdtSessionsError] | ProblemType] = field(default_factory=list)


def described(function: Callable[..., Any]) -> Described:
    """Return what the decorators say of *function*, or of what it wraps."""
    found = vars(function).get(_ATTRIBUTE)
    return found if isinstance(found, Described) else Described()


def describing(function: Callable[..., Any]) -> Described:
    """Return what the decorators say of *function*, for a decorator that says more."""
    found = described(function)
    setattr(function, _ATTRIBUTE, found)
    return found


def tag(tags: list[str]) -> Callable[[Function], Function]:
    """Tell under which of the document's headings the route stands."""

    def decorator(function: Function) -> Function:
        describing(function).tags.extend(tags)
        return function

    return decorator


def answers(
    status: int = 200,
    content: Mapping[str, Shape] | None = None,
    description: str = "",
    headers: Mapping[str, str] | None = None,
) -> Callable[[Function], Function]:
    """Tell of an answer with *status*: its media types and their shapes, nothing for one without a body."""

    def decorator(function: Function) -> Function:
        describing(function).answers[status] = AnswerShape(content or {}, description, headers or {})
        return function

    return decorator


def takes(content: Mapping[str, Shape]) -> Callable[[Function], Function]:
    """Tell of the media types of the body."""

    def decorator(function: Function) -> Function:
        describing(function).takes = content
        return function

    return decorator


def reads(*parameters: Parameter) -> Callable[[Function], Function]:
    """Tell of headers and query parameters."""

    def decorator(function: Function) -> Function:
        describing(function).parameters.extend(parameters)
        return function

    return decorator


def refuses(*problems: type[errors.CrdtSessionsError] | ProblemType) -> Callable[[Function], Function]:
    """Tell of problems that the route's form does not show."""

    def decorator(function: Function) -> Function:
        describing(function).problems.extend(problems)
        return function

    return decorator
