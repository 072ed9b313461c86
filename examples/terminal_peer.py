"""A session in the terminal: another peer of what the page shows.

    python examples/terminal_peer.py --session demo --name Ann

Type a line and press Enter to post it. ``--offline FILE`` keeps a local copy: start it without the service,
write, and it merges when the service is back. ``--post TEXT`` posts, waits for the answer and ends. A service that
asks for a token gets the one in CRDT_SESSIONS_TOKEN.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import sys

from crdt_sessions import SessionPeer, connect
from crdt_sessions.errors import ConnectionClosed
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


async def show_messages(session: SessionPeer) -> None:
    screen = Screen()
    async for message in session.messages.watch():
        screen.show(message)


async def show_presence(session: SessionPeer) -> None:
    before: set[str] = set()
    async for _ in session.changes():
        here = {f"{presence.user.name or presence.kind} ({presence.kind})" for presence in session.present().values()}
        for name in sorted(here - before):
            print(f"\n\x1b[2m→ {name} is here\x1b[0m", flush=True)
        for name in sorted(before - here):
            print(f"\n\x1b[2m← {name} left\x1b[0m", flush=True)
        before = here


async def post_lines(session: SessionPeer) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.strip():
            await session.post(line.strip(), wait=False)


async def answer_to(session: SessionPeer, question: Message) -> None:
    async for message in session.messages.follow():
        if message.parent == question.id:
            return


async def main(options: argparse.Namespace) -> None:
    async with connect(
        options.url,
        options.session,
        token=os.environ.get("CRDT_SESSIONS_TOKEN"),
        name=options.name,
        device="terminal",
        offline=options.offline,
    ) as session:
        shows = [asyncio.create_task(show_messages(session)), asyncio.create_task(show_presence(session))]
        try:
            if options.post:
                question = await session.post(options.post)
                async with asyncio.timeout(120):
                    await answer_to(session, question)
                await asyncio.sleep(0.1)
                print()
            else:
                await post_lines(session)
        finally:
            for task in shows:
                task.cancel()
            await asyncio.gather(*shows, return_exceptions=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Take part in a session from the terminal.")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--session", default="demo")
    parser.add_argument("--name", default=getpass.getuser())
    parser.add_argument("--offline", metavar="FILE", help="keep a local copy in this SQLite file")
    parser.add_argument("--post", metavar="TEXT", help="post this, wait for the answer and end")
    try:
        asyncio.run(main(parser.parse_args()))
    except ConnectionClosed as error:
        sys.exit(f"the service refused this peer: {error.reason or error.code}")
    except KeyboardInterrupt:
        print()
