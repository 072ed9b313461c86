"""What a run's input wishes for, read once for all bridges.

An input is what somebody in the session wrote. Of its settings only those are handed on that docs/protocol.md names,
in the form it says or the one that OpenAI's clients use; all else is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from crdt_sessions.model import RunInput, ToolSpec


class Wishes:
    """An input, as a model library's call needs it.

    Args:
        input: the run's.
        models: the models that may be wished for; any if None.
    """

    def __init__(self, input: RunInput, models: Collection[str] | None = None) -> None:
        self._settings = input.settings
        self.tools: list[ToolSpec] = input.tools
        allowed = input.model is not None and (models is None or input.model in models)
        self.model: str | None = input.model if allowed else None

    def numbers(self, names: Mapping[str, str]) -> dict[str, int | float]:
        """Return the settings that are numbers, by *names*: ours to the library's."""
        found = {theirs: self._settings.get(ours) for ours, theirs in names.items()}
        return {
            name: value
            for name, value in found.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }

    @property
    def stop(self) -> list[str] | None:
        """The texts at which the model is to stop."""
        value = self._settings.get("stop")
        texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        return [text for text in texts if isinstance(text, str)] or None

    @property
    def parallel(self) -> bool | None:
        """Whether the model may call several tools at once."""
        value = self._settings.get("parallelToolCalls")
        return value if isinstance(value, bool) else None

    @property
    def effort(self) -> str | None:
        """How long the model is to think."""
        value = self._settings.get("reasoningEffort")
        return value if isinstance(value, str) else None

    @property
    def tool_choice(self) -> tuple[str, str | None] | None:
        """``auto``, ``none``, ``required``, or ``tool`` and its name; None where there are none to choose from."""
        value = self._settings.get("toolChoice")
        if not self.tools:
            return None
        if isinstance(value, str):
            return (value, None) if value in ("auto", "none", "required") else None
        if not isinstance(value, dict):
            return None
        function = value.get("function")
        named = function if isinstance(function, dict) else value
        name = named.get("name") or named.get("toolName")
        return ("tool", name) if name in [tool.name for tool in self.tools] else None

    @property
    def functions(self) -> list[dict[str, Any]]:
        """The tools as functions, in the words of OpenAI's chat completions, which others understand, too."""
        return [
            {"name": tool.name, "description": tool.description, "parameters": object_schema(tool)}
            for tool in self.tools
        ]

    @property
    def response_format(self) -> dict[str, Any] | None:
        """The form of the answer in the same words; None if it is to be text."""
        schema = self.json_schema
        if not schema:
            return None if schema is None else {"type": "json_object"}
        return {"type": "json_schema", "json_schema": {"name": self.json_name, "schema": schema}}

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """The JSON Schema that the answer is to have; an empty one for any object; None if it is to be text."""
        value = self._format
        if value.get("type") in ("json", "json_object", "json_schema"):
            found = self._described.get("schema")
            return found if isinstance(found, dict) else {}
        return None

    @property
    def json_name(self) -> str:
        """How the form of the answer is called."""
        name = self._described.get("name")
        return name if isinstance(name, str) and name else "answer"

    @property
    def _format(self) -> dict[str, Any]:
        value = self._settings.get("responseFormat")
        return value if isinstance(value, dict) else {}

    @property
    def _described(self) -> dict[str, Any]:
        inner = self._format.get("json_schema")
        return inner if isinstance(inner, dict) else self._format


def object_schema(tool: ToolSpec) -> dict[str, Any]:
    """Return the JSON Schema of a tool's input, which providers want to be that of an object."""
    return {"type": "object", "properties": {}} | tool.input_schema
