"""``crdt-sessions nodes``: which nodes there are, for people and for programs."""

import asyncio
import json
import os

import pytest
from prometheus_client.parser import text_string_to_metric_families

from crdt_sessions.ids import session_id
from crdt_sessions.storage.postgres import PostgresStore
from crdt_sessions.storage.postgres.nodes import Lease
from crdt_sessions_server import cli
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.postgres import VERSIONS, needs_postgres, shared_server

pytestmark = [pytest.mark.processes, needs_postgres]


@pytest.fixture(scope="module")
def url():
    server, name = shared_server(VERSIONS[-1]), f"nodes_{os.getpid()}"
    server.sql(f"CREATE DATABASE {name}")
    return server.url(name)


async def said(capsys, *arguments):
    """Return what the command printed, and its exit status."""
    status = await asyncio.to_thread(cli.main, ["nodes", *arguments])
    return status, capsys.readouterr()


async def test_nodes_are_listed_with_what_they_have_to_do(url, capsys):
    status, outcome = await said(capsys, "--database", url.replace("postgres@", "postgres:secret@"))
    assert status == 2
    assert "no service of this release" in outcome.err
    assert "secret" not in outcome.err
    quick = Lease(beat_s=0.05, silent_s=60)
    async with PostgresStore(url, lease=quick, address="10.0.0.7:8001") as one, PostgresStore(url, lease=quick):
        async with PostgresStore(url, lease=quick) as left:
            left_id = left.node
        service = Service(Settings(sandbox=False), store=one)
        async with service, service.registry.open(session_id("room"), create=True):
            while True:
                status, outcome = await said(capsys, "--database", url, "--json")
                found = {each["node"]: each for each in json.loads(outcome.out)}
                if found[one.node]["live"] == 1:
                    break
            assert (status, len(found)) == (0, 2)
            mine = found[one.node]
            assert (mine["address"], mine["state"], mine["sessions"]) == ("10.0.0.7:8001", "up", 1)
            answer = await service.app.test_client().get("/metrics")
            families = {each.name: each for each in text_string_to_metric_families((await answer.data).decode())}
            assert families["crdt_sessions_node"].samples[0].labels["node"] == one.node
        _, outcome = await said(capsys, "--database", url, "--all")
        heads, *rows = outcome.out.splitlines()
        assert heads.split()[:4] == ["NAME", "ADDRESS", "STATE", "VERSION"]
        states = {row.split()[-1]: row.split()[2] for row in rows}
        assert states == {one.node: "up", left_id: "gone"} | {node: "up" for node in found if node != one.node}


def test_a_file_has_no_nodes(capsys):
    with pytest.raises(SystemExit):
        cli.main(["nodes", "--database", "sessions.db"])
    assert "must be the URL of a PostgreSQL database" in capsys.readouterr().err
