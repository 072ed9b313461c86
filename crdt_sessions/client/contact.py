"""Tells the person who started the program when the service is away, still away, and back."""

from __future__ import annotations

import logging
from collections.abc import Callable

from crdt_sessions.client.address import service_url
from crdt_sessions.errors import CrdtSessionsError, NoService, RequestRefused, ServiceUnreachable
from crdt_sessions.ids import Millis

_FIRST_AGAIN_S = 10
_LONGEST_S = 3600


class Contact:
    """The state of one service, as all connections of one program find it.

    An outage begins with the first that fails and ends when one works and none fails any more. It is told when it
    begins, then at intervals that double, and when it ends.

    Args:
        url: the service.
        now: the only source of time.
        log: where to tell it.
        who: who tells it, such as ``agent writer``; nobody if empty.
        meanwhile: what is done during an outage, as a sentence.
        quiet: log at the debug level only.

    Raises:
        BadUrl: *url* cannot be the address of a service.
    """

    def __init__(
        self,
        url: str,
        now: Callable[[], Millis],
        log: logging.Logger,
        *,
        who: str = "",
        meanwhile: str = "Trying again.",
        quiet: bool = False,
    ) -> None:
        self.url = service_url(url)
        self.made = False
        """Whether a session was ever in sync: later failures may pass by themselves."""
        self._now = now
        self._log = log
        self._who = f"{who}: " if who else ""
        self._meanwhile = meanwhile
        self._quiet = quiet
        self._failing: set[object] = set()
        self._away = False
        self._since = self._told = Millis(0)
        self._gap_s = _FIRST_AGAIN_S

    def failed(self, one: object, error: CrdtSessionsError) -> None:
        """Note that *one* of the connections failed, and will be tried again."""
        now = self._now()
        if not self._away:
            self._away = True
            self._since, self._gap_s = now, _FIRST_AGAIN_S
            self.tell(logging.WARNING, "%s %s", self._sentence(error), self._meanwhile)
            self._told = now
        elif now - self._told >= self._gap_s * 1000:
            what, lasts = self._sentence(error), _span(now - self._since)
            self.tell(logging.WARNING, "still, after %s: %s %s", lasts, what, self._meanwhile)
            self._told, self._gap_s = now, min(2 * self._gap_s, _LONGEST_S)
        self._failing.add(one)

    def works(self, one: object) -> None:
        """Note that *one* of the connections works."""
        self._failing.discard(one)
        if self._away and not self._failing:
            self._away = False
            lasted = _span(self._now() - self._since)
            self.tell(logging.WARNING, "connected to %s again, after %s", self.url, lasted)

    def ended(self, one: object) -> None:
        """Note that *one* of the connections is no longer needed."""
        self._failing.discard(one)

    def tell(self, level: int, what: str, *facts: object, session: str = "", run: str = "") -> None:
        """Log something about the connections, or what is done on them.

        Args:
            level: of :mod:`logging`.
            what: with a ``%s`` for each of *facts*.
            facts: what it says.
            session: which one it is about.
            run: which one it is about.
        """
        about = {key: value for key, value in (("session", session), ("run", run)) if value}
        self._log.log(logging.DEBUG if self._quiet else level, f"%s{what}", self._who, *facts, extra=about)

    def _sentence(self, error: CrdtSessionsError) -> str:
        said = str(error)
        if not isinstance(error, ServiceUnreachable | NoService):
            said = f"{self.url} answers {error}" if isinstance(error, RequestRefused) else f"{self.url}: {error}"
        return said if said.endswith(("?", ".", "!")) else f"{said}."


def _span(milliseconds: int) -> str:
    seconds = milliseconds / 1000
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"
