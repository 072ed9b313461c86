"""The convergence test: whatever the network, the disk and the peers do, everybody who drains agrees.

:class:`Convergence` is a Hypothesis state machine over :class:`SimNetwork`. Run it as it is
(``TestConvergence = Convergence.TestCase``) or over a store or engine of your own by overriding
:meth:`Convergence.make_network`.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from pycrdt import Text

from crdt_sessions.model import Author, MessageHead, SessionDoc, SessionView, TextPart, extent_of
from crdt_sessions.model import text as code_points
from crdt_sessions.testing.network import SimNetwork, content

NAMES = ("phone", "laptop", "agent")

_PEER = st.sampled_from(NAMES)
_WORDS = st.text(st.sampled_from("ab é😀\n"), min_size=1, max_size=4)


class Convergence(RuleBasedStateMachine):
    """Three peers, one server, one disk."""

    network: SimNetwork

    def make_network(self) -> SimNetwork:
        """Return the network to test."""
        return SimNetwork(sandbox=True)

    @initialize(online=st.lists(_PEER, unique=True))
    def begin(self, online: list[str]) -> None:
        """Start with some of the peers connected."""
        self.network = self.make_network()
        self.count = 0
        self.written: dict[str, dict[int, int]] = {}  # peer -> number of changes made -> its clock then
        for name in NAMES:
            self.network.add(name)
        for name in online:
            self.network.connect(name)

    @rule(name=_PEER)
    def connect(self, name: str) -> None:
        """Connect a peer."""
        self.network.connect(name)

    @rule(name=_PEER, abrupt=st.booleans())
    def drop(self, name: str, abrupt: bool) -> None:
        """Cut a peer off."""
        self.network.drop(name, abrupt=abrupt)

    @rule(name=_PEER, words=_WORDS, where=st.floats(0, 1))
    def type_text(self, name: str, words: str, where: float) -> None:
        """Insert into the shared draft."""

        def change(view: SessionView) -> None:
            draft = _draft(view)
            code_points.insert(draft, int(len(str(draft)) * where), words)

        self._edit(name, change)

    @rule(name=_PEER, where=st.floats(0, 1), count=st.integers(1, 3))
    def delete_text(self, name: str, where: float, count: int) -> None:
        """Delete from the shared draft."""

        def change(view: SessionView) -> None:
            length = len(str(_draft(view)))
            start = int(length * where)
            code_points.delete(_draft(view), start, min(count, length - start))

        self._edit(name, change)

    @rule(name=_PEER, words=_WORDS)
    def post(self, name: str, words: str) -> None:
        """Post a message; several peers may post under one id."""
        self.count += 1
        head = MessageHead(
            id=f"m{self.count // 2}",
            role="user",
            author=Author(id=name),
            created_at=self.network.now + self.count % 3,
        )
        self._edit(name, lambda view: view.messages.add(head, [TextPart(type="text", text=words)]))

    @rule(name=_PEER, words=_WORDS)
    def append_to_last(self, name: str, words: str) -> None:
        """Append a part to an existing message."""

        def change(view: SessionView) -> None:
            for message_id in sorted(view.messages.ids())[-1:]:
                view.messages[message_id].add_part(TextPart(type="text", text=words))

        self._edit(name, change)

    @rule(name=_PEER, key=st.sampled_from("xy"), value=st.integers(0, 3) | st.none())
    def set_state(self, name: str, key: str, value: int | None) -> None:
        """Set or remove a key of the application's state."""

        def change(view: SessionView) -> None:
            if value is None:
                view.state.pop(key, None)
            else:
                view.state[key] = value

        self._edit(name, change)

    @rule()
    def sleep(self) -> None:
        """Let the session sleep once everybody has everything."""
        self.network.fail_store(fails=False)
        self.network.run_until_quiet()
        self.network.pass_time(1.5)
        self.network.run_until_quiet()
        self.network.sleep()

    @rule()
    def wake(self) -> None:
        """Wake the session up for what came meanwhile."""
        self.network.wake()

    @rule(name=_PEER)
    def tamper(self, name: str) -> None:
        """Overwrite what only the server may write."""

        def change(view: SessionView) -> None:
            view.document.roots.meta["layout"] = 99
            for message_id in sorted(view.messages.ids())[:1]:
                view.messages[message_id].seq = 77

        self._edit(name, change)

    @rule(name=_PEER, up=st.booleans())
    def deliver(self, name: str, up: bool) -> None:
        """Deliver one message."""
        self.network.deliver(name, up=up)

    @rule(name=_PEER)
    def exchange(self, name: str) -> None:
        """Deliver everything in flight from and to one peer, while the disk hangs."""
        while self.network.deliver(name, up=True) or self.network.deliver(name, up=False):
            pass

    @rule(name=_PEER, up=st.booleans())
    def duplicate(self, name: str, up: bool) -> None:
        """Deliver one message twice."""
        self.network.duplicate(name, up=up)

    @rule(name=_PEER, up=st.booleans())
    def reorder(self, name: str, up: bool) -> None:
        """Swap two messages."""
        self.network.reorder(name, up=up)

    @rule()
    def commit(self) -> None:
        """Let the disk write."""
        self.network.commit()

    @rule()
    def answer(self) -> None:
        """Let the sandbox say what became of the update that it has."""
        self.network.answer()

    @rule(fails=st.booleans())
    def fail_store(self, fails: bool) -> None:
        """Let the disk take no writes for a while."""
        self.network.fail_store(fails=fails)

    @rule()
    def crash(self) -> None:
        """Kill the server; what it acknowledged must survive."""
        self.network.crash()
        self._nothing_acknowledged_is_missing()

    @rule()
    def compact(self) -> None:
        """Fold the rows on disk."""
        self.network.compact()

    @rule(seconds=st.sampled_from((1.0, 25.0, 40.0)))
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.network.pass_time(seconds)

    def teardown(self) -> None:
        """Bring everybody back and compare."""
        if not hasattr(self, "network"):
            return
        try:
            self._compare()
        finally:
            self.network.close()

    def _compare(self) -> None:
        self.network.fail_store(fails=False)
        for name in NAMES:
            self.network.connect(name)
        self.network.run_until_quiet()
        self._nothing_acknowledged_is_missing()
        contents = {name: content(document) for name, document in self.network.documents().items()}
        for name in contents:
            assert contents[name] == contents["server"], f"{name} differs from the server"
        replicas = [peer.replica for peer in self.network.peers.values()]
        assert [replica.durable for replica in replicas] == [replica.version for replica in replicas]
        assert all(replica.synced for replica in replicas)
        messages = self.network.engine.view.messages.ordered()
        assert [message.seq for message in messages] == sorted({message.seq for message in messages})  # type: ignore[type-var]
        assert None not in {message.seq for message in messages}
        assert self.network.engine.view.meta.layout == 1

    def _edit(self, name: str, change: Callable[[SessionView], object]) -> None:
        self.network.edit(name, change)
        replica = self.network.peers[name].replica
        self.written.setdefault(name, {0: 0})[replica.version] = _clock(replica.document, replica.client_id)

    def _nothing_acknowledged_is_missing(self) -> None:
        disk = self.network.documents()["disk"]
        for name, clocks in self.written.items():
            replica = self.network.peers[name].replica
            stored = _clock(disk, replica.client_id)
            assert stored >= clocks[replica.durable], "an acknowledged update is not on disk"


def broken(network: Callable[[], SimNetwork]) -> type[Convergence]:
    """Return the test over a network that is broken on purpose, to see that the test notices."""

    class Broken(Convergence):
        def make_network(self) -> SimNetwork:
            return network()

    return Broken


def _draft(view: SessionView) -> Text:
    draft: Text = view.document.doc.get("draft", type=Text)
    return draft


def _clock(document: SessionDoc, client_id: int) -> int:
    return extent_of(document.doc).clocks.get(client_id, 0)
