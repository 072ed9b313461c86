"""What is asked for later, again and again, or until a time: over REST and from Python."""

import asyncio
import time

import pytest

from crdt_sessions import connect
from crdt_sessions.errors import BadValue
from tests.agents import working
from tests.processes import PATIENCE, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("times") / "s.db", "--default-agent", "")
    yield process
    process.close()


def test_a_schedule_is_asked_for_listed_and_stopped_over_rest(server):
    with server.http() as http:
        daily = {"cron": "0 9 * * mon-fri", "timezone": "Europe/Berlin", "missed": "skip"}
        asked = {"id": "m", "text": "How is the weather?", "agent": "writer", "schedule": daily}
        assert http.post("/v1/sessions/rest/messages", json=asked).status_code == 201
        (run,) = http.get("/v1/sessions/rest/runs").json()["runs"]
        assert (run["id"], run["status"], run["request"]["schedule"]) == ("run-m", "queued", daily)
        assert run["due"] > time.time() * 1000
        assert run["due"] % 3_600_000 == 0
        stopped = http.post("/v1/sessions/rest/runs/run-m/cancel", json={}).json()
        assert (stopped["status"], stopped.get("due")) == ("cancelled", None)


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        ({"every": 1}, "1000"),
        ({"cron": "daily"}, "five fields"),
        ({"every": 5000, "cron": "* * * * *"}, "exactly one"),
    ],
)
def test_one_that_cannot_be_taken_is_refused(server, schedule, why):
    with server.http() as http:
        refused = http.post("/v1/sessions/no/messages", json={"text": "?", "agent": "a", "schedule": schedule})
        assert (refused.status_code, why in refused.text) == (422, True), refused.text
        refused = http.post("/v1/sessions/no/messages", json={"text": "?", "schedule": {"every": 5000}})
        assert (refused.status_code, "name it" in refused.text) == (422, True), refused.text


async def test_a_peer_schedules_sees_and_stops(server):
    async def answer(run):
        await run.out.write(f"Fine, {run.input.model}.")

    async with working(server.url, answer), connect(server.url, "python", id="ann") as ann:
        schedule = await ann.schedule("Weather?", "writer", every_s=1, input={"model": "small"}, policy="parallel")
        assert ann.view.runs.find(schedule).due is not None

        def answers():
            return [each for each in ann.messages.all() if each.role == "assistant" and each.text == "Fine, small."]

        await asyncio.wait_for(ann.until(lambda: len(answers()) >= 2), PATIENCE)
        ann.cancel(schedule)
        await asyncio.wait_for(ann.until(lambda: ann.view.runs.find(schedule).over), PATIENCE)
        assert ann.view.runs.find(schedule).status == "cancelled"


async def test_a_question_is_asked_once_at_a_time(server):
    async def answer(run):
        await run.out.write("Now.")

    async with working(server.url, answer), connect(server.url, "once", id="ann") as ann:
        at = int(time.time() * 1000) + 1500
        run_id = await ann.schedule("?", "writer", at=at)
        assert ann.view.runs.find(run_id).due == at
        await asyncio.wait_for(ann.until(lambda: ann.view.runs.find(run_id).over), PATIENCE)
        assert ann.view.messages.value(f"{run_id}-out").created_at >= at - 100
        with pytest.raises(ValueError, match="say when"):
            await ann.schedule("?", "writer")
        with pytest.raises(BadValue, match="no time zone"):
            await ann.schedule("?", "writer", cron="* * * * *", timezone="Mars")


def test_the_chat_gateways_do_not_take_what_waits_for_a_run_that_goes_on(server):
    with server.http() as http:
        asked = {"id": "m", "text": "?", "agent": "writer", "schedule": {"every": 60_000}}
        http.post("/v1/sessions/chat/messages", json=asked)
        assert http.get("/v1/gateways/ai-sdk/chat/chat/stream").status_code == 204
        assert http.post("/v1/gateways/ai-sdk/chat/chat/stop", json={}).json() == {"stopped": []}
        assert http.get("/v1/sessions/chat/runs/run-m").json()["status"] == "queued"
