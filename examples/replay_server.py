"""An OpenAI-compatible endpoint that replays recorded streams, so that demo and tests need no key.

    python examples/replay_server.py --port 8001 --rate 60

``model`` names the recording (``replay:openai-chat/deepseek-chat-emoji.sse``); any other model gets one chosen
by the question. Streams of OpenAI's own APIs and compatible servers are sent byte for byte; those of other
providers are spelled as chat completion chunks, as an OpenAI-compatible gateway would. If the last message is
the beginning of an answer, the recording goes on behind it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from quart import Quart, Response, request

FOLDER = Path(__file__).parent / "recordings"

SELECTION = (
    "anthropic-messages/claude-thinking-text.sse",
    "openai-chat/groq-text-long.chunks.txt",
    "openai-chat/deepseek-chat-emoji.sse",
    "google-generatecontent/gemini-chinese-poem.sse",
    "openai-chat/mistral-small-thinking-long.sse",
    "openai-chat/openai-gpt-4.1-nano-text.chunks.txt",
)
"""What the demo answers with."""


@dataclass(frozen=True)
class Recording:
    """One recorded stream and what the manifest says of it."""

    name: str
    facts: dict[str, Any]

    @property
    def api(self) -> str:
        return str(self.facts["api"])

    def lines(self) -> list[str]:
        return (FOLDER / self.name).read_text("utf-8").splitlines()

    def events(self) -> Iterator[str]:
        """Yield the stream as server-sent events, as the provider's own endpoint sends them."""
        named = self.api in ("openai-responses", "anthropic-messages")
        if self.facts["format"] == "json-lines":
            for line in filter(None, self.lines()):
                event = f"event: {json.loads(line)['type']}\n" if named else ""
                yield f"{event}data: {line}\n\n"
            if self.api == "openai-chat":
                yield "data: [DONE]\n\n"
            return
        event = ""
        for line in self.lines():  # line by line: one recording has no blank lines between its events
            if line.startswith("event:"):
                event = f"{line}\n"
            elif line.startswith("data:"):
                yield f"{event}{line}\n\n"
                event = ""
            elif line.startswith(":"):
                yield f"{line}\n\n"

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Yield the provider's JSON objects."""
        for line in self.lines():
            text = line.removeprefix("data:").strip()
            if text.startswith("{"):
                yield json.loads(text)


def recordings() -> dict[str, Recording]:
    """Return all recordings by name."""
    manifest = json.loads((FOLDER / "manifest.json").read_text("utf-8"))
    named = ((entry["file"].removeprefix("streams/"), entry) for entry in manifest["streams"])
    return {name: Recording(name, entry) for name, entry in named}


# -- other providers, as chat completion chunks --------------------------------------------------------------------


def as_chat(recording: Recording) -> Iterator[dict[str, Any]]:
    """Yield ``choices[0]`` of the chunks a chat completion of this recording would have."""
    spell = {
        "anthropic-messages": _anthropic,
        "google-generatecontent": _google,
        "cohere-chat": _cohere,
        "bedrock-converse": _bedrock,
    }[recording.api]
    state: dict[str, Any] = {"tools": {}}
    for chunk in recording.chunks():
        yield from spell(chunk, state)


def _delta(**delta: Any) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": None}


def _finish(reason: str) -> dict[str, Any]:
    return {"index": 0, "delta": {}, "finish_reason": reason}


def _tool(index: int, arguments: str, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    call = {"index": index, "function": function} | ({"id": id, "type": "function"} if id else {})
    return _delta(tool_calls=[call])


def _anthropic(chunk: dict[str, Any], state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = chunk["type"]
    if kind == "content_block_start" and "tool" in chunk["content_block"]["type"]:
        block = chunk["content_block"]
        if "name" in block:
            state["tools"][chunk["index"]] = index = state.setdefault("count", -1) + 1
            state["count"] = index
            yield _tool(index, "", block["id"], block["name"])
    elif kind == "content_block_delta":
        delta = chunk["delta"]
        if delta["type"] == "text_delta":
            yield _delta(content=delta["text"])
        elif delta["type"] == "thinking_delta":
            yield _delta(reasoning_content=delta["thinking"])
        elif delta["type"] == "input_json_delta":
            yield _tool(state["tools"][chunk["index"]], delta["partial_json"])
    elif kind == "message_delta" and chunk["delta"].get("stop_reason"):
        yield _finish(chunk["delta"]["stop_reason"])


def _google(chunk: dict[str, Any], state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for candidate in chunk.get("candidates", ()):
        for part in candidate.get("content", {}).get("parts", ()):
            call = part.get("functionCall")
            if call is not None:
                if "name" in call:
                    state["count"] = state.get("count", -1) + 1
                    yield _tool(state["count"], "", f"call-{state['count']}", call["name"])
                if call:  # Gemini streams arguments as values at JSON paths; they are passed on as they are
                    arguments = {key: value for key, value in call.items() if key not in ("name", "willContinue")}
                    yield _tool(state["count"], json.dumps(arguments))
            elif part.get("thought"):
                yield _delta(reasoning_content=part["text"])
            elif "text" in part:
                yield _delta(content=part["text"])
        if "finishReason" in candidate:
            yield _finish(candidate["finishReason"])


def _cohere(chunk: dict[str, Any], state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if chunk["type"] == "content-delta":
        content = chunk["delta"]["message"]["content"]
        if "thinking" in content:
            yield _delta(reasoning_content=content["thinking"])
        else:
            yield _delta(content=content["text"])
    elif chunk["type"] == "message-end":
        yield _finish(chunk["delta"]["finish_reason"])


def _bedrock(chunk: dict[str, Any], state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "contentBlockDelta" in chunk:
        delta = chunk["contentBlockDelta"]["delta"]
        if "text" in delta:
            yield _delta(content=delta["text"])
        elif "text" in delta.get("reasoningContent", {}):
            yield _delta(reasoning_content=delta["reasoningContent"]["text"])
    elif "messageStop" in chunk:
        yield _finish(chunk["messageStop"]["stopReason"])


# -- the endpoint ------------------------------------------------------------------------------------------------


def create_app(rate: float = 0.0, cut_after: int | None = None) -> Quart:
    """Return the endpoint.

    Args:
        rate: events per second; 0 is as fast as possible.
        cut_after: break every stream off after that many events, without an end.
    """
    app = Quart("replay")
    known = recordings()

    def choose(model: str, question: str) -> Recording:
        name = model.removeprefix("replay:")
        return known[name] if name in known else known[SELECTION[zlib.crc32(question.encode()) % len(SELECTION)]]

    stream = partial(_streamed, rate=rate, cut_after=cut_after)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "replay", "object": "model", "created": 0, "owned_by": "replay"}]}

    @app.post("/v1/chat/completions")
    async def chat() -> Response:
        asked = await request.get_json()
        question, begun = _asked(asked["messages"])
        recording = choose(asked["model"], question)
        if recording.api == "openai-chat" and not begun:
            return stream(recording.events())
        choices = _from_events(recording) if recording.api.startswith("openai-chat") else as_chat(recording)
        return stream(_spelled(_behind(choices, begun), recording))

    async def as_recorded(question: str) -> Response:
        asked = await request.get_json()
        return stream(choose(asked["model"], str(asked[question])).events())

    for path, question in (("/v1/responses", "input"), ("/v1/messages", "messages")):
        app.add_url_rule(path, path, partial(as_recorded, question), methods=["POST"])
    return app


def _streamed(events: Iterator[str], *, rate: float, cut_after: int | None) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for number, event in enumerate(events):
            if number == cut_after:
                return
            yield event.encode()
            await asyncio.sleep(1 / rate if rate else 0)

    response = Response(body(), content_type="text/event-stream")
    response.timeout = None
    return response


def _asked(messages: list[dict[str, Any]]) -> tuple[str, str]:
    """Return the last question, and the beginning of the answer if there is one."""
    begun = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
    questions = [message["content"] for message in messages if message["role"] == "user"]
    return questions[-1] if questions else "", begun


def _from_events(recording: Recording) -> Iterator[dict[str, Any]]:
    for chunk in recording.chunks():
        for choice in chunk.get("choices", ()):
            yield {**choice, "delta": choice.get("delta") or {}}


def _behind(choices: Iterator[dict[str, Any]], begun: str) -> Iterator[dict[str, Any]]:
    """Leave out what the answer begins with already: the text in *begun*, and the thoughts before it."""
    left = begun
    for choice in choices:
        content = choice["delta"].get("content")
        if not begun or not left:
            yield choice
        elif isinstance(content, str) and content:
            size = min(len(content), len(left))
            left = left[size:]
            if content[size:]:
                yield {**choice, "delta": {"content": content[size:]}}


def _spelled(choices: Iterator[dict[str, Any]], recording: Recording) -> Iterator[str]:
    head = {"id": "replay", "object": "chat.completion.chunk", "created": 0, "model": recording.facts["model"] or ""}
    for choice in choices:
        yield f"data: {json.dumps({**head, 'choices': [choice]}, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Replay recorded LLM streams.", allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--rate", type=float, default=60.0, help="events per second; 0 is as fast as possible")
    parser.add_argument("--cut-after", type=int, help="break every stream off after that many events")
    options = parser.parse_args()
    try:
        create_app(options.rate, options.cut_after).run(port=options.port, use_reloader=False)
    except OSError as error:
        sys.exit(f"replay_server.py: cannot listen on port {options.port}: {error.strerror}; take another --port")
