"""An OpenAI-compatible endpoint whose model is a script, so that the demo needs no key: it plans a weekend in Oslo.

    python examples/scripted_model.py --port 8001 --rate 14

It streams as a model does, thinks first, and calls the tools it is offered. If the last message is the beginning of
an answer, it goes on behind it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart, Response, request

WEEKEND = """\
Here is a weekend in Oslo that leaves room for the weather.

### Saturday

**Morning.** Begin at the Opera House, while its roof is still empty. It is made to be walked on, and from the \
top you see the whole fjord, the islands, and the ferries that go there. Have breakfast in the Bjørvika quarter \
behind it, then walk ten minutes to the Munch museum. Take the lift to the top floor first and come down: the \
view is the best picture that nobody painted.

**Midday.** Take the boat from the City Hall to Bygdøy. It takes a quarter of an hour, and in summer it goes \
every twenty minutes. Three museums lie within a short walk of each other there: the Fram, a polar ship that you \
may climb through; Kon-Tiki, the raft that crossed the Pacific; and the open-air museum, with a stave church \
from about 1200. Two of them are enough for an afternoon.

**Evening.** Back in town, walk along the harbour to Tjuvholmen. If the sun is out, do as everybody does: sit on \
the steps with something from the food hall, and swim if you dare. The water is clean, and it is cold.

### Sunday

**Morning.** Take line 1 of the metro up to Frognerseteren. The ride alone is worth it: the city falls away, the \
forest begins, and half an hour later you stand more than four hundred metres above the fjord. Have a slice of \
apple cake in the old timber lodge, and walk down to Sognsvann, a lake with a path around it. That is two hours \
at an easy pace.

**Afternoon.** The Vigeland park is open day and night and costs nothing: two hundred sculptures of people at \
every age of life, without a single sign that tells you what to feel. Go through it from west to east, with the \
sun behind you.

**Last stop.** Coffee in Grünerløkka, along the Akerselva. Follow the river down past the old mills until the \
town has you back, and the airport train leaves from right there.

### If it rains

Turn the two days around: the National Museum is large enough for a whole wet day, and Deichman, the new \
library, is the warmest living room in town. Ask the planner for seats on the boat, or for a packing list in the \
notes."""

THOUGHTS = (
    "Two days, no dates given, so it should work in most weather. The water first, the forest on the second day; one "
    "thing that has to be booked, and something for rain."
)
PACKING = """\
## Packing list

- a rain jacket, whatever the forecast says
- shoes that may get wet on the way to Sognsvann
- a swimsuit and a small towel, for the harbour
- a warm layer: it is windy on the boat
- a card: nobody takes cash
- a water bottle, the tap water is excellent
"""
OUTLINE = """\
## A weekend in Oslo

- Saturday: Opera roof, Munch, the boat to Bygdøy, harbour
- Sunday: Frognerseteren, down to Sognsvann, Vigeland park
- Rain: the National Museum, Deichman
"""
RAIN = (
    "Then the weekend moves indoors, and loses nothing:\n\n"
    "- **Saturday:** the National Museum, which is large enough for a whole wet day\n"
    "- **Sunday:** Deichman, the new library: the warmest living room in town\n\n"
    "The boat to Bygdøy goes in any weather."
)
ABOUT = (
    "I am a script that stands for a model, so I only know this weekend in Oslo: ask me to *plan a weekend*, or ask "
    "the planner to *book seats on the boat* or to *put a packing list into the notes*. With `OPENAI_API_KEY` set, "
    "`make demo` puts a real model here, behind the same agents.\n\nEverything else is real: whatever I write is on "
    "disk before you see it. Kill me in the middle of a sentence, and I go on where I stopped."
)

Piece = tuple[str, str]
"""``think``, ``say``, or the name of a tool with its arguments as JSON."""


def reply(messages: list[dict[str, Any]], tools: set[str]) -> list[Piece]:
    """Return what the model says next in a conversation."""
    asked = next((at for at in reversed(range(len(messages))) if messages[at]["role"] == "user"), -1)
    question = str(messages[asked]["content"]).lower() if asked >= 0 else ""
    results = [str(each["content"]) for each in messages[asked + 1 :] if each["role"] == "tool"]
    if "book_seats" in tools and re.search(r"\bbook|\bseat|\bticket|\bboat", question):
        return _book(results)
    if "write_notes" in tools and re.search(r"\bdraft|\bpack|\blist|\bnotes?\b", question):
        return _draft(results, PACKING if "book_seats" in tools else OUTLINE)
    if re.search(r"\brain|\bweather|\bwet\b", question):
        return [("say", RAIN)]
    if re.search(r"\bplan|\bweekend|\boslo|\btrip|\bworth knowing", question):
        return [("think", THOUGHTS), ("say", WEEKEND)]
    return [("say", ABOUT)]


def _book(results: list[str]) -> list[Piece]:
    if not results or "interrupted" in results[-1]:
        boat = {"boat": "City Hall to Bygdøy", "leaves": "Saturday 14:00", "seats": 2, "price": "160 kr"}
        return [
            ("think", "A booking costs money, so people have to agree first."),
            ("say", "There are two seats on the boat at two o'clock. It costs 160 kr, so I ask before I book it."),
            ("book_seats", json.dumps(boat, ensure_ascii=False)),
        ]
    if "denied" in results[-1]:
        return [("say", "\n\nAll right, I have not booked anything. The boats go every twenty minutes anyway.")]
    return [
        ("say", f"\n\nBooked: {_reference(results[-1])}. Be at the pier ten minutes early; the boat is punctual.")
    ]


def _reference(result: str) -> str:
    found = re.search(r"BYG-\d+", result)
    return f"your reference is **{found.group()}**" if found else "the seats are yours"


def _draft(results: list[str], text: str) -> list[Piece]:
    if not results or "interrupted" in results[-1]:
        return [
            ("say", "I write it into the notes. Go on typing there: we can all write at once."),
            ("write_notes", json.dumps({"text": text}, ensure_ascii=False)),
        ]
    return [("say", "\n\nDone. Change what you like; it is as much yours as mine.")]


def behind(pieces: list[Piece], begun: str) -> list[Piece]:
    """Return the rest of a reply that begins with the text *begun*; what was thought before it was thought."""
    left: list[Piece] = []
    for kind, text in pieces:
        if kind == "say" and begun:
            same = text.startswith(begun)
            text, begun = (text[len(begun) :], "") if same else (text, begun.removeprefix(text))
        elif kind == "think" and begun:
            continue
        if text:
            left.append((kind, text))
    return left


def chunks(pieces: list[Piece]) -> list[dict[str, Any]]:
    """Return ``choices[0]`` of the chunks of a streamed chat completion, a word or so in each."""
    found: list[dict[str, Any]] = []
    for kind, text in pieces:
        if kind in ("think", "say"):
            key = "content" if kind == "say" else "reasoning_content"
            found += [{key: word} for word in re.findall(r"\s*\S+\s*$|\s*\S+", text)]
            continue
        function = {"name": kind, "arguments": ""}
        call = {"index": 0, "id": f"call-{uuid.uuid4().hex[:12]}", "type": "function", "function": function}
        found.append({"tool_calls": [call]})
        found += [
            {"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in re.findall(r".{1,12}", text)
        ]
    calls = any(kind not in ("think", "say") for kind, _ in pieces)
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in found]
    return [*choices, {"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}]


def create_app(rate: float = 14.0) -> Quart:
    """Return the endpoint.

    Args:
        rate: chunks a second; 0 is as fast as possible.
    """
    app = Quart(__name__)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "script", "object": "model", "created": 0, "owned_by": "demo"}]}

    @app.post("/v1/chat/completions")
    async def chat() -> Response:
        asked = await request.get_json()
        messages = asked["messages"]
        last = messages[-1] if messages else {}
        begun = str(last.get("content") or "") if last.get("role") == "assistant" else ""
        tools = {tool["function"]["name"] for tool in asked.get("tools", ())}
        said = behind(reply(messages, tools), begun)

        async def body() -> AsyncIterator[bytes]:
            head = {"id": "script", "object": "chat.completion.chunk", "created": 0, "model": "script"}
            for choice in chunks(said):
                yield f"data: {json.dumps({**head, 'choices': [choice]}, ensure_ascii=False)}\n\n".encode()
                await asyncio.sleep(1 / rate if rate else 0)
            yield b"data: [DONE]\n\n"

        response = Response(body(), content_type="text/event-stream")
        response.timeout = None
        return response

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Play a model from a script.", allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--rate", type=float, default=14.0, help="words a second; 0 is as fast as possible")
    options = parser.parse_args()
    config = Config()
    config.loglevel = "WARNING"
    config.bind = [f"127.0.0.1:{options.port}"]
    try:
        asyncio.run(serve(create_app(options.rate), config))
    except OSError as error:
        sys.exit(f"scripted_model.py: cannot listen on port {options.port}: {error.strerror}; take another --port")
