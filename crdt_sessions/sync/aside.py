"""What the steward could not decide about: blamed when deciding raised, and left alone from the second time on.

Such an error is a defect of ours. It costs a reload of the session, since decisions are not made in halves, and what
it was about may stand in the log for ever: it must not cost a reload each time anybody touches it, or each start.
What is left alone stays in the document as it is, and nothing follows from it; all else goes on
(docs/decisions/0026-one-guard-for-what-moved.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

Kind = Literal["place", "question", "message", "run"]
"""A message's place in the order, the answer to it, what runs read in it; and a run."""

_OFTEN = 2
_MOST = 1024


class Aside:
    """What is known of one session. It outlives the session's engines."""

    def __init__(self) -> None:
        self._blamed: dict[tuple[Kind, str], int] = {}
        self._last: BaseException | None = None
        self.count = 0
        """How often something was blamed."""

    @contextmanager
    def about(self, kind: Kind, id: str) -> Iterator[None]:
        """Blame this for whatever is raised inside, unless something was blamed for it already."""
        try:
            yield
        except BaseException as error:  # the CRDT library panics with one
            self._blame((kind, id), error)
            raise

    def left(self, kind: Kind, id: str) -> bool:
        """Tell whether this is to be left alone."""
        return bool(self._blamed) and self._blamed.get((kind, id), 0) >= _OFTEN

    def all_left(self) -> list[tuple[Kind, str]]:
        """Return what is left alone."""
        return [subject for subject in self._blamed if self.left(*subject)]

    def blaming(self, kind: Kind, id: str, write: Callable[..., Any]) -> Callable[..., Any]:
        """Return *write* so that this is blamed for what it raises; what is left alone may fail in peace."""

        def guarded(*arguments: Any) -> None:
            try:
                with self.about(kind, id):
                    write(*arguments)
            except BaseException:
                if not self.left(kind, id):
                    raise

        return guarded

    def _blame(self, subject: tuple[Kind, str], error: BaseException) -> None:
        if error is self._last:
            return  # by what is further inside
        self._last = error
        self.count += 1
        self._blamed[subject] = self._blamed.pop(subject, 0) + 1
        if len(self._blamed) > _MOST:
            del self._blamed[next(iter(self._blamed))]
