"""A session in the terminal: another peer of what the page shows.

    python examples/terminal_peer.py --session demo --name Ann

Type a line and press Enter to post it. ``--offline FILE`` keeps a local copy: start it without the service,
write, and it merges when the service is back. ``--post TEXT`` posts, waits for the answer and ends. A service that
asks for a token gets the one in CRDT_SESSIONS_TOKEN. What happens to the connection is told on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import sys
import threading

from crdt_sessions import CrdtSessionsError, SessionPeer, connect
from crdt_sessions.model import Message


class Screen:
    """Prints messages as they grow: the whole of a new one, then only what was added."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._last = ""

    def show(self, message: Message) -> None:
        shown = self._shown.get(message.id)
        if shown is None or (self._last != message.id and message.text != shown):
            print(f"\n\x1b[1m{message.author.name or message.author.id}\x1b[0m ", end="")
            shown = ""
        print(message.text[len(shown) :], end="", flush=True)
        self._shown[message.id], self._last = message.text, message.id

    def note(self, line: str) -> None:
        """Print a line about something else; a message that grows meanwhile is shown from its beginning after it."""
        print(f"\n\x1b[2m{line}\x1b[0m", flush=True)
        self._last = ""


async def show_messages(session: SessionPeer, screen: Screen) -> None:
    async for message in session.messages.watch():
        screen.show(message)


async def show_presence(session: SessionPeer, screen: Screen) -> None:
    before: set[str] = set()
    async for _ in session.changes():
        here = {f"{presence.user.name or presence.kind} ({presence.kind})" for presence in session.present().values()}
        for name in sorted(here - before):
            screen.note(f"→ {name} is here")
        for name in sorted(before - here):
            screen.note(f"← {name} left")
        before = here


def typed_lines() -> asyncio.Queue[str]:
    """Return where the lines that are typed arrive; an empty one at the end.

    They are read by a thread that nobody waits for, and not by ``sys.stdin``, whose lock Python waits for when it
    ends: a read of the terminal cannot be cancelled.
    """
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        with open(os.dup(sys.stdin.fileno()), encoding="utf-8", errors="replace", buffering=1) as typed:
            for line in typed:
                loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    return lines


async def post_lines(session: SessionPeer) -> None:
    lines = typed_lines()
    while line := await lines.get():
        if line.strip():
            await session.post(line.strip(), wait=False)


async def ask(session: SessionPeer, text: str, screen: Screen) -> None:
    question = await session.post(text)
    async with asyncio.timeout(120):
        answer = await session.messages.answer_to(question)
    screen.show(answer)  # to its end, however far it was shown
    print()


async def main(options: argparse.Namespace) -> None:
    async with connect(
        options.url,
        options.session,
        token=os.environ.get("CRDT_SESSIONS_TOKEN"),
        name=options.name,
        device="terminal",
        offline=options.offline,
    ) as session:
        where = "working offline" if not session.connected else f"connected to {options.url}"
        print(f"{where}, session {options.session}, as {session.author.name or session.author.id}", file=sys.stderr)
        screen = Screen()
        if options.post:  # who comes and goes would stand in the middle of the answer
            work = [ask(session, options.post, screen), show_messages(session, screen)]
        else:
            work = [post_lines(session), show_messages(session, screen), show_presence(session, screen)]
        tasks = [asyncio.create_task(each) for each in work]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()  # raises what ended it


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Take part in a session from the terminal.", allow_abbrev=False)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--session", default="demo")
    parser.add_argument("--name", default=getpass.getuser())
    parser.add_argument("--offline", metavar="FILE", help="keep a local copy in this SQLite file")
    parser.add_argument("--post", metavar="TEXT", help="post this, wait for the answer and end")
    try:
        asyncio.run(main(parser.parse_args()))
    except CrdtSessionsError as error:
        sys.exit(f"terminal_peer.py: {error}")
    except TimeoutError:
        sys.exit("terminal_peer.py: no answer within two minutes; it will be in the session when an agent is there")
    except KeyboardInterrupt:
        print()
