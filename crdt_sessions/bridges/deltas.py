"""What all bridges have in common: pieces of a stream, and how they are written."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

from crdt_sessions.client import MessageStream
from crdt_sessions.errors import BadValue
from crdt_sessions.ids import reference
from crdt_sessions.model import Spent
from crdt_sessions.model.checks import check_json, parse_json

_log = logging.getLogger("crdt_sessions.bridges")


class ModelError(Exception):
    """The stream says that the model failed.

    Args:
        code: for programs.
        message: as the provider wrote it, for the agent's log: it may name accounts and keys.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Delta:
    """One piece of a stream: text, reasoning, input or output of a tool, usage, or the finish."""

    kind: Literal["text", "reasoning", "tool", "output", "usage", "finish"]
    text: str = ""
    choice: int = 0
    call_id: str = ""
    name: str = ""
    spent: Spent | None = None
    """For ``usage``: what is to be added."""


def usage(**values: Any) -> list[Delta]:
    """Return what calls of a model have cost, as a piece of a stream; none if the figures are no figures."""
    known = {name: value for name, value in values.items() if value is not None}
    try:
        return [Delta("usage", spent=Spent.of(**known))]
    except BadValue as odd:
        _log.warning("a model's usage cannot be taken: %s", odd)
        return []


async def write(out: MessageStream, deltas: AsyncIterator[Delta], *, ends: bool = True) -> None:
    """Write what a model streams into a run's message, whatever it is made of and however it ends.

    Args:
        out: the run's message.
        deltas: the stream.
        ends: whether the stream says when it is complete; one that then does not, was cut off.

    Raises:
        RunCancelled: somebody pressed stop.
    """
    inputs: dict[str, str] = {}
    finish: str | None = None
    try:
        async for delta in deltas:
            if delta.kind == "finish":
                finish = delta.text
            elif delta.spent is not None:
                out.spend(delta.spent)
            else:
                await _write(out, delta, inputs)
    except ModelError as error:
        found = reference()
        _log.error("the model failed: %s", error, extra={"run": out.run_id, "reference": found})
        out.fail(error.code, f"the model failed; the agent's log says more (reference {found})")
    else:
        if finish is not None:
            out.finish(finish)
        elif ends:
            out.fail("cut", "the model's stream ended without an end")
    _end_tool_inputs(out, inputs, whole=finish is not None or not ends)


async def _write(out: MessageStream, delta: Delta, inputs: dict[str, str]) -> None:
    if delta.kind == "tool":
        inputs[delta.call_id] = inputs.get(delta.call_id, "") + delta.text
        await out.tool_input(delta.call_id, delta.name or "tool", delta.text)
    elif delta.kind == "output":
        _end_tool_inputs(out, {delta.call_id: inputs.pop(delta.call_id, "")}, whole=True)
        out.tool_output(delta.call_id, delta.text)
    elif delta.kind == "reasoning":
        await out.reason(delta.text, choice=delta.choice)
    else:
        await out.write(delta.text, choice=delta.choice)


def _end_tool_inputs(out: MessageStream, inputs: dict[str, str], *, whole: bool) -> None:
    """Parse what the model wrote as input of its tools; not all tools take JSON (a patch, a program)."""
    for call_id, text in inputs.items():
        try:
            out.end_tool_input(call_id, check_json(parse_json(text), "input") if text else {})
        except (BadValue, RecursionError) as odd:  # NaN, a key twice, a number that no peer can hold
            out.end_tool_input(call_id, error=f"what the model wrote cannot be taken: {odd}")
        except ValueError:
            unfinished = not whole or text.lstrip().startswith("{")
            out.end_tool_input(call_id, error="the model stopped in the middle of it" if unfinished else None)
