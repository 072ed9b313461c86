"""An artifact, as an agent edits it beside others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_sessions.model import SessionView
from crdt_sessions.model import text as text_edits

if TYPE_CHECKING:
    from crdt_sessions.client.session import SessionPeer


class ArtifactEditor:
    """An artifact that others edit at the same time. Its writer is seen at work: presence has its cursor.

    Made by :meth:`AgentRun.artifact`.
    """

    def __init__(self, session: SessionPeer, artifact_id: str) -> None:
        self._session = session
        self._id = artifact_id

    @property
    def content(self) -> str:
        """The text as it is now."""
        return str(self._session.view.artifacts.text(self._id))

    def append(self, text: str) -> None:
        """Write *text* at the end."""
        self.insert(len(self.content), text)

    def insert(self, index: int, text: str) -> None:
        """Write before the character at *index*.

        Raises:
            IndexError: *index* is outside the text.
        """

        def change(view: SessionView) -> None:
            text_edits.insert(view.artifacts.text(self._id), index, text)

        self._session.edit(change)
        self._session.set_presence(cursor={"artifactId": self._id, "index": index + len(text)})

    def delete(self, index: int, count: int) -> None:
        """Delete *count* characters from *index* on.

        Raises:
            IndexError: the range is not within the text.
        """

        def change(view: SessionView) -> None:
            text_edits.delete(view.artifacts.text(self._id), index, count)

        self._session.edit(change)
        self._session.set_presence(cursor={"artifactId": self._id, "index": index})
