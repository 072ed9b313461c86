"""Front ends that never heard of Yjs, and one that did, on one session: useChat, AG-UI, TanStack AI, stock Yjs.

    npm --prefix examples/gateways ci && npm --prefix examples/gateways run build
    python examples/gateways/run.py

Starts the service, an agent that repeats what is said, and a server for the pages. ``--once`` needs neither npm nor
a browser: it asks one question through each gateway over plain HTTP, prints the answers and ends.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

HERE = Path(__file__).parent
AGENT = """
import asyncio, sys
from crdt_sessions import Agent
agent = Agent(sys.argv[1], name="parrot", quiet=True)  # the answers are what is shown

@agent.on_run
async def answer(run):
    async with run.text() as out:
        for word in f"You said: {run.message.text}".split():
            await out.write(word + " ")
            await asyncio.sleep(float(sys.argv[2]))

agent.run()
"""


@contextmanager
def process(*command: object, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program for as long as the context lasts."""
    child = subprocess.Popen([sys.executable, *map(str, command)], env={**os.environ, **environment})
    try:
        yield child
    finally:
        child.terminate()
        child.wait()


def wait_until_ready(url: str, service: subprocess.Popen[bytes]) -> None:
    for _ in range(400):
        if service.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    sys.exit(f"the service at {url} does not become ready; its message stands above")


def serve_pages(port: int) -> None:
    pages = HERE / "dist"
    if not (pages / "index.html").is_file():
        sys.exit(
            "the pages are not built: npm --prefix examples/gateways ci && npm --prefix examples/gateways run build"
        )
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=pages)
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        sys.exit(f"the pages cannot be served on port {port}: {error.strerror}; take another --pages-port")
    threading.Thread(target=server.serve_forever, daemon=True).start()


def frames(response: httpx.Response) -> Iterator[dict[str, object]]:
    """Yield the JSON of server-sent events."""
    for line in response.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def through_ai_sdk(http: httpx.Client, session: str, text: str) -> str:
    message = {"id": uuid.uuid4().hex, "role": "user", "parts": [{"type": "text", "text": text}]}
    body = {"id": session, "messages": [message], "trigger": "submit-message"}
    with http.stream("POST", "/v1/gateways/ai-sdk/chat", json=body) as response:
        return "".join(str(frame["delta"]) for frame in frames(response) if frame["type"] == "text-delta")


def through_ag_ui(http: httpx.Client, session: str, text: str, path: str = "ag-ui") -> str:
    body = {
        "threadId": session, "runId": uuid.uuid4().hex, "state": {}, "tools": [], "context": [], "forwardedProps": {},
        "messages": [{"id": uuid.uuid4().hex, "role": "user", "content": text}],
    }  # fmt: skip
    said: dict[object, str] = {}
    with http.stream("POST", f"/v1/gateways/{path}", json=body) as response:
        for frame in frames(response):
            if frame["type"] == "TEXT_MESSAGE_START" and frame["role"] == "assistant":
                said = {frame["messageId"]: ""}
            elif frame["type"] == "TEXT_MESSAGE_CONTENT" and frame["messageId"] in said:
                said[frame["messageId"]] += str(frame["delta"])
    return "".join(said.values())


def through_tanstack(http: httpx.Client, session: str, text: str) -> str:
    return through_ag_ui(http, session, text, f"tanstack/{session}")


def through_openai(http: httpx.Client, session: str, text: str) -> str:
    body = {"model": "parrot", "messages": [{"role": "user", "content": text}]}
    answer = http.post("/v1/gateways/openai/chat/completions", json=body, headers={"X-Session-Id": session}).json()
    return str(answer["choices"][0]["message"]["content"])


def ask_once(url: str, session: str) -> None:
    gateways = {
        "AI SDK": through_ai_sdk, "AG-UI": through_ag_ui, "TanStack AI": through_tanstack, "OpenAI": through_openai,
    }  # fmt: skip
    with httpx.Client(base_url=url, timeout=30) as http:
        for name, ask in gateways.items():
            print(f"{name}: {ask(http, session, f'hello through {name}')}", flush=True)
        messages = http.get(f"/v1/sessions/{session}/messages").json()["messages"]
        print(f"the session holds {len(messages)} messages", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Open one session in four front ends.", allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--pages-port", type=int, default=8080)
    parser.add_argument("--database", default="gateways.db")
    parser.add_argument("--session", default="demo")
    parser.add_argument("--pause", type=float, default=0.15, help="seconds between the agent's words")
    parser.add_argument(
        "--once", action="store_true", help="ask once through each gateway, print the answers and end"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the parts are ended, too
    url, pages = f"http://127.0.0.1:{options.port}", f"http://127.0.0.1:{options.pages_port}"
    with ExitStack() as stack:
        if not options.once:
            serve_pages(options.pages_port)
        service = stack.enter_context(
            process(
                "-m", "crdt_sessions_server", "serve", "--port", options.port, "--database", options.database,
                "--log-level", "warning", "--default-agent", "parrot",
                CRDT_SESSIONS_ALLOWED_ORIGINS=json.dumps([pages]),
            )
        )  # fmt: skip
        wait_until_ready(url, service)
        stack.enter_context(process("-c", AGENT, url, 0 if options.once else options.pause))
        if options.once:
            ask_once(url, options.session)
            return
        print(f"\n  open {pages}/?service={url}&session={options.session}\n  Ctrl-C ends the demo\n", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
