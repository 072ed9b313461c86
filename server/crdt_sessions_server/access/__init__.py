"""Who may do what: tokens become principals, principals have permissions, and all of it may change meanwhile."""

from crdt_sessions_server.access.authorizer import Authorizer, Chain, Open
from crdt_sessions_server.access.current import (
    asked_session,
    current_door,
    current_principal,
    current_visit,
    live_access,
)
from crdt_sessions_server.access.door import Door
from crdt_sessions_server.access.gate import Gate
from crdt_sessions_server.access.jwt import JwtTokens, KeySource, mint
from crdt_sessions_server.access.live import LiveAccess, Visit
from crdt_sessions_server.access.permissions import PERMISSIONS, Permission, Role
from crdt_sessions_server.access.principal import Principal
from crdt_sessions_server.access.static import StaticTokens

__all__ = [
    "PERMISSIONS",
    "Authorizer",
    "Chain",
    "Door",
    "Gate",
    "JwtTokens",
    "KeySource",
    "LiveAccess",
    "Open",
    "Permission",
    "Principal",
    "Role",
    "StaticTokens",
    "Visit",
    "asked_session",
    "current_door",
    "current_principal",
    "current_visit",
    "live_access",
    "mint",
]
