"""The command line: ``crdt-sessions serve``, ``token``, ``backup``, ``import``, ``doctor`` and ``mcp``.

Each command imports what it needs, so that a service keeps nothing of the others in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from crdt_sessions import failpoints
from crdt_sessions.clock import SystemClock
from crdt_sessions.errors import StorageError
from crdt_sessions.storage.addresses import shown
from crdt_sessions_server.arguments import parse
from crdt_sessions_server.settings import Settings
from crdt_sessions_server.settings_check import check_settings
from crdt_sessions_server.sources import read_secret


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character gets its number
    arguments = sys.argv[1:] if arguments is None else arguments
    parsed = parse(arguments)
    if parsed.command == "serve":
        return _serve(parsed, arguments[1:])
    try:
        status = _COMMANDS[parsed.command](parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads what is said has enough of it, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _token(parsed: argparse.Namespace) -> int:
    from crdt_sessions_server.auth import mint

    try:
        settings = Settings.load({}, parsed.config)
        secret = read_secret(parsed.secret_file) if parsed.secret_file is not None else settings.secret
        if secret is None:
            return _fail(
                "there is no secret to sign with: give --secret-file, or set CRDT_SESSIONS_JWT_SECRET_FILE;"
                " make one with: openssl rand -base64 48 > secret"
            )
        token = mint(
            secret,
            now=SystemClock().now(),
            ttl_s=_seconds(parsed.ttl),
            principal=parsed.principal,
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
            name=parsed.name,
            kind=parsed.kind,
            role=parsed.role,
            tenant=parsed.tenant,
            sessions=parsed.sessions,
            agents=parsed.agents,
        )
    except ValueError as error:
        return _fail(str(error))
    print(token)
    return 0


def _seconds(text: str) -> float:
    """Return a duration such as ``90``, ``15m``, ``8h`` or ``30d`` in seconds.

    Raises:
        ValueError: it is none.
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        raise ValueError(f"{text!r} is no duration; give one such as 90s, 15m, 8h or 30d") from None
    if seconds < 1:
        raise ValueError("a token is good for a second at least")
    return seconds


def _bench(arguments: Sequence[str]) -> int:
    if not Path("tests/bench/__main__.py").exists():
        return _fail("the benchmarks are part of the source: run this in a checkout, or there: make bench")
    return subprocess.run([sys.executable, "-m", "tests.bench", *arguments], check=False).returncode


def _nodes(parsed: argparse.Namespace) -> int:
    from crdt_sessions_server.ops import nodes

    try:
        nodes.show(parsed.database, print, gone=parsed.all, as_json=parsed.json)
    except (StorageError, ValueError) as error:
        return _fail(str(error))
    return 0


def _import(parsed: argparse.Namespace) -> int:
    from crdt_sessions_server.migration.command import bring_over
    from crdt_sessions_server.migration.sources import source_at
    from crdt_sessions_server.ops import moving

    progress = _Progress()
    try:
        failpoints.arm(os.environ.get("CRDT_SESSIONS_FAILPOINTS", ""))
        source = source_at(parsed.source)
        if source is not None:
            return asyncio.run(bring_over(source, parsed, progress.say, progress))
        if isinstance(parsed.database, Path):
            return _fail(f"{parsed.source} is a database of ours, and copied with: crdt-sessions backup; to move it"
                         " into PostgreSQL give the URL of that, such as postgresql://app@db/sessions")  # fmt: skip
        asyncio.run(moving.move(parsed.source, parsed.database, progress.say, progress, dry_run=parsed.dry_run))
    except (StorageError, ValueError) as error:
        progress.end()
        return _fail(str(error))
    return 0


class _Progress:
    """Says how far something has come: on a terminal in one line, else every tenth of it."""

    def __init__(self) -> None:
        self._in_line = sys.stdout.isatty()
        self._said: tuple[str, int] = ("", 0)

    def __call__(self, what: str, done: int, total: int) -> None:
        tenths = done * 10 // max(total, 1)
        if self._in_line:
            print(f"\r\033[K{what}: {done} of {total}", end="", flush=True)
        elif (what, tenths) != self._said:
            print(f"{what}: {done} of {total}", flush=True)
        self._said = (what, tenths)

    def say(self, line: str) -> None:
        """Print a line of its own."""
        self.end()
        print(line, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._in_line and self._said[0]:
            print()
        self._said = ("", 0)


def _backup(file: Path | str, target: Path) -> int:
    from crdt_sessions.storage.sqlite.backup import back_up
    from crdt_sessions_server.ops.postgres import dump

    def progress(done: int, total: int) -> None:
        print(f"{done * 100 // max(total, 1)} % of {total} pages", flush=True)

    try:
        if isinstance(file, str):
            dump(file, target)
        else:
            back_up(file, target, progress)
    except StorageError as error:
        return _fail(str(error))
    print(f"{target} is a whole copy of {shown(file)}")
    if isinstance(file, str):
        print(f"to restore it into an empty database: pg_restore --no-owner --dbname=URL {target}")
    return 0


def _doctor(file: Path | str, target: Path | None) -> int:
    from crdt_sessions_server.ops import doctor

    try:
        if isinstance(file, str):
            if target is not None:
                return _fail("--salvage is for SQLite files; a server's database is restored from its backup")
            return 0 if asyncio.run(doctor.examine_server(file, print)) else 1
        if target is None:
            return 0 if doctor.examine(file, print) else 1
        doctor.salvage(file, target, print)
    except (StorageError, ValueError) as error:
        return _fail(str(error))
    return 0


def _serve(parsed: argparse.Namespace, arguments: Sequence[str]) -> int:
    from crdt_sessions_server.process import configure_logging, serve
    from crdt_sessions_server.serving.gc_policy import look_at_nothing_more
    from crdt_sessions_server.workers import DidNotStart, Workers

    flags = {
        name: value for name, value in vars(parsed).items() if name in Settings.model_fields and value is not None
    }
    try:
        settings = Settings.load(flags, parsed.config)
    except ValueError as error:
        return _fail(str(error))
    configure_logging(settings)
    try:
        failpoints.arm(os.environ.get("CRDT_SESSIONS_FAILPOINTS", ""))
        if settings.workers > 1:
            check_settings(settings)
            asyncio.run(Workers(settings, arguments, _tell).run(lambda url: _announce(url, settings)))
        else:
            with asyncio.Runner(loop_factory=_fast_loop()) as runner:
                runner.run(serve(settings, announce=lambda url: _announce(url, settings)))
    except DidNotStart:
        return 2  # it has said why
    except (ValueError, StorageError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(error.strerror or str(error))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            number, signal.SIG_IGN
        )  # who asks twice gets the same end, and no traceback from the last steps
    look_at_nothing_more()
    return 0


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes event loops, if there is one for this system that is faster than Python's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _announce(url: str, settings: Settings) -> None:
    from crdt_sessions_server.workers import ANNOUNCED

    by = f" with {settings.workers} workers" if settings.workers > 1 else ""
    said = f"{ANNOUNCED}{shown(settings.database)} on {url}{by}\n"
    if not settings.knows_tokens:
        said += "no tokens are configured: everybody on this machine may read and write; others cannot connect\n"
    with contextlib.suppress(OSError):  # nobody listens any more: no reason not to serve
        sys.stdout.write(said)  # in one piece: print, unbuffered, writes the line's end behind the log's next line
        sys.stdout.flush()


def _tell(line: str) -> None:
    print(f"crdt-sessions: {line}", file=sys.stderr, flush=True)


def _fail(message: str) -> int:
    print(f"crdt-sessions: {message}", file=sys.stderr)
    return 2


def _mcp(parsed: argparse.Namespace) -> int:
    from crdt_sessions_server.mcp.command import run  # what it needs is another extra

    return run(parsed)


def _conformance(parsed: argparse.Namespace) -> int:
    from crdt_sessions.testing import client_conformance, conformance  # no service needs it

    if parsed.client is None:
        if not parsed.url.startswith(("ws://", "wss://")):
            return _fail(f"{parsed.url!r} is no address for WebSockets, such as ws://127.0.0.1:8000/v1/sync")
        checking = conformance.check_server(parsed.url, parsed.token)
    else:
        try:
            checking = client_conformance.check_command(shlex.split(parsed.client))
        except ValueError as error:
            return _fail(f"--client {parsed.client!r} is no command: {error}")
    try:
        return 0 if asyncio.run(conformance.tell(checking, partial(print, flush=True))) else 1
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(f"--client {parsed.client!r} cannot be started: {error.strerror}")


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "doctor": lambda parsed: _doctor(parsed.file, parsed.salvage),
    "bench": lambda parsed: _bench(parsed.arguments),
    "conformance": _conformance,
    "token": _token,
    "backup": lambda parsed: _backup(parsed.file, parsed.target),
    "import": _import,
    "nodes": _nodes,
    "mcp": _mcp,
}
