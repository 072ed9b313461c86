"""The command line: ``crdt-sessions serve``, ``backup`` and ``doctor``."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from crdt_sessions import failpoints
from crdt_sessions.errors import StorageError
from crdt_sessions.storage.backup import back_up
from crdt_sessions_server import doctor
from crdt_sessions_server.serve import configure_logging, serve
from crdt_sessions_server.settings import ENV_PREFIX, Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == "doctor":
        return _doctor(parsed.file, parsed.salvage)
    if parsed.command == "bench":
        return _bench(parsed.arguments)
    if parsed.command == "backup":
        return _backup(parsed.file, parsed.target)
    return _serve(parsed)


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
        shown = "" if field.default is None or field.default == () else f" (default: {field.default})"
        options: dict[str, Any] = {"help": (field.description or "").replace("%", "%%") + shown, "default": None}
        if field.annotation is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif name == "allowed_origins":
            options |= {"nargs": "*", "metavar": "ORIGIN"}
        else:
            options["metavar"] = name.upper()
        command.add_argument(f"--{name.replace('_', '-')}", **options)
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
    print(f"crdt-sessions serves {settings.database} on {url}", flush=True)
    if settings.tokens_file is None:
        print("no tokens are configured: everybody on this machine may read and write; others cannot connect")


def _explain(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "\n".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return str(error)


def _fail(message: str) -> int:
    print(f"crdt-sessions: {message}", file=sys.stderr)
    return 2
