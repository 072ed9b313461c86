"""How a database is called where people read it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_UNREADABLE = "the URL of the database"
"""What is secret in it cannot be told from the rest."""


def shown(database: str | Path) -> str:
    """Return a path, or the URL of a database without what is secret in it."""
    if isinstance(database, Path):
        return str(database)
    try:
        parts = urlsplit(database)
    except ValueError:
        return _UNREADABLE
    if "@" in parts.path:  # a character of the password is not encoded
        return _UNREADABLE
    before, at, hosts = parts.netloc.rpartition("@")
    query = urlencode([(key, value) for key, value in parse_qsl(parts.query) if "password" not in key])
    return urlunsplit((parts.scheme, f"{before.partition(':')[0]}{at}{hosts}", parts.path, query, ""))
