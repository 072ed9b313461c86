"""For tests, ours and yours: a simulated network, a fake clock, channels in memory.

``testing.convergence`` (needs Hypothesis) and ``testing.store_contract`` (needs pytest) are suites to inherit
from: ``pip install 'crdt-sessions[testing]'``.
"""

from crdt_sessions.testing.channel import MemoryChannel
from crdt_sessions.testing.clock import FakeClock, settle
from crdt_sessions.testing.network import SimNetwork, SimPeer, content

__all__ = ["FakeClock", "MemoryChannel", "SimNetwork", "SimPeer", "content", "settle"]
