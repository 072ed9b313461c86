"""REST: each module is a resource, and its blueprint has its name, as in the table of ``auth/permissions.py``."""

from __future__ import annotations

from crdt_sessions_server.rest import (
    artifacts,
    audit,
    children,
    client_calls,
    deliveries,
    events,
    import_export,
    leases,
    lists,
    members,
    messages,
    presence,
    privacy,
    runs,
    sessions,
    state,
    suggestions,
    sync,
    undo,
    usage,
    versions,
)

RESOURCES = (
    sessions,
    state,
    artifacts,
    suggestions,
    undo,
    presence,
    messages,
    runs,
    client_calls,
    lists,
    leases,
    usage,
    children,
    deliveries,
    events,
    import_export,
    sync,
    versions,
    privacy,
    members,
    audit,
)
"""Modules whose ``blueprint`` needs nothing but the registry; :mod:`.tokens` needs the secret besides."""
