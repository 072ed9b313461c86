"""What became of each document."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

Say = Callable[[str], None]


class Outcome(StrEnum):
    """What became of a document."""

    NEW = "new"
    """It is a new session; or could be one."""
    ADDED = "added"
    """A session of it was there, and lacked something; or may."""
    THERE = "there"
    """A session holds all of it."""
    EMPTY = "empty"
    """There is nothing in it."""
    INCOMPLETE = "incomplete"
    """A part needs changes that its source does not have; the rest is a session."""
    FAILED = "failed"
    """Nothing of it was taken."""


_WORDS = {
    Outcome.NEW: "became sessions",
    Outcome.ADDED: "were sessions already, and got what they lacked",
    Outcome.THERE: "were there already",
    Outcome.EMPTY: "are empty, and were left out",
    Outcome.INCOMPLETE: "became sessions in part",
    Outcome.FAILED: "left out",
}
_WORDS_OF_A_TRIAL = {
    **_WORDS,
    Outcome.NEW: "can become sessions",
    Outcome.ADDED: "are sessions already, which would get what they lack",
    Outcome.INCOMPLETE: "can become sessions in part",
    Outcome.FAILED: "would be left out",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One document."""

    name: str
    outcome: Outcome
    updates: int
    bytes: int
    why: str = ""


@dataclass(slots=True)
class Report:
    """All documents."""

    trial: bool
    lines: list[Line] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether everything was taken."""
        return not any(line.outcome in (Outcome.INCOMPLETE, Outcome.FAILED) for line in self.lines)

    @property
    def took(self) -> bool:
        """Whether there is a session of any of it now."""
        return not all(line.outcome in (Outcome.EMPTY, Outcome.FAILED) for line in self.lines)

    def tell(self, say: Say) -> None:
        """Say how many became what, and name those that were not taken whole."""
        for line in self.lines:
            if line.why:
                say(f"{line.name}: {line.why}")
        counts = Counter(line.outcome for line in self.lines)
        words = _WORDS_OF_A_TRIAL if self.trial else _WORDS
        for outcome in Outcome:
            if counts[outcome]:
                say(f"{words[outcome]}: {counts[outcome]}")

    def write(self, path: Path) -> None:
        """Write it to a file, as JSON.

        Raises:
            OSError: it cannot be written.
        """
        value = {"dryRun": self.trial, "documents": [asdict(line) for line in self.lines]}
        path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", "utf-8")
