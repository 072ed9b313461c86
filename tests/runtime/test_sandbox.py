"""The sandbox: real processes that are killed, hang and run out of memory, and a service that goes on."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pycrdt import Doc, Map, Text, merge_updates

from crdt_sessions.errors import EarlyUpdate, MalformedUpdate, Overloaded, PanickedUpdate, StorageError
from crdt_sessions.ids import Seq, session_id
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.model import SessionDoc, extent_of, seed
from crdt_sessions.model.parts import TextPart
from crdt_sessions.model.values import Author, MessageHead
from crdt_sessions.runtime import Sandbox, SessionRegistry, child_pipe
from crdt_sessions.runtime.child_process import ChildProcess
from crdt_sessions.runtime.sandbox import PROGRAM, _program
from crdt_sessions.runtime.sandbox_process import FINE, LOAD, request
from crdt_sessions.runtime.shadow import ShadowDocument
from crdt_sessions.storage import Row
from crdt_sessions.testing import MemoryChannel, settle
from crdt_sessions.wire import EMPTY_UPDATE, Ack, SyncStep1, SyncStep2, Update, decode, encode
from crdt_sessions.wire.varint import varuint
from tests.hostile import corpus
from tests.processes import PATIENCE

from .conftest import ROOM, Peer, until

pytestmark = pytest.mark.processes

POISON = f"""
import os, signal, time
from crdt_sessions.model.document import SessionDoc
from tests.processes import PATIENCE
apply = SessionDoc.apply
def poisoned(self, update):
    if b"KILL" in update: os.kill(os.getpid(), signal.SIGKILL)
    if b"LOOP" in update:
        while True: pass
    if b"BOMB" in update: bytearray(1 << 40)
    if b"HALT" in update: signal.pause()
    if b"STARVED" in update: time.sleep(1)
    if b"GROUP" in update: assert os.getpgid(0) == os.getppid() != os.getsid(0)
    small = len(update) < 1000
    if b"SPOIL" in update and small: self.spoiled = True
    if b"VICTIM" in update and small and hasattr(self, "spoiled"): raise RuntimeError
    if b"CORPSE" in update and small and hasattr(self, "spoiled"): os.kill(os.getpid(), signal.SIGKILL)
    return apply(self, update)
SessionDoc.apply = poisoned
{PROGRAM}
"""


@pytest.fixture
async def sandbox():
    async with Sandbox(patience_s=0.5, program=POISON) as sandbox:
        yield sandbox


@pytest.fixture
async def guarded(store, clock, sandbox):
    async with SessionRegistry(store, clock=clock, sandbox=sandbox) as registry:
        yield registry


def writing(text, client=5):
    """An update that is not plain and holds *text*."""
    document = SessionDoc(client)
    _, delta = document.edit(lambda doc: doc.roots.state.__setitem__("k", text))
    document.close()
    return delta


class Session:
    """A document with its mirror, taking what was tried."""

    def __init__(self, key="a"):
        self.document = SessionDoc(9)
        self.shadow = ShadowDocument(key, self.document.encode)

    async def take(self, sandbox, update):
        verdict = await sandbox.try_update(self.shadow, update)
        if verdict.delta is not None:
            self.document.apply(verdict.delta)
            self.shadow.took(verdict.delta)
        self.shadow.settle()
        return verdict


async def test_what_comes_back_is_what_the_library_wrote_anew(sandbox):
    rng, session = random.Random(3), Session()
    made = corpus.updates(rng, 60)
    plain = SessionDoc(10)
    for update in [corpus.SEED, *made]:
        await session.take(sandbox, update)
        plain.apply(update)
    assert extent_of(session.document.doc) == extent_of(plain.doc)
    again = await session.take(sandbox, made[5])
    assert (again.delta, again.held) == (None, True)
    assert sandbox.deaths == sandbox.refused == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.sampled(3)
async def test_updates_out_of_order_are_given_back_until_their_time_has_come(sandbox, seed):
    rng, session = random.Random(seed), Session()
    made = [corpus.SEED, *corpus.updates(rng, 40)[:-1]]
    whole = SessionDoc(10)
    for update in made:
        whole.apply(update)
    left, early = made, 0
    rng.shuffle(left)
    while left:
        again = []
        for update in left:
            verdict = await session.take(sandbox, update)
            if verdict.later is not None:
                again.append(verdict.later.update)
            assert session.document.waiting == EMPTY_UPDATE
        assert sum(map(len, again)) < sum(map(len, left))
        left, early = again, early + len(again)
    assert early > 3
    assert extent_of(session.document.doc) == extent_of(whole.doc)


@pytest.mark.parametrize("poison", ["KILL", "LOOP", "BOMB"])
async def test_an_update_that_kills_hangs_or_fills_memory_is_refused_and_others_go_on(sandbox, poison):
    good, bad = Session("good"), Session("bad")
    await good.take(sandbox, writing("first"))
    with pytest.raises(PanickedUpdate):
        await bad.take(sandbox, writing(poison))
    await good.take(sandbox, writing("second", client=6))
    await bad.take(sandbox, writing("fine"))
    assert good.document.roots.state["k"] in ("first", "second")
    assert bad.document.roots.state["k"] == "fine"
    assert sandbox.refused == 1
    assert bad.shadow.suspect is (poison != "BOMB")  # running out of memory is an error before it is a death
    assert not good.shadow.suspect


async def test_an_update_that_waits_for_a_busy_machine_is_not_blamed(sandbox):
    session = Session()
    await session.take(sandbox, writing("STARVED"))
    assert session.document.roots.state["k"] == "STARVED"
    assert sandbox.deaths == 0


async def test_the_processes_are_one_process_group_and_no_session_of_their_own(sandbox):
    await Session().take(sandbox, writing("GROUP"))


async def test_an_update_that_hangs_for_ever_is_refused():
    async with Sandbox(patience_s=0.05, program=POISON) as sandbox:
        with pytest.raises(PanickedUpdate):
            await Session().take(sandbox, writing("HALT"))


@pytest.mark.parametrize("size", [100, 30_000])
async def test_values_nested_too_deep_to_be_written_as_json_are_refused(sandbox, size):
    session = Session()
    session.document.apply(seed(ROOM, generation=1, created_at=1, client_id=3))
    await session.take(sandbox, writing("x" * size))
    deep = Doc(client_id=6)
    value = 1
    for _ in range(400):
        value = [value]
    deep.get("state", type=Map)["deep"] = value
    with pytest.raises(PanickedUpdate):
        await session.take(sandbox, deep.get_update())
    await session.take(sandbox, writing("u" * 500, client=7))


@pytest.mark.parametrize("victim", ["VICTIM", "CORPSE"])
@pytest.mark.parametrize("suspect", [False, True])
@pytest.mark.sampled(2)
async def test_nobody_is_blamed_for_what_somebody_else_did_to_the_mirror(sandbox, victim, suspect):
    session = Session()
    if suspect:
        with pytest.raises(PanickedUpdate):
            await session.take(sandbox, writing("KILL"))
    await session.take(sandbox, letters(["x" * 2000], client=8)[0])
    await session.take(sandbox, writing("SPOIL", client=6))
    await session.take(sandbox, writing(victim, client=7))
    assert session.shadow.strikes == 0


async def test_a_malformed_update_is_refused_as_malformed(sandbox):
    session = Session()
    with pytest.raises(MalformedUpdate):
        await session.take(sandbox, b"\x01\x02\x03")
    assert sandbox.deaths == 0


async def test_the_mirror_is_made_anew_after_what_was_refused_elsewhere(sandbox):
    """The document did not take what the mirror took: what comes next under the same clock is looked at again."""
    session = Session()
    await sandbox.try_update(session.shadow, writing("one"))
    session.shadow.settle()  # over a limit, say
    verdict = await session.take(sandbox, writing("two"))
    assert not verdict.held
    assert session.document.roots.state["k"] == "two"


async def test_a_hundred_at_once_wait_for_one_another(sandbox):
    sessions = [Session(str(number)) for number in range(100)]
    await asyncio.gather(*(session.take(sandbox, writing(f"v{n}")) for n, session in enumerate(sessions)))
    assert [session.document.roots.state["k"] for session in sessions] == [f"v{n}" for n in range(100)]


async def test_a_process_need_not_wait_for_a_turn_of_a_busy_loop_between_two_requests(sandbox):
    """Of 500 sessions that began at once, on a loop whose turns took 50 ms, some waited nine seconds for their turn."""
    await Session("first").take(sandbox, writing("v"))
    worker = worker_of(sandbox._quick)
    os.kill(worker, signal.SIGSTOP)
    sessions = [Session(str(number)) for number in range(100)]
    taking = [asyncio.create_task(session.take(sandbox, writing(f"v{n}"))) for n, session in enumerate(sessions)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(sandbox._quick._pipe._unanswered) == 100, "all are in the pipe, though nothing was answered"
    os.kill(worker, signal.SIGCONT)
    await asyncio.gather(*taking)
    assert [session.document.roots.state["k"] for session in sessions] == [f"v{n}" for n in range(100)]


async def test_what_waits_for_a_process_is_bounded(sandbox, monkeypatch):
    monkeypatch.setattr(child_pipe, "_MOST_UNANSWERED", 2000)
    await Session("first").take(sandbox, writing("v"))
    worker = worker_of(sandbox._quick)
    os.kill(worker, signal.SIGSTOP)
    sessions = [Session(str(number)) for number in range(20)]
    taking = [asyncio.create_task(session.take(sandbox, writing("v" * 500))) for session in sessions]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(sandbox._quick._pipe._unanswered) == 3
    os.kill(worker, signal.SIGCONT)
    await asyncio.gather(*taking)
    assert {session.document.roots.state["k"] for session in sessions} == {"v" * 500}


async def test_of_many_at_once_only_those_are_refused_that_kill(sandbox):
    """Those behind one that kills are lost with their mirrors, and are asked again."""
    sessions = [Session(str(number)) for number in range(30)]
    for session in sessions[::2]:
        await session.take(sandbox, writing("before", client=4))
    texts = ["KILL" if number in (3, 4, 20) else f"v{number}" for number in range(30)]
    ends = await asyncio.gather(
        *(session.take(sandbox, writing(text)) for session, text in zip(sessions, texts, strict=True)),
        return_exceptions=True,
    )
    assert [number for number, end in enumerate(ends) if isinstance(end, PanickedUpdate)] == [3, 4, 20]
    assert [end for end in ends if isinstance(end, Exception)] == [ends[3], ends[4], ends[20]]
    for number, session in enumerate(sessions):
        assert await session.take(sandbox, writing("after", client=6))
        assert session.shadow.suspect is (number in (3, 4, 20)), "nobody else is blamed"


async def test_who_leaves_in_the_middle_of_a_trial_takes_nobody_along(sandbox):
    leaver, others = Session("leaver"), [Session(str(number)) for number in range(5)]
    leaving = asyncio.create_task(leaver.take(sandbox, writing("LOOP")))
    taking = [asyncio.create_task(other.take(sandbox, writing("fine"))) for other in others]
    await until(lambda: sandbox._quick._pipe is not None and len(sandbox._quick._pipe._unanswered) == 6)
    leaving.cancel()
    await asyncio.gather(*taking)
    assert {other.document.roots.state["k"] for other in others} == {"fine"}
    verdict = await leaver.take(sandbox, writing("two"))
    assert not verdict.held, "the mirror may have taken what the document did not"
    assert sandbox.deaths == 0, "it was ended, and nobody's update killed it"


async def test_a_worker_that_dies_in_the_middle_of_a_request_leaves_no_rest_of_it(sandbox):
    """Else the next worker would take the rest of it for the beginning of another one."""
    session = Session()
    await session.take(sandbox, writing("one"))
    worker, pipe = worker_of(sandbox._quick), sandbox._quick._pipe
    before = bytes_read(worker)
    pipe._stdin().write(request(LOAD, "", [b"x" * 1000])[:500])
    await until(lambda: bytes_read(worker) == before + 500)
    os.kill(worker, signal.SIGKILL)
    await pipe.until_exited()
    await session.take(sandbox, writing("two", client=6))
    assert sandbox._quick._pipe is not pipe


def worker_of(process):
    """The process that works: the only child of the one that was started."""
    pid = process._pipe._transport.get_pid()
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


def bytes_read(worker):
    counts = dict(line.split(": ") for line in Path(f"/proc/{worker}/io").read_text().splitlines())
    return int(counts["rchar"])


async def test_rows_that_cannot_be_folded_stay(sandbox):
    with pytest.raises(StorageError):
        await sandbox.fold([writing("KILL")])
    folded = await sandbox.fold([writing("fine")])
    assert not folded.waits


# -- in a session -------------------------------------------------------------------------------------------------


NEWCOMER = encode(SyncStep1(b"\x00"))
"""What a client says that has nothing yet, so that what it writes is taken."""


async def bring(channel, *updates):
    """Join as a client that has nothing yet, and write."""
    for message in (NEWCOMER, *(encode(Update(update)) for update in updates)):
        await channel.send(message)


async def hurt(registry, update, session=ROOM):
    channel, far = MemoryChannel.pair()
    serving = asyncio.create_task(registry.serve(session, far))
    await bring(channel, update)
    closing = await asyncio.wait_for(serving, PATIENCE)
    channel.close()
    return closing


async def test_a_hostile_peer_is_closed_and_the_others_stay(guarded):
    async with Peer(guarded) as ann, Peer(guarded) as bob:
        await ann.edit(lambda view: view.state.__setitem__("n", 1))
        await until(lambda: bob.replica.view.state.get("n") == 1)
        for _ in range(2):
            closing = await hurt(guarded, writing("KILL"))
            assert closing.code == 4400
        await ann.edit(lambda view: view.state.__setitem__("n", 2))
        await until(lambda: bob.replica.view.state.get("n") == 2)
        assert not ann.serving.done()
    assert guarded.sandbox.deaths == 2, "the second time it is known: quick and patient died once each"


async def test_a_hostile_body_is_refused_and_stored_nowhere(guarded, store):
    async with guarded.open(ROOM, create=True) as session:
        rows = len((await store.load(ROOM)).rows)
        with pytest.raises(MalformedUpdate):
            await session.apply(writing("KILL"))
        await session.apply(writing("fine"))
        assert len((await store.load(ROOM)).rows) == rows + 1
    with pytest.raises(PanickedUpdate):
        await guarded.create(session_id("other"), content=writing("KILL"))
    assert await store.get(session_id("other")) is None


async def test_what_the_service_writes_during_a_test_is_in_the_mirror_afterwards(guarded):
    """Claims, ticks and requests write while an update is being tried; what needs that is not taken for early."""
    async with guarded.open(ROOM, create=True) as session:
        for round in range(2):  # with the mirror to be made, and with one that is there
            trying = asyncio.create_task(session.apply(writing(f"v{round}", client=100 + round)))
            while session.engine.admission.trial is None:
                await asyncio.sleep(0)
            await session.edit(
                lambda view, round=round: view.document.roots.state.__setitem__(f"made{round}", Map({}))
            )
            await trying
            device = SessionDoc(200 + round)
            device.apply(session.engine.document.encode())
            _, needs_it = device.edit(
                lambda doc, round=round: doc.roots.state[f"made{round}"].__setitem__("by", "a device")
            )
            await session.apply(needs_it)
            assert session.view.document.roots.state[f"made{round}"]["by"] == "a device"


async def test_questions_and_typing_need_no_test_and_the_mirror_has_them_afterwards(guarded, monkeypatch):
    tried, try_update = [], Sandbox.try_update

    async def noted(self, session, update, **options):
        tried.append(update)
        return await try_update(self, session, update, **options)

    monkeypatch.setattr(Sandbox, "try_update", noted)
    head = MessageHead(id="m", role="user", author=Author(id="ann"), created_at=1)
    async with Peer(guarded) as ann:
        await ann.edit(lambda view: view.messages.add(head, [TextPart(type="text", text="hei")]))
        await ann.edit(lambda view: view.messages["m"].parts[0]["text"].__iadd__(" du"))
        await until(lambda: ann.replica.view.messages.value("m").seq == 1)
        assert tried == []
        await ann.edit(lambda view: view.set_title("a title"))
        await until(lambda: tried)
        async with guarded.open(ROOM) as session:
            await until(lambda: session.view.meta.title == "a title")
            assert session.view.messages.value("m").text == "hei du"


async def test_the_mirror_is_not_made_anew_while_all_goes_well(guarded, monkeypatch):
    """The library writes the keys of objects in any order; what the sandbox wrote is what counts, byte for byte."""
    opened = []
    monkeypatch.setattr(ShadowDocument, "spoil", lambda shadow: opened.append(shadow.key))
    async with guarded.open(ROOM, create=True) as session:
        for number in range(20):
            author = SessionDoc(300 + number)
            value = {f"key {n}": {"a": n, "b": [n], "c": "x"} for n in range(8)}
            _, delta = author.edit(lambda doc, n=number, value=value: doc.roots.state.__setitem__(f"k{n}", value))
            await session.apply(delta)
    assert opened == []


async def test_leaving_in_the_middle_of_a_test_harms_nobody(guarded):
    """The connection is gone before the answer comes: the process lives, and the mirror is not ahead."""
    channel, far = MemoryChannel.pair()
    serving = asyncio.create_task(guarded.serve(ROOM, far))
    await bring(channel, writing("gone"))
    channel.close()
    await serving
    async with Peer(guarded) as ann:
        await ann.edit(lambda view: view.state.__setitem__("n", 1))
        async with guarded.open(ROOM) as session:
            await until(lambda: session.view.state.get("n") == 1)
    assert guarded.sandbox.deaths == 0


def letters(text, client=5):
    """Updates of one client that each type a letter behind the last one."""
    author = SessionDoc(client)
    draft = author.doc.get("draft", type=Text)
    return [author.edit(lambda _, letter=letter: draft.__iadd__(letter))[1] for letter in text]


def draft_of(session):
    return str(session.engine.document.doc.get("draft", type=Text))


async def test_an_early_update_is_kept_back_unacknowledged_until_what_it_needs_is_there(guarded, store):
    """A client types on while it says what it has: the new letter comes before the old ones."""
    first, second, third = letters("abc")
    async with guarded.open(ROOM, create=True) as session:
        await session.apply(first)
        channel, far = MemoryChannel.pair()
        serving = asyncio.create_task(guarded.serve(ROOM, far))
        for frame in (SyncStep1(b"\x00"), Update(third), Ack(b"3")):
            await channel.send(encode(frame))
        heard = []
        while not any(isinstance(frame, SyncStep2) for frame in heard):
            heard += decode(await channel.recv())
        assert draft_of(session) == "a"
        assert len((await store.load(ROOM)).rows) == 2
        await channel.send(encode(SyncStep2(second)))
        while not any(isinstance(frame, Ack) for frame in heard):
            heard += decode(await channel.recv())
        assert draft_of(session) == "abc"
        assert not any(row.waits for row in (await store.load(ROOM)).rows)
        channel.close()
        await serving


async def test_what_is_left_out_is_no_part_of_what_the_answer_is_compared_with(guarded):
    """Both come in one message: the answer is tried as if the update before it had never come."""
    first, second = letters("ab", client=6)
    async with guarded.open(ROOM, create=True) as session:
        await session.apply(letters("0", client=4)[0])
        channel, far = MemoryChannel.pair()
        serving = asyncio.create_task(guarded.serve(ROOM, far))
        await channel.send(
            encode(Update(first)) + encode(SyncStep2(merge_updates(first, second))) + encode(Ack(b"x"))
        )
        async with asyncio.timeout(PATIENCE):
            while Ack(b"x") not in decode(await channel.recv()):
                pass
        assert sorted(draft_of(session)) == ["0", "a", "b"]
        assert len(session.engine.waiting) == 0
        channel.close()
        await serving


async def test_who_brings_what_needs_something_is_asked_for_it(guarded):
    """A tab that heard another one goes on writing; only its own updates are sent by itself."""
    first, second, _ = letters("abc")
    channel, far = MemoryChannel.pair()
    serving = asyncio.create_task(guarded.serve(ROOM, far))
    for frame in (SyncStep1(b"\x00"), SyncStep2(EMPTY_UPDATE), Update(second), Ack(b"x")):
        await channel.send(encode(frame))
    asked, heard = 0, []
    async with asyncio.timeout(20):
        while Ack(b"x") not in heard:
            heard = list(decode(await channel.recv()))
            if SyncStep1 in map(type, heard) and (asked := asked + 1) == 2:
                await channel.send(encode(SyncStep2(merge_updates(first, second))))
    assert asked == 2
    channel.close()
    await serving


def behind_a_gap(text):
    """A letter, and what the same client wrote after it, which is not plain."""
    author = SessionDoc(5)
    draft = author.doc.get("draft", type=Text)
    _, first = author.edit(lambda _: draft.__iadd__("a"))
    _, second = author.edit(lambda doc: doc.roots.state.__setitem__("behind", text))
    return first, second


class Channels:
    """Connections that send updates, and how they end."""

    def __init__(self, registry, *names):
        self.ends = {name: MemoryChannel.pair() for name in names}
        self.serving = {name: asyncio.create_task(registry.serve(ROOM, far)) for name, (_, far) in self.ends.items()}

    async def send(self, name, *frames):
        for message in (NEWCOMER, *map(encode, frames)):
            await self.ends[name][0].send(message)

    async def heard(self, name, wanted):
        async with asyncio.timeout(20):
            while wanted not in decode(await self.ends[name][0].recv()):
                pass

    async def close(self):
        for near, _ in self.ends.values():
            near.close()
        return {name: (await serving).code for name, serving in self.serving.items()}


@pytest.mark.parametrize("order", ["waits", "waits, and has left", "comes last"])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.sampled(3)
async def test_harm_is_its_authors_whoever_brings_what_it_waited_for(guarded, order, plain):
    first, harm = behind_a_gap("KILL")
    if not plain:
        first = merge_updates(first, writing("fine", client=9))
    peers = Channels(guarded, "guilty", "innocent", "third")
    sent = [("guilty", harm), ("innocent", first)]
    async with guarded.open(ROOM, create=True) as session:
        begin = letters("0", client=4)[0]
        await session.apply(begin)
        for name, update in sent if order != "comes last" else sent[::-1]:
            await peers.send(name, Update(update))
            if name == "guilty" and order != "comes last":
                await until(lambda: len(session.engine.waiting) == 1)
            if name == "guilty" and order == "waits, and has left":
                peers.ends["guilty"][0].close()
                await peers.serving["guilty"]
        await peers.send("innocent", Ack(b"x"))
        await peers.heard("innocent", Ack(b"x"))
        if order != "waits, and has left":
            await asyncio.wait_for(asyncio.shield(peers.serving["guilty"]), PATIENCE)
        await until(lambda: len(session.engine.waiting) == 0)
        assert "a" in draft_of(session)
        assert "behind" not in session.view.document.roots.state
        await peers.send("third", Update(letters("0", client=77)[0]), Ack(b"y"))
        await peers.heard("third", Ack(b"y"))
    guilty = 1000 if order == "waits, and has left" else 4400
    assert await peers.close() == {"guilty": guilty, "innocent": 1000, "third": 1000}


async def test_harm_that_waited_does_not_touch_who_brings_the_rest_over_http(guarded):
    first, harm = behind_a_gap("KILL")
    peers = Channels(guarded, "guilty")
    async with guarded.open(ROOM, create=True) as session:
        await peers.send("guilty", Update(harm))
        await until(lambda: len(session.engine.waiting) == 1)
        await session.apply(first)
        assert draft_of(session) == "a"
        assert (await asyncio.wait_for(peers.serving["guilty"], PATIENCE)).code == 4400
        with pytest.raises(MalformedUpdate):
            await session.apply(harm)
    await peers.close()


async def test_harm_in_rows_of_an_earlier_release_does_not_touch_who_brings_the_rest(store, clock, sandbox):
    first, harm = behind_a_gap("KILL")
    async with SessionRegistry(store, clock=clock) as registry, registry.open(ROOM, create=True):
        pass
    await store.append(ROOM, [Row(Seq(2), harm, waits=True)], now=clock.now())
    for _ in range(2):
        async with SessionRegistry(store, clock=clock, sandbox=sandbox) as registry:
            async with registry.open(ROOM) as session:
                await session.apply(first)
                await until(lambda session=session: len(session.engine.waiting) == 0)
                assert draft_of(session) == "a"


@pytest.mark.parametrize("clock_of_it", [2**32 - 1, 2**31, 2**31 - 4, 1_000_000, 7])
@pytest.mark.sampled(3)
async def test_a_struct_far_ahead_in_anothers_name_takes_nothing_from_them(guarded, clock_of_it):
    """What the library makes of it would be in the mirror, and the owner's next update judged with it."""
    made = letters("hello, this is the innocent peer's text", client=5787213827046445)
    client = varuint(5787213827046445)
    far = b"\x01\x01" + client + varuint(clock_of_it) + b"\x84" + client + varuint(2) + b"\x03abc\x00"
    peers = Channels(guarded, "guilty", "owner")
    async with guarded.open(ROOM, create=True) as session:
        await peers.send("guilty", Update(far), Ack(b"x"))
        if clock_of_it >= 2**31:
            assert (await asyncio.wait_for(asyncio.shield(peers.serving["guilty"]), PATIENCE)).code == 4400
        else:
            await until(lambda: len(session.engine.waiting) == 1)
        await peers.send("owner", SyncStep2(merge_updates(*made[:20])), Ack(b"y"))
        await peers.heard("owner", Ack(b"y"))
        assert draft_of(session) == "hello, this is the i"
        for update in made[20:]:
            await peers.send("owner", Update(update))
        await until(lambda: draft_of(session).endswith("text"))
    closed = await peers.close()
    assert closed["owner"] == 1000
    assert guarded.sandbox.deaths == guarded.sandbox.refused == 0


async def test_an_idle_session_stays_as_long_as_something_waits_in_it_unless_others_need_the_room(
    store, clock, sandbox
):
    limits, timing = Limits(max_sessions=1), Timing(idle_unload_s=10, waiting_s=300)
    async with SessionRegistry(store, clock=clock, sandbox=sandbox, limits=limits, timing=timing) as registry:
        await leave_waiting(registry, letters("ab")[1])
        await clock.advance(60)
        assert len(registry.live) == 1
        async with registry.open(session_id("other"), create=True):
            assert [session.id for session in registry.live] == ["other"]
        await leave_waiting(registry, letters("ab")[1])
        await clock.advance(330)
        await until(lambda: not registry.live)


async def leave_waiting(registry, update):
    """Leave what waits behind."""
    channel, far = MemoryChannel.pair()
    async with registry.open(ROOM, create=True) as session:
        serving = asyncio.create_task(registry.serve(ROOM, far))
        await bring(channel, update)
        await until(lambda: len(session.engine.waiting) == 1)
        channel.close()
        await serving


async def test_what_an_early_update_needs_may_come_from_somebody_else(guarded):
    """Two tabs sync with each other first: one has the other's letter before the service has."""
    first, second, third = letters("abc")
    async with guarded.open(ROOM, create=True) as session:
        await session.apply(first)
        tabs = [MemoryChannel.pair() for _ in range(2)]
        serving = [asyncio.create_task(guarded.serve(ROOM, far)) for _, far in tabs]
        await bring(tabs[0][0], third)
        await settle()
        await bring(tabs[1][0], second)
        await until(lambda: draft_of(session) == "abc")
        for near, _ in tabs:
            near.close()
        await asyncio.gather(*serving)


async def test_many_early_updates_are_told_to_sync_again(guarded):
    made = letters("x" * (guarded.limits.max_waiting // 2 + 2))
    channel, far = MemoryChannel.pair()
    serving = asyncio.create_task(guarded.serve(ROOM, far))
    await bring(channel, *made[1:])
    closing = await serving
    assert (closing.code, "need others first" in closing.reason) == (1013, True)
    channel.close()


async def test_over_http_an_early_update_is_refused(guarded):
    first, _, third = letters("abc")
    async with guarded.open(ROOM, create=True) as session:
        await session.apply(first)
        with pytest.raises(EarlyUpdate):
            await session.apply(third)
    with pytest.raises(EarlyUpdate):
        await guarded.create(session_id("other"), content=third)


async def test_what_was_stored_without_a_sandbox_and_waits_is_still_there_with_one(store, clock, sandbox):
    first, second, third = letters("abc")
    async with SessionRegistry(store, clock=clock) as registry, registry.open(ROOM, create=True) as session:
        await session.apply(first)
    await store.append(ROOM, [Row(Seq(3), third, waits=True)], now=clock.now())
    async with SessionRegistry(store, clock=clock, sandbox=sandbox) as registry, registry.open(ROOM) as session:
        assert draft_of(session) == "a"
        await session.apply(second)
        await until(lambda: draft_of(session) == "abc")


async def test_what_a_mirror_has_missed_is_bounded_and_it_is_made_anew(sandbox):
    session = Session()
    await session.take(sandbox, writing("first"))
    draft = session.document.doc.get("draft", type=Text)
    for size in (10, 2_000_000):
        for _ in range(3 if size > 10 else 1500):
            _, delta = session.document.edit(lambda _, size=size: draft.insert(0, "x" * size))
            session.shadow.took(delta)
            cost = sum(64 + len(update) for update in session.shadow.missed)
            assert cost <= max(64 * 1024, session.shadow.size), "what it costs, and not what is in it"
        assert session.shadow.stale
        await session.take(sandbox, writing(f"after {size}", client=size))
        assert not session.shadow.stale


async def test_two_that_write_as_one_client_are_judged_one_after_the_other(guarded, monkeypatch):
    """What was plain before somebody else's update under the same clock was taken is looked at again after it."""
    author = SessionDoc(5)
    draft = author.doc.get("draft", type=Text)
    _, begin = author.edit(lambda _: draft.insert(0, "a"))
    twin = SessionDoc(5)
    twin.apply(begin)
    twin.take_delta()
    _, plain = author.edit(lambda _: draft.__iadd__("b"))
    _, other = twin.edit(lambda doc: doc.roots.state.__setitem__("k", 1))  # client 5, the same clock
    async with Peer(guarded), guarded.open(ROOM, create=True) as session:
        await session.apply(begin)
        first, second = [MemoryChannel.pair() for _ in range(2)]
        serving = [asyncio.create_task(guarded.serve(ROOM, far)) for _, far in (first, second)]
        for near, _ in (first, second):
            await bring(near)
        await settle()
        go_on, try_update = asyncio.Event(), Sandbox.try_update

        async def slow(self, *arguments, **options):
            await go_on.wait()
            return await try_update(self, *arguments, **options)

        monkeypatch.setattr(Sandbox, "try_update", slow)
        _, somebodys = SessionDoc(9).edit(lambda doc: doc.roots.state.__setitem__("other", 1))
        others = asyncio.create_task(session.apply(somebodys))
        await settle()  # it is being tried
        await first[0].send(encode(Update(other)))
        await settle()
        await second[0].send(encode(Update(plain)))
        await settle()
        go_on.set()
        await others
        await until(lambda: session.view.state.get("k") == 1)
        for near, _ in (first, second):
            near.close()
        await asyncio.gather(*serving)
        assert str(session.engine.document.doc.get("draft", type=Text)) == "a"
    assert guarded.sandbox.deaths == 0


async def test_a_session_that_kills_again_and_again_is_not_looked_at_for_a_while(sandbox):
    session, other = Session("bad"), Session("other")
    for number in range(3):
        with pytest.raises(PanickedUpdate):
            await session.take(sandbox, writing(f"KILL {number}"))
    deaths = sandbox.deaths
    for number in range(200):
        with pytest.raises(Overloaded):  # it may be innocent: whoever sent it comes back
            await session.take(sandbox, writing(f"KILL again {number}"))
    assert sandbox.deaths == deaths
    await other.take(sandbox, writing("fine"))
    await session.take(sandbox, writing("fine, and looked at again"))
    with pytest.raises(PanickedUpdate):
        await session.take(sandbox, writing("KILL"))
    assert sandbox.deaths == deaths + 2, "the second time on a mirror that was made for it"


def test_a_process_that_waits_has_imported_hardly_anything():
    waiting, _ = _program(leisure_s=0).split("; import runpy")
    done = subprocess.run(
        [sys.executable, "-c", f"{waiting}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"asyncio", "crdt_sessions", "pycrdt", "pydantic", "typing", "importlib.metadata"} & set(
        done.stdout.split()
    )


async def test_a_process_that_is_asked_loads_what_it_needs():
    process = ChildProcess("asked", 2 * 1024**3, 5.0, _program(leisure_s=1e6))
    await process.start()
    answered, _ = await process.ask(lambda: [request(LOAD, "", [])])
    assert answered == FINE
    await process.stop()


async def test_a_process_that_is_not_asked_loads_at_leisure():
    process = ChildProcess("at leisure", 2 * 1024**3, 5.0, _program(leisure_s=0))
    await process.start()
    assert await process._pipe.until_loaded(PATIENCE), "it says that it is ready"
    await process.stop()


async def test_a_process_that_cannot_start_is_nobodys_harm():
    process = ChildProcess("broken", 2 * 1024**3, 5.0, "raise SystemExit(3)")
    for _ in range(2):
        with pytest.raises(StorageError, match="does not start"):
            await process.ask(lambda: [request(LOAD, "", [])])
    await process.stop()
