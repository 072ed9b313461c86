"""The demo page in a real browser: two tabs, an agent, an offline switch, a reload."""

import json
import subprocess
import sys

import pytest

from crdt_sessions_server.http.pages import PAGE
from examples.replay_server import recordings
from tests.access.conftest import bearer, guarded, token
from tests.browser.chromium import in_chromium
from tests.interop.node import needs_node
from tests.processes import PATIENCE, ROOT, Process, Replay, Server


@in_chromium
def test_two_people_and_an_agent_share_the_page(tmp_path):
    server = Server(tmp_path / "sessions.db", "--default-agent", "assistant")
    replay = Replay(150)
    agent = Process(sys.executable, ROOT / "examples/model_agent.py", "--url", server.url, env=replay.env, fork=True)
    booker = Process(sys.executable, ROOT / "examples/approval.py", "--url", server.url, fork=True)
    with server.http() as http:
        http.post("/v1/sessions", json={"id": "room"})  # else the page asks, hears 404, and the console says so
    try:
        done = subprocess.run(
            ["node", ROOT / "tests/browser/page.mjs", server.url, "room"],
            capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + "\n".join(agent.lines + server.lines)
        seen = json.loads(done.stdout.splitlines()[-1])
    finally:
        for process in (agent, booker, replay, server):
            process.close()
    assert seen["errors"] == []
    assert seen["presentForAnn"] == 3
    assert min(seen["stepsSeen"]) > 10, "the answer came in one piece, not token by token"
    assert not seen["bobSawOffline"]
    assert seen["reloadKeeps"]
    assert 0 < seen["stopped"] < seen["wentOn"]
    assert "magic of light" in seen["wentOnWith"], "it went on with another answer"
    assert seen["approvedBy"] == "Approved by Bob"
    assert not seen["detourWhileLookingBack"]
    assert not seen["formWhileLookingBack"]
    assert "1 more message" in seen["since"]
    assert seen["earliest"] < seen["restored"][2]
    assert len(set(seen["restored"])) == 1, "what was brought back differs from what was kept"
    assert seen["texts"][0] == seen["texts"][1]
    assert "written offline" in "".join(seen["texts"][0])
    assert seen["drafts"][0] == seen["drafts"][1]
    assert not seen["overflow"]
    assert not seen["narrowOverflow"]
    facts = recordings()["openai-chat/deepseek-chat-emoji.sse"].facts
    assert len(seen["texts"][0][1]) > facts["text_chars"] * 0.8  # Markdown's own marks are not shown


@pytest.mark.interop
@needs_node
def test_the_built_page_is_what_its_source_builds(tmp_path):
    web = ROOT / "examples/web"
    if not (web / "node_modules").is_dir():
        pytest.skip("needs the packages of examples/web: make setup")
    subprocess.run(["node", web / "build.mjs", tmp_path], check=True, timeout=PATIENCE)
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    served = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.name != "docs.css"}
    assert built == served, "the page in the package is stale: run make page"


@in_chromium
def test_the_page_of_a_service_with_tokens_shows_who_wrote_what(tmp_path):
    server = guarded(tmp_path, "--page")
    backend = bearer("backend", "service")
    with server.http(headers=backend) as http:
        http.post("/v1/sessions", json={"id": "room"})
        asked = {"text": "By Ann, it says", "author": {"id": "ann", "name": "Ann", "kind": "human"}}
        http.post("/v1/sessions/room/messages", json=asked)
    tokens = [token("ann", "editor", name="Ann"), token("eve", "editor"), token("vera", "viewer", name="Vera")]
    try:
        done = subprocess.run(
            ["node", ROOT / "tests/browser/known.mjs", server.url, "room", *tokens],
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + "\n".join(server.lines)
        seen = json.loads(done.stdout.splitlines()[-1])
    finally:
        server.close()
    assert seen["errors"] == []
    assert seen["bottom"] == 800, "the page fills its window"
    assert "token" not in seen["address"], "it is taken out of the address at once"
    assert seen["marks"] == [None, "✓"], "of what a backend writes for others nothing is said"
    assert seen["kept"] == 2
    assert "viewer, may not write messages" in seen["looksOn"]
