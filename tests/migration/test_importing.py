"""``crdt-sessions import`` of other servers' documents: tried, done, done again, broken off and gone on with.

What docs/how-to/migrate.md says comes about.
"""

import asyncio
import io
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout

import pytest
from pycrdt import Doc, Map, Text

from crdt_sessions import connect
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.storage import SqliteStore
from crdt_sessions_server import cli
from tests.migration.test_sources import hocuspocus, letters, written, ystore
from tests.processes import ROOT, Server, command


def bring(*arguments):
    """Run the command; return its exit status and what it says."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said), ThreadPoolExecutor(1) as thread:
        return thread.submit(cli.main, ["import", *map(str, arguments)]).result(), said.getvalue()


def kept(database, tenant=""):
    """Return the texts of all sessions in a database."""

    async def read():
        async with SqliteStore(database) as store, SessionRegistry(store) as registry:
            found = {}
            async for record in registry.records(tenant):
                async with registry.open(record.id) as session:
                    found[record.id] = str(session.engine.document.doc.get("draft", type=Text))
            return found

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, read()).result()


def document(text):
    doc = Doc()
    doc.get("draft", type=Text).insert(0, text)
    return doc


def test_a_trial_writes_nothing_and_says_what_would_be(tmp_path):
    source = written(
        tmp_path / "source", {"one": document("1").get_update(), "bad": b"\x01\x02", "empty": b"\x00\x00"}
    )
    status, said = bring(source, "--database", tmp_path / "s.db", "--dry-run")
    assert status == 1, "not everything can be taken"
    assert not (tmp_path / "s.db").exists()
    for part in (
        "plain updates, with 3 documents",
        "bad: ",
        "can become sessions: 1",
        "would be left out: 1",
        "are empty, and were left out: 1",
    ):
        assert part in said


def test_what_was_brought_is_served_and_what_came_since_is_added(tmp_path):
    doc, report = document("Grüße 😀"), tmp_path / "report.json"
    hocuspocus(tmp_path / "h.sqlite", {"notes/a": doc.get_update(), "other": document("x").get_update()})
    arguments = (tmp_path / "h.sqlite", "--database", tmp_path / "s.db", "--report", report)
    status, said = bring(*arguments)
    assert (status, "became sessions: 2" in said, "crdt-sessions serve --database" in said) == (0, True, True)
    assert "were there already: 2" in bring(*arguments)[1]
    doc.get("draft", type=Text).insert(0, "later ")  # people went on writing at the old place
    (tmp_path / "h.sqlite").unlink()
    hocuspocus(tmp_path / "h.sqlite", {"notes/a": doc.get_update(), "other": document("something else").get_update()})
    status, said = bring(*arguments)
    assert status == 1
    assert "other: a session of that name has nothing in common with it" in said
    outcomes = {line["name"]: line["outcome"] for line in json.loads(report.read_text("utf-8"))["documents"]}
    assert outcomes == {"notes/a": "added", "other": "failed"}
    assert bring(*arguments, "--merge")[0] == 0
    assert kept(tmp_path / "s.db")["notes%2Fa"] == "later Grüße 😀"
    server = Server(tmp_path / "s.db")
    try:
        asyncio.run(_edited(server, "notes/a"))
    finally:
        server.close()
    bring(*arguments, "--prefix", "from-", "--tenant", "acme")
    assert kept(tmp_path / "s.db", "acme") == {
        "acme/from-notes%2Fa": "later Grüße 😀",
        "acme/from-other": "something else",
    }


async def _edited(server, name):
    async with connect(server.url, name) as peer:
        peer.edit(lambda view: view.document.doc.get("draft", type=Text).insert(0, "and "))
        await peer.durable()


def test_what_cannot_be_taken_whole_is_named(tmp_path):
    first, *more = letters(*"abc")
    source = written(tmp_path / "source", {" odd": first, "whole": first, "torn": more[1]})
    asyncio.run(ystore(tmp_path / "y.db", {"gap": [first, more[1]]}))
    status, said = bring(source, "--database", tmp_path / "s.db")
    assert status == 1
    assert " odd: " in said
    assert "torn: " in said
    status, said = bring(tmp_path / "y.db", "--database", tmp_path / "s.db")
    assert (status, "became sessions in part: 1" in said) == (1, True)
    texts = kept(tmp_path / "s.db")
    assert texts == {"whole": "a", "torn": "", "gap": "a"}


def test_an_import_that_takes_nothing_leaves_no_database(tmp_path):
    source, database = written(tmp_path / "source", {"bad": b"\x01\x02", "empty": b"\x00\x00"}), tmp_path / "s.db"
    status, said = bring(source, "--database", database)
    assert (status, "nothing was brought over" in said) == (1, True), said
    assert not list(tmp_path.glob("s.db*[!k]")), "but for the lock"
    kept(database)
    bring(source, "--database", database)
    assert database.exists(), "one that was there stays"


def test_a_run_that_was_killed_is_gone_on_with(tmp_path):
    texts = {f"doc-{n}": f"text {n}" for n in range(6)}
    source = written(tmp_path / "source", {name: document(text).get_update() for name, text in texts.items()})
    arguments = ("import", source, "--database", tmp_path / "s.db")
    killed = command(*arguments, CRDT_SESSIONS_FAILPOINTS="after-commit:3")
    assert killed.returncode != 0
    part = kept(tmp_path / "s.db")
    assert 0 < len(part) < 6
    assert part.items() <= texts.items(), "none is there in part"
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    assert "were there already" in done.stdout
    assert kept(tmp_path / "s.db") == texts


def test_the_old_documents_migrate_with_what_is_in_them(tmp_path):
    status, said = bring(ROOT / "tests/data/yjs", "--database", tmp_path / "s.db")
    assert (status, "left out: 1" in said) == (1, True)
    assert "small-test-dataset: " in said, "that one is many updates, with what they must read as"

    async def read(name, root, kind):
        async with SqliteStore(tmp_path / "s.db") as store, SessionRegistry(store) as registry:
            async with registry.open(name) as session:
                found = session.engine.document.doc.get(root, type=kind)
                return str(found) if kind is Text else found.to_py()

    expected = json.loads((ROOT / "tests/data/yjs/yjs-13.2.0-map.expected.json").read_text("utf-8"))
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(asyncio.run, read("yjs-13.2.0-map", "map", Map)).result() == expected["json"]


def test_a_database_of_ours_is_moved_to_a_server_only(tmp_path):
    bring(written(tmp_path / "source", {"a": document("1").get_update()}), "--database", tmp_path / "s.db")
    status, said = bring(tmp_path / "s.db", "--database", tmp_path / "t.db")
    assert (status, "crdt-sessions backup" in said) == (2, True)


@pytest.mark.parametrize("roots", [("meta", Map), ("messages", Text)])
@pytest.mark.sampled(2)
def test_a_document_whose_roots_are_called_as_ours_is_kept_as_it_is(tmp_path, roots):
    """Such as a notebook of Jupyter, which has ``meta`` and ``state`` of its own."""
    name, kind = roots
    doc = Doc()
    root = doc.get(name, type=kind)
    if kind is Map:
        root["metadata"] = Map({"kernelspec": {"name": "python3"}})
        root["nbformat"] = 4
    else:
        root += "text where messages are"
    source = written(tmp_path / "source", {"n": doc.get_update()})
    assert bring(source, "--database", tmp_path / "s.db")[0] == 0
    server = Server(tmp_path / "s.db")
    try:
        with server.http() as http:
            assert http.get("/v1/sessions/n").status_code == 200
            again = Doc()
            again.apply_update(http.get("/v1/sessions/n/export?format=yjs").content)
    finally:
        server.close()
    if kind is Map:
        found = again.get(name, type=Map).to_py()
        assert (found["nbformat"], found["metadata"]) == (4, {"kernelspec": {"name": "python3"}})
    else:
        assert str(again.get(name, type=Text)) == "text where messages are"
