"""PostgreSQL for those who look after it: the parts that need its driver, and a backup by its own ``pg_dump``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from crdt_sessions.errors import StorageError
from crdt_sessions.storage.addresses import shown

if TYPE_CHECKING:
    from crdt_sessions.storage.postgres.importing import Import
    from crdt_sessions.storage.postgres.inspection import Inspection

SCHEMA = "crdt_sessions"
_DUMP = ("pg_dump", "--format=custom", f"--schema={SCHEMA}")


def inspection(url: str) -> Inspection:
    """Return what looks at a database.

    Raises:
        ValueError: the driver is missing.
    """
    try:
        from crdt_sessions.storage.postgres.inspection import Inspection
    except ImportError as error:
        raise no_driver(url) from error
    return Inspection(url)


def importer(file: Path, url: str) -> Import:
    """Return what moves a SQLite file into a database.

    Raises:
        ValueError: the driver is missing.
    """
    try:
        from crdt_sessions.storage.postgres.importing import Import
    except ImportError as error:
        raise no_driver(url) from error
    return Import(file, url)


def no_driver(url: str) -> ValueError:
    """Return what is wrong where the driver is missing."""
    return ValueError(f"{shown(url)} needs the driver of PostgreSQL: pip install 'crdt-sessions[server,postgres]'")


def dump(url: str, target: Path) -> None:
    """Copy a database, as it is at one moment, into a new file, with ``pg_dump``; services may be writing to it.

    The copy appears under its name only when it is complete and can be read.

    Args:
        url: of the database. Its password goes to the programs in their environment, which others do not see.
        target: the copy, in PostgreSQL's custom format.

    Raises:
        StorageError: *target* exists or cannot be written, ``pg_dump`` is not there, or it failed.
    """
    if target.exists():
        raise StorageError(f"{target} exists; choose another name, so that nothing is overwritten")
    if not target.parent.is_dir():
        raise StorageError(f"there is no folder {target.parent}; make it, or choose another place for {target.name}")
    if shutil.which("pg_dump") is None:
        raise StorageError(
            "pg_dump is not there: install the client programs of PostgreSQL, or run where they are:"
            f" {' '.join(_DUMP)} --file={target} --dbname={shown(url)}"
        )
    address, environment = _apart(url)
    partial = target.with_name(f"{target.name}.partial")
    try:
        _run([*_DUMP, f"--file={partial}", f"--dbname={address}"], environment)
        _run(["pg_restore", "--list", str(partial)], environment)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise StorageError(f"{shown(url)} cannot be copied to {target}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _apart(url: str) -> tuple[str, Mapping[str, str]]:
    """Return an address without its password, and the environment in which programs find that."""
    parts = urlsplit(url)
    who, at, hosts = parts.netloc.rpartition("@")
    name, colon, password = who.partition(":")
    address = urlunsplit(parts._replace(netloc=f"{name}{at}{hosts}"))
    return address, {**os.environ, "PGPASSWORD": unquote(password)} if colon else os.environ


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise StorageError(f"{command[0]} failed: {done.stderr.strip() or f'status {done.returncode}'}")
