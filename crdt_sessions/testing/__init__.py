"""For tests, ours and yours: a simulated network, a fake clock, channels in memory, the store contract."""

from crdt_sessions.testing.channel import MemoryChannel
from crdt_sessions.testing.clock import FakeClock, settle
from crdt_sessions.testing.convergence import Convergence
from crdt_sessions.testing.network import SimNetwork, SimPeer, content

__all__ = ["Convergence", "FakeClock", "MemoryChannel", "SimNetwork", "SimPeer", "content", "settle"]
