"""Where settings come from: flags, the environment, a TOML file. Each unknown name is an error of its own."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crdt_sessions_server.explain import near, read_file

ENV_PREFIX = "CRDT_SESSIONS_"
_NO_SETTINGS = {"TOKEN", "FAILPOINTS"}
"""Variables of that prefix that others read: clients, and tests that kill the service."""
_SERVICE_LINKS = re.compile(r"SERVICE_(HOST|PORT)(_.+)?|PORT_\d+_.+")
"""Variables that Kubernetes sets in each pod, if a service there is called crdt-sessions; ``…_PORT`` among them."""


@dataclass(frozen=True, slots=True)
class Source:
    """Settings that were given in one place."""

    values: Mapping[str, Any]
    spelled: Callable[[str], str]
    """How a setting is called there."""


def flag(name: str) -> str:
    """Return the flag for a setting."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """Return the environment variable for a setting."""
    return f"{ENV_PREFIX}{name.upper()}"


def from_flags(values: Mapping[str, Any]) -> Source:
    """Return what the command line gave."""
    return Source(values, flag)


def from_environment(environment: Mapping[str, str], known: Sequence[str], tables: Sequence[str]) -> Source:
    """Return the settings in the environment.

    Args:
        environment: the variables.
        known: the names of all settings.
        tables: those that are lists or tables, which are given as JSON.

    Raises:
        ValueError: a variable of our prefix is unknown, or is not JSON; the message names all of these.
    """
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for key, text in environment.items():
        if not key.upper().startswith(ENV_PREFIX):
            continue
        rest = key[len(ENV_PREFIX) :].upper()
        if rest in _NO_SETTINGS or _SERVICE_LINKS.fullmatch(rest) or (rest == "PORT" and text.startswith("tcp://")):
            continue
        if (name := rest.lower()) not in known:
            wrong.append(f"there is no setting for {key}{near(key, map(variable, known))}")
        elif name not in tables:
            values[name] = text
        else:
            try:
                values[name] = json.loads(text)
            except ValueError:
                wrong.append(f"{key} must be JSON, such as {_EXAMPLES.get(name, _LIST)}")
    if wrong:
        raise ValueError("\n".join(wrong))
    return Source(values, variable)


def from_file(path: Path, known: Sequence[str], sections: Sequence[str]) -> Source:
    """Return what a TOML file of settings holds.

    Args:
        path: the file.
        known: the names of all settings.
        sections: those that are tables, which stand as sections in the file.

    Raises:
        ValueError: it cannot be read, is not TOML, or names a setting that is unknown.
    """
    try:
        values = tomllib.loads(read_file(path, "settings file").decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"settings file {path} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"settings file {path} is not TOML: {error}") from error
    if wrong := [each for name, value in values.items() for each in _misplaced(name, value, known, sections)]:
        raise ValueError("\n".join(f"settings file {path}: {each}" for each in wrong))
    return Source(values, lambda name: f"settings file {path}: {name}")


def _misplaced(name: str, value: Any, known: Sequence[str], sections: Sequence[str]) -> list[str]:
    """Return what is wrong with a name at the top of a settings file, or with those in its section."""
    if not isinstance(value, dict):
        return [] if name in known else [f"there is no setting {name}{near(name, known)}"]
    if name not in known:
        return [f"there is no section {name}{near(name, sections) or '; settings stand above all sections'}"]
    return [
        f"{each} stands in the section {name}; it must stand above all sections" for each in value if each in known
    ]


_LIST = '\'["one", "another"]\''
_EXAMPLES = {
    "allowed_origins": "'[\"https://app.example\"]'",
    "trusted_proxies": "'[\"10.0.0.0/8\"]'",
    "jwt_claims": '\'{"tenant": "org_id"}\'',
}


def read_secret(path: Path) -> bytes:
    """Return what a file holds, without the end of its line.

    Raises:
        ValueError: it cannot be read.
    """
    return read_file(path, "secret file").strip()
