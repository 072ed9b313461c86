"""Lease tokens: what proves that somebody holds a run. Only their digests are kept."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LeaseToken:
    """A token, and the digest by which it is recognised."""

    text: str
    digest: str

    @classmethod
    def new(cls) -> LeaseToken:
        """Return a token that nobody can guess."""
        return cls.of(secrets.token_urlsafe(24))

    @classmethod
    def of(cls, text: str) -> LeaseToken:
        """Return the token that was presented as *text*."""
        return cls(text, hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest())
