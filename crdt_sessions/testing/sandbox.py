"""A simulated sandbox: it says what becomes of an update, in this process and whenever somebody lets it."""

from __future__ import annotations

from crdt_sessions.errors import UpdateError
from crdt_sessions.ids import ClientId
from crdt_sessions.model import Pairs, SessionDoc, check_change, extent_of, split
from crdt_sessions.sync import TRUSTED, Harmless, Refused, Tried, Try, Verdict


class SimSandbox:
    """Tries one update at a time, as the real one does for a session."""

    def __init__(self) -> None:
        self.trial: tuple[Try, Verdict] | None = None
        """What is being tried, and what the sandbox is going to say."""
        self.verdicts: dict[bytes, Verdict] = {}
        """What it says of certain updates, whatever the library makes of them."""
        self.tried: list[bytes] = []
        """All that was to be tried."""

    def begin(self, document: SessionDoc, trial: Try) -> None:
        """Try an update on a copy of *document*; :meth:`end` says what became of it."""
        self.tried.append(trial.update)
        known = self.verdicts.get(trial.update)
        self.trial = (trial, known if known is not None else _judge(document, trial))

    def end(self) -> Tried | None:
        """Return what became of the update that is being tried; None if there is none."""
        if self.trial is None:
            return None
        (trial, verdict), self.trial = self.trial, None
        return Tried(trial.trial, verdict)

    def trusted(self, trial: Try) -> Tried:
        """Return what is said at once where updates are trusted."""
        self.tried.append(trial.update)
        return Tried(trial.trial, self.verdicts.get(trial.update, TRUSTED))


def _judge(document: SessionDoc, trial: Try) -> Verdict:
    """Say what the library makes of an update, as the sandbox does, but for what nobody survives."""
    mirror = SessionDoc(3)
    try:
        mirror.apply(document.encode())
        if not trial.apply:
            return Harmless(None, mirror.contains(trial.update), ())
        known = extent_of(mirror.doc).clocks
        now, _, later = split(trial.update, known)
        held = later is None and mirror.contains(now)
        before, now = ((), now) if held else Pairs(mirror).mended(now)
        for each in before:
            mirror.apply(each)
        known = extent_of(mirror.doc).clocks
        delta = mirror.apply(now)
        after = extent_of(mirror.doc).clocks
        if delta is not None:
            check_change(delta, mirror, after)
        authors = tuple(ClientId(client) for client, clock in after.items() if clock != known.get(client, 0))
        return Harmless(delta, held, authors, later, tuple(before))
    except UpdateError as error:
        return Refused(error)
    finally:
        mirror.close()
