"""A Python peer: ``async with connect(url, session) as session``.

The peer holds a replica. Reading never waits; writing never waits for the network unless it says so
(``post``, ``durable``). The connection is kept up in the background for as long as the context lasts.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from crdt_sessions.client.connection import Connection
from crdt_sessions.client.console import tell_on_stderr
from crdt_sessions.client.contact import Contact
from crdt_sessions.client.local import LocalCopy
from crdt_sessions.client.messages import FollowedMessages
from crdt_sessions.client.service import Grant, ServiceClient
from crdt_sessions.client.stream import MessageStream
from crdt_sessions.client.token import Token, fresh, subject
from crdt_sessions.client.writing import written
from crdt_sessions.clock import Clock, SystemClock
from crdt_sessions.errors import EmptyMessage, NoService, RequestRefused, ServiceUnreachable
from crdt_sessions.ids import ClientId, Millis, Seq, session_id
from crdt_sessions.limits import Limits
from crdt_sessions.model import (
    ANY_AGENT,
    Author,
    Decision,
    Message,
    MessageHead,
    Presence,
    PresenceUser,
    RunCancel,
    RunRequest,
    SessionView,
    TextPart,
    answer_to,
    check_decision,
    order,
    say_nothing,
)
from crdt_sessions.model.strings import AGENT_CHARACTERS, checked_id
from crdt_sessions.model.values import Activity, Kind, Role, RunPolicy, Trigger, Value
from crdt_sessions.pulse import Pulse
from crdt_sessions.sync import Replica

Result = TypeVar("Result")

_log = logging.getLogger("crdt_sessions.client")
_HAND_OVER_S = 5.0


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
        offline: a local SQLite file. With it the peer starts without a connection, keeps what it writes
            through a crash of its own, and merges when it is back. Without it entering waits for the server.
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
        NoToken: (on entering) the function *token* failed.
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


class SessionPeer(AbstractAsyncContextManager["SessionPeer"]):
    """A peer of one session. Made by :func:`connect`."""

    def __init__(
        self,
        contact: Contact,
        session: str,
        *,
        token: Token | None,
        author: Author,
        is_known: bool,
        device: str | None,
        offline: Path | None,
        lease: str | None,
        renew_s: float | None,
        clock: Clock,
        limits: Limits,
        rng: random.Random,
        replica: Replica,
        quiet: bool,
    ) -> None:
        self.session_id = session_id(session)
        self._name = session
        self.author = author
        self._is_known = is_known
        self._contact = contact
        self._quiet = quiet
        self._token = token
        self._clock = clock
        self._replica = replica
        self._rng = rng
        replica.limits = limits
        replica.heartbeat_ms = _heartbeat(renew_s)
        self._local = LocalCopy(offline, self.session_id, clock) if offline is not None else None
        self._stack = AsyncExitStack()
        self._changed = Pulse()
        self._connection = Connection(
            contact,
            self.session_id,
            token,
            self._replica,
            clock=clock,
            changed=self._changed,
            rng=rng,
            lease=lease,
            heartbeat_s=renew_s,
            patient=offline is not None,
        )
        self._failure: Exception | None = None
        self._closing = False
        self._stepped_back: int | None = None
        """The replica's version when it did."""
        self._saved = 0
        self._keeping: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._presence = Presence(user=PresenceUser(), kind=author.kind, device=device)
        self.messages = FollowedMessages(self)

    async def __aenter__(self) -> SessionPeer:
        if not self._quiet:
            tell_on_stderr()
        try:
            if self._local is not None:
                await self._stack.enter_async_context(self._local)
                await self._restore(self._local)
            await self._introduce()
            self._tasks = [asyncio.create_task(self._connection.keep_up(), name=f"connection to {self.session_id}")]
            if self._local is not None:
                self._keeping = asyncio.create_task(self._keep_local(self._local), name="local copy")
                self._tasks.append(self._keeping)
            for task in self._tasks:
                task.add_done_callback(self._task_ended)
            if self._local is None:
                await self.synced()
        except BaseException:
            await self._close()
            raise
        return self

    async def _introduce(self) -> None:
        """Find out who this peer is, and be present as that."""
        if self._token is not None and not self._is_known:
            who = subject(await fresh(self._token))
            if self._local is None:  # otherwise there may be no connection for a long time
                with suppress(RequestRefused, NoService, ServiceUnreachable):  # the connection will say so
                    async with ServiceClient(self._contact.url, self._token) as service:
                        who = (await service.whoami()).principal
            self.author = self.author.but(id=who or self.author.id)
        user = PresenceUser(id=self.author.id, name=self.author.name)
        self._presence = self._presence.but(user=user)
        self._replica.set_presence(self._presence.json_value())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.leave()
        else:
            await self._close()

    async def leave(self) -> None:
        """Leave in good order, which is what leaving the context does."""
        try:
            if self.connected and self._failure is None:
                await self._hand_over()
        finally:
            await self._close()

    async def step_back(self) -> bool:
        """Say good-bye but stay connected, unseen, as another Yjs client, until :meth:`take_over`; tell whether so.

        Nothing is to be written meanwhile. A peer that keeps a local file does not; nor does one that is not
        connected, or has what the service has not acknowledged.
        """
        if not self.connected or self._failure is not None or self._local is not None:
            return False
        await self._hand_over()
        if not self.connected or self.unacknowledged:
            return False
        self._replica = self._replica.successor(self._rng.randrange(1, 2**32))
        self._connection.go_on(self._replica)
        self._presence = Presence(user=self._presence.user, kind=self.author.kind, device=self._presence.device)
        self._stepped_back = self._replica.version
        return True

    @property
    def waits(self) -> bool:
        """Whether it has stepped back, is connected, and nothing was written since."""
        return self.connected and self._failure is None and self._replica.version == self._stepped_back

    def take_over(self, lease: str, renew_s: float) -> None:
        """Go on, after :meth:`step_back`, as the holder of a *lease*. See :func:`connect` for *renew_s*."""
        self._stepped_back = None
        self._replica.heartbeat_ms = _heartbeat(renew_s)
        self._replica.hold(lease)
        self._replica.set_presence(self._presence.json_value())
        self._connection.go_on(self._replica, lease=lease, heartbeat_s=renew_s)

    # -- state -------------------------------------------------------------------------------------------------

    @property
    def view(self) -> SessionView:
        """The document as layout 1 sees it. To read; write with :meth:`edit`."""
        return self._replica.view

    @property
    def client_id(self) -> ClientId:
        """This replica's Yjs client id."""
        return self._replica.client_id

    @property
    def connected(self) -> bool:
        """Whether there is a connection and both sides have what the other had."""
        return self._replica.synced

    @property
    def unacknowledged(self) -> int:
        """Number of local changes not known to be durable on the server."""
        return self._replica.version - self._replica.durable

    def encode(self) -> bytes:
        """Return the document as one Yjs update."""
        return self._replica.document.encode()

    def present(self) -> dict[ClientId, Presence]:
        """Return who else is here. States that are not layout 1's are left out."""
        found = {}
        for client, state in self._replica.presences().items():
            try:
                found[client] = Presence.model_validate(state)
            except ValueError:
                continue
        return found

    # -- waiting -----------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once *condition* holds; it is looked at after every change of document, presence or connection.

        Raises:
            ConnectionClosed: the server refused this peer for good.
            StorageError: the local file failed.
        """

        def reached() -> bool:
            if self._failure is not None:
                raise self._failure
            return condition()

        await self._changed.until(reached)

    async def synced(self) -> None:
        """Return once both sides have what the other had. Raises as :meth:`until`."""
        await self.until(lambda: self._replica.synced)

    async def durable(self) -> None:
        """Return once every change made here so far is on the server's disk. Raises as :meth:`until`."""
        version = self._replica.version
        await self.until(lambda: self._replica.durable >= version)

    async def saved(self) -> None:
        """Return once every change made here so far is in the local file.

        Raises:
            ValueError: there is no local file (``offline``).
            StorageError: it failed.
        """
        if self._local is None:
            raise ValueError("this peer has no local file; give connect() offline=...")
        version = self._replica.version
        await self.until(lambda: self._saved >= version)

    async def changes(self) -> AsyncIterator[None]:
        """Yield now, and then after every change of document, presence or connection. Raises as :meth:`until`."""
        while True:
            beat = self._changed.count
            yield
            await self.until(lambda beat=beat: self._changed.count > beat)  # type: ignore[misc]

    async def changed_messages(self) -> AsyncIterator[list[Message]]:
        """Yield the messages that changed, or whose runs did, since the last time; at first all of them.

        In the session's order; none if only presence or the connection changed. Each costs what changed, not
        what the session holds. Raises as :meth:`until`.
        """
        revision = Seq(-1)
        async for _ in self.changes():
            subjects = self._replica.changes.since(revision)
            revision = self._replica.revision
            ids = {id for kind, id in subjects if kind == "message"}
            runs = (self.view.runs.value(id) for kind, id in subjects if kind == "run")
            ids |= {run.output for run in runs if run is not None and run.output is not None}
            messages = [message for id in ids if (message := self.view.messages.value(id)) is not None]
            yield sorted(messages, key=order)

    # -- writing -----------------------------------------------------------------------------------------------

    def edit(self, change: Callable[[SessionView], Result]) -> Result:
        """Change the document in one transaction, now; it travels when it can. Await :meth:`durable` to be sure.

        Return what *change* does, which gets the :class:`SessionView`.
        """
        result = self._replica.edit(change)
        self._wake()
        return result

    async def post(
        self,
        text: str,
        *,
        id: str | None = None,
        role: Role = "user",
        parent: str | None = None,
        reply_to: str | None = None,
        steers: str | None = None,
        replaces: str | None = None,
        modality: str | None = None,
        parts: list[Value] | None = None,
        agent: str | None = None,
        policy: RunPolicy | None = None,
        wait: bool = True,
    ) -> Message:
        """Post a message; return it once it is durable.

        Args:
            text: becomes a text part; leave it empty to give *parts* alone.
            id: an idempotency key: posting an id twice is posting it once.
            role: whose voice.
            parent: the message it continues from, where a conversation branches.
            reply_to: the message it answers.
            steers: the run it is meant to steer while it is active.
            replaces: the message it is another version of.
            modality: such as ``voice``.
            parts: further parts.
            agent: who is to answer; ``*`` for any agent. Without it the session says who does, if anybody.
            policy: what becomes of that while another run is active; the session's policy if None.
            wait: False returns at once, also offline.

        Raises:
            EmptyMessage: it says nothing: no parts, and nothing but white space.
            BadId: message or agent cannot be called that.
            ConnectionClosed: the server refused this peer for good.
        """
        head = MessageHead(
            id=checked_id(id, "message id") if id else uuid.uuid4().hex,
            role=role,
            author=self.author,
            parent=parent,
            reply_to=reply_to,
            steers=steers,
            replaces=replaces,
            modality=modality,
            created_at=self._clock.now(),
        )
        content: list[Value] = [TextPart(type="text", text=text)] if text else []
        if say_nothing(content + (parts or [])):
            raise EmptyMessage
        request = self._request(head.id, agent, policy=policy) if agent is not None else None

        def change(view: SessionView) -> None:
            view.messages.add(head, content + (parts or []))
            if request is not None:
                view.runs.request(answer_to(head.id), request)

        self.edit(change)
        if wait:
            await self.durable()
        message = self.view.messages.value(head.id)
        assert message is not None
        return message

    def mark_read(self, seq: int | None = None) -> None:
        """Record that one has read up to *seq*, or everything there is; returns at once."""
        self.edit(lambda view: view.mark_read(self.author.id, view.messages.last_seq() if seq is None else seq))

    @property
    def unread(self) -> int:
        """Number of messages of others that one has not marked as read."""
        return self.view.unread(self.author.id)

    # -- runs --------------------------------------------------------------------------------------------------

    def ask(
        self,
        message_id: str,
        agent: str = ANY_AGENT,
        *,
        trigger: Trigger = "submit",
        policy: RunPolicy | None = None,
        run_id: str | None = None,
    ) -> str:
        """Ask for a run; return its id at once, also offline.

        Args:
            message_id: what is to be answered; for the trigger ``continue``, the answer that is to go on.
            agent: who is to do it.
            trigger: submit, regenerate (an alternative to what was answered) or continue.
            policy: what becomes of it while another run is active; the session's policy if None.
            run_id: an idempotency key.

        Raises:
            BadId: message, agent or run cannot be called that.
        """
        wanted = run_id or f"run-{uuid.uuid4().hex}"
        request = self._request(message_id, agent, trigger=trigger, policy=policy)
        self.edit(lambda view: view.runs.request(wanted, request))
        return wanted

    def cancel(self, run_id: str, reason: str | None = None) -> None:
        """Press stop: before the run begins or while it is worked on, also offline. What was written stays.

        *reason* is for people.
        """
        self._replica.stop(run_id, RunCancel(by=self.author.id, reason=reason, at=self._clock.now()))
        self._wake()

    async def steer(self, run_id: str, text: str, *, wait: bool = True) -> Message:
        """Say *text* to a run while it goes on. If it is over by then, it is answered as a question of its own.

        Return the message once it is durable, or at once if *wait* is False.
        """
        return await self.post(text, steers=run_id, wait=wait)

    def retry(self, run_id: str) -> str:
        """Ask for a run that failed to go on where it stopped, in the same message; return the new run's id.

        Raises:
            NotFound: there is no such run.
        """
        run = self.view.runs.find(run_id)
        written = self.view.messages.find(run.output) if run.output is not None else None
        asked = run.request.message_id if run.request is not None else run_id
        if written is None or run.output is None:
            return self.ask(asked, run.agent or ANY_AGENT)
        return self.ask(run.output, run.agent or ANY_AGENT, trigger="continue")

    def regenerate(self, message_id: str, agent: str = ANY_AGENT) -> str:
        """Ask for another answer, as an alternative; return the run's id.

        Args:
            message_id: an answer, or the question itself.
            agent: who is to do it.

        Raises:
            NotFound: there is no such message.
        """
        head = self.view.messages[message_id].head
        answered = head.parent if head is not None and head.role == "assistant" else None
        return self.ask(answered or message_id, agent, trigger="regenerate")

    async def resubmit(self, message_id: str, text: str, agent: str = ANY_AGENT, *, wait: bool = True) -> Message:
        """Post another version of a message and ask for an answer to it; both versions stay, as branches.

        Return it once it is durable, or at once if *wait* is False. *text* is what it says now; *agent* is to answer.

        Raises:
            NotFound: there is no such message.
        """
        head = self.view.messages[message_id].head
        parent = head.parent if head is not None else None
        return await self.post(text, parent=parent, replaces=message_id, agent=agent, wait=wait)

    def decide(self, run_id: str, tool_call_id: str, approved: bool, reason: str | None = None) -> None:
        """Say whether one has *approved* a tool call that waits, and the *reason*. The server settles what counts.

        It is refused here if it cannot count, as far as this replica tells. What the server refuses, or hears too
        late, it writes down at the tool call (``refused``, ``late``). :attr:`Run.pending` has the calls that wait.

        Raises:
            NotFound: there is no such run or tool call.
            NotAnApprover: others are asked.
            NothingToDecide: nobody is asked about it, or the run has ended.
            AlreadyDecided: it is settled.
        """
        run = self.view.runs.find(run_id)
        message, who = self.view.messages.find(run.output or ""), self.author.id
        tool = check_decision(run, message, tool_call_id, who, approved=approved)
        if tool.approval is None:  # else it is what one has said before
            decision = Decision(approved=approved, reason=reason, at=self._clock.now())
            self.edit(lambda _: tool.decide(who, decision))

    def _request(
        self, message_id: str, agent: str, *, trigger: Trigger = "submit", policy: RunPolicy | None = None
    ) -> RunRequest:
        return RunRequest(
            message_id=checked_id(message_id, "message id"),
            agent=checked_id(agent, "name of an agent", AGENT_CHARACTERS),
            trigger=trigger,
            policy=policy,
            by=self.author.id,
            created_at=self._clock.now(),
        )

    # -- presence and streams ------------------------------------------------------------------------------------

    def set_presence(self, activity: Activity | None = None, *, modality: str | None = None, **more: Any) -> None:
        """Say what this peer does (*activity*, *modality*); *more*, such as ``cursor``, is sent as it is."""
        update = {"activity": activity, "modality": modality, **more}
        self._presence = self._presence.model_copy(update={k: v for k, v in update.items() if v is not None})
        self._replica.set_presence(self._presence.json_value())
        self._wake()

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
        return written(
            self, service, self._name, self._holder, reply_to=reply_to, run_id=run_id, agent=agent, resume=resume
        )

    def _holder(self, grant: Grant) -> SessionPeer:
        return connect(
            self._contact.url,
            self._name,
            token=self._token,
            name=self.author.name,
            id=self.author.id,
            kind=self.author.kind,
            lease=grant.token,
            renew_s=grant.renew_s,
            clock=self._clock,
            limits=self._replica.limits,
            contact=self._contact,
        )

    # -- the network, by hand ------------------------------------------------------------------------------------

    def go_offline(self) -> None:
        """Drop the connection and stay away until :meth:`go_online`; one goes on working meanwhile."""
        self._connection.go_offline()

    def go_online(self) -> None:
        """Come back."""
        self._connection.go_online()

    # -- inside --------------------------------------------------------------------------------------------------

    def now(self) -> int:
        """Return the time, for timestamps in the document."""
        return self._clock.now()

    @property
    def clock(self) -> Clock:
        """The only source of time."""
        return self._clock

    def _wake(self) -> None:
        self._connection.wake()
        self._changed.beat()

    async def _restore(self, local: LocalCopy) -> None:
        updates = await local.load()
        for update in updates:
            self._replica.restore(update)
        if updates:
            self._replica.restored_unacknowledged()

    async def _keep_local(self, local: LocalCopy) -> None:
        """Write everything that changes the replica to the local file, in order; the rest of it on closing."""
        while not (self._closing and not self._replica.has_incoming):
            await self._changed.until(lambda: self._replica.has_incoming or self._closing)
            version, updates = self._replica.version, self._replica.take_incoming()
            if updates:
                await local.keep(updates)
            self._saved = version
            self._changed.beat()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
            self._changed.beat()

    async def _hand_over(self) -> None:
        """Before leaving in good order, say good-bye and let the server have what it has not acknowledged.

        A closed socket would not do: web servers report it like a broken one, and presence stays for a moment.
        """
        self._replica.leave()
        self._wake()
        try:
            async with asyncio.timeout(_HAND_OVER_S):
                await self.durable()
        except TimeoutError:
            _log.warning(
                "left with %s changes not acknowledged", self.unacknowledged, extra={"session": self.session_id}
            )

    async def _close(self) -> None:
        self._closing = True
        self._changed.beat()
        for task in self._tasks:
            if task is not self._keeping:  # never in the middle of a write
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()
        self._replica.close()


def _heartbeat(renew_s: float | None) -> Millis | None:
    return Millis(int(renew_s * 1000)) if renew_s is not None else None
