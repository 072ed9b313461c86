"""The command line: ``crdt-sessions serve``, ``token``, ``backup`` and ``doctor``."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from crdt_sessions import failpoints
from crdt_sessions.clock import SystemClock
from crdt_sessions.errors import StorageError
from crdt_sessions.model.values import Kind
from crdt_sessions.storage.backup import back_up
from crdt_sessions_server import doctor
from crdt_sessions_server.access import Role, mint
from crdt_sessions_server.serve import configure_logging, serve
from crdt_sessions_server.settings import ENV_PREFIX, Settings, read_secret

_NO_FLAGS = {"jwt_secret", "jwt_claims"}
"""Settings that are not given on the command line: everybody on the machine can read it, or it is a table."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == "doctor":
        return _doctor(parsed.file, parsed.salvage)
    if parsed.command == "bench":
        return _bench(parsed.arguments)
    if parsed.command == "token":
        return _token(parsed)
    if parsed.command == "backup":
        return _backup(parsed.file, parsed.target)
    return _serve(parsed)


def _token(parsed: argparse.Namespace) -> int:
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
    except (ValidationError, ValueError) as error:
        return _fail(_explain(error))
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


def _backup(file: Path, target: Path) -> int:
    def progress(done: int, total: int) -> None:
        print(f"{done * 100 // max(total, 1)} % of {total} pages", flush=True)

    try:
        back_up(file, target, progress)
    except StorageError as error:
        return _fail(str(error))
    print(f"{target} is a whole copy of {file}")
    return 0


def _doctor(file: Path, target: Path | None) -> int:
    try:
        if target is None:
            return 0 if doctor.examine(file, print) else 1
        doctor.salvage(file, target, print)
    except StorageError as error:
        return _fail(str(error))
    return 0


def _serve(parsed: argparse.Namespace) -> int:
    flags = {
        name: value for name, value in vars(parsed).items() if name in Settings.model_fields and value is not None
    }
    try:
        settings = Settings.load(flags, parsed.config)
    except (ValidationError, OSError, ValueError) as error:
        return _fail(_explain(error))
    configure_logging(settings)
    try:
        failpoints.arm(os.environ.get("CRDT_SESSIONS_FAILPOINTS", ""))
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            runner.run(serve(settings, announce=lambda url: _announce(url, settings)))
    except (ValueError, StorageError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; try another --port")
    return 0


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes event loops, if there is one for this system that is faster than Python's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="crdt-sessions", description="Durable sessions for humans and AI agents.")
    parser.add_argument("--version", action="version", version=version("crdt-sessions"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    command = commands.add_parser(
        "serve",
        help="run the service",
        description="Run the service.",
        epilog=f"Every flag can be given as {ENV_PREFIX}NAME in the environment, or as NAME in the --config file;"
        " flags win over the environment, the environment over the file.",
    )
    command.add_argument("--config", type=Path, metavar="FILE", help="TOML file of settings")
    for name, field in Settings.model_fields.items():
        if name in _NO_FLAGS:
            continue
        shown = "" if field.default is None or field.default == () else f" (default: {field.default})"
        options: dict[str, Any] = {"help": (field.description or "").replace("%", "%%") + shown, "default": None}
        if field.annotation in (bool, bool | None):
            options["action"] = argparse.BooleanOptionalAction
        elif field.annotation == tuple[str, ...]:
            options |= {"nargs": "*", "metavar": name.upper().rstrip("S")}
        else:
            options["metavar"] = name.upper()
        command.add_argument(f"--{name.replace('_', '-')}", **options)
    command = commands.add_parser(
        "token",
        help="make a token",
        description="Make a token for somebody, signed with the service's secret, and print it.",
    )
    command.add_argument("principal", metavar="PRINCIPAL", help="whom it stands for")
    command.add_argument("--name", help="for people")
    command.add_argument("--kind", choices=get_args(Kind), default="human")
    command.add_argument("--role", choices=[role.value for role in Role], default=Role.EDITOR.value)
    command.add_argument("--tenant", help="whose sessions it sees")
    command.add_argument("--sessions", nargs="*", metavar="PATTERN", help="names of sessions it may use (all)")
    command.add_argument("--agents", nargs="*", metavar="PATTERN", help="names of agents it may work as (all)")
    command.add_argument("--ttl", default="8h", help="for how long it is good: 90s, 15m, 8h, 30d (default: 8h)")
    command.add_argument("--secret-file", type=Path, metavar="FILE", help="the service's jwt_secret_file")
    command.add_argument("--config", type=Path, metavar="FILE", help="the service's TOML file of settings")
    command = commands.add_parser(
        "backup",
        help="copy a database while the service is running",
        description="Copy a database, as it is at one moment; a service may be writing to it.",
    )
    command.add_argument("file", type=Path, metavar="FILE", help="the SQLite file")
    command.add_argument("target", type=Path, metavar="COPY", help="the copy; it must not exist")
    command = commands.add_parser(
        "bench",
        help="measure the service against its peers",
        description="Measure, in a checkout. Arguments stand behind --, such as: bench -- W1 --rounds 1; or --help.",
    )
    command.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="for the benchmarks")
    command = commands.add_parser(
        "doctor",
        help="look at a database, and save what can be read",
        description="Check a database without changing it. Exit status 1 means that something is damaged.",
    )
    command.add_argument("file", type=Path, metavar="FILE", help="the SQLite file; a service may have it open")
    command.add_argument("--salvage", type=Path, metavar="NEW-FILE", help="copy what can be read into a new file")
    return parser


def _announce(url: str, settings: Settings) -> None:
    said = f"crdt-sessions serves {settings.database} on {url}\n"
    if not settings.knows_tokens:
        said += "no tokens are configured: everybody on this machine may read and write; others cannot connect\n"
    sys.stdout.write(said)  # in one piece: print, unbuffered, writes the line's end behind the log's next line
    sys.stdout.flush()


def _explain(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "\n".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return str(error)


def _fail(message: str) -> int:
    print(f"crdt-sessions: {message}", file=sys.stderr)
    return 2
