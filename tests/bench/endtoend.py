"""W6: from a person's ``post`` to the first and the last token on another device, against calling the model directly.

The model is a function that yields tokens at a fixed pace, so all that is over its own time is ours. The person, the
other device and the agent are real clients of a real service; the agent is a process of its own, as agents are. It is
this module, run with the URL of the service.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from crdt_sessions import Agent, SessionPeer, connect
from crdt_sessions.client import AgentRun
from tests.bench.peers import OURS, running

_TOKENS, _PAUSE_S = 20, 0.01
_READING_S = 0.1
"""How long a person takes to read an answer before asking on: nobody asks while the agent still says good-bye."""


async def _model() -> AsyncIterator[str]:
    for number in range(_TOKENS):
        if number:
            await asyncio.sleep(_PAUSE_S)
        yield f"token{number} "


async def _direct() -> tuple[float, float]:
    begun = time.perf_counter()
    first = 0.0
    async for _ in _model():
        first = first or time.perf_counter() - begun
    return first, time.perf_counter() - begun


def work(url: str) -> None:
    """Answer questions until stopped."""
    agent = Agent(url, name="model", quiet=True)

    @agent.on_run
    async def answer(run: AgentRun) -> None:
        async with run.text() as out:
            async for token in _model():
                await out.write(token)

    agent.run()


async def _measure(url: str, questions: int) -> dict[str, Any]:
    gc.freeze()  # the modules of the benchmark are not what is measured
    firsts, lasts = [], []
    async with connect(url, "room", name="person") as person, connect(url, "room", name="device") as device:
        answers = _answers(device)
        for number in range(questions + 5):
            await asyncio.sleep(_READING_S)
            first = last = 0.0
            begun = time.perf_counter()
            await person.post(f"question {number}")
            while not last:
                text, at = await asyncio.wait_for(anext(answers), 20)
                if text and not first:
                    first = at
                if text.endswith(f"token{_TOKENS - 1} "):
                    last = at
            if number >= 5:  # the first ones load modules and warm up
                firsts.append((first - begun) * 1000)
                lasts.append((last - begun) * 1000)
    gateway = sorted([await _through_gateway(url, number) for number in range(questions)][5:])
    direct = [await _direct() for _ in range(questions)]
    direct_first = statistics.median(first for first, _ in direct) * 1000
    direct_last = statistics.median(last for _, last in direct) * 1000
    firsts.sort()
    lasts.sort()
    return {
        "questions": questions,
        "first_token_p50_ms": round(firsts[len(firsts) // 2] - direct_first, 2),
        "first_token_p99_ms": round(firsts[len(firsts) * 99 // 100] - direct_first, 2),
        "gateway_first_token_p50_ms": round(gateway[len(gateway) // 2] - direct_first, 2),
        "gateway_first_token_p99_ms": round(gateway[len(gateway) * 99 // 100] - direct_first, 2),
        "last_token_p50_ms": round(lasts[len(lasts) // 2] - direct_last, 2),
        "last_token_p99_ms": round(lasts[len(lasts) * 99 // 100] - direct_last, 2),
    }


async def _through_gateway(url: str, number: int) -> float:
    """Return the milliseconds from a request as ``useChat`` makes it to the first text of its answer."""
    await asyncio.sleep(_READING_S)
    message = {"id": f"q{number}", "role": "user", "parts": [{"type": "text", "text": f"question {number}"}]}
    body = {"id": "gateway", "messages": [message], "trigger": "submit-message"}
    first = 0.0
    async with httpx.AsyncClient(timeout=20) as http:
        begun = time.perf_counter()
        async with http.stream("POST", f"{url}/v1/gateways/ai-sdk/chat", json=body) as response:
            async for line in response.aiter_lines():
                if not first and '"text-delta"' in line:
                    first = time.perf_counter() - begun
    return first * 1000


async def _answers(device: SessionPeer) -> AsyncIterator[tuple[str, float]]:
    """Yield what became of the newest answer, and when, each time it changes."""
    async for message in device.messages.watch():
        if message.role == "assistant":
            yield message.text, time.perf_counter()


def overhead(folder: Path, *, questions: int) -> dict[str, Any]:
    """Return what a session adds to a model's own time."""
    command = OURS.command
    peer = type(OURS)(OURS.name, lambda port, data: [*command(port, data), "--default-agent", "model"], OURS.prefix)
    with running(peer, folder / "data.db") as server:
        url = f"http://127.0.0.1:{server.port}"
        agent = subprocess.Popen([sys.executable, "-m", __name__, url])
        try:
            return asyncio.run(_measure(url, questions))
        finally:
            agent.terminate()
            agent.wait(10)


if __name__ == "__main__":
    work(sys.argv[1])
