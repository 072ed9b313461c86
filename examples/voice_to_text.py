"""A question is spoken on the phone and answered in text on the laptop, in one session.

    crdt-sessions serve &
    python examples/voice_to_text.py --once

The transcript in ``recordings/voice/weekend.json`` stands for a speech recogniser: words with the time at which each
was recognised. While it streams, others see the words and that somebody is speaking; the question is answered when it
is complete. Then the same person goes on typing on another device. What the agent asks back is answered by voice,
too: said, not clicked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any

from crdt_sessions import Agent, AgentRun, CrdtSessionsError, SessionPeer, connect
from crdt_sessions.model import MessageHead, SessionView, answer_to

TRANSCRIPT = Path(__file__).parent / "recordings/voice/weekend.json"


async def speak(phone: SessionPeer, spoken: dict[str, Any], *, speed: float) -> str:
    """Post what is spoken, word by word, and return the message's id."""
    head = MessageHead(
        id=uuid.uuid4().hex, role="user", author=phone.author, created_at=phone.now(), modality="voice"
    )
    phone.set_presence("speaking", modality="voice")
    sound = {"mediaType": spoken["mediaType"], "durationMs": spoken["durationMs"]}
    transcript = phone.edit(lambda view: view.messages.add(head).open_audio(sound))
    before = 0
    for word in spoken["words"]:
        await asyncio.sleep((word["atMs"] - before) / 1000 / speed)
        before = word["atMs"]

        def change(_: SessionView, text: str = word["text"]) -> None:
            transcript.append(text)

        phone.edit(change)
    phone.edit(lambda _: transcript.close())
    phone.set_presence("idle", modality="voice")
    await phone.durable()
    return head.id


def choice_in(spoken: str, choices: list[str]) -> str | None:
    """Return the one choice that somebody has said; None if it is none of them, or not clear which."""
    said = spoken.lower()
    found = [choice for choice in choices if choice.lower() in said]
    return found[0] if len(found) == 1 else None


async def answer_by_voice(phone: SessionPeer, run_id: str, spoken: str) -> str:
    """Answer the choice that a run asks for with what was recognised; return what counts."""

    def waits() -> bool:
        return bool(phone.view.runs.find(run_id).pending)

    await phone.until(waits)
    (pending,) = phone.view.runs.find(run_id).pending or []
    message = phone.view.messages[phone.view.runs.find(run_id).output or ""]
    tool = message.tool(pending.tool_call_id)
    request = tool.approval_request if tool is not None else None
    choices = request.form["enum"] if request is not None and request.form is not None else []
    chosen = choice_in(spoken, choices)
    phone.decide(run_id, pending.tool_call_id, chosen is not None, spoken, value=chosen)
    await phone.durable()
    return f"{pending.message} {spoken!r}"


async def answer(run: AgentRun) -> None:
    asked = run.history()[-1]["content"]
    said = f"You said: {asked}"
    if "table" in asked:
        day = await run.ask("Saturday or Sunday?", {"enum": ["Saturday", "Sunday"]})
        said = f"I booked {day.value}." if day.approved else "I booked nothing."
    async with run.text() as out:
        for word in said.split(" "):
            await out.write(word + " ")
            await asyncio.sleep(0.01)


async def once(url: str, speed: float) -> None:
    agent = Agent(url, name="assistant")
    agent.on_run(answer)
    spoken = json.loads(TRANSCRIPT.read_text("utf-8"))
    session = f"voice-{uuid.uuid4().hex[:8]}"
    async with (
        connect(url, session, name="Ann", id="ann", device="phone") as phone,
        connect(url, session, name="Ann", id="ann", device="laptop") as laptop,
    ):
        laptop.set_presence("idle", modality="text")
        speaking = asyncio.create_task(speak(phone, spoken, speed=speed))
        heard = ""
        while not speaking.done():
            await asyncio.sleep(0.05)
            now = "".join(
                part.transcript or "" for m in laptop.messages.all() for part in m.parts if part.type == "audio"
            )
            present = [f"{each.device} {each.activity} ({each.modality})" for each in laptop.present().values()]
            if now != heard:
                heard = now
                print(f"on the laptop: {heard!r}, {', '.join(present)}", flush=True)
        working = asyncio.create_task(agent.work())
        await laptop.messages.answer_to(answer_to(await speaking))
        await laptop.messages.answer_to(await laptop.post("And on Sunday?", modality="text"))
        booking = await laptop.post("Book a table, please", modality="text")
        print(
            "on the phone:", await answer_by_voice(phone, answer_to(booking.id), "sunday would be nice"), flush=True
        )
        await laptop.messages.answer_to(booking)
        for message in laptop.messages.all():
            said = message.text or "".join(getattr(part, "transcript", None) or "" for part in message.parts)
            print(f"{message.author.name} [{message.modality or 'text'}]: {said}")
    agent.stop()
    await working


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Speak on one device, go on in text on another.", allow_abbrev=False)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--speed", type=float, default=1.0, help="how much faster than life")
    parser.add_argument("--once", action="store_true", help="accepted for symmetry: it always ends by itself")
    options = parser.parse_args()
    try:
        asyncio.run(once(options.url, options.speed))
    except CrdtSessionsError as error:
        sys.exit(f"voice_to_text.py: {error}")
