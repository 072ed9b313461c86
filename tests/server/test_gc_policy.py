"""The heap of a process that holds many sessions: what lives long is not looked through again and again."""

import asyncio
import gc
import sys
import weakref

import pytest

from crdt_sessions.limits import Limits
from crdt_sessions.runtime import Access, Load, SessionRegistry
from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import FakeClock, MemoryChannel
from crdt_sessions_server.cli import main
from crdt_sessions_server.service import Service
from crdt_sessions_server.serving.gc_policy import Heap
from crdt_sessions_server.settings import Settings
from tests.runtime.test_asleep import Line as MemoryLine


class Node:
    def __init__(self):
        self.me = self


def cycle():
    return weakref.ref(Node())


def frozen_cycle(heap):
    """Garbage that was still in use when the heap was looked at."""
    node = Node()
    heap.look()
    return weakref.ref(node)


@pytest.fixture(autouse=True)
def _usual_collector():
    yield
    gc.unfreeze()


@pytest.mark.slow
async def test_surviving_objects_are_not_looked_at_again():
    kept = Node()
    async with Heap():
        assert not any(each is kept for each in gc.get_objects())
        assert gc.get_threshold()[2] > 1e9
    assert any(each is kept for each in gc.get_objects())
    assert gc.get_threshold()[2] < 1e9


def test_a_service_that_has_ended_looks_through_nothing_more(monkeypatch):
    async def ended(*_, **__):
        """Serve nobody."""

    monkeypatch.setattr("crdt_sessions_server.process.serve", ended)
    monkeypatch.setattr("crdt_sessions_server.process.configure_logging", lambda _: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    kept = Node()
    assert main(["serve"]) == 0
    assert not any(each is kept for each in gc.get_objects())


def test_new_garbage_is_freed_at_the_next_look():
    heap = Heap()
    heap.look()
    garbage = cycle()
    assert garbage() is not None
    heap.look()
    assert garbage() is None


@pytest.mark.slow
def test_frozen_garbage_is_freed_once_the_heap_has_doubled():
    heap = Heap(sys.getallocatedblocks())
    garbage = frozen_cycle(heap)
    heap.look()
    assert garbage() is not None, "it was frozen while it was in use"
    ballast = [[number] for number in range(2 * sys.getallocatedblocks())]
    heap.look()
    assert garbage() is None
    again = frozen_cycle(heap)
    heap.look()
    assert again() is not None, "what has doubled is what is usual now"
    del ballast


@pytest.mark.slow
def test_where_memory_is_short_frozen_garbage_is_freed_and_the_rest_stays_frozen():
    heap = Heap()
    kept = Node()
    garbage = frozen_cycle(heap)
    heap.free()
    assert garbage() is None
    assert not any(each is kept for each in gc.get_objects())


async def test_only_the_process_collects(monkeypatch):
    """The registry frees garbage as it was told to, where memory is short and sessions were dropped."""
    asked, used = [], 0
    load = Load(Limits(memory_watermark_bytes=100), memory=lambda: used, free_garbage=lambda: asked.append(True))
    monkeypatch.setattr("gc.collect", lambda: pytest.fail("the collector is the application's"))
    clock = FakeClock()
    async with SessionRegistry(MemoryStore(), clock=clock, load=load) as registry:
        async with registry.open("s", create=True):
            pass
        used = 200
        await clock.advance(1)
        assert (asked, registry.live) == ([True], [])
        await clock.advance(1)
        assert asked == [True], "nothing was dropped since"


async def test_sessions_and_their_connections_end_without_cycles():
    """Frozen ones would stay for long."""
    gc.collect()
    gc.disable()
    try:
        async with SessionRegistry(MemoryStore()) as registry:
            ours, theirs = MemoryChannel.pair()
            async with registry.open("s", create=True) as session:
                living = [
                    session,
                    session.engine,
                    session.engine.document,
                    session.engine.runs,
                    session.engine.roster,
                ]
                gone = [weakref.ref(each) for each in living]
                del living, session
            theirs.close()
            await registry.serve("s", ours, access=Access())
        assert [ref() for ref in gone] == [None] * len(gone)
    finally:
        gc.enable()


class Request(dict):
    """A request, of which can be told whether it is still there."""


class Line(MemoryLine):
    """What the listener has answered such a request on."""

    async def close(self, code, reason, hang_up_s):
        """It is closed already."""

    def abort(self):
        """It is closed already."""


async def test_a_connection_does_not_keep_the_request_that_it_began_with():
    async with Service(Settings(sandbox=False), store=MemoryStore()) as service:
        request = Request(path="/v1/sync/s", query_string=b"", headers=[(b"host", b"localhost")], client=("::1", 1))
        gone, line = weakref.ref(request), Line()
        service.sync.greet(request, None, line)
        del request
        while not hasattr(line, "take"):
            await asyncio.sleep(0)
        assert gone() is None
        assert len(service.registry.connected) == 1
        line.gone.set()
        await service.sync.closed()
