"""Permissions as data: what each role may do, and what each route asks for; shown in docs/reference/permissions.md.

A route that is not in the table is refused to everybody, so none can be forgotten; a test goes through every cell.
"""

from __future__ import annotations

from enum import StrEnum

from crdt_sessions_server.roles import Role


class Permission(StrEnum):
    """Something that a principal may do in a session."""

    READ = "read"
    """See the session, follow it, be present in it."""
    POST = "post"
    """Say something, and ask agents."""
    WRITE = "write"
    """Change the document itself."""
    DECIDE = "decide"
    """Answer, under one's own name, what agents ask people."""
    CANCEL = "cancel"
    """Stop runs."""
    CREATE = "create"
    """Make new sessions, also by joining, forking or importing."""
    MANAGE = "manage"
    """Rename, close and delete; say who is a member; bring versions back."""
    EXPORT = "export"
    """Take a copy of all of it away."""
    CLAIM = "claim"
    """Work on runs."""
    ADMIN = "admin"
    """Whatever concerns the tenant as a whole: tokens, revocations, the audit log, webhooks, people's data."""
    VOUCH = "vouch"
    """Speak for others, as a backend does for its users: what it writes is not bound to its own name."""


_EDITOR = frozenset(
    {
        Permission.READ,
        Permission.POST,
        Permission.WRITE,
        Permission.DECIDE,
        Permission.CANCEL,
        Permission.CREATE,
    }
)

PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.OWNER: _EDITOR | {Permission.MANAGE, Permission.EXPORT},
    Role.EDITOR: _EDITOR,
    Role.VIEWER: frozenset({Permission.READ}),
    Role.AGENT: frozenset({Permission.READ, Permission.POST, Permission.WRITE, Permission.CLAIM}),
    Role.SERVICE: frozenset(Permission),
}
"""Role to what it may do. An agent does not decide what it asks people, nor stop others."""

PUBLIC = frozenset(
    {
        "pages.home",
        "pages.asset",
        "pages.favicon",
        "docs.openapi_document",
        "docs.docs_page",
        "docs.docs_style",
        "health.healthz",
        "health.readyz",
        "mcp.metadata",
        "subscriptions.read_keys",
        "subscriptions.call_back",  # these three take the token that a worker was given with its turn
        "subscriptions.ack_wake",
        "subscriptions.release_claim",
        "mcp.metadata_of_path",
    }
)
"""Routes that need no token."""

NAMED_IN_BODY = frozenset({"ai-sdk.send", "ag-ui.run_agent", "openai.complete", "openai.completion"})
"""Routes whose session stands in the body, or in a header; they ask for admission themselves."""

ROUTES: dict[str, Permission | None] = {
    "tokens.get_me": None,
    "tokens.mint_token": Permission.ADMIN,
    "tokens.revoke": Permission.ADMIN,
    "tokens.list_revocations": Permission.ADMIN,
    "audit.read_audit": Permission.ADMIN,
    "members.list_members": Permission.READ,
    "members.put_member": Permission.MANAGE,
    "members.delete_member": Permission.MANAGE,
    "privacy.export_data": None,
    "privacy.erase": Permission.ADMIN,
    "metrics.read_metrics": Permission.ADMIN,
    "sessions.create_session": Permission.CREATE,
    "sessions.list_sessions": Permission.READ,
    "sessions.get_session": Permission.READ,
    "sessions.change_session": Permission.MANAGE,
    "sessions.delete_session": Permission.MANAGE,
    "sessions.get_presence": Permission.READ,
    "presence.put_presence": Permission.READ,
    "presence.delete_presence": Permission.READ,
    "sessions.get_authors": Permission.READ,
    "state.read_state": Permission.READ,
    "state.patch_state": Permission.WRITE,
    "artifacts.list_artifacts": Permission.READ,
    "artifacts.create_artifact": Permission.WRITE,
    "artifacts.read_artifact": Permission.READ,
    "artifacts.replace_artifact": Permission.WRITE,
    "artifacts.splice_artifact": Permission.WRITE,
    "artifacts.get_position": Permission.READ,
    "artifacts.delete_artifact": Permission.WRITE,
    "undo.undo_run": Permission.WRITE,
    "suggestions.list_suggestions": Permission.READ,
    "suggestions.suggest": Permission.WRITE,
    "suggestions.decide_pieces": Permission.DECIDE,
    "messages.list_messages": Permission.READ,
    "messages.post_message": Permission.POST,
    "messages.put_receipt": Permission.POST,
    "messages.get_receipt": Permission.READ,
    "events.stream_events": Permission.READ,
    "runs.request_run": Permission.POST,
    "runs.list_runs": Permission.READ,
    "runs.get_run": Permission.READ,
    "runs.cancel_run": Permission.CANCEL,
    "runs.decide": Permission.DECIDE,
    "runs.fill_in": Permission.DECIDE,
    "client_calls.list_calls": Permission.READ,
    "client_calls.offer": Permission.POST,
    "client_calls.withdraw": Permission.POST,
    "client_calls.bring_result": Permission.POST,
    "lists.list_all_runs": Permission.READ,
    "lists.list_agents": Permission.READ,
    "runs.claim_run": Permission.CLAIM,
    "runs.claim_one_run": Permission.CLAIM,
    "leases.renew": Permission.CLAIM,
    "leases.append": Permission.CLAIM,
    "leases.restart": Permission.CLAIM,
    "leases.put_tool": Permission.CLAIM,
    "leases.consume": Permission.CLAIM,
    "leases.get_step": Permission.CLAIM,
    "leases.put_step": Permission.CLAIM,
    "usage.put_usage": Permission.CLAIM,
    "usage.session_usage": Permission.READ,
    "usage.get_usage": None,
    "children.delegate": Permission.CLAIM,
    "children.list_children": Permission.READ,
    "children.get_output": Permission.READ,
    "leases.report": Permission.CLAIM,
    "deliveries.list_deliveries": Permission.ADMIN,
    "deliveries.retry_delivery": Permission.ADMIN,
    "import_export.export_session": Permission.EXPORT,
    "import_export.import_session": Permission.CREATE,
    "import_export.sync_session": Permission.READ,
    "sync.sync_sessions": Permission.READ,
    "versions.list_versions": Permission.READ,
    "versions.read_version": Permission.READ,
    "versions.compare_versions": Permission.READ,
    "versions.keep_version": Permission.WRITE,
    "versions.rename_version": Permission.WRITE,
    "versions.restore_version": Permission.MANAGE,
    "versions.fork_session": Permission.CREATE,
    "ai-sdk.send": Permission.POST,
    "ai-sdk.converse": Permission.POST,
    "ai-sdk.resume": Permission.READ,
    "ai-sdk.press_stop": Permission.CANCEL,
    "ai-sdk.press_on": Permission.POST,
    "ai-sdk.history": Permission.READ,
    "ag-ui.run_agent": Permission.POST,
    "ag-ui.join": Permission.READ,
    "ag-ui.cancel": Permission.CANCEL,
    "tanstack.connect": Permission.POST,
    "tanstack.send": Permission.POST,
    "tanstack.subscribe": Permission.READ,
    "tanstack.read": Permission.READ,
    "tanstack.cancel": Permission.CANCEL,
    "durable-streams.put_stream": Permission.CREATE,
    "durable-streams.append_stream": Permission.WRITE,
    "durable-streams.read_stream": Permission.READ,
    "durable-streams.delete_stream": Permission.MANAGE,
    "subscriptions.put_subscription": Permission.CREATE,
    "subscriptions.get_subscription": Permission.READ,
    "subscriptions.delete_subscription": Permission.MANAGE,
    "subscriptions.add_streams": Permission.CREATE,
    "subscriptions.remove_stream": Permission.CREATE,
    "subscriptions.claim_subscription": Permission.CLAIM,
    "session-streams.read_events": Permission.READ,
    "session-streams.read_text": Permission.READ,
    "yjs-streams.read_updates": Permission.READ,
    "yjs-streams.put_document": Permission.READ,
    "yjs-streams.post_updates": Permission.WRITE,
    "yjs-streams.delete_document": Permission.MANAGE,
    "openai.complete": Permission.POST,
    "openai.completion": Permission.READ,
    "openai.models": Permission.READ,
    "openai.model": Permission.READ,
    "y-sweet.create_document": Permission.CREATE,
    "y-sweet.authorize_document": Permission.READ,
    "y-sweet.read_document": Permission.READ,
    "y-sweet.change_document": Permission.WRITE,
    "mcp.send": None,
    "mcp.listen": None,
    "mcp.leave": None,
}
"""Endpoint to what it asks for; None for everybody who is known. What it asks for beyond that depends on the body:

to merge into a session that exists takes ``write`` (``import_export``), to decide about a tool call ``decide``
(gateways).
"""
