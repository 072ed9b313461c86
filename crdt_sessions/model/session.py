"""Typed views over everything in a session document but the messages, and the export of the whole."""

from __future__ import annotations

from typing import Any

from pycrdt import Map, Text
from pydantic import ValidationError

from crdt_sessions.errors import BadDocument, NotFound
from crdt_sessions.model import layout
from crdt_sessions.model.checks import check_json
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.messages import Messages, MessageView
from crdt_sessions.model.values import (
    TERMINAL_STATUSES,
    Artifact,
    ArtifactHead,
    Meta,
    Run,
    RunOutcome,
    RunRequest,
    RunResult,
    RunStatus,
    SessionExport,
)


class SessionView:
    """A session document as layout 1 sees it. Writes are to be made inside :meth:`SessionDoc.edit`."""

    def __init__(self, document: SessionDoc) -> None:
        self.document = document
        self.messages = Messages(document)
        self.runs = Runs(document)
        self.artifacts = Artifacts(document)
        self.state = document.roots.state
        self.receipts = document.roots.receipts

    @property
    def meta(self) -> Meta:
        """What the session is.

        Raises:
            BadDocument: ``meta`` is not what layout 1 says.
        """
        try:
            return layout.read_meta(self.document.doc)
        except ValidationError as error:
            raise BadDocument(why=f"meta: {error.errors()[0]['msg']}") from error

    def set_title(self, title: str) -> None:
        """Name the session."""
        self.document.roots.meta["title"] = check_json(title, "title")

    def mark_read(self, principal: str, seq: int) -> None:
        """Record that *principal* has read up to *seq*; a receipt never goes back."""
        known = self.receipts.get(principal)
        if not isinstance(known, int | float) or seq > known:
            self.receipts[principal] = seq

    def export(self) -> SessionExport:
        """Return the whole session in JSON form.

        Raises:
            BadDocument: ``meta`` is not what layout 1 says.
        """
        return SessionExport(
            meta=self.meta,
            messages=self.messages.ordered(),
            runs=self.runs.all(),
            state=self.state.to_py() or {},
            artifacts=self.artifacts.all(),
            receipts={
                principal: int(seq) for principal, seq in self.receipts.items() if isinstance(seq, int | float)
            },
        )


class Runs:
    """``runs``: what agents were asked for and what became of it."""

    def __init__(self, document: SessionDoc) -> None:
        self._root = document.roots.runs

    def ids(self) -> list[str]:
        """Return the ids of all runs, in no order."""
        return list(self._root.keys())

    def request(self, run_id: str, request: RunRequest) -> None:
        """Ask for a run; if the id is taken, the earlier request stands."""
        if run_id not in self._root:
            self._root[run_id] = Map({"request": request.json_value()})

    def report(self, run_id: str, result: RunResult, *, output: str | None = None) -> None:
        """Write what the agent says of its run; the server settles the status from it.

        Raises:
            NotFound: there is no such run.
        """
        entry = self._entry(run_id)
        entry["result"] = result.json_value()
        if output is not None and entry.get("output") != output:
            entry["output"] = output

    def settle(self, run_id: str, status: RunStatus, outcome: RunOutcome | None) -> None:
        """Write what the server decided. For the steward only.

        Raises:
            NotFound: there is no such run.
        """
        entry = self._entry(run_id)
        if entry.get("status") != status:
            entry["status"] = status
        if outcome is not None:
            entry["outcome"] = outcome.json_value()

    def value(self, run_id: str) -> Run | None:
        """Return a run in JSON form, or None if there is none that layout 1 can describe."""
        entry = self._root.get(run_id)
        if not isinstance(entry, Map):
            return None
        try:
            return Run.model_validate({**(entry.to_py() or {}), "id": run_id})
        except ValidationError:
            return None

    def all(self) -> list[Run]:
        """Return all runs, oldest request first."""
        runs = [run for run in map(self.value, self.ids()) if run is not None]
        return sorted(runs, key=lambda run: (run.request.created_at if run.request else 0, run.id))

    def unfinished(self) -> list[Run]:
        """Return the runs without a terminal status."""
        return [run for run in self.all() if run.status not in TERMINAL_STATUSES]

    def _entry(self, run_id: str) -> Map[Any]:
        entry = self._root.get(run_id)
        if not isinstance(entry, Map):
            raise NotFound(what="run", id=run_id)
        return entry


class Artifacts:
    """``artifacts``: documents that humans and agents edit together."""

    def __init__(self, document: SessionDoc) -> None:
        self._root = document.roots.artifacts

    def add(self, head: ArtifactHead, content: str = "") -> Text:
        """Add a text artifact and return its content; if the id is taken, return the one that is there.

        Raises:
            NotFound: the id is taken by an artifact whose content is not text.
        """
        if head.id not in self._root:
            self._root[head.id] = Map({"head": head.json_value(), "content": Text(content)})
        return self.text(head.id)

    def text(self, artifact_id: str) -> Text:
        """Return the content of a text artifact, to be edited with :mod:`crdt_sessions.model.text`.

        Raises:
            NotFound: there is no such artifact, or its content is not text.
        """
        entry = self._root.get(artifact_id)
        content = entry.get("content") if isinstance(entry, Map) else None
        if not isinstance(content, Text):
            raise NotFound(what="text artifact", id=artifact_id)
        return content

    def all(self) -> list[Artifact]:
        """Return all artifacts in JSON form, oldest first; entries without a valid head are skipped."""
        found = []
        for artifact_id, entry in self._root.items():
            if not isinstance(entry, Map):
                continue
            try:
                head = ArtifactHead.model_validate(entry.get("head"))
            except ValidationError:
                continue
            content = entry.get("content")
            found.append(
                Artifact(
                    **{**head.model_dump(), "id": artifact_id},
                    content=str(content) if content is not None else "",
                )
            )
        return sorted(found, key=lambda artifact: (artifact.created_at, artifact.id))


__all__ = ["Artifacts", "MessageView", "Runs", "SessionView"]
