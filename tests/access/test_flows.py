"""What everybody does every day, with tokens: nothing of it is taken for an attack."""

import asyncio
import contextlib

import httpx

from crdt_sessions import connect
from crdt_sessions.errors import RunCancelled
from tests.access.conftest import bearer, token
from tests.agents import working
from tests.processes import PATIENCE


def known(name):
    """Who an agent is, and its token."""
    return {"name": name, "token": token(f"{name}-1", "agent", kind="agent", agents=[name])}


async def test_questions_approvals_steering_stops_handoffs_and_offline_work_break_no_rule(service, room, tmp_path):
    async def write(run):
        if "pay" in run.message.text:
            call = run.tool("pay", {"amount": 5})
            approval = await run.suspend_for_approval(call, approvers=["ann"])
            call.output("paid") if approval.approved else call.deny()
        elif "long" in run.message.text:
            with contextlib.suppress(RunCancelled):
                while not run.take_steering():
                    await run.out.write("and on ")
                    await asyncio.sleep(0.02)
                raise run.handoff("critic")
            raise RunCancelled(run=run.id, why="stopped")
        await run.out.write("done")

    async def review(run):
        await run.out.write("reviewed")

    async def over(peer, message, status="completed"):
        def reached():
            runs = [each for each in peer.view.runs.all() if each.request and each.request.message_id == message.id]
            return bool(runs) and runs[0].status == status

        await asyncio.wait_for(peer.until(reached), PATIENCE)

    async with (
        working(service.url, write, **known("writer")),
        working(service.url, review, **known("critic")),
        connect(service.url, room, token=token("ann", "editor"), name="Ann") as ann,
        connect(service.url, room, token=token("bob", "editor"), name="Bob") as bob,
    ):
        assert (ann.author.id, ann.author.name) == ("ann", "Ann")
        await over(ann, await ann.post("hello", agent="writer"))
        paid = await bob.post("please pay", agent="writer")
        await over(ann, paid, "suspended")
        ann.decide(f"run-{paid.id}", f"run-{paid.id}-1", approved=True)
        await over(bob, paid)
        steered = await ann.post("a long one", agent="writer")
        await over(ann, steered, "running")
        await bob.steer(f"run-{steered.id}", "to the point")
        await over(ann, steered)
        stopped = await ann.post("another long one", agent="writer")
        await over(bob, stopped, "running")  # who presses stop has seen it
        bob.cancel(f"run-{stopped.id}")
        await over(ann, stopped, "cancelled")
        bob.regenerate(paid.id, agent="critic")
        ann.mark_read()
        ann.set_presence("typing")
        await asyncio.wait_for(
            bob.until(
                lambda: any(each.user.id == "ann" and each.activity == "typing" for each in bob.present().values())
            ),
            10,
        )
        async with connect(service.url, room, token=token("cleo", "editor"), offline=tmp_path / "c.db") as cleo:
            await asyncio.wait_for(cleo.synced(), PATIENCE)
            cleo.go_offline()
            cleo.edit(lambda view: view.set_title("written on the train"))
            late = await cleo.post("from the train", wait=False)
            cleo.go_online()
            await asyncio.wait_for(cleo.durable(), PATIENCE)
            await asyncio.wait_for(ann.until(lambda: late.id in ann.view.messages), PATIENCE)
        assert ann.view.messages.value(late.id).by == "cleo"
        answers = [message for message in ann.messages.all() if message.role == "assistant"]
        assert {message.by for message in answers} <= {"writer-1", "critic-1"}
    async with httpx.AsyncClient(base_url=service.url, headers=bearer("backend", "service")) as http:
        entries = (await http.get("/v1/audit", params={"session": room})).json()["entries"]
    assert [each for each in entries if each["action"] == "violation"] == []
    assert {("ann", "run.decide"), ("bob", "run.cancel")} <= {(each["principal"], each["action"]) for each in entries}


async def test_only_who_may_decide_takes_the_place_of_a_question(service, room):
    async with httpx.AsyncClient(base_url=f"{service.url}/v1/sessions/{room}", timeout=PATIENCE) as http:

        async def post(who, id, path="/messages", **data):
            answer = await http.post(path, json={"id": id, "text": id, "agent": "writer", **data}, headers=who)
            assert answer.status_code == 201, answer.text

        async def status():
            return (await http.get("/runs/run-q", headers=ann)).json()["status"]

        ann, other = bearer("ann", "owner"), bearer("eve", "agent", kind="human")
        writer = bearer("writer-1", "agent", kind="agent", agents=["writer"])
        await post(ann, "q")
        grant = (await http.post("/runs/run-q/claim", json={"agents": ["writer"]}, headers=writer)).json()
        lease = writer | {"Lease-Token": grant["token"]}
        asking = {"name": "pay", "input": {"amount": 5}, "approval": {"needs": "any", "requestedAt": 1}}
        await http.put("/runs/run-q/tools/c", json=asking, headers=lease)
        await http.post("/runs/run-q/result", json={"status": "suspended"}, headers=lease)
        await post(other, "from one who may not decide")
        assert await status() == "suspended"
        await post(bearer("bob", "editor"), "from one who may")
        assert await status() == "cancelled"
