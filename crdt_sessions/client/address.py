"""The address of a service, as people write it."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from crdt_sessions.errors import BadUrl

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


def service_url(url: str) -> str:
    """Return the URL of a service: its scheme (http or https), host, port and, behind a proxy, a path.

    ``ws`` and ``wss`` are understood.

    Raises:
        BadUrl: it is not the URL of one; the error says what may have been meant.
    """
    given = url.strip()
    if "://" not in given:
        raise _bad(url, f"http://{given}", "it has no scheme")
    parts = urlsplit(given)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        raise BadUrl(url=url, why=f"its scheme is {parts.scheme!r}, not http or https")
    try:
        port = parts.port
    except ValueError:
        raise BadUrl(url=url, why="its port is not a number from 1 to 65535") from None
    if not parts.hostname or port == 0:
        raise BadUrl(url=url, why="it names no port" if parts.hostname else "it names no host")
    prefix, version, route = parts.path.partition("/v1")
    if version and (not route or route.startswith("/")):
        raise _bad(url, urlunsplit((scheme, parts.netloc, prefix, "", "")), f"leave {version}{route} away")
    clean = urlunsplit((scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    if parts.query or parts.fragment:
        raise _bad(url, clean, "leave away what begins with ? or #")
    return clean


def _bad(url: str, instead: str, why: str) -> BadUrl:
    try:
        return BadUrl(url=url, why=why, instead=service_url(instead))
    except BadUrl as error:
        return BadUrl(url=url, why=why, instead=error.instead)
