"""Who does something in a session, and what of it counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody may write. To read is what being connected means.

    They are checked when an update is applied, since a document does not know of permissions.
    """

    write: bool = True
    """Change the document."""
    ask: bool = True
    """Ask agents for runs."""
    decide: bool = True
    """Answer, under one's own name, what agents ask people."""
    cancel: bool = True
    """Stop runs."""
    vouch: bool = False
    """Speak for others, as a backend does for its users."""
    verified: bool = False
    """Whether the principal is known: writes on the connection are bound to it."""

    @property
    def bound(self) -> bool:
        """Whether writes are the principal's own: it is known, and it speaks for nobody else."""
        return self.verified and not self.vouch


ALL = Rights()
"""What everybody may where nobody is known."""
READ_ONLY = Rights(write=False, ask=False, decide=False, cancel=False)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for a run."""

    principal: str | None = None
    """Who it is; None where nobody is known, and what the request says is believed."""
    decides: bool = True
    """Whether they may answer what agents ask people, if those ask them."""
    lease: tuple[str, int] | None = None
    """Run and epoch, if it is the holder of a run's lease."""


NOBODY_KNOWN = Asker()


@dataclass(frozen=True, slots=True)
class Actor:
    """A principal on a connection."""

    principal: str
    rights: Rights = ALL
    lease: tuple[str, int] | None = None
    """Run and epoch, if this is the connection of a run's holder."""
