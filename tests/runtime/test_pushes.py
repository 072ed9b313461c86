"""Somebody for whom something happened, and none of whose devices is there, is woken up: once, and with no words."""

import json

import pytest

from crdt_sessions.model import (
    ApprovalRequest,
    Author,
    ClientCall,
    Decision,
    MessageHead,
    RunRequest,
    RunResult,
    TextPart,
)
from crdt_sessions.runtime import SessionRegistry, Webhook
from crdt_sessions.runtime.claimants import Claimant
from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import FakeClock, settle
from tests.runtime.conftest import ROOM

SECRET = "whsec_" + "c2VjcmV0" * 8


class Phone:
    """Where pushes arrive."""

    def __init__(self):
        self.got = []
        self.status = 200

    async def __call__(self, url, headers, body):
        if url == "http://x":
            self.got.append((headers["webhook-id"], json.loads(body)))
        return self.status

    @property
    def data(self):
        return [(each["data"]["principal"], each["data"]["reason"]) for _, each in self.got]


@pytest.fixture
def phone():
    return Phone()


@pytest.fixture
async def registry(phone):
    clock = FakeClock(1_700_000_010_000)  # ten seconds into a period
    hooks = [
        Webhook("push", "http://x", SECRET, ("person.away",)),
        Webhook("runs", "http://y", SECRET, ("run.queued",)),
    ]
    async with SessionRegistry(MemoryStore(), clock=clock, webhooks=hooks, send=phone) as registry:
        await registry.create(ROOM)
        yield registry


async def say(registry, id, who, *, kind="human", role="user", asks=None):
    def change(view):
        author = Author(id=who, name=who.title(), kind=kind)
        at = registry.clock.now()
        view.messages.add(
            MessageHead(id=id, role=role, author=author, created_at=at), [TextPart(type="text", text="a secret")]
        )
        if asks is not None:
            view.runs.request(f"run-{id}", RunRequest(message_id=id, agent=asks, by=who, created_at=at))

    async with registry.open(ROOM) as session:
        await session.edit(change, by=who)


async def passed(registry, seconds):
    await registry.clock.advance(seconds)
    await settle(50)


async def test_who_is_away_is_told_once_in_a_period_and_who_speaks_is_not(registry, phone):
    await say(registry, "m1", "ann")
    await say(registry, "m2", "bob")
    await say(registry, "m3", "bob")
    assert phone.data == [], "it waits for the end of the period"
    await passed(registry, 16)
    assert phone.data == [("ann", "message")]
    await passed(registry, 100)
    assert len(phone.got) == 1
    await say(registry, "m4", "bob")
    await passed(registry, 16)
    assert phone.data == [("ann", "message")] * 2
    ids = [id for id, _ in phone.got]
    assert ids[0] != ids[1]
    told = phone.got[0][1]
    assert (told["type"], told["data"]["session"], told["data"]["message"]) == ("person.away", ROOM, "m2")
    assert "secret" not in json.dumps(told)


async def test_who_is_there_or_was_lately_or_comes_meanwhile_is_not_told(registry, phone):
    await say(registry, "m1", "ann")
    with registry.capacity.admitted("", "ann"):
        await say(registry, "m2", "bob")
        await passed(registry, 16)
    await passed(registry, 30)
    await say(registry, "m3", "bob")
    await passed(registry, 16)
    assert phone.data == [], "she was there less than a minute before"
    await passed(registry, 60)
    await say(registry, "m4", "bob")
    with registry.capacity.admitted("", "ann"):
        pass  # as a sync request
    await passed(registry, 16)
    assert phone.data == []
    await passed(registry, 60)
    await say(registry, "m5", "bob")
    await passed(registry, 16)
    assert phone.data == [("ann", "message")]


class Elsewhere:
    """Other processes, where somebody has been at a time."""

    def __init__(self, principal, at):
        self.been = principal, at

    async def there_since(self, tenant, principal, since):
        return (tenant, principal) == ("", self.been[0]) and self.been[1] >= since


@pytest.mark.parametrize(("who", "before_s", "pushed"), [("ann", 50, False), ("ann", 70, True), ("carl", 0, True)])
async def test_who_is_at_another_process_is_not_told(registry, phone, who, before_s, pushed):
    """Whether they were lately is asked of it when the push is due, of the minute before what it tells of."""
    await say(registry, "m1", "ann")
    await passed(registry, 100)
    registry.pushes.elsewhere = Elsewhere(who, registry.clock.now() - before_s * 1000)
    await say(registry, "m2", "bob")
    await passed(registry, 16)
    assert phone.data == [("ann", "message")] * pushed


async def test_a_push_that_fails_comes_again_with_the_same_id(registry, phone):
    await say(registry, "m1", "ann")
    phone.status = 500
    await say(registry, "m2", "bob")
    await passed(registry, 16)
    phone.status = 200
    for _ in range(20):
        await passed(registry, 1)
    assert phone.data == [("ann", "message")] * 2
    assert len({id for id, _ in phone.got}) == 1


async def test_an_ask_is_told_to_who_may_decide_and_an_answer_to_who_asked(registry, phone):
    await say(registry, "m1", "bob")
    await say(registry, "q", "ann", asks="writer")
    await passed(registry, 100)
    phone.got.clear()
    async with registry.open(ROOM) as session:
        first = session.assign("run-q", WRITER)
        await session.edit(lambda view: ask(view, first.run.output, "carl"))
        await end(session, first, "suspended")
        await passed(registry, 16)
        assert phone.data == [("carl", "ask")]
        decided = Decision(approved=True, at=registry.clock.now())
        await session.edit(lambda view: view.messages[first.run.output].tool("c").decide("carl", decided))
        second = session.assign("run-q", WRITER)
        await end(session, second, "completed")
    await passed(registry, 16)
    assert phone.data == [("carl", "ask"), ("ann", "answer")]
    assert phone.got[-1][1]["data"]["run"] == "run-q"


@pytest.mark.parametrize(("takers", "told"), [(["carl"], ["carl"]), (None, ["ann", "bob"])])
async def test_a_call_that_no_device_takes_is_told_to_those_whose_devices_may(registry, phone, takers, told):
    await say(registry, "m1", "bob")
    await say(registry, "q", "ann", asks="writer")
    await passed(registry, 100)
    phone.got.clear()
    async with registry.open(ROOM) as session:
        first = session.assign("run-q", WRITER)

        def call(view):
            tool = written(view, first.run.output)
            tool.call_in_client(ClientCall(takers=takers, requested_at=registry.clock.now()))

        await session.edit(call)
        await end(session, first, "suspended")
        for _ in range(40):
            await passed(registry, 1)
    assert sorted(phone.data) == [(who, "call") for who in told]
    assert phone.got[0][1]["data"]["run"] == "run-q"


WRITER = Claimant(("writer",), "worker", 900.0, None, None)


def written(view, output):
    author = Author(id="writer", name="Writer", kind="agent")
    message = view.messages.add(MessageHead(id=output, role="assistant", author=author, created_at=1), [])
    message.run_id = "run-q"
    tool = message.open_tool("c", "pay")
    tool.close({})
    return tool


def ask(view, output, approver):
    written(view, output).ask(ApprovalRequest(approvers=[approver], requested_at=1))


async def end(session, assignment, status):
    result = RunResult(status=status, epoch=assignment.run.epoch, at=1)
    await session.edit(lambda view: view.runs.report(assignment.run.id, result))


async def test_words_are_only_for_those_who_asked_for_them(phone):
    clock = FakeClock()
    hook = Webhook("push", "http://x", SECRET, ("person.away",), content=True)
    async with SessionRegistry(MemoryStore(), clock=clock, webhooks=[hook], send=phone) as registry:
        await registry.create(ROOM, title="Trip")
        await say(registry, "m1", "ann")
        await say(registry, "m2", "bob")
        await passed(registry, 16)
    assert phone.got[0][1]["data"]["content"] == {"title": "Trip", "author": "Bob", "text": "a secret"}
