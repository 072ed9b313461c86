"""Whatever the network, the disk and the peers do, everybody who drains agrees; and the test would notice."""

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from crdt_sessions.sync import Ready, SessionEngine
from crdt_sessions.sync.log import Portion
from crdt_sessions.sync.owed import Owed
from crdt_sessions.testing import SimNetwork
from crdt_sessions.testing.convergence import Convergence, broken

TestConvergence = Convergence.TestCase


class Mute:
    """A log of which nobody is told anything. The compiled one lets none of its methods be replaced."""

    def __init__(self, log):
        self._log = log

    def __getattr__(self, name):
        return getattr(self._log, name)

    def portion(self, cursor, reader):
        return None if cursor >= self._log.tail else Portion(self._log.tail, None)


class NoBroadcast(Owed):
    """Never shows a peer what another one wrote."""

    def take(self, peer_id, peer, now):
        if not isinstance(self._log, Mute):
            self._log = Mute(self._log)
        return super().take(peer_id, peer, now)


class NoResync(Owed):
    """Never asks a returning peer what it did while it was away."""

    def take(self, peer_id, peer, now):
        peer.asked = True
        return super().take(peer_id, peer, now)


class EarlyAck(Owed):
    """Acknowledges before the commit."""

    def take(self, peer_id, peer, now):
        return [*super().take(peer_id, peer, now), *peer.take_due(self._log.head)]


def engine_with(owed):
    """Return an engine class whose peers are owed something else."""

    class Broken(SessionEngine):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.owed = owed(self.log, self.roster, self._merger, self.timing)

        def handle(self, event, now):
            return [*super().handle(event, now), Ready(None)]  # else nobody asks for what is owed too early

    return Broken


@pytest.mark.parametrize("owed", [NoBroadcast, NoResync, pytest.param(EarlyAck, marks=pytest.mark.nightly)])
def test_a_broken_engine_is_noticed(owed: type[Owed]) -> None:
    engine = engine_with(owed)
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
