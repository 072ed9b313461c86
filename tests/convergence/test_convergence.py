"""Whatever the network, the disk and the peers do, everybody who drains agrees; and the test would notice."""

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from crdt_sessions.sync import SessionEngine
from crdt_sessions.sync.log import Portion
from crdt_sessions.testing import SimNetwork
from crdt_sessions.testing.convergence import Convergence, broken

TestConvergence = Convergence.TestCase


class NoBroadcast(SessionEngine):
    """Never shows a peer what another one wrote."""

    def _take_sync(self, peer_id, peer, frames):
        self.log.portion = lambda cursor, reader: None if cursor >= self.log.tail else Portion(self.log.tail, None)
        super()._take_sync(peer_id, peer, frames)


class NoResync(SessionEngine):
    """Never asks a returning peer what it did while it was away."""

    def _take_sync(self, peer_id, peer, frames):
        peer.asked = True
        super()._take_sync(peer_id, peer, frames)


class EarlyAck(SessionEngine):
    """Acknowledges before the commit."""

    def _take_due(self, peer, frames):
        tail, self.log.tail = self.log.tail, self.log.head
        super()._take_due(peer, frames)
        self.log.tail = tail


@pytest.mark.parametrize("engine", [NoBroadcast, NoResync, EarlyAck])
def test_a_broken_engine_is_noticed(engine: type[SessionEngine]) -> None:
    machine = broken(lambda: SimNetwork(engine_class=engine))
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=2000,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                phases=(Phase.generate,),
                database=None,
            ),
        )
