"""The demo: the service on a SQLite file, two agents in front of a model, and the page in a browser.

    python examples/demo.py

Without OPENAI_BASE_URL and OPENAI_API_KEY the model is a script. Every part may be killed: what is started here is
started again. ``--once`` asks one question, prints the answer and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import shlex
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crdt_sessions import CrdtSessionsError, connect

HERE = Path(__file__).parent
FIRST_PAUSE_S = 2.0
"""How long a part that died stays away: long enough that people see what a crash looks like."""
LONGEST_PAUSE_S = 30.0
HEALTHY_S = 30.0
"""A part that ran for so long begins with a short pause again."""
STOP_S = 10.0
SUGGESTIONS = [
    {"text": "Plan a weekend in Oslo", "agent": "assistant", "hint": "a long answer: stop it, or kill its agent"},
    {"text": "Book two seats on the boat to Bygdøy", "agent": "planner", "hint": "asks for approval first"},
    {"text": "Put a packing list into the notes", "agent": "planner", "hint": "writes where you write"},
]


class Terminal:
    """Prints lines; while another program prints an answer there, they wait."""

    def __init__(self) -> None:
        self._waiting: list[str] | None = None

    def say(self, text: str = "") -> None:
        if self._waiting is None:
            print(text, flush=True)
        else:
            self._waiting.append(text)

    @contextlib.contextmanager
    def left_to_another(self) -> Iterator[None]:
        self._waiting = []
        try:
            yield
        finally:
            waiting, self._waiting = self._waiting, None
            for text in waiting:
                self.say(text)


_terminal = Terminal()
say = _terminal.say


def command_line(*arguments: object) -> str:
    """Return a command as one would type it here: with the Python that runs this, and paths as short as may be."""
    here = Path.cwd()
    words = [sys.executable, *map(str, arguments)]
    return shlex.join(
        os.path.relpath(word) if os.path.isabs(word) and Path(word).is_relative_to(here) else word for word in words
    )


@dataclass
class Part:
    """A process of the demo, which is started again whenever it ends."""

    name: str
    command: list[str]
    environment: dict[str, str]
    died: int = 0
    process: asyncio.subprocess.Process | None = None
    started: float = 0.0
    lines: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *self.command, env=self.environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            process_group=0,  # Ctrl-C is for the demo, which ends its parts in order
        )  # fmt: skip
        self.started = time.monotonic()
        self.lines = [asyncio.create_task(self._pass_on(self.process))]

    async def _pass_on(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            say(f"  {self.name:9} | {line.decode(errors='replace').rstrip()}")

    @property
    def how_to_kill(self) -> str:
        return f"kill -9 {self.process.pid if self.process else 0}"

    async def keep(self) -> None:
        """Start it again whenever it ends."""
        pause = FIRST_PAUSE_S
        while True:
            assert self.process is not None
            status = await self.process.wait()
            await asyncio.gather(*self.lines)
            pause = FIRST_PAUSE_S if time.monotonic() - self.started > HEALTHY_S else pause
            say(f"\n  {self.name} {_ended(status)}; it is started again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            await self.start()
            say(f"  {self.name} is back: {self.how_to_kill}\n")

    async def stop(self) -> None:
        """End it, and return when it has ended."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        await asyncio.gather(*self.lines, return_exceptions=True)


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    return f"was killed ({signal.Signals(-status).name})"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(port: int, session: str) -> None:
    """Return if the port is free; else end with what to do."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OverflowError:
            sys.exit(f"{port} is no port: take one below 65536, such as make demo PORT=8001")
        except PermissionError:
            sys.exit(f"port {port} needs an administrator; take another one: make demo PORT=8001")
        except OSError:
            pass
        else:
            return
    other = port + 1 if port < 65535 else 8001
    if _is_ours(port):
        beside = command_line(__file__, "--port", other, "--database", "other.db")
        sys.exit(
            f"port {port} is taken by a crdt-sessions service, perhaps a demo that runs already:\n"
            f"  open http://127.0.0.1:{port}/?session={session}\n"
            f"  or stop it, or run one beside it, with a file of its own: {beside}"
        )
    instead = f"take another port: make demo PORT={other}, or {command_line(__file__, '--port', other)}"
    sys.exit(f"port {port} is taken by another program:\n  stop it, or {instead}")


def _is_ours(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return "liveSessions" in json.load(answer)
    except (OSError, ValueError, TypeError, http.client.HTTPException):
        return False


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def ready(part: Part, url: str, seconds: float = 120.0) -> None:
    """Return when a part answers at *url*; end if it does not come up."""
    deadline = time.monotonic() + seconds
    assert part.process is not None
    while time.monotonic() < deadline:
        if part.process.returncode is not None:
            await asyncio.gather(*part.lines)
            sys.exit(f"the {part.name} ended with status {part.process.returncode}; its message stands above")
        if await asyncio.to_thread(_answers, url):
            return
        await asyncio.sleep(0.1)
    sys.exit(f"the {part.name} does not answer at {url} after {seconds:g} s; what it said stands above")


async def prepare(url: str, session: str) -> None:
    """Name the session, and write into it what the page suggests."""
    terminal = command_line(HERE / "terminal_peer.py", "--url", url, "--session", session, "--name", "Carol")
    welcome = {
        "suggestions": SUGGESTIONS,
        "terminal": terminal,
        "kill": "The terminal that runs the demo says how to kill each part.",
    }
    async with connect(url, session, name="Demo", kind="service") as peer:
        if not peer.view.meta.title:
            peer.edit(lambda view: view.set_title("A weekend in Oslo"))
        if peer.view.state.get("welcome") != welcome:
            peer.edit(lambda view: view.state.update({"welcome": welcome}))
        await peer.durable()


def hints(options: argparse.Namespace, url: str, parts: list[Part], model: str) -> str:
    page = f"{url}/?session={options.session}"
    terminal = command_line(HERE / "terminal_peer.py", "--url", url, "--session", options.session, "--name", "Carol")
    kills = "\n".join(f"    {part.name:10} {part.how_to_kill}" for part in parts)
    return f"""
  Two people, two agents, one session. Open both, side by side:

    Ann        {page}&as=Ann
    Bob        {page}&as=Bob

  A third person, in another terminal:

    {terminal}

  Kill what you like, while an agent writes. You see it crash, it comes back, and nothing that was said is gone:

{kills}

  The model is {model}.
  Ctrl-C ends the demo; what was said stays in {options.database}.
"""


async def ask_once(url: str, session: str) -> None:
    with _terminal.left_to_another():
        asked = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / "terminal_peer.py"), "--url", url, "--session", session,
            "--post", SUGGESTIONS[0]["text"], "--name", "Demo",
        )  # fmt: skip
        try:
            if await asked.wait() != 0:
                sys.exit("the question was not answered")
        finally:
            if asked.returncode is None:
                asked.terminate()
                await asked.wait()


def surroundings() -> dict[str, str]:
    """Return the environment of the demo's parts: no settings of another service get into it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CRDT_SESSIONS_")}
    return {**clean, "PYTHONUNBUFFERED": "1"}


def service_part(name: str, port: int, database: str, *more: str) -> Part:
    """Return a service of the demo, which is not started yet."""
    flags = ["--log-level", "warning", "--default-agent", "assistant", "--run-policy", "parallel", *more]
    command = ["-m", "crdt_sessions_server", "serve", "--port", str(port), "--database", database, *flags]
    return Part(name, command, surroundings())


def model_and_agents(options: argparse.Namespace, url: str) -> tuple[list[Part], str]:
    """Return those who answer at *url*, not started yet, and what the model is called."""
    parts, environment = [], surroundings()
    model = f"{os.environ.get('OPENAI_MODEL', 'the first one')} at {os.environ.get('OPENAI_BASE_URL', 'OpenAI')}"
    if "OPENAI_BASE_URL" not in os.environ and "OPENAI_API_KEY" not in os.environ:
        port, rate = free_port(), str(options.rate)
        parts.append(
            Part("model", [str(HERE / "scripted_model.py"), "--port", str(port), "--rate", rate], environment)
        )
        environment = environment | {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "none"}
        model = "a script, which needs no key; OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_MODEL put a real one there"
    for name in ("assistant", "planner"):
        told = ["--url", url, "--session", options.session, "--pace", str(0.06 if options.rate else 0)]
        parts.append(Part(name, [str(HERE / "demo_agents.py"), name, *told], environment))
    return parts, model


async def run(options: argparse.Namespace) -> None:
    url = f"http://127.0.0.1:{options.port}"
    service = service_part("service", options.port, options.database)
    others, model = model_and_agents(options, url)
    parts = [service, *others]
    keeping: list[asyncio.Task[None]] = []
    try:
        await service.start()
        await ready(service, f"{url}/readyz")
        for part in others:
            await part.start()
        await prepare(url, options.session)
        keeping = [asyncio.create_task(part.keep()) for part in parts]
        if options.once:
            await ask_once(url, options.session)
            return
        say(hints(options, url, parts, model))
        await asyncio.gather(*keeping)
    finally:
        await end(keeping, others, [service])  # the service last, so that the others can say good-bye


async def end(keeping: list[asyncio.Task[None]], *groups: list[Part]) -> None:
    """Look after no part any more, then stop all of them, one group after the other."""
    for task in keeping:
        task.cancel()
    await asyncio.gather(*keeping, return_exceptions=True)
    for group in groups:
        await asyncio.gather(*(part.stop() for part in group))


async def until_told(play: Coroutine[Any, Any, None]) -> None:
    """Run until Ctrl-C, SIGTERM, or the terminal is closed."""
    running = asyncio.ensure_future(play)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        with contextlib.suppress(NotImplementedError, AttributeError):  # Windows
            asyncio.get_running_loop().add_signal_handler(getattr(signal, name), running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the demo.", allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--database", default="demo.db")
    parser.add_argument("--session", default="demo")
    parser.add_argument("--rate", type=float, default=14.0, help="words a second of the scripted model")
    parser.add_argument("--once", action="store_true", help="ask one question, print the answer and end")
    options = parser.parse_args()
    check_port(options.port, options.session)
    try:
        asyncio.run(until_told(run(options)))
    except CrdtSessionsError as error:
        sys.exit(f"demo.py: {error}")


if __name__ == "__main__":
    main()
