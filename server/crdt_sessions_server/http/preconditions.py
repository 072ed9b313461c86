"""Versions of what a route shows: ``ETag``, ``If-Match`` and ``If-None-Match`` (RFC 9110)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from quart import request

from crdt_sessions_server.http.problem_documents import Refusal
from crdt_sessions_server.http.problems import PRECONDITION_FAILED


def version_of(value: Any) -> str:
    """Return the version of a JSON value: the same for the same value, also on another node and after a restart."""
    spelled = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(spelled.encode()).hexdigest()[:32]


def check_match(version: str) -> None:
    """Return if the current request is meant for this version, or for any.

    Raises:
        Refusal: ``If-Match`` names others.
    """
    if "If-Match" in request.headers and not request.if_match.contains(version):
        raise Refusal(PRECONDITION_FAILED, "it has another version than If-Match names", version=version)


def is_known(version: str) -> bool:
    """Whether the client of the current request says that it has this version (``If-None-Match``)."""
    return "If-None-Match" in request.headers and request.if_none_match.contains_weak(version)
