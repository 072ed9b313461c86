"""Python peers against the real service."""

import asyncio

import pytest
from pycrdt import Text

from crdt_sessions import Agent, RunFailed, connect
from crdt_sessions.errors import BadId, ConnectionClosed, RunNotClaimable
from crdt_sessions.model import text
from crdt_sessions.model.strings import derived
from tests.processes import PATIENCE, Server


async def test_two_peers_converse_and_see_each_other(server, room):
    async with connect(server.url, room, name="Ann", id="ann") as ann:
        async with connect(server.url, room, name="Bob", id="bob", device="phone") as bob:
            posted = await ann.post("Plan my weekend")
            assert ann.unacknowledged == 0
            await bob.until(lambda: [m.text for m in bob.messages.all() if m.seq] == ["Plan my weekend"])
            assert bob.messages.all()[0].author.name == "Ann"
            await bob.post("Gladly", reply_to=posted.id)
            await ann.until(lambda: len(ann.present()) == 1)
            (presence,) = ann.present().values()
            assert (presence.user.name, presence.device) == ("Bob", "phone")
            bob.set_presence("typing")
            await ann.until(lambda: [p.activity for p in ann.present().values()] == ["typing"])
        await ann.until(lambda: ann.present() == {})


async def test_posting_an_id_twice_is_posting_it_once(server, room):
    async with connect(server.url, room) as peer:
        first = await peer.post("once", id="key")
        again = await peer.post("twice", id="key")
        assert (first.text, again.text, len(peer.messages.all())) == ("once", "once", 1)


async def test_a_stream_is_seen_while_it_is_written_and_ends_once(server, room):
    async with connect(server.url, room, kind="agent", name="writer") as agent, connect(server.url, room) as ann:
        seen = []

        async def watch():
            async for message in ann.messages.watch():
                if message.role == "assistant":
                    seen.append(message.text)
                    if message.done:
                        return

        watching = asyncio.create_task(watch())
        async with agent.stream(run_id="r") as out:
            await out.reason("hmm")
            for word, so_far in (("Hallo", "Hallo"), (" Wörld", "Hallo Wörld"), (" 😀", "Hallo Wörld 😀")):
                await out.write(word)
                async with asyncio.timeout(PATIENCE):
                    while so_far not in seen:
                        await asyncio.sleep(0.01)
            out.finish("stop")
        await asyncio.wait_for(watching, PATIENCE)
        assert seen[-1] == "Hallo Wörld 😀"
        await ann.until(lambda: (run := ann.view.runs.value("r")) is not None and run.status == "completed")
        run = ann.view.runs.value("r")
        assert (run.outcome.reason, run.output) == ("stop", "r-out")
        with pytest.raises(RunNotClaimable, match="completed"):
            async with agent.stream(run_id="r"):
                pass


async def test_a_failing_answer_keeps_what_it_wrote_and_says_why(server, room):
    async with connect(server.url, room) as peer:
        with pytest.raises(RunFailed):
            async with peer.stream(run_id="r") as out:
                await out.write("so far")
                raise RunFailed("no more", code="quota")
        await peer.until(lambda: peer.view.runs.value("r").status == "failed")
        run = peer.view.runs.value("r")
        assert (run.outcome.error.code, run.outcome.error.message) == ("quota", "no more")
        assert (out.message.text, out.message.done) == ("so far", True)


async def test_a_long_buffer_goes_on_in_further_parts(server, room):
    async with connect(server.url, room) as peer, connect(server.url, room) as other:
        words = [f"wörd{n} " for n in range(6000)]
        async with peer.stream(run_id="r") as out:
            for word in words:
                await out.write(word)
        await other.until(lambda: "r-out" in other.view.messages and other.view.messages.value("r-out").done)
        message = other.view.messages.value("r-out")
        assert message.text == "".join(words)
        assert len(message.parts) > 2
        assert [part.continues for part in message.parts] == [None] + [True] * (len(message.parts) - 1)


async def test_surrogates_torn_apart_by_a_token_stream_are_joined(server, room):
    async with connect(server.url, room) as peer:
        async with peer.stream(run_id="r") as out:
            for token in ("a", "\ud83d", "\ude00", "b\ud83d"):
                await out.write(token)
        assert out.message.text == "a😀b\N{REPLACEMENT CHARACTER}"


async def test_offline_edits_merge_and_nothing_is_acknowledged_meanwhile(server, room):
    async with connect(server.url, room, name="Ann") as ann, connect(server.url, room) as bob:
        ann.go_offline()
        await ann.until(lambda: not ann.connected)
        mine = await ann.post("written offline", wait=False)
        await bob.post("meanwhile")
        assert ann.unacknowledged == 1
        ann.go_online()
        await ann.durable()
        await bob.until(lambda: mine.id in bob.view.messages)
        await ann.until(lambda: len(ann.messages.all()) == 2)
        await ann.until(lambda: ann.messages.all() == bob.messages.all())


async def test_a_local_file_carries_a_peer_through_its_own_death(own_server, tmp_path, room):
    file = tmp_path / "phone.db"
    own_server.kill()
    async with connect(own_server.url, room, offline=file) as peer:
        await peer.post("before I died", wait=False)
        peer.edit(lambda view: text.insert(view.document.doc.get("draft", type=Text), 0, "é"))
    revived = own_server.again()
    try:
        async with connect(own_server.url, room, offline=file) as peer:
            assert [m.text for m in peer.messages.all()] == ["before I died"]
            await peer.durable()
        async with connect(own_server.url, room) as other:
            assert [m.text for m in other.messages.all()] == ["before I died"]
            assert str(other.view.document.doc.get("draft", type=Text)) == "é"
    finally:
        revived.close()


async def test_a_restarted_server_is_found_again(own_server, room):
    async with connect(own_server.url, room) as peer:
        await peer.post("one")
        own_server.kill()
        await peer.until(lambda: not peer.connected)
        await peer.post("two", wait=False)
        revived = own_server.again()
        try:
            await asyncio.wait_for(peer.durable(), PATIENCE)
            async with connect(own_server.url, room) as other:
                assert [m.text for m in other.messages.all()] == ["one", "two"]
        finally:
            revived.close()


async def test_a_permanent_refusal_ends_the_peer_with_its_reason(server, room):
    with server.http() as http:
        http.post("/v1/sessions", json={"id": room})
        async with connect(server.url, room) as peer:
            http.delete(f"/v1/sessions/{room}")
            with pytest.raises(ConnectionClosed) as caught:
                await peer.until(lambda: False)
            assert caught.value.code == 4404
        with pytest.raises(ConnectionClosed):
            async with connect(server.url, room):
                pass


async def test_follow_yields_finished_messages_in_order(server, room):
    async with connect(server.url, room) as peer:
        await peer.post("one")
        followed = []

        async def follow():
            async for message in peer.messages.follow():
                followed.append(message.text)
                if len(followed) == 3:
                    return

        following = asyncio.create_task(follow())
        async with peer.stream(run_id="r") as out:
            await out.write("two, slowly")
            await peer.post("three")
            await asyncio.sleep(0.1)
            assert followed == ["one"]
        await asyncio.wait_for(following, PATIENCE)
        assert followed == ["one", "two, slowly", "three"]


async def test_an_agent_answers_each_question_once_and_survives_a_bad_one(server, room):
    agent = Agent(server.url, name="echo")

    @agent.on_run
    async def answer(run):
        if run.message.text == "bad":
            raise RuntimeError("cannot")
        await run.out.write(f"{len(run.messages())}: {run.message.text}")

    working = asyncio.create_task(agent.work())
    async with connect(server.url, room) as ann:
        await ann.post("bad")
        await ann.post("good")
        await ann.until(lambda: sum(run.status in ("completed", "failed") for run in ann.view.runs.all()) == 2)
        answers = [m.text for m in ann.messages.all() if m.role == "assistant"]
        assert sorted(answers) == ["", "2: good"]
        assert sorted(run.status for run in ann.view.runs.all()) == ["completed", "failed"]
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_a_second_server_on_the_same_file_says_so(own_server):
    with pytest.raises(AssertionError, match="in use by another process"):
        Server(own_server.database)


async def test_what_was_written_last_is_handed_over_on_leaving(server, room):
    async with connect(server.url, room) as peer:
        peer.edit(lambda view: view.state.update({"last": "words"}))
    async with connect(server.url, room) as other:
        assert dict(other.view.state.items()) == {"last": "words"}


async def test_a_local_copy_of_a_deleted_session_is_not_merged_into_its_successor(server, tmp_path, room):
    async with connect(server.url, room, offline=tmp_path / "p.db") as peer:
        await peer.post("of the first generation")
    with server.http() as http:
        http.delete(f"/v1/sessions/{room}")
        http.post("/v1/sessions", json={"id": room})
        async with connect(server.url, room, offline=tmp_path / "p.db") as peer:
            with pytest.raises(ConnectionClosed) as caught:
                await peer.synced()
        assert caught.value.code == 4409
        assert http.get(f"/v1/sessions/{room}").json()["messages"] == 0


async def test_a_change_that_is_too_large_is_said_to_its_author(server, room):
    from crdt_sessions.errors import TooLarge
    from crdt_sessions.limits import Limits

    async with connect(server.url, room, limits=Limits(max_frame_bytes=2000)) as peer:
        with pytest.raises(TooLarge):
            await peer.post("x" * 3000)


@pytest.mark.parametrize("stop", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
async def test_a_process_that_stops_leaves_its_run_to_a_successor(server, stop, room):
    async with connect(server.url, room) as peer:
        with pytest.raises(stop):
            async with peer.stream(run_id="r") as out:
                await out.write("half an ")
                await out.write("ans")
                raise stop
        await peer.until(lambda: peer.view.runs.value("r").status == "queued")
        async with peer.stream(run_id="r") as out:
            assert out.resumed == "half an ans"
            await out.write("wer")
        message = peer.view.messages.value("r-out")
        assert (message.text, len(message.parts)) == ("half an answer", 1)


async def test_an_error_may_say_anything(server, room):
    async with connect(server.url, room) as peer:
        with pytest.raises(RunFailed):
            async with peer.stream(run_id="r"):
                raise RunFailed("half \ud83d")
        await peer.until(lambda: peer.view.runs.value("r").over)
        assert peer.view.runs.value("r").outcome.error.message == "half \N{REPLACEMENT CHARACTER}"


async def test_ids_that_cannot_be_are_refused_at_once_also_offline(tmp_path):
    """Written they would lie there, and nobody would answer."""
    nowhere, long = "http://127.0.0.1:9", "x" * 201
    with pytest.raises(BadId, match="principal is 1 to 200 characters"):
        connect(nowhere, "room", id=long)
    async with connect(nowhere, "room", offline=tmp_path / "peer.db") as peer:
        for refused in (
            lambda: peer.ask("q", "x" * 101),
            lambda: peer.ask(long),
            lambda: peer.ask("q", run_id="a\nb"),
            lambda: peer.cancel(long),
        ):
            with pytest.raises(BadId):
                refused()
        for wrong in ({"id": long}, {"id": "a\x00"}, {"agent": "x" * 101}):
            with pytest.raises(BadId):
                await peer.post("?", wait=False, **wrong)
        assert (peer.messages.all(), peer.view.runs.all()) == ([], [])
        assert (await peer.post("?", id="x" * 200, agent="x" * 100, wait=False)).text == "?"
        (run,) = peer.view.runs.all()
        assert run.id == derived("run-", "x" * 200)
