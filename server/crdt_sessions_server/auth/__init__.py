"""Who may do what: tokens become principals, principals have permissions, and all of it may change meanwhile."""

from crdt_sessions_server.auth.admission import Admission
from crdt_sessions_server.auth.authorizer import Authorizer, Chain, Open
from crdt_sessions_server.auth.bounds import lifetime_within, patterns_within
from crdt_sessions_server.auth.grants import Grants
from crdt_sessions_server.auth.jwt import JwtTokens, KeySource, mint
from crdt_sessions_server.auth.permissions import PERMISSIONS, Permission
from crdt_sessions_server.auth.principal import Principal
from crdt_sessions_server.auth.request_context import (
    asked_session,
    current_admission,
    current_admitted,
    current_principal,
    live_access,
)
from crdt_sessions_server.auth.revalidation import Admitted, LiveAccess
from crdt_sessions_server.auth.static import StaticTokens
from crdt_sessions_server.roles import Role

__all__ = [
    "PERMISSIONS",
    "Admission",
    "Admitted",
    "Authorizer",
    "Chain",
    "Grants",
    "JwtTokens",
    "KeySource",
    "LiveAccess",
    "Open",
    "Permission",
    "Principal",
    "Role",
    "StaticTokens",
    "asked_session",
    "current_admission",
    "current_admitted",
    "current_principal",
    "lifetime_within",
    "live_access",
    "mint",
    "patterns_within",
]
