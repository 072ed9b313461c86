"""Dispatch over the asyncio shell: who waits is served, what is due is looked after, holders without a socket."""

import asyncio
import json
import logging

import pytest

from crdt_sessions.errors import LeaseLost, NotFound, ShuttingDown, StorageError, WrongOffset
from crdt_sessions.ids import session_id
from crdt_sessions.limits import RunRules, Timing
from crdt_sessions.model import ApprovalRequest, Decision, RunCancel, RunRequest, RunResult
from crdt_sessions.runtime import Access, Dispatcher, SessionRegistry, Webhook, leased, post
from crdt_sessions.runtime.assigning import Assigning
from crdt_sessions.sync import SessionEngine
from crdt_sessions.testing import settle
from tests.processes import PATIENCE

from .conftest import ROOM, Peer, until

RULES = RunRules(lease_s=10, gone_grace_s=3, cancel_grace_s=5, max_attempts=2)


@pytest.fixture
async def registry(store, clock):
    async with SessionRegistry(store, clock=clock, rules=RULES) as registry:
        yield registry


@pytest.fixture
def dispatcher(registry):
    return Dispatcher(registry)


async def ask(registry, run="r", session=ROOM, **request):
    async with registry.open(session, create=True) as room:
        value = RunRequest(message_id="q", created_at=registry.clock.now(), **request)
        await room.edit(lambda view: view.runs.request(run, value))


async def look(registry, run="r", session=ROOM):
    async with registry.open(session) as room:
        return room.view.runs.find(run)


def result(registry, claim, status, **more):
    return RunResult(status=status, epoch=claim.run.epoch, at=registry.clock.now(), **more)


async def pass_time(clock, seconds):
    for _ in range(int(seconds)):
        await clock.advance(1)


async def test_the_oldest_run_for_the_agent_is_given_out_across_sessions(registry, dispatcher, clock):
    other = session_id("other")
    await ask(registry, "second", agent="writer")
    await clock.advance(1)
    await ask(registry, "not-mine", other, agent="critic")
    assert (await dispatcher.claim(["writer"], owner="w")).run.id == "second"
    assert await dispatcher.claim(["writer"], owner="w") is None
    claim = await dispatcher.claim(["writer", "critic"], owner="w")
    assert (claim.session.id, claim.run.id, claim.run.lease.owner) == (other, "not-mine", "w")


async def test_a_new_run_is_given_to_one_waiting_claimant(registry, dispatcher):
    waiting = [asyncio.create_task(dispatcher.claim(["writer"], owner=f"w{n}", wait_s=60)) for n in range(5)]
    await settle()
    await ask(registry)
    done, rest = await asyncio.wait(waiting, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result().run.id for task in done] == ["r"]
    await ask(registry, "s", policy="parallel")
    done, rest = await asyncio.wait(rest, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result().run.id for task in done] == ["s"]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


@pytest.fixture
def held(store, monkeypatch):
    """Holds what is to be stored until it is set, and then fails if it has an error."""
    append, held = store.append, asyncio.Event()
    held.error = None

    async def appended(*args, **more):
        await held.wait()
        if held.error is not None:
            raise held.error
        await append(*args, **more)

    monkeypatch.setattr(store, "append", appended)
    return held


async def test_a_worker_hears_of_its_run_once_it_is_stored_and_before_whoever_asked(registry, dispatcher, held):
    """It has more to do than they, and a first token waits for it."""
    told = []
    waiting = asyncio.create_task(dispatcher.claim(["writer"], owner="w", wait_s=60))
    await settle()
    asking = asyncio.create_task(ask(registry))
    for task, who in ((waiting, "worker"), (asking, "asker")):
        task.add_done_callback(lambda _, who=who: told.append(who))
    await until(lambda: not registry.claimants.waits("", "writer"))
    await settle()
    assert told == [], "nobody hears of what is not stored"
    held.set()
    await asyncio.wait_for(asyncio.gather(waiting, asking), PATIENCE)
    assert told == ["worker", "asker"]


async def test_a_worker_whose_run_is_being_stored_is_not_sent_away_though_its_time_is_over(
    registry, dispatcher, held
):
    over, loop = [], asyncio.get_running_loop()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "call_at", lambda at, call, *args: over.append(call) or _Timer())
        waiting = asyncio.create_task(dispatcher.claim(["writer"], owner="w", wait_s=60))
        await settle()
    (expire,) = over
    asking = asyncio.create_task(ask(registry))
    await until(lambda: not registry.claimants.waits("", "writer"))
    expire()
    await settle()
    assert not waiting.done()
    held.set()
    assert (await asyncio.wait_for(waiting, PATIENCE)).run.id == "r"
    await asking


class _Timer:
    def cancel(self):
        pass


async def test_a_worker_whose_run_cannot_be_stored_waits_on(registry, dispatcher, held):
    waiting = asyncio.create_task(dispatcher.claim(["writer"], owner="w", wait_s=60))
    await settle()
    asking = asyncio.create_task(ask(registry))
    await until(lambda: not registry.claimants.waits("", "writer"))
    held.error = StorageError("the disk is full")
    held.set()
    with pytest.raises(StorageError):
        await asking
    held.error = None
    await until(lambda: registry.claimants.waits("", "writer"))
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_what_is_asked_and_who_answers_it_are_one_commit_and_the_others_are_not_woken(
    registry, dispatcher, store, monkeypatch
):
    seen = []
    append, ready_runs = store.append, store.ready_runs

    async def appended(session, rows, **more):
        await append(session, rows, **more)
        seen.append("stored")

    async def looked(*args, **more):
        seen.append("looked")
        return await ready_runs(*args, **more)

    await ask(registry, "other", agent="critic")
    monkeypatch.setattr(store, "ready_runs", looked)
    waiting = [asyncio.create_task(dispatcher.claim(["writer"], owner=f"w{n}", wait_s=60)) for n in range(3)]
    await settle()
    assert seen == ["looked"] * 3
    monkeypatch.setattr(store, "append", appended)
    await ask(registry, policy="parallel")
    claim = await asyncio.wait_for(waiting[0], PATIENCE)
    await settle()
    assert claim.run.id == "r"
    assert seen[3:] == ["stored"], "and nobody looked again"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_it_is_known_which_agents_have_asked_for_work(registry, dispatcher, monkeypatch):
    await dispatcher.claim(["writer", "*"], owner="w", tenant="acme")
    await dispatcher.claim(["critic"], owner="c", tenant="other")
    await dispatcher.claim(["anywhere"], owner="a")
    assert registry.claimants.agents("acme") == ["anywhere", "writer"]
    assert registry.claimants.agents("other") == ["anywhere", "critic"]
    monkeypatch.setattr("crdt_sessions.runtime.claimants._MOST_SEEN", 2)
    await dispatcher.claim(["late"], owner="l", tenant="acme")
    assert registry.claimants.agents("acme") == ["late"], "those of whom it was heard longest ago are forgotten"


async def test_a_claimant_that_went_away_is_given_nothing(registry, dispatcher):
    first, second = (asyncio.create_task(dispatcher.claim(["writer"], owner=n, wait_s=60)) for n in "ab")
    await settle()
    first.cancel()
    await ask(registry)
    assert (await asyncio.wait_for(second, PATIENCE)).run.lease.owner == "b"


async def test_runs_that_become_ready_together_go_to_different_claimants(registry, dispatcher):
    waiting = [asyncio.create_task(dispatcher.claim(["writer"], owner=n, wait_s=60)) for n in "ab"]
    await settle()
    value = RunRequest(message_id="q", created_at=registry.clock.now(), policy="parallel")
    async with registry.open(ROOM, create=True) as room:
        await room.edit(lambda view: [view.runs.request(run, value) for run in ("r", "s")])
    claims = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
    assert {claim.run.id for claim in claims} == {"r", "s"}


async def test_a_run_is_given_after_the_engine_returned_and_in_the_commit_that_stores_it(
    store, registry, dispatcher, monkeypatch
):
    """No write starts a decision that writes: the engine is never called while it, or the store, is at work."""
    depth, deepest, commits = 0, 0, []
    append = store.append

    def entering(call):
        def entered(*args, **named):
            nonlocal depth, deepest
            depth += 1
            deepest = max(deepest, depth)
            try:
                return call(*args, **named)
            finally:
                depth -= 1

        return entered

    for name in ("handle", "edit", "decide"):
        monkeypatch.setattr(SessionEngine, name, entering(getattr(SessionEngine, name)))

    async def appended(session, rows, *, entries, now):
        commits.append([(run.id, run.status) for run in entries.runs])
        await append(session, rows, entries=entries, now=now)

    monkeypatch.setattr(store, "append", entering(appended))
    waiting = asyncio.create_task(dispatcher.claim(["writer"], owner="w", wait_s=60))
    await settle()
    await ask(registry, agent="writer")
    assert (await asyncio.wait_for(waiting, PATIENCE)).run.id == "r"
    assert deepest == 1
    assert [commit for commit in commits if commit] == [[("r", "running")]], "never stored as queued"


async def test_a_claimant_that_may_not_take_a_run_is_passed_over(registry, dispatcher):
    asked = [
        dispatcher.claim(["critic"], owner="other agent", wait_s=60),
        dispatcher.claim(["writer"], owner="other tenant", wait_s=60, tenant="t"),
        dispatcher.claim(["writer"], owner="other sessions", wait_s=60, wants=lambda session: session != ROOM),
        dispatcher.claim(["writer"], owner="mine", wait_s=60),
    ]
    waiting = [asyncio.create_task(each) for each in asked]
    await settle()
    await ask(registry, agent="writer")
    assert (await asyncio.wait_for(waiting[3], PATIENCE)).run.lease.owner == "mine"
    await settle()
    assert not any(task.done() for task in waiting[:3])
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_claimant_whose_run_was_not_stored_waits_on(clock, store):
    async with SessionRegistry(store, clock=clock, rules=RULES) as registry:
        await ask(registry, "before", agent="critic")
        waiting = asyncio.create_task(Dispatcher(registry).claim(["writer"], owner="w", wait_s=60))
        await settle()
        append, failing = store.append, True

        async def appended(*args, **more):
            if failing:
                raise StorageError("the disk is full")
            await append(*args, **more)

        store.append = appended
        with pytest.raises(StorageError):
            await ask(registry, "lost", policy="parallel", agent="writer")
        await settle()
        assert not waiting.done()
        failing = False
        await pass_time(clock, 5)
        await ask(registry, "found", policy="parallel", agent="writer")
        assert (await asyncio.wait_for(waiting, PATIENCE)).run.id == "found"


async def test_a_waiting_claim_ends_when_the_process_stops(store, clock):
    async with SessionRegistry(store, clock=clock) as registry:
        waiting = asyncio.create_task(Dispatcher(registry).claim(["writer"], owner="w", wait_s=60))
        await settle()
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(waiting, PATIENCE)


async def test_a_claim_returns_nothing_when_its_wait_is_over(dispatcher):
    assert await dispatcher.claim(["writer"], owner="w", wait_s=0.05) is None


async def test_a_session_that_cannot_be_used_does_not_hold_up_the_others(registry, dispatcher, store, clock):
    broken = session_id("broken")
    await ask(registry, "lost", broken)
    await clock.advance(1)
    await ask(registry)
    await registry.shutdown()
    again = SessionRegistry(store, clock=clock, rules=RULES)
    store._sessions[broken].rows[-1] = (
        store._sessions[broken].rows[-1].__class__(store._sessions[broken].rows[-1].seq, b"\xff")
    )
    async with again:
        assert (await Dispatcher(again).claim(["writer"], owner="w")).run.id == "r"


async def test_a_lease_runs_out_though_nobody_is_in_the_session(store, clock):
    async with SessionRegistry(store, clock=clock, rules=RULES, timing=Timing(idle_unload_s=2)) as registry:
        await ask(registry)
        await Dispatcher(registry).claim(["writer"], owner="w")
        await pass_time(clock, 8)
        assert registry.live, "a session with a lease stays in memory"
        await pass_time(clock, 4)
        assert (await look(registry)).status == "queued"
        await pass_time(clock, 5)
        assert not registry.live


@pytest.mark.slow
async def test_after_a_restart_leases_and_questions_run_out_in_sessions_nobody_opens(store, clock):
    async with SessionRegistry(store, clock=clock, rules=RULES) as registry:
        await ask(registry)
        await ask(registry, "s", policy="parallel")
        dispatcher = Dispatcher(registry)
        await dispatcher.claim(["writer"], owner="w")
        claim = await dispatcher.claim(["writer"], owner="w")
        async with leased(registry, ROOM, claim.run.id, claim.token) as holding:
            deadline = registry.clock.now() + 3_600_000
            await holding.tool("c", "book", approval=ApprovalRequest(deadline=deadline, requested_at=1))
            await holding.report(result(registry, claim, "suspended"))
    async with SessionRegistry(store, clock=clock, rules=RULES, timing=Timing(idle_unload_s=2)) as registry:
        await pass_time(clock, 30)
        assert not registry.live, "nothing is due any more"
        stored = await store.load(ROOM)
        states = {run.id: json.loads(run.data)["status"] for run in stored.runs}
        assert states == {"r": "queued", "s": "suspended"}
        await pass_time(clock, 3600)
        stored = await store.load(ROOM)
        assert {run.id: json.loads(run.data)["status"] for run in stored.runs} == {"r": "queued", "s": "queued"}
        assert json.loads(stored.runs[-1].data)["approvals"]["c"]["approval"]["by"] == "deadline"


async def test_a_claim_is_durable_before_it_is_told(registry, dispatcher, store):
    await ask(registry)
    claim = await dispatcher.claim(["writer"], owner="w")
    stored = json.loads((await store.load(ROOM)).runs[0].data)
    assert (stored["status"], stored["epoch"]) == ("running", claim.run.epoch)
    assert claim.token not in json.dumps(stored), "only a digest is kept"


async def test_the_holders_connection_is_known_by_its_token(registry, dispatcher, clock):
    await ask(registry)
    claim = await dispatcher.claim(["writer"], owner="w")
    async with Peer(registry, lease=claim.token, access=Access("w")) as holder:
        for _ in range(6):
            await pass_time(clock, 5)
            await holder.edit(lambda view: view.state.update({"n": 1}))
        assert (await look(registry)).status == "running"
        await pass_time(clock, 12)
        assert (await look(registry)).status == "queued"
        assert (await holder.serving).code == 4403
    async with Peer(registry, lease=claim.token, access=Access("w")) as zombie:
        pass
    assert zombie.closing.code == 4403


async def test_a_holder_without_a_socket_writes_over_and_over_the_same(registry, dispatcher):
    await ask(registry)
    claim = await dispatcher.claim(["writer"], owner="w")
    async with leased(registry, ROOM, "r", claim.token) as holding:
        assert await holding.append(0, "Hei 😀") == 5
        assert await holding.append(0, "Hei 😀") == 5
        assert await holding.append(0, "Hei 😀 du") == 8
        assert await holding.append(8, "!") == 9
        assert await holding.append(0, "hm", "reasoning") == 2
        for offset, text in ((5, "other"), (10, "beyond")):
            with pytest.raises(WrongOffset):
                await holding.append(offset, text)
        await holding.tool("c", "book", input={"seat": 1})
        await holding.tool("c", "book", input={"seat": 1}, output={"ok": True})
        assert (await holding.report(result(registry, claim, "completed", reason="stop"))).status == "completed"
    async with registry.open(ROOM) as room:
        message = room.view.messages.value(claim.run.output)
    assert (message.text, message.text_of(0, "reasoning"), message.done) == ("Hei 😀 du!", "hm", True)
    assert [part.type for part in message.parts] == ["text", "reasoning", "tool"]
    with pytest.raises(LeaseLost):
        async with leased(registry, ROOM, "r", claim.token):
            pass


async def test_a_successor_without_a_socket_goes_on_in_the_same_part(registry, dispatcher, clock):
    await ask(registry)
    first = await dispatcher.claim(["writer"], owner="w")
    async with leased(registry, ROOM, "r", first.token) as holding:
        await holding.append(0, "half an ")
    await pass_time(clock, 11)
    second = await dispatcher.claim(["writer"], owner="w")
    async with leased(registry, ROOM, "r", second.token) as holding:
        assert await holding.append(8, "answer") == 14
        with pytest.raises(LeaseLost):
            async with leased(registry, ROOM, "r", first.token):
                pass
    async with registry.open(ROOM) as room:
        assert len(room.view.messages.value("r-out").parts) == 1


async def test_a_worker_that_went_silent_is_not_given_its_run_again_for_what_it_asked_before(
    registry, dispatcher, clock
):
    await ask(registry)
    await dispatcher.claim(["writer"], owner="w", worker="hung")
    waiting = asyncio.create_task(dispatcher.claim(["writer"], owner="w", worker="hung", wait_s=60))
    await pass_time(clock, 12)
    assert (await look(registry)).status == "queued"
    assert not waiting.done()
    other = await dispatcher.claim(["writer"], owner="w", worker="standby")
    assert other.run.epoch == 2
    await pass_time(clock, 12)
    assert (await waiting).run.epoch == 3, "it was the standby that was lost last"
    await pass_time(clock, 12)
    back = await dispatcher.claim(["writer"], owner="w", worker="hung")
    assert back.run.epoch == 4, "it asks anew, so it is there"


async def test_a_run_that_was_given_back_is_not_given_to_the_same_worker_for_what_it_asked_before(
    registry, dispatcher
):
    await ask(registry)
    claim = await dispatcher.claim(["writer"], owner="w", worker="leaving")
    waiting = asyncio.create_task(dispatcher.claim(["writer"], owner="w", worker="leaving", wait_s=60))
    await settle()
    async with leased(registry, ROOM, "r", claim.token) as holding:
        await holding.report(result(registry, claim, "released"))
    await settle()
    assert not waiting.done()
    assert (await dispatcher.claim(["writer"], owner="w", worker="other")).run.epoch == 2
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_step_is_done_once_for_all_attempts(registry, dispatcher, clock):
    await ask(registry)
    first = await dispatcher.claim(["writer"], owner="w")
    async with leased(registry, ROOM, "r", first.token) as holding:
        with pytest.raises(NotFound):
            await holding.step("pay")
        assert await holding.record_step("pay", {"receipt": 1}) == {"receipt": 1}
    await pass_time(clock, 11)
    second = await dispatcher.claim(["writer"], owner="w")
    async with leased(registry, ROOM, "r", second.token) as holding:
        assert await holding.step("pay") == {"receipt": 1}
        assert await holding.record_step("pay", {"receipt": 2}) == {"receipt": 1}


async def test_a_suspended_run_survives_restarts_and_is_finished_by_another_process(store, clock):
    """A run suspended for approval survives the restart of everything and is finished by another process."""
    async with SessionRegistry(store, clock=clock, rules=RULES) as registry:
        await ask(registry)
        claim = await Dispatcher(registry).claim(["writer"], owner="w")
        async with leased(registry, ROOM, "r", claim.token) as holding:
            await holding.append(0, "May I?")
            await holding.tool("c", "book", input={}, approval=ApprovalRequest(requested_at=1))
            await holding.report(result(registry, claim, "suspended"))
    await clock.advance(10 * 86400)
    async with SessionRegistry(store, clock=clock, rules=RULES) as registry:
        async with registry.open(ROOM) as room:
            await room.edit(
                lambda view: view.messages["r-out"].tool("c").decide("ann", Decision(approved=True, at=5))
            )
    async with SessionRegistry(store, clock=clock, rules=RULES) as registry:
        claim = await Dispatcher(registry).claim(["writer"], owner="another")
        async with leased(registry, ROOM, "r", claim.token) as holding:
            await holding.tool("c", "book", output="booked")
            await holding.append(6, " Done.")
            await holding.report(result(registry, claim, "completed"))
        async with registry.open(ROOM) as room:
            message = room.view.messages.value("r-out")
    assert [getattr(part, "output", None) or part.text for part in message.parts] == ["May I?", "booked", " Done."]


# -- the outbox -------------------------------------------------------------------------------------------------------

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Endpoint:
    def __init__(self, *answers):
        self.answers, self.received = list(answers), []

    async def __call__(self, url, headers, body):
        self.received.append((headers, body))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_webhooks_are_signed_retried_and_tell_who_was_absent(store, clock):
    from standardwebhooks.webhooks import Webhook as Verifier

    endpoint = Endpoint(500, OSError("refused"))
    hook = Webhook("all", "http://hook.example", SECRET)
    async with SessionRegistry(store, clock=clock, rules=RULES, webhooks=[hook], send=endpoint) as registry:
        async with registry.open(ROOM, create=True) as room:
            await room.edit(lambda view: (view.mark_read("ann", 1), view.mark_read("bob", 1)))
        async with Peer(registry, access=Access("bob")) as bob:
            bob.replica.set_presence({"user": {"id": "bob"}})
            await bob.pump()
            await ask(registry)
            await settle(50)
            assert len(endpoint.received) == 1
            (waiting,) = await registry.outbox.waiting(9)
            assert (waiting.attempts, waiting.error, waiting.kind) == (1, "HTTP 500", "run.queued")
            await clock.advance(4)
            assert len(endpoint.received) == 1
            await clock.advance(4)
            (waiting,) = await registry.outbox.waiting(9)
            assert (waiting.attempts, waiting.error) == (2, "OSError: refused")
            await clock.advance(15)
    assert len(endpoint.received) == 3
    assert await store.deliveries(limit=9) == []
    ids = {headers["webhook-id"] for headers, _ in endpoint.received}
    assert len(ids) == 1, "the same message each time"
    headers, body = endpoint.received[-1]
    stamp = dict(headers) | {"webhook-timestamp": headers["webhook-timestamp"]}
    verifier = Verifier(SECRET)
    verifier._Webhook__verify_timestamp = lambda value: _stamp(value)
    assert verifier.verify(body, stamp)["type"] == "run.queued"
    data = json.loads(body)["data"]
    assert (data["session"], data["run"], data["agent"], data["messageId"]) == ("room", "r", "*", "q")
    assert data["absent"] == ["ann"]


def _stamp(value):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(float(value), tz=UTC)


@pytest.mark.slow
async def test_what_cannot_be_delivered_ends_as_a_dead_letter_that_can_be_tried_again(store, clock):
    endpoint = Endpoint(*[503] * 12)
    hooks = [Webhook("w", "http://hook.example", SECRET, ("run.queued",))]
    options = {"webhooks": hooks, "send": endpoint, "timing": Timing(tick_s=3600)}
    async with SessionRegistry(store, clock=clock, rules=RULES, **options) as registry:
        await ask(registry)
        await settle(50)
        for attempt in range(11):
            await clock.advance(5 * 2**attempt * 1.2 + 2)
        (dead,) = await registry.outbox.dead(9)
        assert (dead.attempts, dead.error, len(endpoint.received)) == (12, "HTTP 503", 12)
        await registry.outbox.retry(dead.id)
        await settle(50)
        await clock.advance(2)
        assert (len(endpoint.received), await registry.outbox.dead(9)) == (13, [])
        with pytest.raises(NotFound):
            await registry.outbox.retry("unknown")


async def test_a_webhook_that_was_stored_is_sent_after_a_restart(store, clock):
    hooks = [Webhook("w", "http://hook.example", SECRET, ("run.cancelled",))]
    silent = Endpoint(OSError("down"))
    async with SessionRegistry(store, clock=clock, rules=RULES, webhooks=hooks, send=silent) as registry:
        await ask(registry)
        async with registry.open(ROOM) as room:
            await room.edit(lambda view: view.runs.cancel("r", RunCancel(by="ann", at=1)))
        await settle(50)
    endpoint = Endpoint()
    async with SessionRegistry(store, clock=clock, rules=RULES, webhooks=hooks, send=endpoint):
        await clock.advance(10)
        assert [json.loads(body)["type"] for _, body in endpoint.received] == ["run.cancelled"]


async def test_a_defect_in_one_delivery_fails_that_one_alone(store, clock, caplog):
    bad, good = Endpoint(UnicodeError("label empty or too long")), Endpoint()
    hooks = [Webhook(name, f"http://{name}.example", SECRET, ("run.queued",)) for name in ("bad", "good")]

    async def send(url, headers, body):
        return await (bad if "bad" in url else good)(url, headers, body)

    async with SessionRegistry(store, clock=clock, rules=RULES, webhooks=hooks, send=send) as registry:
        await ask(registry)
        await settle(50)
        (waiting,) = await registry.outbox.waiting(9)
        assert (waiting.endpoint, waiting.attempts, len(good.received)) == ("bad", 1, 1)
        (line,) = [line for line in caplog.records if line.name == "crdt_sessions.defects"]
        assert line.reference in waiting.error
        assert "label" not in waiting.error, "the log has it"
        await ask(registry, "another", session_id("other"))
        await clock.advance(8)
    assert (len(bad.received), len(good.received)) == (3, 2)
    assert await store.deliveries(limit=9) == []


async def test_a_receiver_that_never_ends_its_answer_holds_nobody_up_for_long(store, clock, monkeypatch):
    monkeypatch.setattr("crdt_sessions.runtime.webhooks.ATTEMPT_S", 0.01)
    hooks = [Webhook(name, f"http://{name}.example", SECRET, ("run.queued",)) for name in ("slow", "good")]
    good = Endpoint()

    async def send(url, headers, body):
        if "slow" in url:
            await asyncio.Event().wait()
        return await good(url, headers, body)

    async with SessionRegistry(store, clock=clock, rules=RULES, webhooks=hooks, send=send) as registry:
        await ask(registry)
        async with asyncio.timeout(PATIENCE):
            while not ((waiting := await registry.outbox.waiting(9)) and waiting[0].error):
                await asyncio.sleep(0)
        assert [(each.endpoint, each.error) for each in waiting] == [("slow", "TimeoutError: no answer in time")]
        await ask(registry, "another", session_id("other"))
        async with asyncio.timeout(PATIENCE):
            while len(good.received) < 2:
                await asyncio.sleep(0)


async def test_receivers_that_do_not_answer_hold_up_no_other_one(store, clock):
    """Taken together, their deliveries would fill each batch, and all others wait for their time to be over."""
    hooks = [Webhook(name, f"http://{name}.example", SECRET, ("run.queued",)) for name in ("dead", "mute", "good")]
    good, under_way = Endpoint(), {"dead": [], "mute": []}

    async def send(url, headers, body):
        if (receiver := url.removeprefix("http://").removesuffix(".example")) == "good":
            return await good(url, headers, body)
        under_way[receiver].append(json.loads(body)["data"]["session"])
        await asyncio.Event().wait()

    async with SessionRegistry(store, clock=clock, rules=RULES, webhooks=hooks, send=send) as registry:
        for number in range(30):
            await ask(registry, session=session_id(f"room{number:02}"))
            await clock.advance(0.001)
        async with asyncio.timeout(PATIENCE):
            while len(good.received) < 30:
                await asyncio.sleep(0)
        told = [json.loads(body)["data"]["session"] for _, body in good.received]
        assert told == sorted(told), "the oldest first"
        for sessions in under_way.values():
            assert len(sessions) <= 20, "nobody is told of everything at once"
            assert sessions == sorted(set(sessions)), "and of nothing twice"


async def test_what_cannot_be_noted_of_one_receiver_holds_up_no_other_one(store, clock, monkeypatch, caplog):
    hooks = [Webhook(name, f"http://{name}.example", SECRET, ("run.queued",)) for name in ("one", "other")]
    delivered, fails, told = store.delivered, [StorageError("disk full"), TypeError("a defect")], []

    async def note(id):
        if fails and (id, "http://one.example") in told:
            raise fails.pop()
        await delivered(id)

    async def send(url, headers, body):
        told.append((headers["webhook-id"], url))
        return 200

    monkeypatch.setattr(store, "delivered", note)
    async with SessionRegistry(store, clock=clock, rules=RULES, webhooks=hooks, send=send) as registry:
        await ask(registry)
        await settle(50)
        assert [each.endpoint for each in await store.deliveries(limit=9)] == ["one"]
        await pass_time(clock, 5)
        assert await store.deliveries(limit=9) == []
    urls = [url for _, url in told]
    assert (urls.count("http://one.example"), urls.count("http://other.example")) == (3, 1), "at least once"
    assert "disk full" in caplog.text


async def test_what_a_receiver_says_beside_its_status_is_not_waited_for():
    """Such as a stream of events that never ends."""
    gone = asyncio.Event()

    async def drip(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n:")
        await writer.drain()
        while await reader.read(1000):
            pass
        writer.close()
        gone.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server, asyncio.timeout(PATIENCE):
        port = server.sockets[0].getsockname()[1]
        assert await post(f"http://127.0.0.1:{port}/", {}, b"{}") == 200
        await gone.wait()


@pytest.mark.parametrize("host", ["", "hooks..example.com", f"{'a' * 64}.example.com", ".example.com", "[::1"])
def test_a_host_that_nobody_can_look_up_is_refused(host):
    with pytest.raises(ValueError, match="no host can be looked up"):
        Webhook("w", f"https://{host}/x", SECRET)


@pytest.mark.parametrize("host", ["hook.example.", "bücher.example", "[::1]:80", "127.0.0.1", f"{'a' * 63}.example"])
def test_a_host_that_can_be_looked_up_will_do(host):
    assert Webhook("w", f"https://{host}/x", SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_short", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%"])
def test_a_weak_or_wrong_secret_is_refused(secret):
    with pytest.raises(ValueError, match="base64"):
        Webhook("w", "http://x", secret)


def test_an_unknown_event_is_refused():
    with pytest.raises(ValueError, match=r"run\.exploded"):
        Webhook("w", "http://x", SECRET, ("run.exploded",))


async def test_one_line_tells_of_each_session_and_run_that_begins_or_ends(registry, dispatcher, caplog):
    """Enough for an operator to see what happens, and no more: tokens and frames have none."""
    caplog.set_level(logging.INFO, "crdt_sessions")

    def told():
        lines = [
            (line.message, getattr(line, "run", None), getattr(line, "status", None))
            for line in caplog.records
            if line.message.startswith(("session ", "run "))
        ]
        caplog.clear()
        return lines

    await ask(registry, agent="writer")
    assert told() == [("session begins", None, None)]
    claim = await dispatcher.claim(["writer"], owner="w")
    line = caplog.records[-1]
    assert (line.session, line.agent, line.principal, line.attempt) == (ROOM, "writer", "w", 1)
    assert told() == [("run begins", "r", None)]
    async with leased(registry, ROOM, "r", claim.token) as held:
        await held.append(0, "text")
        assert told() == []
        await held.report(result(registry, claim, "handoff", agent="critic"))
    assert told() == [], "it has not ended"
    claim = await dispatcher.claim(["critic"], owner="c")
    assert told() == [("run goes on", "r", None)]
    async with leased(registry, ROOM, "r", claim.token) as held:
        await held.report(result(registry, claim, "completed"))
    assert told() == [("run ends", "r", "completed")]
    async with registry.open(ROOM) as session:
        await session.set_status("closed")
        assert told() == [("session ends", None, "closed")]
        await session.set_status("active")
        assert told() == [("session goes on", None, "active")]
    await registry.delete(ROOM)
    assert told() == [("session ends", None, "deleted")]


async def test_who_is_about_to_be_given_work_when_all_stops_is_told_so_and_nothing_is_logged(
    registry, dispatcher, monkeypatch, caplog
):
    """The run is queued, and the next process gives it; nothing went wrong."""
    await ask(registry, agent="writer")

    async def stopped(self, given):
        raise ShuttingDown

    monkeypatch.setattr(Dispatcher, "_stored", stopped)
    with pytest.raises(ShuttingDown):
        await dispatcher.claim(["writer"], owner="w")
    await ask(registry, "later", agent="critic", policy="parallel")
    waiting = asyncio.create_task(dispatcher.claim(["painter"], owner="p", wait_s=60))
    await settle()
    monkeypatch.setattr(Assigning, "stored", lambda self, records: None)  # the end comes first
    await ask(registry, "now", agent="painter", policy="parallel")
    await registry.shutdown()
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(waiting, PATIENCE)
    assert [line for line in caplog.records if line.levelno >= logging.ERROR] == []
