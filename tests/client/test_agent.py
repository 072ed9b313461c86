"""Agents against the real service: they claim, write, stop, wait for people, hand over, and go in good order."""

import asyncio
import random
import re
import signal
import sys
import time

import httpx
import pytest
from websockets.asyncio.client import ClientConnection

from crdt_sessions import Agent, RunCancelled, RunFailed, SessionPeer, connect
from crdt_sessions.bridges import deltas
from crdt_sessions.client import connection
from crdt_sessions.client.parking import WarmSessions
from crdt_sessions.client.service import ServiceClient
from crdt_sessions.errors import (
    AlreadyDecided,
    BadValue,
    ConnectionClosed,
    NotAnAnswer,
    NotAnApprover,
    NotAnswered,
    NotFound,
    NoToken,
    RequestRefused,
)
from crdt_sessions.model import SessionDoc, ToolPart
from tests.agents import working
from tests.processes import PATIENCE, Process, Server

FLAGS = ("--gone-grace-s", "0.5", "--cancel-grace-s", "3", "--default-agent", "")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service whose leases a slow machine does not lose."""
    process = Server(tmp_path_factory.mktemp("agents") / "s.db", "--lease-s", "10", *FLAGS)
    yield process
    process.close()


@pytest.fixture
def room(request):
    return request.node.name.split("[")[0]


def run_of(peer, message):
    return peer.view.runs.value(f"run-{message.id}")


async def status(peer, message, *wanted, timeout=PATIENCE):
    def reached():
        run = run_of(peer, message)
        return run is not None and run.status in wanted

    await asyncio.wait_for(peer.until(reached), timeout)
    return run_of(peer, message)


async def begun(peer, message):
    def reached():
        answer = peer.view.messages.value(f"run-{message.id}-out")
        return answer is not None and answer.text != ""

    await asyncio.wait_for(peer.until(reached), PATIENCE)


async def answered(peer, message):
    run = await status(peer, message, "completed", "failed", "cancelled", "interrupted")
    return run, peer.view.messages.value(run.output)


async def test_an_agent_writes_text_thoughts_and_tools(service, room):
    async def answer(run):
        async with run.reasoning() as thoughts:
            await thoughts.write("Let me see.")
        call = run.tool("weather", {"city": "Oslo"})
        call.output({"t": -3})
        async with run.text() as out:
            for word in ("It ", "is ", "cold."):
                await out.write(word)
        run.out.finish("stop")

    async with connect(service.url, room, name="Ann", id="ann") as ann:
        question = await ann.post("Weather?", agent="writer")
        async with working(service.url, answer):
            run, message = await answered(ann, question)
    assert (run.status, run.outcome.reason, run.lease) == ("completed", "stop", None)
    assert [part.type for part in message.parts] == ["reasoning", "tool", "text"]
    assert (message.text, message.parent, message.author.name) == ("It is cold.", question.id, "writer")
    assert message.parts[1].output == {"t": -3}


async def test_an_agent_says_what_its_calls_of_models_have_cost(service, room):
    async def answer(run):
        run.usage(input_tokens=10, cached_tokens=4, output_tokens=2, model="small")
        async with run.text() as out:
            await out.write("words")
        run.usage(input_tokens=5, output_tokens=1, reasoning_tokens=1, model="large", cost=90, currency="USD")
        with pytest.raises(BadValue, match="currency"):
            run.usage(cost=1)

    async with working(service.url, answer, name=room), connect(service.url, room) as ann:
        run, _ = await answered(ann, await ann.post("?", agent=room))
    usage = run.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.reasoning_tokens) == (15, 4, 3, 1)
    assert (usage.calls, usage.model, usage.cost, usage.currency) == (2, "large", 90, "USD")
    assert usage.duration_ms >= 0


async def test_a_question_asked_while_no_agent_was_up_is_answered(service, room):
    async with connect(service.url, room) as ann:
        question = await ann.post("Anybody?", agent="*")
        assert run_of(ann, question).status in (None, "queued")
    await asyncio.sleep(0.2)
    async with connect(service.url, room) as ann, working(service.url, lambda run: run.out.write("Here.")):
        _, message = await answered(ann, question)
        assert message.text == "Here."


async def test_who_asks_awaits_the_answer_to_this_question_and_no_older_one(service, room):
    async def answer(run):
        await run.out.write(f"{run.message.text} {run.attempt}")

    async with connect(service.url, room) as ann:
        async with working(service.url, answer):
            first = await ann.post("One?", agent="writer")
            assert (await ann.messages.answer_to(first)).text == "One? 1"
        second = await ann.post("Two?", agent="writer")
        with pytest.raises(TimeoutError):  # no agent is there
            await asyncio.wait_for(ann.messages.answer_to(second), 0.2)
        async with working(service.url, answer):
            told = await ann.messages.answer_to(second)
            assert (told.text, told.parent) == ("Two? 1", second.id)
            ann.edit(lambda view: view.document.roots.meta.update({"agent": "writer"}))
            unaddressed = await ann.post("Three?", wait=False)  # nothing is known of a run yet
            assert (await ann.messages.answer_to(unaddressed)).text == "Three? 1"
            again = ann.regenerate(first.id, "writer")
            assert (await ann.messages.answer_to(again)).run_id == again


async def test_who_asks_is_told_why_there_is_no_answer(service, room):
    async def answer(run):
        if run.message.text == "Fail":
            raise RunFailed("the model is over its quota", code="quota")
        await asyncio.sleep(PATIENCE)

    async with connect(service.url, room) as ann, working(service.url, answer):
        failing = await ann.post("Fail", agent="writer")
        with pytest.raises(NotAnswered, match="failed: the model is over its quota") as caught:
            await ann.messages.answer_to(failing)
        assert (caught.value.run, caught.value.status, caught.value.code) == (f"run-{failing.id}", "failed", "quota")
        stopped = await ann.post("Stop", agent="writer")
        ann.cancel(f"run-{stopped.id}")
        with pytest.raises(NotAnswered, match="cancelled"):
            await ann.messages.answer_to(stopped)
        nobody = await ann.post("Hm", wait=False)
        with pytest.raises(NotAnswered, match="nobody was asked to answer: name an agent") as caught:
            await ann.messages.answer_to(nobody)
        assert caught.value.status is None


async def test_what_steers_a_run_is_answered_by_it_or_by_one_of_its_own(service, room):
    async def answer(run):
        await run.out.write("begun ")
        if run.message.text == "Start":
            await run.session.until(lambda: run.session.view.steering(run.id))
            await run.out.write(" ".join(each.text for each in run.take_steering()))

    async with connect(service.url, room) as ann, working(service.url, answer):
        question = await ann.post("Start", agent="writer")
        await begun(ann, question)
        steering = await ann.steer(f"run-{question.id}", "and mind the rain")
        waiting = asyncio.create_task(ann.messages.answer_to(steering))
        answer_to_question = await ann.messages.answer_to(question)
        assert (await waiting).id == answer_to_question.id
        assert answer_to_question.text == "begun and mind the rain"
        late = await ann.steer(f"run-{question.id}", "too late")
        assert (await ann.messages.answer_to(late)).id == f"run-{late.id}-out"


async def test_an_agent_that_stayed_in_a_session_waits_there_for_the_question_it_was_given(
    service, room, monkeypatch
):
    claim, receive, dial, holding = ServiceClient.claim, ClientConnection.recv, connection.open_websocket, []
    arrives, dialled = asyncio.Event(), []
    arrives.set()

    async def early_claim(self, agents, *, wait_s):
        grant = await claim(self, agents, wait_s=wait_s)
        asyncio.get_running_loop().call_later(0.3, arrives.set)
        return grant

    async def late(self, *args, **options):
        data = await receive(self, *args, **options)
        if "lease=" in self.request.path and not arrives.is_set():
            holding.append(len(data))
            await arrives.wait()
        return data

    def dials(address, **options):
        dialled.append(address)
        return dial(address, **options)

    monkeypatch.setattr(ServiceClient, "claim", early_claim)
    monkeypatch.setattr(ClientConnection, "recv", late)
    monkeypatch.setattr(connection, "open_websocket", dials)

    async def answer(run):
        await run.out.write(f"{run.message.text} {len(run.messages())}")

    async def asked(question):
        _, message = await answered(ann, await ann.post(question, agent="*"))
        await asyncio.sleep(0.5)  # the agent has said good-bye
        return message.text

    async with working(service.url, answer), connect(service.url, room) as ann:
        assert await asked("One?") == "One? 1"
        arrives.clear()
        assert await asked("Two?") == "Two? 3"
    assert holding, "what the claim's answer was about came behind it"
    assert sum("lease=" in address for address in dialled) == 1, "it dialled again"


@pytest.mark.parametrize("linger_s", [60, 0])
async def test_an_agent_begins_where_it_left_and_not_in_another_session_of_the_same_name(
    service, room, monkeypatch, linger_s
):
    room, known = f"{room}-{linger_s}", []
    pick_up = WarmSessions.pick_up

    def noted(self, *args):
        kept = pick_up(self, *args)
        known.append(kept and (isinstance(kept, SessionPeer), len(kept.view.messages)))
        return kept

    monkeypatch.setattr(WarmSessions, "pick_up", noted)

    async def answer(run):
        async with run.text() as out:
            await out.write(f"{len(run.messages())} before")

    async def asked(question):
        async with connect(service.url, room) as ann:
            _, message = await answered(ann, await ann.post(question, agent="*"))
            return message.text

    async with working(service.url, answer, linger_s=linger_s):
        assert await asked("One?") == "1 before"
        await asyncio.sleep(0.3)
        assert await asked("Two?") == "3 before"
        await asyncio.sleep(0.3)
        async with httpx.AsyncClient() as http:
            (await http.delete(f"{service.url}/v1/sessions/{room}")).raise_for_status()
            (await http.post(f"{service.url}/v1/sessions", json={"id": room})).raise_for_status()
        assert await asked("Three?") == "1 before"
    assert known[1] in (
        [(True, 2), (True, 3)] if linger_s else [(False, 2)]
    )  # who stays has heard the second question
    assert known[::2] == [None, None]


async def peers_in(service, room):
    async with httpx.AsyncClient() as http:
        return (await http.get(f"{service.url}/v1/sessions/{room}")).json()["peers"]


async def test_an_agent_stays_for_a_while_unseen_and_then_leaves(service, room):
    async with connect(service.url, room) as ann, working(service.url, says, linger_s=0.6):
        for count in (1, 2):
            await answered(ann, await ann.post(str(count), agent="*"))
            await ann.until(lambda: not ann.present())
            assert await peers_in(service, room) == 2
        async with asyncio.timeout(PATIENCE):
            while await peers_in(service, room) > 1:
                await asyncio.sleep(0.05)
        _, message = await answered(ann, await ann.post("3", agent="*"))
        assert message.text == "Yes."


async def test_an_agent_stays_in_so_many_sessions_and_leaves_all_when_it_stops(service, room, monkeypatch):
    monkeypatch.setattr("crdt_sessions.client.parking._MOST_PARKED", 2)
    rooms = [f"{room}-{number}" for number in range(3)]
    async with working(service.url, says):
        for each in rooms:
            async with connect(service.url, each) as ann:
                await answered(ann, await ann.post("?", agent="*"))
        async with asyncio.timeout(PATIENCE):
            while [await peers_in(service, each) for each in rooms] != [0, 1, 1]:
                await asyncio.sleep(0.05)
    assert [await peers_in(service, each) for each in rooms] == [0, 0, 0]


async def test_an_agent_that_stayed_survives_a_restart_of_the_service(tmp_path, room):
    server = Server(tmp_path / "s.db", "--default-agent", "", "--lease-s", "60")  # however slow the machine is
    try:
        async with working(server.url, says):
            for number in range(3):
                async with connect(server.url, room) as ann:
                    _, message = await answered(ann, await ann.post(str(number), agent="*"))
                    assert message.text == "Yes."
                server.kill()
                server = server.again()
    finally:
        server.close()


async def test_two_runs_of_a_session_at_once_and_then_one(service, room):
    async with connect(service.url, room) as ann, working(service.url, says):
        both = [await ann.post(text, agent="*", policy="parallel") for text in "ab"]
        for question in [*both, await ann.post("c", agent="*")]:
            _, message = await answered(ann, question)
            assert message.text == "Yes."


async def says(run):
    await run.out.write("Yes.")


class Stayer:
    """What WarmSessions needs of a peer."""

    def __init__(self):
        self.parked, self.left, self.unacknowledged = True, False, 0

    async def park(self):
        await asyncio.sleep(0)
        return True

    async def until(self, condition):
        await asyncio.Event().wait()

    def encode(self):
        return b"\0\0"

    async def leave(self):
        self.left = True


async def test_of_two_that_have_done_their_work_in_a_session_one_stays():
    warm, both = WarmSessions(250, 60, random.Random(1)), [Stayer(), Stayer()]
    await asyncio.gather(*(warm.park("a", (1, 1), each) for each in both))
    assert [each.left for each in both] == [False, True]
    assert warm.pick_up("a", (1, 1)) is both[0]


async def test_who_cannot_stay_leaves_and_the_run_is_not_taken_for_lost():
    class Refused(Stayer):
        async def park(self):
            raise ConnectionClosed(code=4403, reason="no such lease")

    warm, peer = WarmSessions(250, 60, random.Random(1)), Refused()
    await warm.park("a", (1, 1), peer)
    assert peer.left
    assert warm.pick_up("a", (1, 1)) is None


async def test_who_is_cancelled_while_it_says_good_bye_to_its_run_leaves():
    class Slow(Stayer):
        async def park(self):
            await asyncio.Event().wait()

    warm, peer = WarmSessions(250, 60, random.Random(1)), Slow()
    parking = asyncio.ensure_future(warm.park("a", (1, 1), peer))
    await asyncio.sleep(0)
    parking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await parking
    assert peer.left


async def test_who_has_lost_its_connection_while_it_waited_is_not_used():
    warm, peer = WarmSessions(250, 60, random.Random(1)), Stayer()
    await warm.park("a", (1, 1), peer)
    peer.parked = False
    assert warm.pick_up("a", (1, 1)) is None
    await warm.close()
    assert peer.left


def test_what_an_agent_remembers_is_bounded():
    warm = WarmSessions(250, 0, random.Random(1))
    documents = {name: SessionDoc(1) for name in "abc"}
    for name, document in documents.items():
        document.edit(lambda doc, name=name: doc.roots.state.__setitem__("k", name * 90))
        warm.remember(name, (1, 1), document.encode())
    assert warm.pick_up("a", (1, 1)) is None, "the one that was left first made room"
    assert warm.pick_up("b", (1, 2)) is None, "it is of another session"
    assert warm.pick_up("b", (1, 1)) is None, "which was forgotten"
    replica = warm.pick_up("c", (1, 1))
    assert replica.document.roots.state["k"] == "c" * 90
    assert warm.pick_up("c", (1, 1)) is None, "it is used once: its client ID belongs to one run"
    documents["a"].edit(lambda doc: doc.roots.state.__setitem__("long", "x" * 300))
    warm.remember("a", (1, 1), documents["a"].encode())
    assert warm.pick_up("a", (1, 1)) is None, "one that is larger than all may be together"


async def test_history_is_the_thread_in_the_shape_of_the_provider(service, room):
    seen = []

    async def answer(run):
        seen.append((run.history(), run.history("anthropic"), run.history("ai-sdk")))
        await run.out.write(f"answer {len(seen)}")

    async with connect(service.url, room, id="ann") as ann, working(service.url, answer):
        await ann.post("Be brief.", role="system")
        first = await ann.post("one", agent="writer")
        await answered(ann, first)
        second = await ann.post("two", agent="writer")
        await answered(ann, second)
        edited = await ann.resubmit(second.id, "zwei", agent="writer")
        await answered(ann, edited)
    assert seen[1][0] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "answer 1"},
        {"role": "user", "content": "two"},
    ]
    assert [message["content"] for message in seen[2][0]] == ["Be brief.", "one", "answer 1", "zwei"]
    assert seen[1][1][-1] == {"role": "user", "content": [{"type": "text", "text": "two"}]}
    assert seen[1][2][-1]["parts"] == [{"type": "text", "text": "two", "state": "done"}]


async def test_regenerating_makes_an_alternative_and_retrying_continues(service, room):
    asked = []

    async def answer(run):
        asked.append(run.message.text)
        if run.message.text == "fail" and not run.resumed:
            await run.out.write("half ")
            raise RunFailed("no more")
        await run.out.write("other half" if run.resumed else f"take {len(run.session.messages.all())}")

    async with connect(service.url, room) as ann, working(service.url, answer):
        question = await ann.post("again", agent="writer")
        _, first = await answered(ann, question)
        wanted = ann.regenerate(first.id, "writer")
        await asyncio.wait_for(ann.until(lambda: ann.view.runs.find(wanted).over), PATIENCE)
        takes = [m for m in ann.messages.all() if m.parent == question.id]
        assert len({m.id for m in takes}) == len({m.text for m in takes}) == 2
        bad = await ann.post("fail", agent="writer")
        failed, message = await answered(ann, bad)
        assert (failed.status, failed.outcome.error.message, message.text) == ("failed", "no more", "half ")
        assert message.parts[-1].state == "interrupted"

        again = ann.retry(failed.id)
        await asyncio.wait_for(ann.until(lambda: ann.view.runs.find(again).over), PATIENCE)
        assert ann.view.messages.value(message.id).text == "half other half"
        assert asked == ["again", "again", "fail", "fail"], "what goes on is still about the question"


SECRET = "password=hunter2"


async def raises(run):
    raise ValueError(SECRET)


async def raises_from_within(run):
    async with run.text() as out:
        await out.write("so far ")
        raise OSError(SECRET) from KeyError(SECRET)


async def hears_of_its_provider(run):
    async def stream():
        yield deltas.Delta("text", "so far ")
        raise deltas.ModelError("quota", SECRET)

    await deltas.write(run.out, stream())


@pytest.mark.parametrize("answer", [raises, raises_from_within, hears_of_its_provider])
async def test_the_text_of_an_exception_is_for_the_agents_log_and_people_get_a_reference(
    service, room, answer, caplog
):
    async with connect(service.url, room) as ann, working(service.url, answer):
        run, _ = await answered(ann, await ann.post("?", agent="writer"))
        assert run.status == "failed"
        shown = [str(ann.view.export())]
        async with httpx.AsyncClient(base_url=f"{service.url}/v1/sessions/{room}") as http:
            paths = ("", "/messages", "/runs", "/events?waitS=0", "/export?format=json")
            shown += [(await http.get(path)).text for path in paths]
        assert not [text for text in shown if SECRET in text]
    reference = re.search(r"reference (\w+)", run.outcome.error.message)[1]
    (record,) = [each for each in caplog.records if getattr(each, "reference", None) == reference]
    assert SECRET in record.getMessage()


async def test_an_answer_that_awaits_what_was_cancelled_fails_and_is_not_tried_again(service, room, caplog):
    tried = []

    async def answer(run):
        tried.append(run.id)
        if len(tried) > 2:
            return  # so that the test ends where it is tried for ever
        helper = asyncio.ensure_future(asyncio.Event().wait())
        helper.cancel()
        await helper

    async with connect(service.url, room) as ann, working(service.url, answer):
        run, _ = await answered(ann, await ann.post("?", agent="writer"))
    assert (run.status, len(tried)) == ("failed", 1)
    reference = re.search(r"reference (\w+)", run.outcome.error.message)[1]
    assert [each for each in caplog.records if getattr(each, "reference", None) == reference]


async def test_a_failure_meant_for_people_is_shown_to_them(service, room):
    async def answer(run):
        raise RunFailed("Out of paper; come back tomorrow.", code="paper")

    async with connect(service.url, room) as ann, working(service.url, answer):
        run, _ = await answered(ann, await ann.post("?", agent="writer"))
        error = run.outcome.error
        assert (run.status, error.code, error.message) == ("failed", "paper", "Out of paper; come back tomorrow.")


async def test_pressing_stop_reaches_an_agent_that_writes_and_one_that_is_silent(service, room):
    caught = []

    async def answer(run):
        try:
            if run.message.text == "silent":
                await run.out.write("thinking")
                await asyncio.sleep(60)
            while True:
                await run.out.write("la ")
                await asyncio.sleep(0.02)
        except (RunCancelled, asyncio.CancelledError) as error:
            caught.append(type(error))
            raise

    async with connect(service.url, room, id="ann") as ann, working(service.url, answer):
        for text, kind in (("sing", RunCancelled), ("silent", asyncio.CancelledError)):
            question = await ann.post(text, agent="writer")
            await begun(ann, question)
            ann.cancel(f"run-{question.id}", "enough")
            run, message = await answered(ann, question)
            assert (run.status, run.outcome.reason, run.cancel.by) == ("cancelled", "enough", "ann")
            assert message.text
            assert caught[-1] is kind


async def test_an_agent_that_does_not_obey_is_fenced_and_goes_on_with_others(service, room):
    async def answer(run):
        if run.message.text == "deaf":
            await run.out.write("la la la")
            time.sleep(6)  # the event loop is blocked: neither stop nor the lease reach it
        await run.out.write(" fine")

    async with connect(service.url, room, id="ann") as ann:
        question = await ann.post("deaf", agent="writer")
        hearing = asyncio.create_task(answered(ann, question))
        agent = Agent(service.url, name="writer")
        agent.on_run(answer)
        deaf = asyncio.to_thread(lambda: asyncio.run(agent.work()))
        task = asyncio.ensure_future(deaf)
        await begun(ann, question)
        ann.cancel(f"run-{question.id}")
        run, message = await hearing
        assert (run.status, message.text) == ("cancelled", "la la la")
        other = await ann.post("well?", agent="writer")
        _, message = await answered(ann, other)
        assert message.text == " fine"
        assert ann.view.messages.value(f"run-{question.id}-out").text == "la la la"
        agent._stopping._loop.call_soon_threadsafe(agent.stop)
        await asyncio.wait_for(task, PATIENCE)


async def test_steering_is_taken_up_once_and_is_in_the_history(service, room):
    heard = []

    async def answer(run):
        if run.message.text == "go":
            while not heard:
                heard.extend(message.text for message in run.take_steering())
                await run.out.write(".")
                await asyncio.sleep(0.02)
            assert run.take_steering() == []
            assert run.history()[-1] == {"role": "user", "content": "faster"}
        await run.out.write("!")

    async with connect(service.url, room) as ann, working(service.url, answer):
        question = await ann.post("go", agent="writer")
        await status(ann, question, "running")
        steering = await ann.steer(f"run-{question.id}", "faster")
        run, _ = await answered(ann, question)
        assert (heard, run.steers) == (["faster"], {steering.id: True})
        assert run_of(ann, steering) is None


async def test_people_choose_fill_in_a_form_and_edit_what_a_tool_is_called_with(service, room):
    rooms = {"oneOf": [{"const": "single", "title": "Single"}, {"const": "double", "title": "Double"}]}
    trip = {"type": "object", "properties": {"nights": {"type": "integer"}, "name": {"type": "string"}}}

    async def answer(run):
        chosen = await run.ask("Which room?", rooms)
        filled = await run.ask("How long, and who?", trip, default={"nights": 1})
        call = run.tool("book", {"room": chosen.value, "price": 10})
        edited = await run.suspend_for_approval(call, edit=True)
        call.output({"booked": call.arguments})
        await run.out.write(f"{chosen.value} for {filled.value['name']}, {edited.by} pays {call.arguments['price']}")

    async with connect(service.url, room, id="bob") as bob, working(service.url, answer):
        question = await bob.post("Book it", agent="writer")
        run_id = f"run-{question.id}"

        async def waiting(number):
            call = f"{run_id}-{number}"
            await bob.until(lambda: [each.tool_call_id for each in run_of(bob, question).pending or ()] == [call])
            return call

        call = await waiting(1)
        (pending,) = run_of(bob, question).pending
        assert (pending.kind, pending.message) == ("choose", "Which room?")
        with pytest.raises(NotAnAnswer, match="'suite' is not valid"):
            bob.decide(run_id, call, True, value="suite")
        bob.decide(run_id, call, True, value="double")
        call = await waiting(2)
        assert bob.draft(run_id, call, nights=3) == {"nights": 3}
        bob.draft(run_id, call, name="Bo")
        bob.decide(run_id, call, True, value=bob.draft(run_id, call))
        call = await waiting(3)
        bob.decide(run_id, call, True, value={"room": "double", "price": 8})
        run, message = await answered(bob, question)
        assert (run.status, message.text) == ("completed", "double for Bo, bob pays 8")
        outputs = [part.output for part in message.parts if isinstance(part, ToolPart)]
        assert outputs == [
            {"approved": True, "value": "double"},
            {"approved": True, "value": {"nights": 3, "name": "Bo"}},
            {"booked": {"room": "double", "price": 8}},
        ]


async def test_people_decide_and_the_answer_is_tried_again_without_repeating_its_steps(service, room):
    done, attempts = [], []

    async def answer(run):
        attempts.append(run.attempt)
        price = await run.step("price", lambda: done.append("price") or 42)
        if not run.resumed:
            await run.out.write(f"It costs {price}. ")
        call = run.tool("book", {"price": price})
        approval = await run.suspend_for_approval(call, approvers=["bob"])
        if approval.approved:
            call.output(await run.step("book", book))
        else:
            call.deny()
        await run.out.write(f"{approval.by} said {'yes' if approval.approved else 'no'}.")

    async def book():
        done.append("book")
        return {"booked": True}

    async with connect(service.url, room, id="bob") as bob:
        question = await bob.post("Book it", agent="writer")
        async with working(service.url, answer):
            await status(bob, question, "suspended")
        (call,) = [p for p in bob.view.messages.value(f"run-{question.id}-out").parts if isinstance(p, ToolPart)]
        assert (call.state, call.input, run_of(bob, question).lease) == ("approval-requested", {"price": 42}, None)
        async with connect(service.url, room, id="eve") as eve:
            with pytest.raises(NotAnApprover, match="that is for 'bob'"):
                eve.decide(f"run-{question.id}", call.tool_call_id, True)
        with pytest.raises(NotFound, match=f"there are '{call.tool_call_id}'"):
            bob.decide(f"run-{question.id}", "another", True)
        bob.decide(f"run-{question.id}", call.tool_call_id, True, "gladly")
        await status(bob, question, "queued")
        bob.decide(f"run-{question.id}", call.tool_call_id, True)  # to say it again is no harm
        with pytest.raises(AlreadyDecided, match="was approved by 'bob' already"):
            bob.decide(f"run-{question.id}", call.tool_call_id, False)
        async with working(service.url, answer):  # another process, as far as anybody can tell
            run, message = await answered(bob, question)
    assert run.status == "completed"
    assert (done, attempts) == (["price", "book"], [1, 1])
    assert message.text == "It costs 42. bob said yes."
    assert (message.parts[1].output, message.parts[1].approval.by) == ({"booked": True}, "bob")


async def test_another_agent_goes_on_in_the_same_message(service, room):
    async def writer(run):
        await run.out.write("Draft. ")
        run.handoff("critic", "wants a second opinion")

    async def critic(run):
        assert run.history()[-1] == {"role": "assistant", "content": "Draft. "}
        async with run.text() as out:
            await out.write("Looks good.")

    async with connect(service.url, room) as ann:
        question = await ann.post("Write", agent="writer")
        async with working(service.url, writer), working(service.url, critic, name="critic"):
            run, message = await answered(ann, question)
    assert (run.agent, message.text, run.epoch) == ("critic", "Draft. Looks good.", 2)


async def test_an_agent_that_is_stopped_finishes_what_it_can_and_hands_back_the_rest(service, room):
    async def slow(run):
        await run.out.write("half ")
        await asyncio.sleep(0.5 if run.message.text == "short" else 60)
        await run.out.write("whole")

    async with connect(service.url, room) as ann:
        short = await ann.post("short", agent="writer", policy="parallel")
        long = await ann.post("long", agent="writer", policy="parallel")
        async with working(service.url, slow, shutdown_s=2):
            for question in (short, long):
                await begun(ann, question)
        assert (await status(ann, short, "completed")).status == "completed"
        run = await status(ann, long, "queued")
        message = ann.view.messages.value(run.output)
        assert (message.text, message.parts[0].state, run.epoch) == ("half ", "interrupted", 1)
        async with working(service.url, lambda run: run.out.write("rest")):
            _, message = await answered(ann, long)
        assert (message.text, len(message.parts), run_of(ann, long).epoch) == ("half rest", 1, 2)


async def test_a_run_that_is_on_its_way_to_an_agent_that_is_stopped_is_given_back(service, room):
    async def answer(run):
        await asyncio.sleep(60)

    async with connect(service.url, room) as ann:
        for attempt in range(5):
            question = await ann.post(f"{attempt}", agent="writer", policy="parallel")
            async with working(service.url, answer, shutdown_s=0):
                await status(ann, question, "running")  # the agent may not have heard of it yet
            await status(ann, question, "queued", timeout=8)  # a lease would take longer
            ann.cancel(f"run-{question.id}")
            await status(ann, question, "cancelled")


async def test_an_agent_that_was_silent_takes_its_run_up_again_soon_if_nobody_else_does(tmp_path, room):
    service = Server(tmp_path / "s.db", "--lease-s", "3", *FLAGS)  # less, and a slow machine is silent by itself

    async def answer(run):
        if not run.resumed:
            await run.out.write("half ")
            await run.session.durable()
            time.sleep(4)
        await run.out.write("whole")

    try:
        async with working(service.url, answer), connect(service.url, room) as ann:
            question = await ann.post("Go", agent="writer")
            run = await status(ann, question, "completed", timeout=15)  # a claim waits for longer
        assert run.epoch >= 2
        assert ann.view.messages.value(run.output).text == "half whole"
    finally:
        service.close()


async def test_concurrency_is_limited(service, room):
    active, most = set(), []

    async def answer(run):
        active.add(run.id)
        most.append(len(active))
        await asyncio.sleep(0.2)
        active.discard(run.id)

    async with connect(service.url, room) as ann, working(service.url, answer, concurrency=2):
        questions = [await ann.post(f"{n}", agent="writer", policy="parallel") for n in range(5)]
        for question in questions:
            await answered(ann, question)
    assert max(most) == 2


async def test_an_artifact_is_edited_with_a_caret_in_presence(service, room):
    async def answer(run):
        plan = run.artifact("plan", title="Plan", content="# Plan\n")
        plan.append("1. Oslo 😀\n")
        plan.insert(0, "My ")
        plan.delete(3, 2)
        await run.out.write("done")
        await asyncio.sleep(0.3)

    async with connect(service.url, room) as ann, working(service.url, answer):
        question = await ann.post("Plan", agent="writer")
        await asyncio.wait_for(ann.until(lambda: any(p.cursor for p in ann.present().values())), PATIENCE)
        (presence,) = ann.present().values()
        assert (presence.cursor["artifactId"], presence.kind, presence.run_id) == (
            "plan",
            "agent",
            f"run-{question.id}",
        )
        await answered(ann, question)
        (artifact,) = ann.view.artifacts.all()
        assert artifact.content == "My Plan\n1. Oslo 😀\n"


async def test_read_receipts_and_unread_counts(service, room):
    async with connect(service.url, room, id="ann") as ann, connect(service.url, room, id="bob") as bob:
        for n in range(3):
            await ann.post(f"{n}")
        await bob.until(lambda: bob.unread == 3)
        assert ann.unread == 0
        bob.mark_read(2)
        assert bob.unread == 1
        bob.mark_read(1)
        assert bob.unread == 1
        bob.mark_read()
        await ann.until(lambda: ann.view.receipts.get("bob") == 3)
        async with httpx.AsyncClient(base_url=service.url) as http:
            assert (await http.get(f"/v1/sessions/{room}/receipt", params={"principal": "bob"})).json() == {
                "principal": "bob", "seq": 3, "unread": 0,
            }  # fmt: skip
            put = await http.put(f"/v1/sessions/{room}/receipt", json={"principal": "cat", "seq": 1})
            assert put.json() == {"principal": "cat", "seq": 1, "unread": 2}


async def test_an_agent_that_may_not_write_is_told(tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"t": {"principal": "p", "kind": "agent", "canWrite": false}}')
    server = Server(tmp_path / "s.db", "--tokens-file", tokens)
    try:
        for token, status_code in (("t", 403), ("wrong", 401)):
            agent = Agent(server.url, name="writer", token=token)
            agent.on_run(lambda run: run.out.write(""))
            with pytest.raises(RequestRefused) as caught:
                await asyncio.wait_for(agent.work(), PATIENCE)
            assert caught.value.status == status_code
    finally:
        server.close()


@pytest.mark.nightly
async def test_an_agent_waits_for_a_server_that_is_away_and_its_run_survives_the_servers_death(tmp_path):
    server = Server(tmp_path / "s.db", "--lease-s", "15")
    words = [f"w{n} " for n in range(60)]

    async def answer(run):
        assert not run.resumed
        for word in words:
            await run.out.write(word)
            await asyncio.sleep(0.02)

    try:
        async with connect(server.url, "room") as ann, working(server.url, answer):
            question = await ann.post("count", agent="writer")
            await begun(ann, question)
            server.kill()
            server = server.again()
            run, message = await answered(ann, question)
            assert (run.status, message.text, run.epoch) == ("completed", "".join(words), 1)
            server.kill()
            await asyncio.sleep(0.3)
            server = server.again()
            another = await ann.post("again", agent="writer")
            _, message = await answered(ann, another)
            assert message.text == "".join(words)
    finally:
        server.close()


async def test_after_the_servers_death_every_run_goes_on_as_it_should(tmp_path):
    """SIGKILL while runs are queued, running and suspended."""
    server = Server(tmp_path / "s.db", "--lease-s", "15", "--run-policy", "parallel")

    async def answer(run):
        if run.message.text == "ask":
            call = run.tool("book", {})
            approval = await run.suspend_for_approval(call)
            call.output(approval.by)
        for n in range(40):
            await run.out.write(f"{n} ")
            await asyncio.sleep(0.03)

    try:
        async with connect(server.url, "room", id="ann") as ann:
            async with working(server.url, answer):
                waiting = await ann.post("later", agent="critic")
                suspended = await ann.post("ask", agent="writer")
                await status(ann, suspended, "suspended")
                running = await ann.post("now", agent="writer")
                await begun(ann, running)
                server.kill()
                await asyncio.sleep(0.5)
                server = server.again()
                await asyncio.wait_for(ann.synced(), PATIENCE)
                assert run_of(ann, waiting).status == "queued"
                assert run_of(ann, suspended).status == "suspended"
                run, message = await answered(ann, running)
                assert (run.status, run.epoch, message.text) == ("completed", 1, "".join(f"{n} " for n in range(40)))
                ann.decide(f"run-{suspended.id}", f"run-{suspended.id}-1", True)
                run, message = await answered(ann, suspended)
                assert (run.status, message.parts[0].output) == ("completed", "ann")
            async with working(server.url, lambda run: run.out.write("at last"), name="critic"):
                _, message = await answered(ann, waiting)
                assert message.text == "at last"
    finally:
        server.close()


def test_a_program_that_cannot_go_on_ends_with_a_line():
    def token():
        raise OSError("the vault is sealed")

    agent = Agent("http://127.0.0.1:1", name="writer", token=token, quiet=True)
    agent.on_run(lambda run: run.out.write("x"))
    with pytest.raises(SystemExit) as ended:
        agent.run()
    assert str(ended.value).startswith("agent writer: ")
    assert "the vault is sealed" in str(ended.value)
    assert isinstance(ended.value.__cause__, NoToken)


@pytest.mark.parametrize(("signals", "status_then"), [(1, "completed"), (2, "queued")])
@pytest.mark.sampled(2)
def test_a_signal_lets_an_agent_finish_and_a_second_one_does_not(service, tmp_path, signals, status_then):
    script = tmp_path / "agent.py"
    script.write_text(
        "import asyncio, sys\n"
        "from crdt_sessions import Agent\n"
        f"agent = Agent('{service.url}', name='signalled-{signals}')\n"
        "@agent.on_run\n"
        "async def answer(run):\n"
        "    await run.out.write('begun')\n"
        "    await asyncio.sleep(2)\n"
        "agent.run()\n"
    )
    room = f"signals-{signals}"
    with service.http() as http:
        http.post("/v1/sessions", json={"id": room})
        http.post(f"/v1/sessions/{room}/messages", json={"id": "m", "text": "?", "agent": f"signalled-{signals}"})
        process = Process(sys.executable, script)
        run = f"/v1/sessions/{room}/runs/run-m"
        try:
            _wait(lambda: len(http.get(f"/v1/sessions/{room}/messages").json()["messages"]) == 2)
            for _ in range(signals):
                process.child.send_signal(signal.SIGTERM)
                time.sleep(0.3)
            assert process.child.wait(PATIENCE) == 0
            assert http.get(run).json()["status"] == status_then
        finally:
            process.close()


def _wait(condition, timeout=PATIENCE):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
