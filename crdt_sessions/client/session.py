"""A Python peer: ``async with connect(url, session) as session``."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from pathlib import Path

from crdt_sessions.client.contact import Contact
from crdt_sessions.client.conversation import ConversationPeer
from crdt_sessions.client.offered_tools import OfferedTools, Work
from crdt_sessions.client.service import Assignment, ServiceClient
from crdt_sessions.client.stream import MessageStream
from crdt_sessions.client.token import Token
from crdt_sessions.client.writing import stream_run
from crdt_sessions.clock import Clock, SystemClock
from crdt_sessions.limits import Limits
from crdt_sessions.model import Author
from crdt_sessions.model.strings import checked_id
from crdt_sessions.model.values import Kind
from crdt_sessions.sync import Replica

_log = logging.getLogger("crdt_sessions.client")


def connect(
    url: str,
    session: str,
    *,
    token: Token | None = None,
    name: str = "",
    id: str | None = None,
    kind: Kind = "human",
    device: str | None = None,
    offline: Path | str | None = None,
    replica: Replica | None = None,
    lease: str | None = None,
    renew_s: float | None = None,
    clock: Clock | None = None,
    limits: Limits | None = None,
    rng: random.Random | None = None,
    quiet: bool = False,
    contact: Contact | None = None,
) -> SessionPeer:
    """Return a peer of a session, which joins when it is entered: use it as a context manager.

    Args:
        url: the service, such as ``http://127.0.0.1:8000``.
        session: the session's name; by default it is created if it never existed.
        token: if the service asks for one; or a function that gets a fresh one, for every connection.
        name: how others see this peer.
        id: who this peer is. Messages are signed with it. If absent, whom the token stands for; made up without one.
        kind: human, agent, service or device.
        device: which device, for people with several.
        offline: a local SQLite file, which one peer at a time has open. With it the peer starts without a
            connection, keeps what it writes through a crash of its own, and merges when it is back. Without it
            entering waits for the server.
        replica: one that knows the session from before, so that only the rest is fetched. It is this peer's from
            here on, and must hold nothing that the service has not acknowledged.
        lease: the token of a claimed run, for the connection of its holder.
        renew_s: longest silence of such a connection, in seconds.
        clock: for tests.
        limits: sizes; must not exceed the server's.
        rng: source of the Yjs client id and of jitter, for tests.
        quiet: say nothing, on standard error or in the log, of a service that is away. Without it that is told when
            it begins, at growing intervals, and when it ends; by the logger ``crdt_sessions.client``, and on standard
            error if the application has configured no handler for that.
        contact: what other connections of this program to the service tell together with this one.

    What can pass is waited for: a connection that is refused, a host without an address, a service that restarts.
    What cannot is raised: at once when there never was contact, from the next waiting call when the service closes
    the connection for good.

    Raises:
        BadUrl: *url* cannot be the address of a service.
        BadSessionId: *session* cannot be the name of one.
        BadId: *id* cannot be a principal.
        ConnectionClosed: (on entering, and from any waiting call) the server refused this peer for good.
        NoService: (on entering, without *offline*) what answers there is not the service, or cannot be talked to.
        NoToken: (on entering, without *offline*) the function *token* failed, or has not returned in time.
        StorageError: (on entering) the local file cannot be used.
    """
    clock = clock or SystemClock()
    rng = rng or random.SystemRandom()
    meanwhile = "Trying again." if offline is None else "Working offline meanwhile, and trying again."
    return SessionPeer(
        contact or Contact(url, clock.now, _log, meanwhile=meanwhile, quiet=quiet),
        session,
        token=token,
        author=Author(
            id=checked_id(id, "principal") if id else f"{kind}-{uuid.uuid4().hex[:8]}", name=name, kind=kind
        ),
        is_known=id is not None,
        device=device,
        offline=Path(offline) if offline is not None else None,
        lease=lease,
        renew_s=renew_s,
        clock=clock,
        limits=limits or Limits(),
        rng=rng,
        replica=replica or Replica(rng.randrange(1, 2**32)),
        quiet=quiet or contact is not None,
    )


class SessionPeer(ConversationPeer):
    """A peer of one session. Made by :func:`connect`."""

    _offering: asyncio.Task[None] | None = None

    def stream(
        self,
        *,
        reply_to: str | None = None,
        run_id: str | None = None,
        agent: str = "peer",
        resume: bool = True,
    ) -> AbstractAsyncContextManager[MessageStream]:
        """Write a message as it comes into being, as one run, on its own connection; yield what to write it with.

        Leaving the context ends the run: completed, or failed if an exception leaves it, or cancelled if that is
        :class:`RunCancelled`. Others see the tokens at once; they are sent in batches of a few tens of
        milliseconds. Entering waits for the service: who works on a run is its decision.

        Args:
            reply_to: the message that asks for it.
            run_id: an idempotency key. A run that was begun under it and not ended, by this process or one
                that died, is continued: same message, same text, see :attr:`MessageStream.resumed`.
            agent: the name the run is recorded under.
            resume: False closes what a former writer left open and starts a new part.

        Raises:
            RunNotClaimable: the run has ended already.
        """
        service = ServiceClient(self._contact.url, self._token)
        return stream_run(
            self, service, self._name, self._holder, reply_to=reply_to, run_id=run_id, agent=agent, resume=resume
        )

    async def undo(self, run_id: str, *, artifact: str | None = None) -> list[str]:
        """Undo what a run did to artifacts, as one step; return the ids of what was undone now.

        What others wrote stays, also where they wrote into the run's text. Any device can do it, also long after the
        agent is gone; the service does it, so that it is done once.

        Args:
            run_id: the run.
            artifact: only what it did to that one.

        Raises:
            RequestRefused: nobody may write here, or there is no such artifact.
            ServiceUnreachable, NoService: the service is away.
        """
        async with ServiceClient(self._contact.url, self._token) as service:
            return await service.undo(self._name, run_id, artifact)

    def offer_tool(self, name: str, work: Work) -> None:
        """Offer a tool to the agents of the session, for as long as this peer is here.

        Of all devices that offer it one is given a call; the others see who does it. While this peer does, its
        presence is the sign of life: if it is gone for some seconds, another device is given the call.

        Args:
            name: of the tool, as agents call it.
            work: gets the arguments (JSON), and returns the output (JSON), or a coroutine that does. It may raise
                :class:`ToolRefused`, of which the agent is told the text; of any other exception it is told a
                reference, and the log has it.

        Raises:
            RuntimeError: the peer has not been entered.
        """
        self._offered.add(name, work)
        if self._offering is None:
            self._offering = self._go_along(self._offered.serve(), f"tools for {self.session_id}")

    @cached_property
    def _offered(self) -> OfferedTools:
        return OfferedTools(self)

    def _holder(self, assignment: Assignment) -> SessionPeer:
        return connect(
            self._contact.url,
            self._name,
            token=self._token,
            name=self.author.name,
            id=self.author.id,
            kind=self.author.kind,
            lease=assignment.token,
            renew_s=assignment.renew_s,
            clock=self._clock,
            limits=self._replica.limits,
            contact=self._contact,
        )
