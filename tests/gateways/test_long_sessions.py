"""A question costs about the same in a session that has seen hundreds: nothing reads all runs to answer one."""

import asyncio

import pytest

from crdt_sessions.model import Runs
from tests.gateways.in_process import served
from tests.processes import PATIENCE

ROOM = "long"


def ai_sdk(number):
    message = {"id": f"q{number}", "role": "user", "parts": [{"type": "text", "text": "?"}]}
    return "/v1/gateways/ai-sdk/chat", {"id": ROOM, "messages": [message], "trigger": "submit-message"}


def ag_ui(number):
    message = {"id": f"q{number}", "role": "user", "content": "?"}
    body = {"threadId": ROOM, "runId": f"r{number}", "messages": [message]}
    return "/v1/gateways/ag-ui", {**body, "tools": [], "context": [], "state": {}, "forwardedProps": {}}


def tanstack(number):
    _, body = ag_ui(number)
    return f"/v1/gateways/tanstack/{ROOM}", body


@pytest.mark.parametrize(("gateway", "each"), [(ai_sdk, 0), (ag_ui, 4), (tanstack, 2)])
@pytest.mark.sampled(3)
@pytest.mark.slow
async def test_a_question_reads_each_earlier_run_no_more_often_than_is_told_of_it(gateway, each, monkeypatch):
    """AG-UI and TanStack tell the whole conversation with each answer; the AI SDK tells nothing of earlier ones."""
    read, reads = Runs.read, []
    monkeypatch.setattr(Runs, "read", lambda self, run_id: (reads.append(run_id), read(self, run_id))[1])

    async with served(default_agent="writer") as client:

        async def asked(number):
            before = len(reads)
            asking = asyncio.create_task(client.send(*gateway(number)))
            await client.answer(await client.claim(wait_s=PATIENCE), "Yes.")
            assert "Yes." in await asking
            return len(reads) - before

        costs = [await asked(number) for number in range(31)]
    assert costs[-1] - costs[2] <= each * 28, costs
