"""The shadow of a document: what the sandbox needs to keep a mirror of it in another process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

_LEAST_MISSED = 64 * 1024
_MISSED_BYTES = 64
"""Memory that an update takes in addition to its bytes."""


@dataclass(slots=True, eq=False)
class ShadowDocument:
    """What the sandbox needs to keep the mirror of a session. The session notes here each update that it takes.

    Args:
        key: the session's id.
        whole: returns the session's document as an update.
        lineage: the lineage that updates must have; empty if any will do.
    """

    key: str
    whole: Callable[[], bytes]
    lineage: str = ""
    suspect: bool = False
    """Whether something in it has harmed the quick process."""
    strikes: int = 0
    """How many of its updates in a row killed the patient process, too."""
    barred: int = 0
    """How many of its next updates are refused without a trial: its document may be spoiled, and each trial costs
    seconds."""
    missed: list[bytes] = field(default_factory=list)
    """Updates that the document has taken and the mirror has not been told of."""
    missed_bytes: int = 0
    size: int = 0
    """Size of the document when the mirror was made."""
    stale: bool = True
    """Whether the mirror must be made anew."""
    ahead: list[set[bytes]] = field(default_factory=list)
    """Updates that the mirror has taken and the document has not taken yet: each as it came, and as written anew."""

    def took(self, update: bytes) -> None:
        """Note that the document has taken *update*."""
        for each in self.ahead:
            if update in each:
                self.ahead.remove(each)
                return
        if not self.stale:
            self.missed.append(update)
            self.missed_bytes += len(update) + _MISSED_BYTES
            if self.missed_bytes > max(self.size, _LEAST_MISSED):  # making it anew is as cheap
                self.spoil()

    def settle(self) -> None:
        """Have the mirror made anew if it holds an update that the document did not take."""
        if self.ahead:
            self.spoil()

    def spoil(self) -> None:
        """Have the mirror made anew before it is used again."""
        self.caught_up()
        self.ahead.clear()
        self.stale = True

    def caught_up(self) -> list[bytes]:
        """Return the updates that the mirror has missed; from now on they count as taken."""
        missed, self.missed, self.missed_bytes = self.missed, [], 0
        return missed
