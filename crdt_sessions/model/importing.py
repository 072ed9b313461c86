"""A session document made from its JSON export: the way in for sessions that come without their history."""

from __future__ import annotations

from crdt_sessions.model.checks import check_json
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.session import SessionView
from crdt_sessions.model.values import ArtifactHead, MessageHead, RunResult, SessionExport

_ENDED = {"completed": "completed", "failed": "failed", "cancelled": "cancelled", "interrupted": "failed"}


def document_from(export: SessionExport, *, client_id: int) -> bytes:
    """Return an update that holds the messages, runs, state, artifacts and receipts of *export*.

    To be used once, as the beginning of a new session: merged into a session that holds the same things, it
    would add them again. What the server decides (``meta``, order, status) is decided anew; messages keep
    their order because their times do, made distinct where they were not.
    """
    document = SessionDoc(client_id)
    view = SessionView(document)

    def fill(_: SessionDoc) -> None:
        latest = 0
        for message in export.messages:
            latest = max(latest + 1, message.created_at)
            fields = {name: getattr(message, name) for name in MessageHead.model_fields} | {"created_at": latest}
            view.messages.add(MessageHead(**fields), list(message.parts), run_id=message.run_id)
        for run in export.runs:
            if run.request is not None:
                view.runs.request(run.id, run.request)
                status = _ENDED.get(run.status or "", "failed")
                result = run.result or RunResult(status="failed", reason="imported", at=run.request.created_at)
                if status in ("completed", "failed", "cancelled"):
                    result = result.model_copy(update={"status": status})
                view.runs.report(run.id, result, output=run.output)
        for key, value in export.state.items():
            view.state[key] = check_json(value, f"state.{key}")
        for artifact in export.artifacts:
            fields = {name: getattr(artifact, name) for name in ArtifactHead.model_fields}
            view.artifacts.add(ArtifactHead(**fields), artifact.content)
        for principal, seq in export.receipts.items():
            view.mark_read(principal, seq)

    try:
        document.edit(fill)
        return document.encode()
    finally:
        document.close()
