"""A session as Markdown, for people: the conversation in order, with who said what."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from crdt_sessions.model.parts import TextPart, ToolPart
from crdt_sessions.model.values import Message, SessionExport


def markdown(session: SessionExport) -> str:
    """Return the transcript of *session* as CommonMark."""
    blocks = [f"# {session.meta.title or session.meta.session_id}"]
    blocks += [_message(message) for message in session.messages]
    for artifact in session.artifacts:
        blocks.append(f"## Artifact: {artifact.title or artifact.id}\n\n{_fenced(artifact.content)}")
    return "\n\n".join(blocks) + "\n"


def _message(message: Message) -> str:
    blocks = [f"### {message.author.name or message.author.id} ({message.role}), {_time(message.created_at)}"]
    for part in message.parts:
        if isinstance(part, TextPart):
            block = part.text if part.type == "text" else _quoted(part.text)
            if part.continues and len(blocks) > 1:
                blocks[-1] += block.removeprefix("> ") if part.type == "reasoning" else block
            else:
                blocks.append(block)
        elif isinstance(part, ToolPart):
            blocks.append(_tool(part))
        else:
            blocks.append(_fenced(json.dumps(part.value, ensure_ascii=False, indent=2), "json"))
    return "\n\n".join(block for block in blocks if block)


def _time(at: int) -> str:
    try:
        return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # somebody's clock is off by millennia
        return f"at {at} ms"


def _tool(part: ToolPart) -> str:
    asked = f"**Tool `{part.tool_name}`**\n\n{_fenced(part.input_text, 'json')}"
    if part.error_text is not None:
        return f"{asked}\n\nError: {part.error_text}"
    if part.output is None:
        return asked
    return f"{asked}\n\n{_fenced(json.dumps(part.output, ensure_ascii=False, indent=2), 'json')}"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())


def _fenced(text: str, language: str = "") -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"
