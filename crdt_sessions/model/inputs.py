"""What somebody who asks for a run gives the agent besides the conversation: tools, context, model, settings.

Its bounds are :class:`crdt_sessions.limits.InputLimits`. They hold wherever an input is made or read, so that nobody
meets one that is larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from crdt_sessions.errors import BadValue, TooLarge
from crdt_sessions.limits import InputLimits
from crdt_sessions.model.base import Value
from crdt_sessions.model.checks import check_json, json_size, why_not
from crdt_sessions.model.spelling import nests_deeper
from crdt_sessions.model.strings import NAME_CHARACTERS, PLAIN

Where = Literal["agent", "client", "server"]

INPUT_LIMITS = InputLimits()

_PlainName = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS, pattern=PLAIN)]


class ToolSpec(Value):
    """``request.input.tools[i]``: a tool that the model may call."""

    name: _PlainName
    description: str = ""
    input_schema: dict[str, Any] = Field(default_factory=dict)
    """JSON Schema of its input, an object; empty if it takes anything."""
    where: Where = "agent"
    """Who runs it: the agent that has the run, a device of those who asked, or the service."""


class ContextItem(Value):
    """``request.input.context[i]``: something that the agent is to know."""

    description: str = ""
    value: str


class RunInput(Value):
    """``request.input``: what the agent is to work with besides the conversation. All of it is optional.

    Raises:
        TooLarge: it has too many bytes, tools or items of context.
        BadValue: it is nested too deeply, two tools have one name, or it holds what JSON has no word for.
    """

    tools: list[ToolSpec] = Field(default_factory=list)
    context: list[ContextItem] = Field(default_factory=list)
    model: _PlainName | None = None
    """The model that is wished for."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """How it is to be asked, such as ``temperature``, ``responseFormat`` and ``toolChoice``."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """What the application keeps with the question."""
    forwarded: dict[str, Any] = Field(default_factory=dict)
    """Whatever a front end adds, as it came."""

    @classmethod
    def of(cls, value: RunInput | Mapping[str, Any] | Any) -> RunInput:
        """Return *value*, JSON from outside or an input that may have been changed meanwhile, as an input.

        Raises:
            BadValue, TooLarge: it is none.
        """
        if isinstance(value, RunInput):
            value = value.to_json()
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            where, _, why = why_not(error, "input")[0].partition(": ")
            raise BadValue(where=where, why=why) from None

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return not self.to_json()

    @property
    def context_text(self) -> str:
        """The context as one text for a model, such as for its system prompt; empty if there is none."""
        return "\n\n".join(
            f"{item.description}:\n{item.value}" if item.description else item.value for item in self.context
        )

    def tool(self, name: str) -> ToolSpec | None:
        """Return the tool of that name; None if there is none."""
        return next((tool for tool in self.tools if tool.name == name), None)

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        limits = INPUT_LIMITS
        for what, there, limit in (
            ("tools", len(self.tools), limits.max_tools),
            ("items of context", len(self.context), limits.max_context),
        ):
            if there > limit:
                raise TooLarge(what=f"the list of {what} in a run's input", size=there, limit=limit, unit=what)
        value = self.to_json()
        if nests_deeper(value, limits.max_depth):
            raise BadValue(where="input", why=f"is nested deeper than {limits.max_depth} levels")
        check_json(value, "input")
        if (size := json_size(value)) > limits.max_bytes:
            raise TooLarge(what="a run's input", size=size, limit=limits.max_bytes, unit="bytes of JSON")
        names = [tool.name for tool in self.tools]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise BadValue(where="input.tools", why=f"two tools are called {twice!r}")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if value not in (None, [], {})}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe what comes out like what goes in: it has the same members, less those that are empty."""
        described: Any = dict(schema)
        outer: dict[str, Any] = described
        while str(outer.get("type")).startswith("function-"):  # the validators around the model
            outer["schema"] = dict(outer["schema"])
            outer = outer["schema"]
        outer.pop("serialization", None)
        return handler(described)
