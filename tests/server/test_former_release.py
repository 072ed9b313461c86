"""A database that the release before forms wrote, with approvals that were waiting: they are decided as before."""

import asyncio
import gzip

import pytest

from crdt_sessions import connect
from crdt_sessions.model import ToolPart
from tests.processes import PATIENCE, ROOT, Server

DATABASE = ROOT / "tests/data/databases/suspended-approvals.db.gz"


@pytest.fixture
def former(tmp_path):
    """Return a service on a copy of that database."""
    path = tmp_path / "s.db"
    path.write_bytes(gzip.decompress(DATABASE.read_bytes()))
    server = Server(path, "--default-agent", "")
    yield server
    server.close()


async def waiting(peer):
    await asyncio.wait_for(peer.synced(), PATIENCE)
    (run,) = [run for run in peer.view.runs.all() if run.status == "suspended"]
    (call,) = run.pending
    return run, call


def part(peer, run):
    (found,) = [each for each in peer.view.messages.value(run.output).parts if isinstance(each, ToolPart)]
    return found


async def test_a_waiting_approval_reads_as_yes_or_no_and_is_decided(former):
    async with connect(former.url, "any", id="ann") as ann:
        run, call = await waiting(ann)
        assert (call.kind, call.message, call.approvers, call.needs) == (None, None, None, "any")
        assert part(ann, run).approval_request.kind is None
        ann.decide(run.id, call.tool_call_id, True, "go")
        await ann.until(lambda: ann.view.runs.find(run.id).status == "queued")
        settled = part(ann, run)
        assert (settled.state, settled.approval.approved, settled.approval.value) == (
            "approval-responded",
            True,
            None,
        )


async def test_a_decision_that_was_given_before_counts_with_those_that_come_now(former):
    async with connect(former.url, "both", id="bob") as bob:
        run, call = await waiting(bob)
        assert (call.approvers, call.needs) == (["ann", "bob"], "all")
        assert part(bob, run).decisions["ann"]["approved"] is True
        bob.decide(run.id, call.tool_call_id, True)
        await bob.until(lambda: bob.view.runs.find(run.id).status == "queued")
        assert (part(bob, run).approval.by, part(bob, run).approval.approved) == ("bob", True)
