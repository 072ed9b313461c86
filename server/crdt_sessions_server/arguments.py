"""The arguments of ``crdt-sessions``: which commands and flags there are, what they say of themselves, and errors."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

from crdt_sessions.model.values import Kind
from crdt_sessions.wire import varint
from crdt_sessions_server.explain import listed, near
from crdt_sessions_server.roles import Role
from crdt_sessions_server.settings import GROUPS, Settings
from crdt_sessions_server.sources import flag, variable

_NO_FLAGS = {"jwt_secret", "jwt_claims"}
"""Settings that are not given on the command line: everybody on the machine can read it, or it is a table."""
_UNITS = {"_s": "SECONDS", "_bytes": "BYTES", "_days": "DAYS", "_url": "URL"}
_WIDTH = 100


class _Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations, whose errors are one sentence each, with the name that comes near."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **{
                "allow_abbrev": False,
                "formatter_class": lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=_WIDTH),
                **options,
            }
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nsee: {self.prog} --help\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line says: ``command``, and what belongs to it.

    Raises:
        SystemExit: it was told what there is (0), or what is wrong (2).
    """
    parser, commands = _parser()
    if not arguments:
        parser.print_help()
        parser.exit(2)
    first = arguments[0]
    if first.startswith("-"):
        if first not in parser._option_string_actions:  # the root's own are few, and all others follow a command
            owner = next((name for name, each in commands.items() if first in each._option_string_actions), None)
            hint = f"; it follows a command: {parser.prog} {owner} {first}" if owner else ""
            parser.error(f"there is no option {first}{hint}")
    elif first not in commands:
        parser.error(f"there is no command {first}{near(first, commands)}")
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        _refuse(commands[parsed.command], parsed.command, unknown)
    return parsed


def _refuse(parser: argparse.ArgumentParser, command: str, unknown: Sequence[str]) -> NoReturn:
    option = unknown[0].partition("=")[0]
    setting = option.removeprefix("--").replace("-", "_")
    if not option.startswith("-"):
        parser.error(f"nothing is to stand where {option!r} does")
    if command == "serve" and setting in _NO_FLAGS:
        secret = " or --jwt-secret-file" if setting == "jwt_secret" else ""
        parser.error(
            f"{setting} is not given on the command line, which everybody on the machine can read: use"
            f" {variable(setting)}, {setting} in the --config file{secret}"
        )
    if command == "bench":
        parser.error(f"there is no option {option}; arguments for the benchmarks stand behind --")
    parser.error(f"there is no option {option}{near(option, parser._option_string_actions)}")


def leaf() -> str:
    """Return whether the library's leaf is compiled (``docs/decisions/0074-a-compiled-leaf.md``)."""
    return "pure Python" if varint.__file__.endswith(".py") else "compiled leaf"


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    """Return what takes one of *names* and nothing else."""

    def take(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"must be {listed(names)}, not {text!r}{near(text, names)}")
        return text

    return take


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog="crdt-sessions",
        description="Durable sessions for humans and AI agents.",
        epilog="Each command tells more with --help.",
    )
    parser.add_argument("--version", action="version", version=f"{version('crdt-sessions')} ({leaf()})")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _serve(commands)
    _token(commands)
    _backup(commands)
    _import(commands)
    _doctor(commands)
    _nodes(commands)
    _bench(commands)
    _conformance(commands)
    _mcp(commands)
    return parser, commands.choices


def _serve(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "serve",
        help="run the service",
        usage="%(prog)s [OPTION ...]",
        description="Run the service until SIGINT or SIGTERM.",
        epilog=f"Each option is also read from the environment, --port from {variable('port')}, and from the --config"
        " file, as port. Options win over the environment, the environment over the file.",
    )
    command.add_argument("--config", type=Path, metavar="FILE", help="Settings are read from this TOML file.")
    group: argparse._ArgumentGroup = command.add_argument_group()
    for name, field in Settings.model_fields.items():
        if name in GROUPS:
            group = command.add_argument_group(GROUPS[name])
        if name in _NO_FLAGS:
            continue
        options: dict[str, Any] = {"help": told(name, field).replace("%", "%%"), "default": None}
        if field.annotation in (bool, bool | None):
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["metavar"] = _metavar(name, field)
            if get_origin(field.annotation) is tuple:
                options["nargs"] = "*"
        group.add_argument(flag(name), **options)


def told(name: str, field: FieldInfo) -> str:
    """Return what a setting means, which values it takes where there are few, and which it has by default."""
    said = [field.description or ""]
    if choices := choices_of(field):
        said.append(f"It is {listed(choices)}.")
    default = field.default
    if isinstance(default, bool):
        said.append(f"The default is {'yes' if default else 'no'}.")
    elif default in (None, (), {}):
        said.append("It is absent by default." if "absent" in said[0] else "There is none by default.")
    else:
        size = f" ({_size(default)})" if name.endswith("_bytes") else ""
        said.append(f"The default is {f'{default:g}' if isinstance(default, float) else default}{size}.")
    return " ".join(said)


def _size(number: int) -> str:
    unit = next((unit for unit in ("GiB", "MiB", "KiB") if not number % _SIZES[unit] and number >= _SIZES[unit]), "B")
    return f"{number // _SIZES[unit]} {unit}"


_SIZES = {"GiB": 1024**3, "MiB": 1024**2, "KiB": 1024, "B": 1}


def choices_of(field: FieldInfo) -> list[str]:
    """Return the values that a setting takes, if they can be counted."""
    return _choices(field.annotation)


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(each.value) for each in annotation]
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return _choices(parts[0]) if len(parts) == 1 and get_origin(annotation) is not tuple else []


def _metavar(name: str, field: FieldInfo) -> str:
    if choices := choices_of(field):
        return f"{{{','.join(choices)}}}"
    if field.annotation in (Path, Path | None):
        return "FILE"
    unit = next((word for end, word in _UNITS.items() if name.endswith(end) and not name.endswith("_per_s")), None)
    if unit is None and field.annotation in (int, float, int | None, float | None):
        return "NUMBER" if name != "port" else "PORT"
    return unit or re.sub("IE$", "Y", name.upper().removesuffix("S").rpartition("_")[2])


def _token(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "token",
        help="make a token",
        description="Make a token for somebody, signed with the service's secret, and print it.",
    )
    command.add_argument("principal", metavar="PRINCIPAL", help="The token stands for this principal.")
    command.add_argument("--name", help="People are shown this name.")
    kinds, roles = get_args(Kind), [role.value for role in Role]
    command.add_argument(
        "--kind", type=_one_of(kinds), metavar=f"{{{','.join(kinds)}}}", default="human",
        help="The principal is one of these. The default is human.",
    )  # fmt: skip
    command.add_argument(
        "--role", type=_one_of(roles), metavar=f"{{{','.join(roles)}}}", default=Role.EDITOR.value,
        help="It may do what this role may. The default is editor.",
    )  # fmt: skip
    command.add_argument("--tenant", help="It sees the sessions of this tenant. The default is those of no tenant.")
    command.add_argument(
        "--sessions", nargs="*", metavar="PATTERN", help="It may use sessions of these names. The default is all."
    )
    command.add_argument(
        "--agents", nargs="*", metavar="PATTERN", help="It may work as agents of these names. The default is all."
    )
    command.add_argument(
        "--ttl", default="8h", help="It is good for so long, such as 90s, 15m, 8h or 30d. The default is 8h."
    )
    command.add_argument(
        "--secret-file",
        type=Path,
        metavar="FILE",
        help="This file holds the secret, as the service's jwt_secret_file.",
    )
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="The service's settings stand in this TOML file."
    )


def _database(text: str) -> Path | str:
    """Return the path of a SQLite file, or the URL of a PostgreSQL database."""
    if "://" not in text:
        return Path(text)
    return _server(text)


def _server(text: str) -> str:
    """Return the URL of a PostgreSQL database."""
    if not text.startswith(("postgresql://", "postgres://")):
        raise argparse.ArgumentTypeError(
            "must be the URL of a PostgreSQL database, such as postgresql://app@db/sessions"
        )
    return text


def _backup(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "backup",
        help="copy a database while the service is running",
        description="Copy a database, as it is at one moment; a service may be writing to it. One in PostgreSQL is"
        " copied by pg_dump, which must be there.",
    )
    command.add_argument(
        "file", type=_database, metavar="DATABASE", help="This SQLite file, or PostgreSQL database, is copied."
    )
    command.add_argument("target", type=Path, metavar="COPY", help="The copy is made here; it must not exist.")


def _nodes(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "nodes",
        help="list the nodes that share a PostgreSQL database",
        description="List the nodes that share a PostgreSQL database: where each listens for the others, whether it"
        " lives, its release, how many sessions it owns and has in memory, its connections, and its last beat.",
    )
    command.add_argument(
        "--database", type=_server, metavar="URL", required=True,
        help="The PostgreSQL database, such as postgresql://app@db/sessions.",
    )  # fmt: skip
    command.add_argument("--all", action="store_true", help="Show those of the last days that are gone, too.")
    command.add_argument("--json", action="store_true", help="Print JSON, for programs.")


def _import(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "import",
        help="bring over what another Yjs server keeps; move a SQLite database into PostgreSQL",
        description="Make sessions of the documents of another Yjs server; or copy all that a SQLite database of ours"
        " holds into a PostgreSQL database, and read it back. The source stays as it is. A run that was killed is"
        " gone on with by the same command, and one that is repeated brings what has come since.",
        epilog="What SOURCE holds is found out. Exit status 1 means that something was not taken whole.",
    )
    command.add_argument(
        "source", type=Path, metavar="SOURCE",
        help="Documents of another server: a database of pycrdt-store's SQLiteYStore or of Hocuspocus, a folder of"
        " y-leveldb or of y-sweet, a file or a folder of plain updates (.bin, .update, .y, .yjs, .ydoc). Or our"
        " SQLite file. No service may have it open.",
    )  # fmt: skip
    command.add_argument(
        "--database", type=_database, metavar="DATABASE", required=True,
        help="The SQLite file, which no service may have open, or the PostgreSQL database, such as"
        " postgresql://app@db/sessions.",
    )  # fmt: skip
    command.add_argument(
        "--dry-run", action="store_true", help="Only look whether it could be done, and say how much there is."
    )
    foreign = command.add_argument_group("for documents of another server")
    foreign.add_argument("--tenant", default="", help="Their sessions belong to this tenant.")
    foreign.add_argument("--prefix", default="", help="This stands in front of their names.")
    foreign.add_argument(
        "--merge", action="store_true",
        help="A session of that name gets their content, also if the two have nothing in common.",
    )  # fmt: skip
    foreign.add_argument(
        "--report", type=Path, metavar="FILE", help="What became of each is written to this file, as JSON."
    )


def _doctor(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "doctor",
        help="look at a database, and save what can be read",
        description="Check a database without changing it. Exit status 1 means that something is damaged.",
    )
    command.add_argument(
        "file",
        type=_database,
        metavar="DATABASE",
        help="This SQLite file, or PostgreSQL database, is looked at; services may have it open.",
    )
    command.add_argument("--salvage", type=Path, metavar="NEW-FILE", help="What can be read is copied to a new file.")


def _conformance(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "conformance",
        help="check a server, or a client, against the golden vectors",
        description="Check whether a server syncs as y-websocket's clients expect: this service, or another server."
        " Documents named conformance-… are made there, and left. Or check a client.",
        epilog="Exit status 1 means that something is not met.",
    )
    command.add_argument(
        "--url", default="ws://127.0.0.1:8000/v1/sync",
        help="What clients of y-websocket are given. The default is %(default)s.",
    )  # fmt: skip
    command.add_argument("--token", help="This is sent as the query parameter token.")
    command.add_argument(
        "--client", metavar="COMMAND",
        help="A client is checked instead: the command is started for each check, with an address and a room behind.",
    )  # fmt: skip


def _bench(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "bench",
        help="measure the service against its peers",
        description="Measure, in a checkout. Arguments stand behind --, such as: bench -- W1 --rounds 1; or --help.",
    )
    command.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="These are handed to the benchmarks.")


def _mcp(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "mcp",
        help="serve the sessions of a service to an MCP client",
        description="Be an MCP server on standard input and output, for a client that starts its servers. The"
        " sessions are those of a service that runs already.",
        epilog="Without --token-file, the token is what the variable CRDT_SESSIONS_TOKEN holds, if anything.",
    )
    command.add_argument("--url", default="http://127.0.0.1:8000", help="The service. The default is %(default)s.")
    command.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="This file holds the token; it is read for each request, so that it can be renewed.",
    )
