"""The roles that principals have; ``auth/permissions.py`` says what each may do."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """A named set of permissions."""

    OWNER = "owner"
    EDITOR = "editor"
    VIEWER = "viewer"
    AGENT = "agent"
    SERVICE = "service"
