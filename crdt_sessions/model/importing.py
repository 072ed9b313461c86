"""A session document made from its JSON export: the way in for sessions that come without their history."""

from __future__ import annotations

from crdt_sessions.model.checks import check_json
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.run_values import RunOutcome
from crdt_sessions.model.session import SessionView
from crdt_sessions.model.values import ArtifactHead, MessageHead, SessionExport


def document_from(export: SessionExport, *, client_id: int) -> bytes:
    """Return an update that holds the messages, runs, state, artifacts and receipts of *export*.

    To be used once, as the beginning of a new session: merged into a session that holds the same things, it
    would add them again. ``meta`` is decided anew. Messages keep their order, and get their place in it here, so
    that nobody answers them again; runs that had not ended are interrupted.
    """
    document = SessionDoc(client_id)
    view = SessionView(document)

    def fill(_: SessionDoc) -> None:
        for seq, message in enumerate(export.messages, start=1):
            head = MessageHead(**{name: getattr(message, name) for name in MessageHead.model_fields})
            view.messages.add(head, list(message.parts), run_id=message.run_id).seq = seq
        for message in export.delegated:
            head = MessageHead(**{name: getattr(message, name) for name in MessageHead.model_fields})
            view.messages.add(head, list(message.parts), run_id=message.run_id, beside=True)
        for run in export.runs:
            ended = RunOutcome(reason="imported", ended_at=run.request.created_at if run.request is not None else 0)
            view.runs.settle(
                run
                if run.over and run.outcome is not None
                else run.replace(status="interrupted", lease=None, outcome=ended)
            )
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
