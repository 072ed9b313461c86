"""What looks after accesses, without sockets: nothing that changes is missed, whenever it changes."""

import asyncio
import contextlib
import gc

import pytest

from crdt_sessions.errors import NotAuthenticated, Overloaded, StorageError, TokenExpired
from crdt_sessions.ids import Millis, session_id
from crdt_sessions.runtime import keep_going
from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import FakeClock, settle
from crdt_sessions_server.auth import Admitted, Grants, LiveAccess, Principal, Role, StaticTokens, revalidation
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.processes import PATIENCE

ROOM = session_id("room")
ANN = Principal("ann", role=Role.EDITOR)


class World:
    def __init__(self):
        self.clock, self.store = FakeClock(), MemoryStore()
        self.tokens = StaticTokens({"t": ANN})
        self.grants = Grants(self.tokens, self.store, self.clock)
        self.live = LiveAccess(self.grants, self.clock, lambda *_: None)

    async def admitted(self):
        state = self.grants.state
        return Admitted("t", "room", await self.grants.authorize("t", "room"), state)


@pytest.fixture
async def world():
    world = World()
    await world.store.create(ROOM, b"", generation=1, title=None, now=world.clock.now())
    running = asyncio.create_task(keep_going("accesses", world.live.run, world.clock))
    yield world
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_changes_between_the_door_and_the_connection_is_not_missed(world):
    admitted = await world.admitted()
    await world.grants.revoke("", "principal", "ann")
    await settle()  # it was looked at, when nobody was there
    with world.live.watching(admitted) as access:
        await settle()
        assert isinstance(access.ended, NotAuthenticated)


async def test_what_changes_while_a_member_is_looked_up_is_not_missed(world):
    real, reading = world.store.members, asyncio.Event()

    async def slow(session):
        found = await real(session)
        reading.set()
        await settle()
        return found

    world.store.members = slow
    asking = asyncio.create_task(world.grants.authorize("t", "room"))
    await reading.wait()
    await world.grants.set_member(ROOM, "ann", Role.VIEWER)
    assert (await asking).role is Role.VIEWER
    assert (await world.grants.authorize("t", "room")).role is Role.VIEWER
    reading.clear()
    world.grants.forget(ROOM)
    asking = asyncio.create_task(world.grants.authorize("t", "room"))
    await reading.wait()
    await world.grants.revoke("", "principal", "ann")
    with pytest.raises(NotAuthenticated):
        await asking


async def test_a_stream_whose_reader_is_slow_ends_all_the_same(world):
    async def numbers():
        for number in range(3):
            yield number

    heard = world.live.following(await world.admitted(), numbers())
    assert await anext(heard) == 0
    await world.grants.revoke("", "principal", "ann")
    await settle()
    with pytest.raises(NotAuthenticated):
        await anext(heard)


async def test_a_stream_ends_with_its_source(world):
    async def nothing():
        return
        yield

    assert [each async for each in world.live.following(await world.admitted(), nothing())] == []
    assert await world.live.allowed(await world.admitted(), asyncio.sleep(0, "done")) == "done"
    assert not world.live._watched


async def test_a_waiting_stream_is_cancelled_when_the_access_ends(world):
    cancelled = []

    async def wait():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    waiting = asyncio.create_task(world.live.allowed(await world.admitted(), wait()))
    await settle()
    await world.grants.revoke("", "principal", "ann")
    with pytest.raises(NotAuthenticated):
        await asyncio.wait_for(waiting, PATIENCE)
    assert cancelled == [True]


def the_access(world):
    (access,) = world.live._watched
    return access


async def test_who_is_cancelled_stays_cancelled_though_the_access_ends_in_that_moment(world):
    admitted = await world.admitted()
    waiting = asyncio.create_task(world.live.allowed(admitted, asyncio.Event().wait()))
    await settle()
    waiting.cancel()
    the_access(world).end(TokenExpired())
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_the_end_of_an_access_ends_only_what_waits_on_it(world):
    """The task goes on; it is not cancelled later by what ended before."""
    admitted = await world.admitted()

    async def follow():
        try:
            await world.live.allowed(admitted, asyncio.Event().wait())
        except TokenExpired:
            await settle()
            return asyncio.current_task().cancelling()

    following = asyncio.create_task(follow())
    await settle()
    the_access(world).end(TokenExpired())
    assert await asyncio.wait_for(following, PATIENCE) == 0


async def test_nothing_more_of_a_stream_is_asked_for_after_the_end_of_its_access(world):
    asked = []

    async def events():
        for each in range(3):
            asked.append(each)
            yield each

    with pytest.raises(TokenExpired):
        async for _ in world.live.following(await world.admitted(), events()):
            the_access(world).end(TokenExpired())
    assert asked == [0]


async def test_a_stream_is_read_in_the_task_of_its_reader(world):
    """A task of its own for each event has it wait for more turns of the loop, and cannot hold a timeout."""
    tasks = []

    async def events():
        async with asyncio.timeout(PATIENCE):
            for each in range(3):
                tasks.append(asyncio.current_task())
                yield each

    assert [each async for each in world.live.following(await world.admitted(), events())] == [0, 1, 2]
    assert set(tasks) == {asyncio.current_task()}


async def test_a_role_that_changes_changes_the_access_and_only_there(world):
    with world.live.watching(await world.admitted()) as access:
        heard = []
        access.watch(heard.append, heard.append)
        await world.grants.set_member(session_id("room"), "bob", Role.VIEWER)
        await settle()
        assert heard == []
        await world.grants.set_member(ROOM, "ann", Role.VIEWER)
        await settle()
        assert [rights.write for rights in heard] == [False]
        assert not access.rights.write


async def test_an_access_ends_with_its_token(world):
    world.tokens._principals = {
        key: Principal("ann", expires_at=Millis(world.clock.now() + 10)) for key in world.tokens._principals
    }
    with world.live.watching(await world.admitted()) as access:
        await settle()
        assert access.ended is None
        await world.clock.advance(1)
        async with asyncio.timeout(PATIENCE):
            while access.ended is None:
                await asyncio.sleep(0.05)
        assert isinstance(access.ended, TokenExpired)


async def test_a_token_that_stands_for_somebody_else_now_is_none(world):
    with world.live.watching(await world.admitted()) as access:
        world.tokens._principals = {key: Principal("eve") for key in world.tokens._principals}
        world.tokens._revision += 1
        async with asyncio.timeout(PATIENCE):
            while access.ended is None:
                await asyncio.sleep(0.05)
        assert "somebody else" in str(access.ended)


@contextlib.asynccontextmanager
async def only_the_other_is_looked_at(world, hindered):
    """Two accesses are revoked, and *hindered* is awaited before one is looked at: yield it once the other has ended."""
    real = world.tokens.authorize

    async def authorize(token, session):
        if session == "room":
            await hindered()
        return await real(token, session)

    first = await world.admitted()
    other = Admitted("t", None, await world.grants.authorize("t", None), world.grants.state)
    world.tokens.authorize = authorize
    with world.live.watching(first) as one, world.live.watching(other) as another:
        await world.grants.revoke("", "principal", "ann")
        async with asyncio.timeout(PATIENCE):
            while another.ended is None:
                await asyncio.sleep(0.01)
        assert one.ended is None
        yield one


async def test_a_defect_of_an_authorizer_delays_the_end_of_no_other_access(world):
    """And whom it concerned is looked at again: a change is not forgotten."""
    broken = [True]

    async def hindered():
        if broken:
            raise UnicodeError("a defect")

    async with only_the_other_is_looked_at(world, hindered) as one:
        broken.clear()
        await world.clock.advance(1)
        async with asyncio.timeout(PATIENCE):
            while one.ended is None:
                await asyncio.sleep(0.01)


async def test_an_authorizer_that_does_not_answer_holds_up_no_other_access(world, monkeypatch):
    """And whom it concerns is let go once that has gone on for long."""
    monkeypatch.setattr(revalidation, "_PATIENCE_S", 0.05)
    async with only_the_other_is_looked_at(world, asyncio.Event().wait) as one:
        async with asyncio.timeout(PATIENCE):
            while one.ended is None:
                await world.clock.advance(5)
                await asyncio.sleep(0.01)
        assert isinstance(one.ended, Overloaded)


async def test_an_authorizer_of_ones_own_is_two_methods():
    """The one seam for whoever knows tokens otherwise, such as a database of sessions of one's own."""

    class Mine:
        def __init__(self):
            self.known = {"cookie-1": Principal("ann", role=Role.VIEWER, sessions=("a-*",))}
            self.changes = 0

        async def authorize(self, token, session):
            if token not in self.known:
                raise NotAuthenticated(why="log in first")
            return self.known[token]

        def revision(self):
            return self.changes

    mine = Mine()
    service = Service(Settings(), store=MemoryStore(), authorizer=mine)
    async with service:
        client = service.app.test_client()
        headers = {"Host": "localhost", "Authorization": "Bearer cookie-1"}
        me = await client.get("/v1/me", headers=headers)
        assert (me.status_code, (await me.get_json())["role"]) == (200, "viewer")
        assert (await client.get("/v1/sessions/b-1", headers=headers)).status_code == 403
        refused = await client.get("/v1/me", headers={"Host": "localhost", "Authorization": "Bearer x"})
        assert refused.status_code == 401
        assert (await refused.get_json())["detail"].startswith("log in first")
        admitted = Admitted("cookie-1", "a-1", mine.known["cookie-1"], service.admission.grants.state)
        with service.admission.live.watching(admitted) as access:
            mine.known.clear()
            mine.changes += 1
            async with asyncio.timeout(PATIENCE):
                while access.ended is None:
                    await asyncio.sleep(0.05)


async def test_an_error_after_the_reader_left_is_not_logged(world):
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))

    async def fail():
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("shutting down")

    waiting = asyncio.create_task(world.live.allowed(await world.admitted(), fail()))
    await settle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    del waiting
    gc.collect()
    await settle()
    assert complaints == []


async def test_an_import_takes_one_place_of_those_that_a_tenant_has():
    service = Service(Settings(max_sessions_per_tenant=2), store=MemoryStore())
    async with service:
        client = service.app.test_client()
        headers = {"Host": "localhost", "Content-Type": "application/json"}
        await client.post("/v1/sessions", headers=headers, data='{"id": "a"}')
        exported = await (await client.get("/v1/sessions/a/export", headers=headers)).get_data()
        for name, status in (("a", 409), ("b", 201), ("c", 429)):
            answer = await client.post(f"/v1/sessions/{name}/import", headers=headers, data=exported)
            assert answer.status_code == status, name


async def hung_up(work, begun):
    """Have *work* begin, and then its caller gone, as a handler is whose client hangs up."""
    asking = asyncio.create_task(work)
    await begun.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


def held(world, name):
    """Have the store answer a write late; return what says that it is written, and what lets it answer."""
    real, written, answers = getattr(world.store, name), asyncio.Event(), asyncio.Event()

    async def write(*args):
        await real(*args)
        written.set()
        await answers.wait()

    setattr(world.store, name, write)
    return written, answers


async def test_a_member_is_removed_for_good_though_whoever_removes_it_hangs_up(world):
    await world.grants.set_member(ROOM, "ann", Role.VIEWER)
    assert await world.grants.members(ROOM) == {"ann": "viewer"}
    written, answers = held(world, "set_member")
    with world.live.watching(await world.admitted()) as access:
        await hung_up(world.grants.set_member(ROOM, "ann", None), written)
        answers.set()
        await settle()
        assert await world.grants.members(ROOM) == {}
        await settle()
        assert access.rights.write


async def test_a_token_is_revoked_though_whoever_revokes_it_hangs_up(world):
    written, answers = held(world, "revoke")
    with world.live.watching(await world.admitted()) as access:
        await hung_up(world.grants.revoke("", "principal", "ann"), written)
        answers.set()
        await settle()
        with pytest.raises(NotAuthenticated):
            await world.grants.authorize("t", "room")
        assert isinstance(access.ended, NotAuthenticated)


async def test_what_fails_when_nobody_waits_for_it_any_more_is_logged(world, caplog):
    begun = asyncio.Event()

    async def fail(_):
        begun.set()
        await settle()
        raise StorageError("the disk is full")

    world.store.revoke = fail
    await hung_up(world.grants.revoke("", "principal", "ann"), begun)
    await settle()
    assert "the disk is full" in caplog.text
