"""The public conformance suite of MCP passes, but for what docs/reference/conformance.md explains."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, Process, Server

JS = Path(__file__).parent / "js"
AVAILABLE = shutil.which("node") is not None and (JS / "node_modules").is_dir()
needs_node = pytest.mark.skipif(not AVAILABLE, reason="needs Node 20 or newer and its packages: make setup")
pytestmark = [pytest.mark.interop, needs_node]

PAGE = ROOT / "docs/reference/conformance.md"
OURS = {
    "server-initialize", "ping", "tools-list", "server-sse-multiple-streams", "resources-list", "dns-rebinding-protection",
}  # fmt: skip
"""Scenarios that ask for nothing by name that only a server made for them has."""


def told(url):
    """Return how many checks of each scenario passed, and how many failed."""
    suite = JS / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    command = ["node", "--import", "./node20.mjs", suite, "server", "--url", f"{url}/mcp", "--suite", "all"]
    answer = subprocess.run(command, cwd=JS, capture_output=True, text=True, timeout=280, check=False)
    found = re.findall(r"^[✓✗] ([\w-]+): (\d+) passed, (\d+) failed", answer.stdout, re.M)
    assert len(found) >= 32, answer.stdout + answer.stderr
    return {name: (int(passed), int(failed)) for name, passed, failed in found}


@pytest.mark.nightly
def test_all_that_the_library_offers_comes_through_our_routes(tmp_path):
    made = Process(
        sys.executable, "-m", "tests.mcp.everything", tmp_path, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'server'}"}
    )
    try:
        found = told(made.wait_for(r"serves on (http://\S+)")[1])
    finally:
        made.close()
    page = PAGE.read_text("utf-8").partition("## The Model Context Protocol")[2]
    explained = set(re.findall(r"^\| `([\w-]+)` \|", page, re.M))
    assert {name for name, (_, failed) in found.items() if failed} <= explained
    assert sum(passed for passed, _ in found.values()) >= 44


def test_our_own_server_passes_what_asks_for_nothing_by_name(tmp_path):
    server = Server(tmp_path / "s.db", "--default-agent", "")
    try:
        found = told(server.url)
    finally:
        server.close()
    passed = {name for name, (passed, failed) in found.items() if passed and not failed}
    assert passed >= OURS
